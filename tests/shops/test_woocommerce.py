"""What WooCommerce's webhooks say of an order."""

from __future__ import annotations

import json
from collections.abc import Callable
from ipaddress import ip_address

import pytest

from gateway.policy.orders import Buyer, Line, Notice, Refund
from gateway.shops import SHOPS
from gateway.shops.base import Headers, Ignored

SHOP = SHOPS["woocommerce"]
Read = Callable[[str], bytes]
AT = 1_795_204_934_000
PAID_AT = "2026-11-20T20:02:13"


def head(topic: str, delivery: str = "d") -> Headers:
    return {"x-wc-webhook-topic": (topic,), "x-wc-webhook-delivery-id": (delivery,)}


def read(document: object, topic: str = "order.updated") -> Notice:
    notice = SHOP.read(head(topic), json.dumps(document).encode(), 0)
    assert isinstance(notice, Notice)
    return notice


@pytest.fixture
def order(payload: Read) -> dict[str, object]:
    document: dict[str, object] = json.loads(payload("woocommerce_order"))
    return document


@pytest.mark.parametrize("topic", ["order.created", "order.updated", "order.restored"])
def test_a_recorded_order(payload: Read, topic: str) -> None:
    assert SHOP.read(head(topic), payload("woocommerce_order"), 0) == Notice(
        shop_order_id="4750",
        at=AT,
        reference="4750",
        paid=True,
        confirmed=False,
        cancelled=False,
        refunded=False,
        buyer=Buyer("ada@example.com", "Ada Żółć", "7"),
        address=ip_address("203.0.113.9"),
        lines=(
            Line("11", 1, "SEA-EPUB", "101", "111", "The Sea - EPUB"),
            Line("12", 2, "SONGS-WAV", "102", "", "Songs of the Sea"),
        ),
    )


@pytest.mark.parametrize(
    ("status", "paid_at", "paid", "confirmed", "cancelled", "refunded"),
    [
        ("pending", None, False, None, False, False),
        ("on-hold", None, False, None, False, False),
        ("on-hold", PAID_AT, False, None, False, False),
        ("failed", PAID_AT, False, None, False, False),
        ("checkout-draft", None, False, None, False, False),
        ("processing", None, True, False, False, False),
        ("processing", PAID_AT, True, False, False, False),
        ("completed", PAID_AT, True, True, False, False),
        ("wc-completed", PAID_AT, True, True, False, False),
        ("cancelled", None, False, None, True, False),
        ("cancelled", PAID_AT, True, None, True, False),
        ("trash", PAID_AT, True, None, True, False),
        ("refunded", None, True, None, False, True),
        ("in-the-post", PAID_AT, True, None, False, False),
        ("in-the-post", None, False, None, False, False),
    ],
)
def test_statuses(
    order: dict[str, object],
    status: str,
    paid_at: str | None,
    paid: bool,
    confirmed: bool | None,
    cancelled: bool,
    refunded: bool,
) -> None:
    notice = read({**order, "status": status, "date_paid_gmt": paid_at})
    told = (notice.paid, notice.confirmed, notice.cancelled, notice.refunded)
    assert told == (paid, confirmed, cancelled, refunded)


def test_a_deletion_is_dated_by_its_arrival() -> None:
    deleted = SHOP.read(head("order.deleted"), b'{"id":4750}', 123)
    assert deleted == Notice("4750", 123, cancelled=True)


def test_a_partial_refund_names_no_lines(order: dict[str, object]) -> None:
    refunds = [{"id": 4760, "reason": "", "total": "-12.00"}]
    assert read({**order, "refunds": refunds}).refunds == (Refund("4760"),)


def test_guests_times_and_what_is_missing(order: dict[str, object]) -> None:
    guest = read({**order, "customer_id": 0, "billing": {"email": "", "first_name": "", "last_name": ""}})
    assert guest.buyer is None
    assert read({**order, "date_modified_gmt": None}).at == AT - 3000
    assert read({"id": 1, "status": "processing", "date_modified_gmt": "1970-01-01T00:00:01"}) == Notice(
        "1", 1000, paid=True, confirmed=False, cancelled=False, refunded=False
    )


def test_the_ping_is_answered_well_and_means_nothing() -> None:
    ping = b"webhook_id=1"
    assert SHOP.verify({}, ping, [b"s"]) == ""
    assert isinstance(SHOP.read({}, ping, 0), Ignored)
    # It is not signed, so nobody can fill the order book with pings.
    assert SHOP.delivery_id({}, ping) == SHOP.delivery_id(head("order.updated", "x"), b"webhook_id=2")
    for other in (b"webhook_id=1\n", b"webhook_id=", b"webhook_id=1&a=1", b"webhook_id=" + b"1" * 21, b"", b'{"id":1}'):
        assert SHOP.verify({}, other, [b"s"])
    assert SHOP.verify({"x-wc-webhook-signature": ("x",)}, ping, [b"s"])


@pytest.mark.parametrize("topic", ["product.updated", "customer.created", "action.wp_login", ""])
def test_other_topics_are_passed_over(topic: str, payload: Read) -> None:
    assert isinstance(SHOP.read(head(topic), payload("woocommerce_order"), 0), Ignored)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"id": None}, "id is no id"),
        ({"status": 1}, "status is no text"),
        ({"date_modified_gmt": None, "date_created_gmt": None}, "date_modified_gmt is missing"),
        ({"date_paid_gmt": "yesterday"}, "date_paid_gmt is no time"),
        ({"line_items": [{"id": 1, "quantity": -1}]}, "line_items.0.quantity"),
    ],
)
def test_what_cannot_be_meant(order: dict[str, object], change: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read({**order, **change})


def test_two_orders_of_one_second_are_no_copies(payload: Read) -> None:
    """WooCommerce makes the delivery's id of the webhook and the second alone."""
    body = payload("woocommerce_order")
    other = body.replace(b'"id": 4750', b'"id": 4751', 1)
    assert body != other
    names = {
        SHOP.delivery_id(head("order.created"), body),
        SHOP.delivery_id(head("order.created"), other),
        SHOP.delivery_id(head("order.updated"), body),
        SHOP.delivery_id(head("order.created", "e"), body),
    }
    assert len(names) == 4
    assert SHOP.delivery_id(head("order.created"), body) in names
