"""What buyers may get for links that are over: never what is not theirs, and never more than the plan says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.granting import LIFE
from gateway.policy.model import FileEntry, Limits, Plan
from gateway.policy.orders import Holding, IssuedLink, Order
from gateway.policy.renewing import Offer, Refused, Use, extended, link_of, offer, renewed, stand_in

NOW, DAY = 1_800_000_000, 86_400
BOOK, SONG = FileEntry("sea.pdf"), FileEntry("song.wav")
PLAN = Plan("standard", Limits(downloads=2), valid_for=7 * DAY, renewals=1)
LINK = IssuedLink("t1", ("l1",), (BOOK, SONG), NOW - 30 * DAY, NOW - 23 * DAY, plan="standard")
ORDER = Order("main-1", "main", "1", links=(LINK,))
FOR_EVER: Mapping[str, int | None] = {"sea.pdf": None, "song.wav": None}
USED_UP = {"sea.pdf": 2, "song.wav": 2}


def asked(
    *,
    ended: bool = False,
    used: Mapping[str, int] | None = None,
    until: Mapping[str, int | None] = FOR_EVER,
    renewals: int = 0,
    plan: Plan = PLAN,
    revoked: bool = False,
    running: bool = False,
) -> Offer | Refused:
    use = Use(NOW if ended else NOW + 1, revoked, plan.limits.get("downloads"), used, running)
    order = replace(ORDER, renewed=renewals)
    return offer(order, LINK, use, holding=Holding(bool(until), until), plan=plan, now=NOW)


EXTENDED, RENEWED = Offer("extend", NOW + 7 * DAY), Offer("renew", NOW + 7 * DAY)

TABLE: list[tuple[dict[str, object], Offer | Refused]] = [
    ({}, Refused("good")),
    ({"used": {"sea.pdf": 1, "song.wav": 1}}, Refused("good")),
    ({"ended": True}, EXTENDED),
    ({"ended": True, "until": {"sea.pdf": NOW + DAY, "song.wav": NOW - 1}}, Offer("extend", NOW + DAY)),
    ({"ended": True, "until": {"sea.pdf": NOW + DAY, "song.wav": None}}, EXTENDED),
    ({"ended": True, "plan": replace(PLAN, valid_for=None)}, Offer("extend", NOW + LIFE)),
    ({"ended": True, "used": {"sea.pdf": 2}}, EXTENDED),
    ({"ended": True, "used": USED_UP}, RENEWED),
    ({"ended": True, "used": USED_UP, "renewals": 1}, Refused("spent")),
    ({"ended": True, "revoked": True}, Refused("revoked")),
    ({"ended": True, "until": {}}, Refused("lost")),
    ({"ended": True, "until": {"sea.pdf": NOW, "song.wav": NOW}}, Refused("lost")),
    ({"ended": True, "plan": replace(PLAN, name="")}, Refused("lost")),
    ({"used": {"sea.pdf": 2}}, RENEWED),
    ({"used": {"sea.pdf": 3}, "plan": replace(PLAN, renewals=3), "renewals": 1}, replace(RENEWED, left=1)),
    ({"used": USED_UP, "renewals": 1}, Refused("spent")),
    ({"used": USED_UP, "plan": replace(PLAN, renewals=0)}, Refused("spent")),
    ({"used": USED_UP, "plan": replace(PLAN, limits=Limits())}, Refused("good")),
    ({"used": USED_UP, "running": True}, Refused("running")),
    ({"used": USED_UP, "revoked": True}, Refused("revoked")),
    ({"used": USED_UP, "until": {}}, Refused("lost")),
    ({"used": {"sea.pdf": 2}, "until": {"song.wav": None}}, Refused("good")),
    ({"used": USED_UP, "until": {"sea.pdf": NOW + 5}}, Offer("renew", NOW + 5)),
]


@pytest.mark.parametrize(("case", "then"), TABLE)
def test_what_is_offered(case: dict[str, object], then: Offer | Refused) -> None:
    assert asked(**case) == then  # type: ignore[arg-type]  # a row of the table


ENDS = st.one_of(st.none(), st.integers(NOW - 5, NOW + 20 * DAY))


@given(
    ended=st.booleans(),
    used=st.dictionaries(st.sampled_from(["sea.pdf", "song.wav"]), st.integers(0, 3)),
    until=st.dictionaries(st.sampled_from(["sea.pdf", "song.wav"]), ENDS),
    renewals=st.integers(0, 3),
    most=st.integers(0, 3),
    revoked=st.booleans(),
    running=st.booleans(),
)
def test_nothing_that_is_not_the_buyers(
    ended: bool,
    used: dict[str, int],
    until: dict[str, int | None],
    renewals: int,
    most: int,
    revoked: bool,
    running: bool,
) -> None:
    plan = replace(PLAN, renewals=most)
    found = asked(ended=ended, used=used, until=until, renewals=renewals, plan=plan, revoked=revoked, running=running)
    if not isinstance(found, Offer):
        return
    assert not revoked
    mine = [end for end in until.values() if end is None or end > NOW]
    assert mine
    assert NOW < found.until <= NOW + 7 * DAY
    assert None in mine or found.until <= max(end for end in mine if end is not None)
    if found.way == "extend":
        assert ended
    else:
        assert renewals < most
        assert found.left == most - renewals - 1
        assert not running
        assert max(used.values()) >= 2


def test_a_renewal_stands_in_for_the_link_and_is_counted() -> None:
    after = renewed(ORDER, LINK, "t2", now=NOW, until=NOW + DAY)
    [old, new] = after.links
    assert (old, new.token_id, new.issued_at, new.expires_at) == (LINK, "t2", NOW, NOW + DAY)
    assert (new.files, new.plan, after.renewed) == (LINK.files, LINK.plan, 1)
    assert stand_in(after, old) == stand_in(after, new) == new
    assert link_of(after, "t2") == new
    assert link_of(after, "t3") is None


@pytest.mark.parametrize(
    ("other", "stands"),
    [
        (replace(LINK, token_id="t2"), True),
        (replace(LINK, token_id="t2", line_ids=("l1", "l2")), True),
        (replace(LINK, token_id="t2", files=(BOOK,)), False),
        (replace(LINK, token_id="t2", line_ids=("l2",)), False),
        (replace(LINK, token_id="t2", plan="pro"), False),
        (replace(LINK, token_id="t2", account=True), False),
    ],
)
def test_which_link_stands_in(other: IssuedLink, stands: bool) -> None:
    order = replace(ORDER, links=(LINK, other))
    assert stand_in(order, LINK) == (other if stands else LINK)
    assert stand_in(order, other) == other


def test_an_extended_link_is_another_token_of_the_same_counts() -> None:
    assert extended(ORDER, LINK, now=NOW, until=NOW + DAY).links == (
        replace(LINK, issued_at=NOW, expires_at=NOW + DAY),
    )
