"""When new rules have to give way, as a table; and what each refusal counts as."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.reasons import Reason
from gateway.policy.rollback import Tally, Terms, counted, must_return, threshold

TERMS = Terms(factor=3, within=600, least=50)


@pytest.mark.parametrize(
    ("new", "last", "expected"),
    [
        (Tally(1000, 1000), Tally(1000, 20), True),
        (Tally(1000, 61), Tally(1000, 20), True),
        (Tally(1000, 60), Tally(1000, 20), False),
        (Tally(49, 49), Tally(1000, 20), False),
        (Tally(50, 50), Tally(1000, 20), True),
        (Tally(50, 9), Tally(1000, 0), False),
        (Tally(50, 10), Tally(1000, 0), True),
        # Where nobody was refused before, the last share counts as 1 %.
        (Tally(1000, 30), Tally(1000, 0), False),
        (Tally(1000, 31), Tally(1000, 0), True),
        # Where little is known of the last version, it counts as 10 %.
        (Tally(1000, 300), Tally(49, 0), False),
        (Tally(1000, 301), Tally(49, 0), True),
        (Tally(1000, 1000), Tally(), True),
        # Three times 60 % is more than all: then only a third of those let through still is.
        (Tally(1000, 866), Tally(1000, 600), False),
        (Tally(1000, 867), Tally(1000, 600), True),
        (Tally(1000, 1000), Tally(1000, 1000), False),
        (Tally(), Tally(), False),
    ],
)
def test_when_the_last_version_returns(new: Tally, last: Tally, expected: bool) -> None:
    assert must_return(new, last, TERMS) is expected


TALLIES = st.integers(0, 2000).flatmap(lambda decided: st.builds(Tally, st.just(decided), st.integers(0, decided)))


@given(TALLIES, st.floats(1.01, 100), st.integers(10, 500))
def test_a_version_that_refuses_no_more_than_the_last_one_stays(last: Tally, factor: float, least: int) -> None:
    terms = Terms(factor, 600, least)
    assert last.share <= threshold(last, terms) <= 1
    assert not must_return(last, last, terms)


@given(TALLIES, st.floats(1.01, 100))
def test_one_that_refuses_all_goes_unless_the_last_one_did(last: Tally, factor: float) -> None:
    assert must_return(Tally(500, 500), last, Terms(factor, 600, 50)) is (last.share < 1)


@pytest.mark.parametrize("reason", [None, *Reason])
def test_only_what_rules_and_plans_can_cause_counts(reason: Reason | None) -> None:
    of_rules = ("rule.", "limit.", "account.required", "view.", "token.claims", "token.expired")
    if reason is None:
        assert counted(reason) == Tally(1, 0)
    else:
        assert counted(reason) == (Tally(1, 1) if reason.text.startswith(of_rules) else None)
    assert Tally(2, 1) + Tally(1, 1) == Tally(3, 2)
