"""Webhooks of our own making in each shop's form, signed: to try a gateway without buying anything.

Law: what is made here verifies and reads in its own module, and is shaped as the shop would send it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from gateway.policy.events import rfc3339
from gateway.shops import shoper, shopify, signed, woocommerce

BUYER = "Ada Example"
TITLE = "A sample product"
ADDRESS = "203.0.113.9"
"""Of a network that nobody has (RFC 5737)."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a sample is to say. `at` in Unix ms; `delivery` is new for each sample; `topic` "": the usual one."""

    order: str
    at: int
    delivery: str
    sku: str
    email: str = field(repr=False)
    paid: bool = True
    refund: bool = False
    topic: str = ""


@dataclass(frozen=True, slots=True)
class Webhook:
    """Headers, by the names that the shop writes, and the raw body."""

    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


def sample(kind: str, wanted: Wanted, secret: bytes) -> Webhook:
    """A genuine webhook of this kind of shop, as SHOPS would take it. Raises KeyError for a kind that is none."""
    return _KINDS[kind](wanted, secret)


def _shopify(wanted: Wanted, secret: bytes) -> Webhook:
    usual = shopify.REFUND if wanted.refund else "orders/paid" if wanted.paid else "orders/create"
    topic = wanted.topic or usual
    body = _json(_shopify_body(wanted, topic))
    headers = {
        "X-Shopify-Topic": topic,
        "X-Shopify-Event-Id": wanted.delivery,
        "X-Shopify-Webhook-Id": f"webhook-{wanted.delivery}",
        "X-Shopify-Shop-Domain": "sample.myshopify.com",
        "X-Shopify-Hmac-Sha256": shopify.sign(secret, body)[shopify.SIGNATURE],
    }
    return Webhook(_with_type(headers), body)


def _shopify_body(wanted: Wanted, topic: str) -> dict[str, object]:
    at, order = rfc3339(wanted.at), _number(wanted.order)
    if topic == shopify.REFUND:
        lines = [{"id": 1, "line_item_id": 1, "quantity": 1, "restock_type": "no_restock", "subtotal": 12.5}]
        return {"id": 1, "order_id": order, "created_at": at, "processed_at": at, "refund_line_items": lines}
    if topic in shopify.DISPUTES:
        dispute = {"type": "chargeback", "status": "needs_response", "reason": "fraudulent", "amount": "12.50"}
        return {"id": 1, "order_id": order, **dispute, "initiated_at": at, "finalized_on": None}
    status = "refunded" if wanted.refund else "paid" if wanted.paid else "pending"
    return {
        "id": order,
        "name": f"#{wanted.order}",
        "test": True,
        "confirmed": True,
        "created_at": at,
        "updated_at": at,
        "cancelled_at": at if topic == "orders/cancelled" else None,
        "financial_status": status,
        "currency": "EUR",
        "total_price": "12.50",
        "email": wanted.email,
        "customer_locale": "en",
        "browser_ip": ADDRESS,
        "customer": {"id": 7, "email": wanted.email, "first_name": "Ada", "last_name": "Example"},
        "billing_address": {"name": BUYER, "country_code": "PL"},
        "line_items": [
            {
                "id": 1,
                "product_id": 501,
                "variant_id": 601,
                "sku": wanted.sku,
                "title": TITLE,
                "name": TITLE,
                "quantity": 1,
                "price": "12.50",
                "requires_shipping": False,
            }
        ],
        "refunds": [],
    }


