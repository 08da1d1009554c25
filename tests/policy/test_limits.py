"""Limits as a table: how each is written, and what it asks of the ledger."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.limits import BY_NAME, LIMIT_MAX, LIMITS, charges, read_limit
from gateway.policy.model import Charge, Device, Limits
from gateway.policy.reasons import Reason

DEVICE = Device(cookie="cookie", network="203.0.113.0/24", user_agent=None, id="device")
COUNT = Charge("count", None, Reason.LIMIT_DOWNLOADS)

CHARGES = {
    "valid_after_first": Charge("since_first", 7000, Reason.TOKEN_EXPIRED),
    "downloads": Charge("count", 7, Reason.LIMIT_DOWNLOADS),
    "networks": Charge("distinct", 7, Reason.LIMIT_NETWORKS, "networks", "203.0.113.0/24"),
    "devices": Charge("distinct", 7, Reason.LIMIT_DEVICES, "devices", "device", "cookie"),
    "concurrent": Charge("concurrent", 7, Reason.LIMIT_CONCURRENT),
    "rate": None,
}


@pytest.mark.parametrize("name", BY_NAME)
def test_what_each_limit_costs(name: str) -> None:
    limit = BY_NAME[name](7)
    assert limit.charge(DEVICE) == CHARGES[name]
    assert BY_NAME[name].about.endswith(".")


def test_all_together_are_charged_in_the_order_in_which_they_refuse() -> None:
    asked = Limits(**dict.fromkeys(BY_NAME, 7))
    assert list(charges(asked, DEVICE)) == [CHARGES[limit.name] for limit in LIMITS if CHARGES[limit.name]]
    assert charges(Limits(), DEVICE) == (COUNT,)
    assert charges(Limits(concurrent=7), DEVICE) == (CHARGES["concurrent"], COUNT)


@pytest.mark.parametrize(
    ("name", "written", "number"),
    [("rate", "2MB/s", 2_000_000), ("rate", 5, 5), ("valid_after_first", "72h", 259_200), ("downloads", 1, 1)],
)
def test_read(name: str, written: object, number: int) -> None:
    assert read_limit(name, written) == number


@pytest.mark.parametrize("name", BY_NAME)
@pytest.mark.parametrize("written", [0, -1, True, 1.0, None, "", "many", LIMIT_MAX + 1, [1]])
def test_refused(name: str, written: object) -> None:
    with pytest.raises(ValueError, match=r"write|whole number"):
        read_limit(name, written)


@given(st.sampled_from(list(BY_NAME)), st.integers(1, LIMIT_MAX))
def test_what_is_written_reads_back(name: str, number: int) -> None:
    kind = BY_NAME[name]
    text = kind.write(number)
    assert (kind.parse(text) if kind.parse else int(text)) == number


some = st.dictionaries(st.sampled_from(list(BY_NAME)), st.integers(1, 9))


@given(some, some)
def test_tightening_is_the_smaller_of_each(one: dict[str, int], other: dict[str, int]) -> None:
    both = Limits(**one).tightened(Limits(**other))
    assert both == Limits(**other).tightened(Limits(**one))
    assert dict(both.values) == {name: min(one.get(name, 10), other.get(name, 10)) for name in one.keys() | other}
