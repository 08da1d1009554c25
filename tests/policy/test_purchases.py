from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from gateway.policy.model import Account, FileEntry
from gateway.policy.networks import is_near
from gateway.policy.orders import (
    NEVER,
    Buyer,
    Entitlement,
    IssuedLink,
    Line,
    Notice,
    Order,
    Said,
    SoldFile,
    Told,
)
from gateway.policy.purchases import Gone, gone, held, is_of, newest, titles

A, B = FileEntry(key="a.pdf"), FileEntry(key="b.pdf")
YES = Said(True, (5,))
ORDER = Order(
    "main-1",
    "main",
    "1",
    paid=YES,
    buyer=Told(Buyer("jan@example.com", "Jan", "7", "pl"), 3),
    lines=Told((Line("1", title="One"), Line("2", title="Two")), 3),
    entitlements=(
        Entitlement("1", "One", (SoldFile(A),), 3),
        Entitlement("2", "Two", (SoldFile(B),), 3, ends_at=100),
    ),
    corrected=("jan@example.com", "anna@example.com"),
    address=Told("203.0.113.9", 3),
)


def link(name: str, *files: FileEntry, lines: tuple[str, ...] = ("1",)) -> IssuedLink:
    return IssuedLink(name, lines, files, 1, 1000)


@pytest.mark.parametrize(
    ("account", "is_his"),
    [
        (Account("7"), True),
        (Account("7", ("main",)), True),
        (Account("7", ("other", "mai")), False),
        (Account("8"), False),
        (Account("07"), False),
    ],
)
def test_whose_an_order_is(account: Account, is_his: bool) -> None:
    assert is_of(account, ORDER) is is_his


def test_an_order_of_no_customer_is_nobodys() -> None:
    guest = replace(ORDER, buyer=Told(Buyer("jan@example.com"), 3))
    assert not is_of(Account(""), guest)


@pytest.mark.parametrize(
    ("order", "now", "expected"),
    [
        (ORDER, 99, []),
        (ORDER, 100, [Gone("Two", "lapsed")]),
        (replace(ORDER, refunded=YES), 0, [Gone("One", "refunded"), Gone("Two", "refunded")]),
        (ORDER.withdrew("1", True, 9), 0, [Gone("One", "withdrawn")]),
        (replace(ORDER, paid=Said()), 0, [Gone("One", "unpaid"), Gone("Two", "unpaid")]),
        (replace(ORDER, paid=Said(), cancelled=YES), 0, [Gone("One", "cancelled"), Gone("Two", "cancelled")]),
    ],
)
def test_what_is_gone_and_why(order: Order, now: int, expected: list[Gone]) -> None:
    assert gone(order, order.holding(needs_confirmation=False), now) == expected


def test_what_is_held_is_what_is_not_gone() -> None:
    holding = ORDER.holding(needs_confirmation=False)
    assert held(holding, 99) == {A.identity, B.identity}
    assert held(holding, 100) == {A.identity}


@pytest.mark.parametrize(
    ("links", "files", "expected"),
    [
        ([], {"a.pdf"}, []),
        ([link("old", A), link("new", A)], {A.identity}, ["new"]),
        ([link("old", A, B), link("new", A)], {A.identity, B.identity}, ["old", "new"]),
        ([link("old", A, B), link("new", A)], {A.identity}, ["new"]),
        ([link("one", A), link("two", B)], {A.identity}, ["one"]),
    ],
)
def test_of_each_file_the_newest_link_stands(links: list[IssuedLink], files: set[str], expected: list[str]) -> None:
    assert [each.token_id for each in newest(links, files)] == expected


def test_a_link_is_called_by_what_is_still_the_buyers() -> None:
    both = link("x", A, B, lines=("1", "2"))
    assert titles(ORDER, both) == "One, Two"
    assert titles(ORDER.withdrew("1", True, 9), both) == "Two"


def test_erasing_leaves_the_customers_id_alone_and_is_done_once() -> None:
    erased = ORDER.erased(50)
    assert erased.buyer == Told(Buyer(customer_id="7"), 3)
    assert (erased.email, erased.corrected, erased.erased_at) == ("", ("", ""), 50)
    assert erased.erased(60) is erased
    assert (
        replace(erased, erased_at=NEVER, buyer=ORDER.buyer, corrected=ORDER.corrected, address=ORDER.address) == ORDER
    )
    # What staff writes down afterwards can be erased again.
    again = replace(erased, corrected=("", "jan@example.com"))
    assert again.email == "jan@example.com"
    assert again.erased(70) == replace(erased, erased_at=70)


@pytest.mark.parametrize(
    ("known", "kept"),
    [
        ("203.0.113.9", "203.0.113.0"),
        ("::ffff:203.0.113.9", "203.0.113.0"),
        ("2001:db8:0:12ff::9", "2001:db8:0:1200::"),
        ("", ""),
    ],
)
def test_of_where_an_order_came_from_the_network_stays(known: str, kept: str) -> None:
    erased = replace(ORDER, address=Told(known, 3)).erased(50)
    assert erased.address == Told(kept, 3)
    assert not known or is_near(ip_address(known.removeprefix("::ffff:")), erased.address.value)
    assert erased.erased(60) is erased


def test_an_id_that_is_an_e_mail_address_is_erased_too() -> None:
    buyer = Told(Buyer("jan@example.com", "Jan", "Jan@example.com"), 3)
    assert replace(ORDER, buyer=buyer).erased(50).buyer == Told(Buyer(), 3)


def test_what_a_shop_repeats_is_not_taken_in_again() -> None:
    said = Notice("1", 99, paid=False, buyer=Buyer("jan@example.com", "Jan", "7"))
    heard = ORDER.erased(50).heard(said)
    assert heard.buyer == Told(Buyer(customer_id="7"), 3)
    assert not heard.paid.value
