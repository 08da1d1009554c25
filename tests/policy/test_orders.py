"""An order is the same whatever the sequence of its notices, and nobody keeps what was taken back."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.policy.model import FileEntry
from gateway.policy.orders import (
    ALL,
    Buyer,
    Entitlement,
    Holding,
    Line,
    Notice,
    Order,
    Refund,
    SoldFile,
    Told,
    order_id_of,
    owned,
)
from gateway.policy.standing import is_order_id

NEW = Order("main-1", "main", "1")
BOOK = Entitlement("l1", "Sea", (SoldFile(FileEntry("ebooks/sea.pdf")),), granted_at=10)
SONG = Entitlement("l2", "Song", (SoldFile(FileEntry("music/song.wav")),), granted_at=10, ends_at=5000)


def paid(*, at: int = 1, lines: tuple[Line, ...] = (Line("l1"), Line("l2"))) -> Order:
    order = NEW.heard(Notice("1", at, paid=True, lines=lines))
    return replace(order, entitlements=(BOOK, SONG))


# --- The law: the sequence and the number of notices play no part -----------------------------------------------------

FEW = st.sampled_from(["", "a", "b"])
WORD = st.none() | st.booleans()
BUYERS = st.builds(Buyer, email=FEW, name=FEW, customer_id=FEW, language=FEW)
LINES = st.lists(st.builds(Line, st.sampled_from(["l1", "l2"]), st.integers(1, 3), title=FEW), max_size=2).map(tuple)
PIECES = st.lists(st.tuples(st.sampled_from(["l1", "l2"]), st.integers(1, 2)), max_size=2).map(tuple)
NOTICES = st.builds(
    Notice,
    shop_order_id=st.just("1"),
    # Shops' clocks tell seconds, so two words at the same time are the rule and not the exception.
    at=st.integers(0, 3),
    reference=FEW,
    paid=WORD,
    confirmed=WORD,
    cancelled=WORD,
    refunded=WORD,
    charged_back=WORD,
    ends_at=st.none() | st.sampled_from([0, 9, 10, 100]),
    buyer=st.none() | BUYERS,
    address=st.none() | st.sampled_from([ip_address("203.0.113.9"), ip_address("2001:db8::9")]),
    lines=st.none() | LINES,
    refunds=st.lists(st.builds(Refund, st.sampled_from(["r1", "r2"]), PIECES), max_size=2).map(tuple),
)


def after(notices: list[Notice]) -> Order:
    order = NEW
    for notice in notices:
        order = order.heard(notice)
    return order


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_any_sequence_and_any_copies_give_the_same_order(data: st.DataObject) -> None:
    notices = data.draw(st.lists(NOTICES, min_size=1, max_size=6))
    copies = data.draw(st.lists(st.sampled_from(notices), max_size=4))
    shuffled = data.draw(st.permutations([*notices, *copies]))
    first, second = after(notices), after(list(shuffled))
    assert first == second
    # Equality leaves out nothing that a repr leaves out, and neither may the comparison above.
    assert (first.buyer.value.email, first.buyer.value.name) == (second.buyer.value.email, second.buyer.value.name)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([ALL, "l1"]), st.booleans(), st.integers(0, 3)), max_size=6))
def test_what_the_staff_says_may_arrive_in_any_sequence_too(said: list[tuple[str, bool, int]]) -> None:
    shuffled = sorted(said, key=repr, reverse=True)
    orders = []
    for words in (said, shuffled, [*shuffled, *said]):
        order = paid()
        for line_id, gone, at in words:
            order = order.withdrew(line_id, gone, at)
        orders.append(order)
    assert orders[0] == orders[1] == orders[2]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (Buyer(email="a@example.com"), Buyer(email="b@example.com")),
        (Buyer(name="A"), Buyer(name="B")),
        (Buyer(customer_id="1"), Buyer(customer_id="2")),
    ],
)
def test_two_buyers_of_the_same_second_are_told_apart_by_all_they_have(first: Buyer, second: Buyer) -> None:
    one, other = Notice("1", 5, buyer=first), Notice("1", 5, buyer=second)
    assert after([one, other]) == after([other, one])
    assert after([one, other]).buyer.value == second


def test_of_two_ends_of_the_same_second_the_later_one_stands() -> None:
    assert Told(9, 1).heard(10, 1) == Told(10, 1) == Told(10, 1).heard(9, 1)


# --- What the facts come to -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("notices", "reason"),
    [
        ([], ""),
        ([Notice("1", 2, cancelled=True)], "cancelled"),
        ([Notice("1", 2, cancelled=True), Notice("1", 3, cancelled=False)], ""),
        ([Notice("1", 3, cancelled=False), Notice("1", 2, cancelled=True)], ""),
        ([Notice("1", 2, refunded=True)], "refunded"),
        ([Notice("1", 2, charged_back=True, cancelled=True)], "charged_back"),
        ([Notice("1", 2, charged_back=True), Notice("1", 3, charged_back=False)], ""),
        ([Notice("1", 2, refunds=(Refund("r", (("l1", 1),)),))], "refunded"),
        ([Notice("1", 2, refunds=(Refund("r", (("l2", 1),)),))], ""),
        ([Notice("1", 2, refunds=(Refund("money"),))], ""),
    ],
)
def test_why_a_line_is_not_the_buyers_any_more(notices: list[Notice], reason: str) -> None:
    order = paid()
    for notice in notices:
        order = order.heard(notice)
    assert order.taken_back("l1") == reason
    assert ([each.line_id for each in owned(order)][:1] == ["l1"]) is (reason == "")


def test_a_line_is_gone_with_the_last_of_its_pieces() -> None:
    order = paid(lines=(Line("l1", 3),))
    order = order.heard(Notice("1", 2, refunds=(Refund("r1", (("l1", 2),)),)))
    assert order.taken_back("l1") == ""
    # The same refund again, later and by another notice, is still one refund.
    order = order.heard(Notice("1", 4, refunds=(Refund("r1", (("l1", 2),)),)))
    assert order.taken_back("l1") == ""
    assert order.heard(Notice("1", 3, refunds=(Refund("r2", (("l1", 1),)),))).taken_back("l1") == "refunded"


def test_a_refund_that_arrives_before_its_order() -> None:
    refund, order = Notice("1", 9, refunds=(Refund("r", (("l1", 1),)),)), Notice("1", 5, paid=True, lines=(Line("l1"),))
    assert NEW.heard(refund).heard(order) == NEW.heard(order).heard(refund)
    assert NEW.heard(refund).heard(order).taken_back("l1") == "refunded"


def test_who_gives_a_line_back_means_it_until_something_new_is_said() -> None:
    order = paid().heard(Notice("1", 2, refunded=True)).withdrew("l1", gone=False, at=3)
    assert (order.taken_back("l1"), order.taken_back("l2")) == ("", "refunded")
    assert order.heard(Notice("1", 4, charged_back=True)).taken_back("l1") == "charged_back"
    assert order.withdrew(ALL, gone=True, at=4).taken_back("l1") == "withdrawn", "what was said last is told"
    # At the very same time the stricter word stands.
    assert paid().withdrew("l1", gone=True, at=3).withdrew(ALL, gone=False, at=3).taken_back("l1") == "withdrawn"


def test_a_refund_that_is_told_again_takes_nothing_back_again() -> None:
    """Shopify repeats every refund in each later webhook of its order."""
    again = Notice("1", 4, refunds=(Refund("r", (("l1", 1),)),))
    order = paid().heard(replace(again, at=2)).withdrew("l1", gone=False, at=3)
    assert order.heard(again).taken_back("l1") == ""


def test_what_an_order_holds() -> None:
    assert NEW.holding(needs_confirmation=False) == Holding(paid=False, until={})
    order = paid()
    held = {"ebooks/sea.pdf": None, "music/song.wav": 5000}
    assert order.holding(needs_confirmation=False) == Holding(paid=True, until=held)
    assert order.holding(needs_confirmation=True) == Holding(paid=False, until={})
    confirmed = order.heard(Notice("1", 2, confirmed=True))
    assert confirmed.holding(needs_confirmation=True) == Holding(paid=True, until=held)
    subscribed = order.heard(Notice("1", 2, ends_at=7000))
    assert subscribed.holding(needs_confirmation=False).until == dict.fromkeys(held, 7000)
    refunded = order.heard(Notice("1", 2, refunds=(Refund("r", (("l1", 1),)),)))
    assert refunded.holding(needs_confirmation=False).until == {"music/song.wav": 5000}


def test_it_knows_where_it_was_ordered_from_until_its_buyer_is_erased() -> None:
    told = Notice("1", 2, address=ip_address("203.0.113.9"))
    order = paid().heard(told)
    assert order.holding(needs_confirmation=False).address == "203.0.113.9"
    assert order.heard(Notice("1", 3)).address.value == "203.0.113.9"
    assert "203.0.113" not in repr((order, told, order.holding(needs_confirmation=False)))
    erased = replace(order, address=Told(""), erased_at=4)
    assert erased.heard(replace(told, at=5)).address.value == ""


def test_an_order_is_called_by_its_shop_and_its_number() -> None:
    assert order_id_of("main", "10001") == "main-10001"
    assert is_order_id(order_id_of("main", "10001"))


def test_no_repr_shows_a_buyer() -> None:
    order = paid().heard(Notice("1", 2, buyer=Buyer("ada@example.com", "Ada", "7", "pl")))
    assert "ada@" not in repr(order)
    assert "Ada" not in repr(order)
