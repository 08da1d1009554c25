"""What Shoper's webhooks say of an order, as far as its public documentation goes."""

from __future__ import annotations

import json
from collections.abc import Callable
from ipaddress import ip_address

import pytest

from gateway.policy.orders import Buyer, Line, Notice
from gateway.shops import SHOPS
from gateway.shops.base import Headers, Ignored

SHOP = SHOPS["shoper"]
Read = Callable[[str], bytes]


def head(topic: str, webhook: str = "42") -> Headers:
    return {"x-webhook-name": (topic,), "x-webhook-id": (webhook,)}


def read(document: object, topic: str = "order.edit") -> Notice:
    notice = SHOP.read(head(topic), json.dumps(document).encode(), 5)
    assert isinstance(notice, Notice)
    return notice


@pytest.fixture
def order(payload: Read) -> dict[str, object]:
    document: dict[str, object] = json.loads(payload("shoper_order"))
    return document


def test_a_recorded_order(payload: Read) -> None:
    assert SHOP.read(head("order.paid"), payload("shoper_order"), 5) == Notice(
        shop_order_id="3107",
        at=5,
        reference="3107",
        paid=True,
        confirmed=True,
        cancelled=False,
        buyer=Buyer("ada@example.com", "Ada Żółć", "88"),
        address=ip_address("203.0.113.9"),
        lines=(
            Line("9001", 1, "SEA-EPUB", "501", "601", "The Sea"),
            Line("9002", 2, "SONGS-WAV", "502", "602", "Songs of the Sea"),
        ),
    )


@pytest.mark.parametrize(
    ("topic", "is_paid", "paid"),
    [
        *(("order.paid", written, True) for written in (True, 1, "1")),
        *(("order.paid", written, False) for written in (False, 0, "0")),
        ("order.edit", "0", False),
        ("order.create", "1", True),
        # It may come after the order.paid that overtook it.
        ("order.create", "0", None),
        ("order.status", None, None),
    ],
)
def test_paid_is_what_the_body_says(order: dict[str, object], topic: str, is_paid: object, paid: bool | None) -> None:
    assert read({**order, "is_paid": is_paid}, topic).paid is paid


def test_the_topic_alone_pays_nothing(order: dict[str, object]) -> None:
    del order["is_paid"]
    with pytest.raises(ValueError, match="is_paid is missing"):
        read(order, "order.paid")


@pytest.mark.parametrize(
    ("status", "cancelled"),
    [
        (None, None),
        ({}, None),
        ({"type": None}, None),
        ({"type": 1}, False),
        ({"type": "3"}, False),
        ({"type": "4"}, True),
    ],
)
def test_an_order_that_was_not_completed_is_cancelled(
    order: dict[str, object], status: object, cancelled: bool | None
) -> None:
    assert read({**order, "status": status}).cancelled is cancelled


def test_php_writes_lists_as_objects(order: dict[str, object]) -> None:
    products = order["products"]
    assert isinstance(products, list)
    listed = {str(number): product for number, product in enumerate(products, 3)}
    assert read({**order, "products": listed}).lines == read(order).lines
    assert read({**order, "products": None}).lines is None
    with pytest.raises(ValueError, match="products has more than 1000"):
        read({**order, "products": [{"id": number, "quantity": 1} for number in range(1001)]})


@pytest.mark.parametrize(("written", "quantity"), [("3", 3), (2, 2), ("1.5", 2), (0.25, 1), ("1000000", 1_000_000)])
def test_quantities_come_as_texts(order: dict[str, object], written: object, quantity: int) -> None:
    (line,) = read({**order, "products": [{"id": 1, "quantity": written}]}).lines or ()
    assert line.quantity == quantity


@pytest.mark.parametrize("written", ["", "-1", "1e3", "1000001", "one", None, [], True])
def test_quantities_that_cannot_be_meant(order: dict[str, object], written: object) -> None:
    with pytest.raises(ValueError, match=r"products\.0\.quantity"):
        read({**order, "products": [{"id": 1, "quantity": written}]})


def test_deletions_and_other_topics(payload: Read) -> None:
    assert SHOP.read(head("order.delete"), b'{"order_id":"3107"}', 7) == Notice("3107", 7, cancelled=True)
    assert isinstance(SHOP.read(head("product.edit"), payload("shoper_order"), 0), Ignored)
    with pytest.raises(ValueError, match="confirm is neither"):
        SHOP.read(head("order.edit"), b'{"order_id":1,"confirm":"yes"}', 0)


@pytest.mark.parametrize("webhooks", [(), ("42", "42"), ("",), ("4 2",), ("ł",), ("43",)])
def test_the_webhooks_id_is_part_of_the_signature(webhooks: tuple[str, ...]) -> None:
    signature = "91be0dd25e0a5a75364c213547b94d5a38239e41"
    body, secrets = b'{"id":1}', [b"test-secret"]
    assert SHOP.verify({"x-webhook-id": ("42",), "x-webhook-sha1": (signature,)}, body, secrets) == ""
    assert SHOP.verify({"x-webhook-id": webhooks, "x-webhook-sha1": (signature,)}, body, secrets) != ""
    assert SHOP.verify({"x-webhook-id": ("42",), "x-webhook-sha1": (signature.upper(),)}, body, secrets) != ""


def test_deliveries_are_told_apart_by_their_bodies(payload: Read) -> None:
    body = payload("shoper_order")
    assert SHOP.delivery_id(head("order.paid"), body) == SHOP.delivery_id(head("order.paid"), body)
    names = {SHOP.delivery_id(head(topic), each) for topic in ("order.paid", "order.edit") for each in (body, b"{}")}
    assert len(names) == 4
