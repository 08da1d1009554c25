"""What Shopify's webhooks say of an order."""

from __future__ import annotations

import json
from collections.abc import Callable
from ipaddress import ip_address

import pytest

from gateway.policy.orders import Buyer, Line, Notice, Order, Refund
from gateway.shops import SHOPS
from gateway.shops.base import Headers, Ignored

SHOP = SHOPS["shopify"]
Read = Callable[[str], bytes]
AT = 1_795_204_934_000
FIRST, SECOND = "14000000000001", "14000000000002"


def head(topic: str, **others: str) -> Headers:
    return {"x-shopify-topic": (topic,), **{f"x-shopify-{name}-id": (value,) for name, value in others.items()}}


def read(topic: str, document: object) -> Notice | Ignored:
    return SHOP.read(head(topic), json.dumps(document).encode(), 0)


def noticed(topic: str, document: object) -> Notice:
    notice = read(topic, document)
    assert isinstance(notice, Notice)
    return notice


@pytest.fixture
def order(payload: Read) -> dict[str, object]:
    document: dict[str, object] = json.loads(payload("shopify_order"))
    return document


def test_a_recorded_order(payload: Read) -> None:
    assert SHOP.read(head("orders/paid"), payload("shopify_order"), 0) == Notice(
        shop_order_id="5678901234567",
        at=AT,
        reference="#1042",
        paid=True,
        confirmed=True,
        cancelled=False,
        refunded=False,
        buyer=Buyer("ada@example.com", "Ada Żółć", "7001001001", "pl-PL"),
        address=ip_address("203.0.113.9"),
        lines=(
            Line(FIRST, 1, "SEA-EPUB", "8001", "44001", "The Sea - EPUB"),
            Line(SECOND, 2, "SONGS-WAV", "8002", "44002", "Songs of the Sea"),
            Line("14000000000003", 1, title="Wrapping"),
        ),
    )


def test_a_recorded_refund_adds_up_its_lines(payload: Read) -> None:
    assert SHOP.read(head("refunds/create"), payload("shopify_refund"), 0) == Notice(
        "5678901234567", 1_795_338_000_000, refunds=(Refund("929000000001", ((SECOND, 2),)),)
    )


def test_a_recorded_dispute(payload: Read) -> None:
    notice = SHOP.read(head("disputes/create"), payload("shopify_dispute"), 0)
    assert notice == Notice("5678901234567", 1_795_651_200_000, charged_back=True)


@pytest.mark.parametrize(
    ("status", "paid", "refunded"),
    [
        ("paid", True, False),
        ("partially_refunded", True, False),
        ("refunded", True, True),
        *((status, False, False) for status in ("pending", "authorized", "partially_paid", "voided", "expired")),
        (None, None, None),
    ],
)
@pytest.mark.parametrize("topic", ["orders/paid", "orders/create", "orders/updated", "orders/cancelled"])
def test_the_body_alone_says_whether_it_is_paid(
    order: dict[str, object], topic: str, status: str | None, paid: bool | None, refunded: bool | None
) -> None:
    notice = noticed(topic, {**order, "financial_status": status})
    assert (notice.paid, notice.refunded) == (paid, refunded)


def test_cancelled_confirmed_and_test_orders(order: dict[str, object]) -> None:
    notice = noticed(
        "orders/updated", {**order, "cancelled_at": "2026-11-21T00:00:00Z", "confirmed": False, "test": True}
    )
    assert (notice.cancelled, notice.confirmed, notice.paid) == (True, False, True)


def test_refunds_in_an_order_are_told_too(order: dict[str, object], payload: Read) -> None:
    refund = json.loads(payload("shopify_refund"))
    told = noticed("orders/updated", {**order, "refunds": [refund]}).refunds
    assert told == noticed("refunds/create", refund).refunds
    assert noticed("refunds/create", {**refund, "refund_line_items": []}).refunds == (Refund("929000000001"),)


@pytest.mark.parametrize(
    ("change", "buyer"),
    [
        ({"email": None}, "ada@example.com"),
        ({"email": "", "contact_email": None, "customer": {"id": 7, "email": "eve@example.com"}}, "eve@example.com"),
        ({"email": "ada@example.com\nBcc: x@example.com", "contact_email": "", "customer": None}, ""),
    ],
)
def test_where_the_address_is_found(order: dict[str, object], change: dict[str, object], buyer: str) -> None:
    told = noticed("orders/paid", {**order, **change}).buyer
    assert told is not None
    assert told.email == buyer


def test_a_shop_that_hides_its_buyers_says_nothing_of_them(order: dict[str, object]) -> None:
    hidden = dict.fromkeys(("email", "contact_email", "customer", "billing_address", "customer_locale"))
    assert noticed("orders/paid", {**order, **hidden}).buyer is None
    assert noticed("orders/paid", {"id": 1, "updated_at": "2026-11-21T00:00:00Z"}).lines is None


def test_a_line_that_was_taken_out_is_none(order: dict[str, object]) -> None:
    lines = [{"id": 1, "quantity": 0}, {"id": 2, "quantity": 1}]
    assert noticed("orders/updated", {**order, "line_items": lines}).lines == (Line("2"),)


DISPUTE = {
    "id": 1,
    "order_id": 2,
    "type": "chargeback",
    "status": "under_review",
    "initiated_at": "2026-11-25T10:00:00Z",
}
BEGAN = 1_795_600_800_000


