"""Samples are taken by their own shop, and say what was asked for."""

from __future__ import annotations

from typing import get_args

import pytest

from gateway.policy.orders import Notice, Order
from gateway.settings_sections import ShopSettings
from gateway.shops import SHOPS
from gateway.shops.samples import Wanted, Webhook, sample

NOW = 1_795_204_934_000
SECRET = b"made-up"


def wanted(*, paid: bool = True, refund: bool = False, topic: str = "", at: int = NOW, email: str = "a@b") -> Wanted:
    return Wanted("10001", at, "d1", "SEA", email, paid=paid, refund=refund, topic=topic)


def read(kind: str, webhook: Webhook) -> Notice:
    headers = {name.lower(): (value,) for name, value in webhook.headers.items()}
    shop = SHOPS[kind]
    assert shop.verify(headers, webhook.body, [SECRET]) == ""
    assert shop.signed_at(headers) in (None, NOW // 1000, NOW // 1000 + 1)
    kept = {name: values for name, values in headers.items() if name in shop.kept}
    notice = shop.read(kept, webhook.body, NOW)
    assert isinstance(notice, Notice)
    return notice


def test_there_is_a_shop_for_every_kind_of_the_settings() -> None:
    assert set(SHOPS) == set(get_args(ShopSettings.model_fields["kind"].annotation))


@pytest.mark.parametrize("kind", SHOPS)
def test_paid_unpaid_and_refunded(kind: str) -> None:
    paid = read(kind, sample(kind, wanted(), SECRET))
    assert (paid.shop_order_id, paid.paid, paid.buyer and paid.buyer.email) == ("10001", True, "a@b")
    assert [(line.sku, line.quantity) for line in paid.lines or ()] == [("SEA", 1)]
    unpaid = read(kind, sample(kind, wanted(paid=False), SECRET))
    assert not unpaid.paid
    refund = read(kind, sample(kind, wanted(refund=True, at=NOW + 1000), SECRET))
    order = Order("main-10001", "main", "10001").heard(paid).heard(refund)
    assert order.paid.value
    assert order.taken_back("1") in ("refunded", "cancelled")
    no_mail = read(kind, sample(kind, wanted(email=""), SECRET))
    assert no_mail.buyer is not None
    assert no_mail.buyer.email == ""


@pytest.mark.parametrize(
    ("kind", "topic", "reason"),
    [
        ("shopify", "orders/cancelled", "cancelled"),
        ("shopify", "disputes/create", "charged_back"),
        ("shopify", "refunds/create", "refunded"),
        ("woocommerce", "order.deleted", "cancelled"),
        ("shoper", "order.delete", "cancelled"),
    ],
)
def test_other_topics(kind: str, topic: str, reason: str) -> None:
    paid = read(kind, sample(kind, wanted(), SECRET))
    notice = read(kind, sample(kind, wanted(topic=topic, at=NOW + 1000), SECRET))
    assert Order("main-10001", "main", "10001").heard(paid).heard(notice).taken_back("1") == reason


def test_no_repr_shows_a_signature_or_an_address() -> None:
    webhook = sample("signed", wanted(), SECRET)
    assert "v1" not in repr(webhook)
    assert "a@b" not in repr(webhook) + repr(wanted())
