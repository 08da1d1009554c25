"""What an extension does to an order: nothing ends sooner, what was taken back stays so, nothing is granted anew."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.policy.granting import happened, prolonged
from gateway.policy.model import FileEntry
from gateway.policy.orders import Entitlement, Line, Order, SoldFile, Told

FILE = (SoldFile(FileEntry("a")),)
ORDER = Order(
    "main-1",
    "main",
    "1",
    paid=Told(True, 1),
    lines=Told((Line("1"), Line("2")), 1),
    entitlements=(Entitlement("1", "One", FILE, 1, ends_at=1000), Entitlement("2", "Two", FILE, 1)),
)


@pytest.mark.parametrize(("until", "ends"), [(2000, 2000), (500, 1000)])
def test_nothing_ends_sooner_and_what_does_not_end_stays_so(until: int, ends: int) -> None:
    after = prolonged(ORDER, until, 50)
    assert [each.ends_at for each in after.entitlements] == [ends, None]
    assert prolonged(after, until, 60) == after


def test_what_was_taken_back_is_not_extended() -> None:
    order = ORDER.withdrew("1", True, 10)
    assert prolonged(order, 2000, 50).entitlements == order.entitlements


@pytest.mark.parametrize("said_at", [10, 90])
def test_a_subscription_lasts_longer_also_where_the_shop_s_clock_runs_ahead(said_at: int) -> None:
    order = replace(ORDER, ends_at=Told(1500, said_at))
    after = prolonged(order, 2000, 50)
    assert [after.lapses_at(each) for each in after.entitlements] == [2000, 2000]
    assert prolonged(order, 1200, 50).ends_at == order.ends_at


def test_it_is_told_as_one_new_end_and_no_new_grant() -> None:
    assert list(happened(ORDER, prolonged(ORDER, 2000, 50))) == [("order.renewed", {})]
    assert list(happened(ORDER, prolonged(ORDER, 500, 50))) == []