@pytest.mark.parametrize(
    ("change", "at", "charged_back"),
    [
        ({}, BEGAN, True),
        ({"status": "won"}, BEGAN + 1, False),
        ({"status": "won", "finalized_on": "2026-11-25"}, BEGAN + 1, False),
        ({"status": "won", "finalized_on": "2026-12-25"}, 1_798_156_800_000, False),
        ({"status": "lost", "finalized_on": "2026-12-25T00:00:00Z"}, 1_798_156_800_000, True),
        ({"status": "accepted"}, BEGAN + 1, True),
        ({"status": "charge_refunded"}, BEGAN + 1, True),
    ],
)
def test_disputes(change: dict[str, object], at: int, charged_back: bool) -> None:
    assert read("disputes/update", {**DISPUTE, **change}) == Notice("2", at, charged_back=charged_back)


def test_disputes_that_say_nothing() -> None:
    assert isinstance(read("disputes/create", {**DISPUTE, "type": "inquiry"}), Ignored)
    assert isinstance(read("disputes/create", {**DISPUTE, "order_id": None}), Ignored)


@pytest.mark.parametrize(
    "topic", ["products/update", "orders/delete", "orders/edited", "app/uninstalled", "", "Orders/Paid"]
)
def test_other_topics_are_passed_over(topic: str, payload: Read) -> None:
    assert isinstance(SHOP.read(head(topic), payload("shopify_order"), 0), Ignored)
    assert isinstance(SHOP.read({}, payload("shopify_order"), 0), Ignored)


@pytest.mark.parametrize(
    ("topic", "document", "said"),
    [
        ("orders/paid", {}, "id is missing"),
        ("orders/paid", {"id": 1}, "updated_at is missing"),
        ("orders/paid", {"id": 1, "updated_at": "2026-11-21T00:00:00"}, "updated_at is no time"),
        (
            "orders/paid",
            {"id": 1, "updated_at": "2026-11-21T00:00:00Z", "financial_status": "gift"},
            "financial_status",
        ),
        ("orders/paid", {"id": 1, "updated_at": "2026-11-21T00:00:00Z", "confirmed": "yes"}, "confirmed is neither"),
        (
            "orders/paid",
            {"id": 1, "updated_at": "2026-11-21T00:00:00Z", "line_items": [{"id": 1, "quantity": 1}] * 2},
            "the same id",
        ),
        (
            "orders/paid",
            {"id": 1, "updated_at": "2026-11-21T00:00:00Z", "line_items": [{"id": 1, "quantity": 10**7}]},
            "line_items.0.quantity is no whole number",
        ),
        ("refunds/create", {"id": 1, "created_at": "2026-11-21T00:00:00Z"}, "order_id is missing"),
        ("disputes/update", {**DISPUTE, "status": "odd"}, "none that Shopify documents"),
        ("disputes/update", {**DISPUTE, "type": ""}, "none that Shopify documents"),
    ],
)
def test_what_cannot_be_meant(topic: str, document: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read(topic, document)


def test_copies_have_one_name_and_news_have_others(payload: Read) -> None:
    body = payload("shopify_order")

    def name(topic: str = "orders/paid", body: bytes = body, **others: str) -> str:
        return SHOP.delivery_id(head(topic, **others), body)

    assert name(event="e", webhook="w1") == name(event="e", webhook="w2")
    assert name(webhook="w") == name(webhook="w") != name(webhook="w2")
    assert name() == name()
    assert name(event="ł" * 300) == name()
    news = {
        name(event="e"),
        name(event="f"),
        name("orders/updated", event="e"),
        name(event="e", body=b'{"id":2}'),
        name(event="e", body=b"no JSON"),
        name(event="e", body=b"no JSON either"),
        name(),
        name(body=b"{}"),
        name("refunds/create"),
    }
    assert len(news) == 9


def test_of_one_second_paid_stands_and_so_does_cancelled(order: dict[str, object]) -> None:
    pending = noticed("orders/create", {**order, "financial_status": "pending"})
    paid = noticed("orders/paid", order)
    assert pending.at == paid.at
    both = Order("main-1", "main", "1").heard(paid).heard(pending)
    assert both == Order("main-1", "main", "1").heard(pending).heard(paid)
    assert both.paid.value


@pytest.mark.parametrize(
    ("told", "address"),
    [
        ({"browser_ip": "203.0.113.9"}, "203.0.113.9"),
        ({"browser_ip": None, "client_details": {"browser_ip": "2001:db8::1"}}, "2001:db8::1"),
        ({"browser_ip": "203.0.113.9", "client_details": {"browser_ip": "192.0.2.1"}}, "203.0.113.9"),
        ({"browser_ip": "::ffff:203.0.113.9"}, "203.0.113.9"),
        ({"browser_ip": "unknown", "client_details": {}}, None),
        ({"browser_ip": "", "client_details": None}, None),
        ({"browser_ip": 7, "client_details": None}, None),
        ({}, None),
    ],
)
def test_the_address_that_was_ordered_from(told: dict[str, object], address: str | None) -> None:
    order = {"id": 2, "updated_at": "2026-11-20T20:02:14Z", **told}
    notice = SHOP.read(head("orders/paid"), json.dumps(order).encode(), 0)
    assert isinstance(notice, Notice)
    assert notice.address == (None if address is None else ip_address(address))
