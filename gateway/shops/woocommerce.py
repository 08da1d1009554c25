"""WooCommerce: its order webhooks, in the form of its REST API.

The body alone is signed. Whether an order is paid is said by the body; the topic is believed where it takes away.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated

from gateway.policy.orders import Buyer, Line, Notice, Refund
from gateway.shops.base import Headers, Ignored
from gateway.shops.fields import (
    AtMostLines,
    Email,
    Id,
    IdOrNone,
    Ip,
    Quantity,
    Text,
    UtcMoment,
    lines_of,
    named,
)
from gateway.shops.genuine import by_base64_hmac, digest, hmac_base64, word
from gateway.shops.payload import Payload, read_as

SIGNATURE = "x-wc-webhook-signature"
TOPIC = "x-wc-webhook-topic"
DELIVERY = "x-wc-webhook-delivery-id"

ORDERS = frozenset({"order.created", "order.updated", "order.restored"})
DELETED = "order.deleted"

_PING = re.compile(rb"webhook_id=[0-9]{1,20}")
_PAID = frozenset({"processing", "completed"})
_UNPAID = frozenset({"pending", "on-hold", "failed", "checkout-draft", "auto-draft", "draft"})
_GONE = frozenset({"cancelled", "trash"})


class WooCommerce:
    """See docs/shops.md."""

    kept = frozenset({TOPIC, DELIVERY})
    ours = False

    def verify(self, headers: Headers, body: bytes, secrets: Sequence[bytes]) -> str:
        """ "" where `X-WC-Webhook-Signature` is of this body, and for the ping, which is never signed."""
        if _PING.fullmatch(body) and SIGNATURE not in headers:
            return ""
        return by_base64_hmac(headers, SIGNATURE, body, secrets)

    def signed_at(self, headers: Headers) -> int | None:
        """None: WooCommerce signs no time. A webhook sent again much later changes nothing."""
        return None

    def delivery_id(self, headers: Headers, body: bytes) -> str:
        """The delivery's id and the body's name: WooCommerce makes that id of the second and the webhook alone, so two
        orders of one second have the same. All pings have one, for anybody can send them.
        """
        if _PING.fullmatch(body):
            return "ping"
        return f"{word(headers, TOPIC)[:40]}:{word(headers, DELIVERY)}:{digest(body)}"

    def read(self, headers: Headers, body: bytes, received_at: int) -> Notice | Ignored:
        """What it says of its order; `received_at` dates a deletion, which tells no time. Raises ValueError."""
        if _PING.fullmatch(body):
            return Ignored("it is the ping that WooCommerce sends when a webhook is saved")
        topic = word(headers, TOPIC)
        if topic == DELETED:
            return Notice(read_as(_Deleted, body).id, received_at, cancelled=True)
        if topic in ORDERS:
            return _order(read_as(_Order, body))
        return Ignored("its topic is none that says whether an order is paid")


def sign(secret: bytes, body: bytes) -> dict[str, str]:
    """The header with which WooCommerce would send this body."""
    return {SIGNATURE: hmac_base64(secret, body)}


class _Deleted(Payload):
    id: Id


class _Billing(Payload):
    first_name: Text = ""
    last_name: Text = ""
    email: Email = ""


class _Line(Payload):
    id: Id
    quantity: Quantity
    name: Text = ""
    product_id: IdOrNone = ""
    variation_id: IdOrNone = ""
    sku: Text = ""


class _Refund(Payload):
    id: Id


class _Order(Payload):
    id: Id
    status: Text
    number: Text = ""
    date_created_gmt: UtcMoment | None = None
    date_modified_gmt: UtcMoment | None = None
    date_paid_gmt: UtcMoment | None = None
    customer_id: IdOrNone = ""
    customer_ip_address: Ip = None
    billing: _Billing | None = None
    line_items: Annotated[list[_Line] | None, AtMostLines] = None
    refunds: Annotated[list[_Refund] | None, AtMostLines] = None


def _order(order: _Order) -> Notice:
    at = order.date_modified_gmt if order.date_modified_gmt is not None else order.date_created_gmt
    if at is None:
        raise ValueError("date_modified_gmt is missing")
    billing = order.billing or _Billing()
    buyer = Buyer(billing.email, f"{billing.first_name} {billing.last_name}".strip(), order.customer_id)
    status = order.status.removeprefix("wc-")
    return Notice(
        shop_order_id=order.id,
        at=at,
        reference=order.number,
        paid=_is_paid(status, order.date_paid_gmt),
        # The shop's own word that an order is in order: its staff, or for downloads WooCommerce itself, completes it.
        confirmed={"completed": True, "processing": False}.get(status),
        cancelled=status in _GONE,
        refunded=status == "refunded",
        buyer=named(buyer),
        address=order.customer_ip_address,
        lines=None if order.line_items is None else lines_of([_line(each) for each in order.line_items]),
        refunds=tuple(Refund(each.id) for each in order.refunds or ()),
    )


def _is_paid(status: str, paid_at: int | None) -> bool:
    """Of a status of the shop's own making, and of orders taken back, the time of the payment tells."""
    if status in _PAID or status == "refunded":
        return True
    return status not in _UNPAID and paid_at is not None


def _line(line: _Line) -> Line:
    return Line(line.id, line.quantity, line.sku, line.product_id, line.variation_id, line.name)