def _woocommerce(wanted: Wanted, secret: bytes) -> Webhook:
    topic = wanted.topic or "order.updated"
    at, order = rfc3339(wanted.at).removesuffix("Z").partition(".")[0], _number(wanted.order)
    status = "refunded" if wanted.refund else "completed" if wanted.paid else "pending"
    full: dict[str, object] = {
        "id": order,
        "number": wanted.order,
        "status": status,
        "currency": "EUR",
        "total": "12.50",
        "date_created_gmt": at,
        "date_modified_gmt": at,
        "date_paid_gmt": at if wanted.paid else None,
        "customer_id": 7,
        "customer_ip_address": ADDRESS,
        "billing": {"first_name": "Ada", "last_name": "Example", "email": wanted.email, "country": "PL"},
        "line_items": [
            {
                "id": 1,
                "name": TITLE,
                "product_id": 501,
                "variation_id": 0,
                "sku": wanted.sku,
                "quantity": 1,
                "total": "12.50",
                "price": 12.5,
            }
        ],
        "refunds": [{"id": 2, "reason": "", "total": "-12.50"}] if wanted.refund else [],
    }
    body = _json({"id": order} if topic == woocommerce.DELETED else full)
    headers = {
        "X-WC-Webhook-Topic": topic,
        "X-WC-Webhook-Delivery-ID": wanted.delivery,
        "X-WC-Webhook-ID": "1",
        "X-WC-Webhook-Signature": woocommerce.sign(secret, body)[woocommerce.SIGNATURE],
    }
    return Webhook(_with_type(headers), body)


def _shoper(wanted: Wanted, secret: bytes) -> Webhook:
    # Shoper has no word for a refund: the order gets a status of orders that were not completed.
    usual = "order.status" if wanted.refund else "order.paid" if wanted.paid else shoper.CREATED
    product = {"id": "1", "product_id": "501", "stock_id": "601", "code": wanted.sku, "name": TITLE, "quantity": "1"}
    full: dict[str, object] = {
        "order_id": wanted.order,
        "date": rfc3339(wanted.at).replace("T", " ").partition(".")[0],
        "sum": "12.50",
        "is_paid": "1" if wanted.paid else "0",
        "confirm": "1",
        "status": {"type": 4 if wanted.refund else 1},
        "user_id": "7",
        "ip_address": ADDRESS,
        "email": wanted.email,
        "billingAddress": {"firstname": "Ada", "lastname": "Example"},
        "products": [product],
    }
    topic = wanted.topic or usual
    body = _json({"order_id": wanted.order} if topic == shoper.DELETED else full)
    proof = shoper.sign(secret, body, "42")
    headers = {"X-Webhook-Name": topic, "X-Webhook-Id": "42", "X-Webhook-SHA1": proof[shoper.SIGNATURE]}
    return Webhook(_with_type(headers), body)


def _signed(wanted: Wanted, secret: bytes) -> Webhook:
    order: dict[str, object] = {"id": wanted.delivery, "at": rfc3339(wanted.at), "order": wanted.order}
    line = {"id": "1", "sku": wanted.sku, "title": TITLE, "quantity": 1}
    buyer = {"name": BUYER, "customer": "7", "language": "en"} | ({"email": wanted.email} if wanted.email else {})
    told: dict[str, object] = {
        "reference": wanted.order,
        "paid": wanted.paid,
        "buyer": buyer,
        "ip": ADDRESS,
        "lines": [line],
    }
    refund: dict[str, object] = {"refunds": [{"id": "1", "lines": [{"id": "1", "quantity": 1}]}]}
    body = _json(order | (refund if wanted.refund else told))
    proof = signed.sign(secret, body, wanted.at // 1000)[signed.SIGNATURE]
    return Webhook(_with_type({"X-Gateway-Signature": proof}), body)


_KINDS: Mapping[str, Callable[[Wanted, bytes], Webhook]] = {
    "shopify": _shopify,
    "woocommerce": _woocommerce,
    "shoper": _shoper,
    "signed": _signed,
}


def _number(order: str) -> int | str:
    """As these shops write their ids: without quotes, where it is a number."""
    return int(order) if order.isascii() and order.isdigit() and len(order) <= _DIGITS_MAX else order


_DIGITS_MAX = 18


def _with_type(headers: Mapping[str, str]) -> dict[str, str]:
    return {"Content-Type": "application/json", **headers}


def _json(document: Mapping[str, object]) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
