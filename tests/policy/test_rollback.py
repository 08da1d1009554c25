"""When new rules have to give way, as a table; what counts; and what the proven rules would have refused too."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.model import Allow, Decision, Deny, FileEntry, Limits
from gateway.policy.reasons import Reason
from gateway.policy.rollback import Tally, Terms, counts, must_return, refused_before, threshold

TERMS = Terms(factor=3, within=600, least=50)


def tally(decided: int, refused: int, before: int, newly: int | None = None) -> Tally:
    return Tally(decided, refused, before, refused - before if newly is None else newly)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (tally(1000, 1000, 20), True),
        (tally(1000, 61, 20), True),
        (tally(1000, 60, 20), False),
        (tally(49, 49, 0), False),
        (tally(50, 50, 0), True),
        (tally(50, 9, 0), False),
        (tally(50, 10, 0), True),
        # Where nobody was refused before, the share counts as 1 %.
        (tally(1000, 30, 0), False),
        (tally(1000, 31, 0), True),
        # Three times 60 % is more than all: then only a third of those let through still is.
        (tally(1000, 866, 600), False),
        (tally(1000, 867, 600), True),
        (tally(1000, 1000, 1000), False),
        # Ten of those who are refused now, and not before: others that are let through now do not make up for them.
        (tally(1000, 31, 10, newly=9), False),
        (tally(1000, 31, 10, newly=30), True),
        (Tally(), False),
    ],
)
def test_when_the_proven_version_returns(found: Tally, expected: bool) -> None:
    assert must_return(found, TERMS) is expected


@given(st.integers(10, 2000), st.floats(0, 1), st.floats(1.01, 100), st.integers(10, 500))
def test_a_version_that_refuses_what_the_proven_one_did_stays(
    decided: int, share: float, factor: float, least: int
) -> None:
    refused = int(decided * share)
    same, terms = tally(decided, refused, refused), Terms(factor, 600, least)
    assert same.share_before <= threshold(same.share_before, terms) <= 1
    assert not must_return(same, terms)
    assert must_return(tally(decided, decided, refused), terms) is (decided >= least and decided - refused >= 10)


@pytest.mark.parametrize("reason", [None, *Reason])
def test_only_what_rules_and_plans_can_cause_counts(reason: Reason | None) -> None:
    of_rules = ("rule.", "limit.", "account.required", "view.", "token.claims", "token.expired")
    assert counts(reason) is (reason is None or reason.text.startswith(of_rules))


def test_one_decision_and_another() -> None:
    assert Tally.of(refused=False, before=False) == Tally(1)
    assert Tally.of(refused=True, before=True) == Tally(1, 1, 1)
    assert Tally.of(refused=False, before=True) == Tally(1, 0, 1)
    assert Tally.of(refused=True, before=False) + Tally(1, 1, 1, 0) == Tally(2, 2, 1, 1)


def allow(until: int = 100, **limits: int) -> Allow:
    return Allow(FileEntry(key="a"), (), until, limits=Limits(**limits))


DENIED = Deny(Reason.RULE_DENIED)
NOW = 50.0


@pytest.mark.parametrize(
    ("proven", "new", "reason", "expected"),
    [
        (allow(), DENIED, Reason.RULE_DENIED, False),
        (DENIED, DENIED, Reason.RULE_DENIED, True),
        (DENIED, allow(), None, True),
        (DENIED, allow(downloads=1), Reason.LIMIT_DOWNLOADS, True),
        (allow(), allow(), None, False),
        (allow(downloads=3), allow(downloads=3), Reason.LIMIT_DOWNLOADS, True),
        (allow(downloads=2), allow(downloads=3), Reason.LIMIT_DOWNLOADS, True),
        (allow(downloads=4), allow(downloads=3), Reason.LIMIT_DOWNLOADS, False),
        (allow(), allow(downloads=3), Reason.LIMIT_DOWNLOADS, False),
        # The limit that refused is the one that is compared.
        (allow(downloads=3), allow(downloads=3, networks=1), Reason.LIMIT_DOWNLOADS, True),
        (allow(downloads=3), allow(downloads=3, networks=1), Reason.LIMIT_NETWORKS, False),
        (allow(devices=2), allow(devices=2), Reason.LIMIT_DEVICES, True),
        (allow(concurrent=2), allow(concurrent=1), Reason.LIMIT_CONCURRENT, False),
        # A link that was over anyway, one that ends earlier now, and one whose first download was too long ago.
        (allow(40), allow(40), Reason.TOKEN_EXPIRED, True),
        (allow(45), allow(40), Reason.TOKEN_EXPIRED, True),
        (allow(100), allow(40), Reason.TOKEN_EXPIRED, False),
        (allow(51), allow(51), Reason.TOKEN_EXPIRED, True),
        (allow(valid_after_first=9), allow(valid_after_first=9), Reason.TOKEN_EXPIRED, True),
        (allow(valid_after_first=10), allow(valid_after_first=9), Reason.TOKEN_EXPIRED, False),
        (allow(), allow(valid_after_first=9), Reason.TOKEN_EXPIRED, False),
        (allow(45), allow(valid_after_first=9), Reason.TOKEN_EXPIRED, True),
        (allow(), None, Reason.TOKEN_CLAIMS, False),
    ],
)
def test_what_the_proven_rules_would_have_refused_too(
    proven: Decision, new: Decision | None, reason: Reason | None, expected: bool
) -> None:
    assert refused_before(proven, new, reason, NOW) is expected
