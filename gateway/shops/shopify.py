"""Shopify: webhooks of its Admin API, in the REST form of an order, a refund or a dispute.

The body alone is signed. The topic is not, so it chooses only how a body is read, never what has been paid.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from gateway.policy.orders import Buyer, Line, Notice, Refund
from gateway.shops.base import Headers, Ignored
from gateway.shops.fields import (
    AtMostLines,
    Day,
    Email,
    Id,
    IdOrNone,
    Ip,
    Language,
    Moment,
    Quantity,
    Text,
    added_up,
    lines_of,
    named,
)
from gateway.shops.genuine import by_base64_hmac, digest, hmac_base64, word
from gateway.shops.payload import Payload, read_as

SIGNATURE = "x-shopify-hmac-sha256"
TOPIC = "x-shopify-topic"
EVENT = "x-shopify-event-id"
WEBHOOK = "x-shopify-webhook-id"

ORDERS = frozenset({"orders/paid", "orders/create", "orders/updated", "orders/cancelled"})
REFUND = "refunds/create"
DISPUTES = frozenset({"disputes/create", "disputes/update"})

_HAS_BEEN_PAID = frozenset({"paid", "partially_refunded", "refunded"})
_NOT_PAID = frozenset({"pending", "authorized", "partially_paid", "voided", "expired"})
_DISPUTE_OPEN_OR_LOST = frozenset({"needs_response", "under_review", "charge_refunded", "accepted", "lost"})


class Shopify:
    """See docs/shops.md."""

    kept = frozenset({TOPIC, EVENT, WEBHOOK})
    ours = False

    def verify(self, headers: Headers, body: bytes, secrets: Sequence[bytes]) -> str:
        """ "" where `X-Shopify-Hmac-Sha256` is of this body."""
        return by_base64_hmac(headers, SIGNATURE, body, secrets)

    def signed_at(self, headers: Headers) -> int | None:
        """None: Shopify signs no time. A webhook sent again much later changes nothing."""
        return None

    def delivery_id(self, headers: Headers, body: bytes) -> str:
        """The event's id, else the webhook's: what Shopify's own pages call the mark of a copy, one page each.

        One event makes webhooks of several topics, and perhaps of several orders, which are no copies of each other.
        """
        name = word(headers, EVENT) or word(headers, WEBHOOK)
        try:
            about = read_as(_Any, body).id
        except ValueError:
            about = ""
        # Of an id that no shop would give, or of none, the body itself is the name.
        short = name and about and len(about) <= _NUMBER_MAX
        return f"{word(headers, TOPIC)[:40]}:{name}:{about}" if short else f"{word(headers, TOPIC)}:{digest(body)}"

    def read(self, headers: Headers, body: bytes, received_at: int) -> Notice | Ignored:
        """What it says of its order. Raises ValueError."""
        topic = word(headers, TOPIC)
        if topic in ORDERS:
            return _order(read_as(_Order, body))
        if topic == REFUND:
            return _refund(read_as(_RefundOfOrder, body))
        if topic in DISPUTES:
            return _dispute(read_as(_Dispute, body))
        return Ignored("its topic is none that says whether an order is paid")


def sign(secret: bytes, body: bytes) -> dict[str, str]:
    """The header with which Shopify would send this body."""
    return {SIGNATURE: hmac_base64(secret, body)}


_NUMBER_MAX = 40


class _Any(Payload):
    id: Id


class _Customer(Payload):
    id: IdOrNone = ""
    email: Email = ""
    first_name: Text = ""
    last_name: Text = ""


class _Address(Payload):
    name: Text = ""


class _Client(Payload):
    browser_ip: Ip = None


class _Line(Payload):
    id: Id
    quantity: Quantity
    sku: Text = ""
    product_id: IdOrNone = ""
    variant_id: IdOrNone = ""
    name: Text = ""
    title: Text = ""


class _RefundLine(Payload):
    line_item_id: Id
    quantity: Quantity


class _Refund(Payload):
    id: Id
    refund_line_items: Annotated[list[_RefundLine] | None, AtMostLines] = None


class _RefundOfOrder(_Refund):
    order_id: Id
    created_at: Moment


class _Order(Payload):
    id: Id
    updated_at: Moment
    name: Text = ""
    financial_status: Text = ""
    confirmed: bool | None = None
    cancelled_at: Moment | None = None
    email: Email = ""
    contact_email: Email = ""
    customer_locale: Language = ""
    customer: _Customer | None = None
    billing_address: _Address | None = None
    browser_ip: Ip = None
    client_details: _Client | None = None
    line_items: Annotated[list[_Line] | None, AtMostLines] = None
    refunds: Annotated[list[_Refund] | None, AtMostLines] = None


class _Dispute(Payload):
    order_id: IdOrNone = ""
    type: Text = ""
    status: Text = ""
    initiated_at: Moment
    finalized_on: Day | None = None


def _order(order: _Order) -> Notice:
    status = order.financial_status
    if status and status not in _HAS_BEEN_PAID | _NOT_PAID:
        raise ValueError("financial_status is none that Shopify documents")
    return Notice(
        shop_order_id=order.id,
        at=order.updated_at,
        reference=order.name,
        paid=status in _HAS_BEEN_PAID if status else None,
        confirmed=order.confirmed,
        cancelled=order.cancelled_at is not None,
        refunded=status == "refunded" if status else None,
        buyer=_buyer(order),
        address=order.browser_ip or (order.client_details or _Client()).browser_ip,
        lines=None if order.line_items is None else lines_of([_line(each) for each in order.line_items]),
        refunds=tuple(_taken(each) for each in order.refunds or ()),
    )


def _buyer(order: _Order) -> Buyer | None:
    customer = order.customer or _Customer()
    address = order.billing_address or _Address()
    return named(
        Buyer(
            email=order.email or order.contact_email or customer.email,
            name=address.name or f"{customer.first_name} {customer.last_name}".strip(),
            customer_id=customer.id,
            language=order.customer_locale,
        )
    )


def _line(line: _Line) -> Line:
    return Line(line.id, line.quantity, line.sku, line.product_id, line.variant_id, line.name or line.title)


def _taken(refund: _Refund) -> Refund:
    return Refund(refund.id, added_up([(each.line_item_id, each.quantity) for each in refund.refund_line_items or ()]))


def _refund(refund: _RefundOfOrder) -> Notice:
    return Notice(refund.order_id, refund.created_at, refunds=(_taken(refund),))


def _dispute(dispute: _Dispute) -> Notice | Ignored:
    if not dispute.order_id:
        return Ignored("the dispute is of no order")
    if dispute.type == "inquiry":
        return Ignored("an inquiry of the bank is no chargeback yet")
    won = dispute.status == "won"
    if dispute.type != "chargeback" or not (won or dispute.status in _DISPUTE_OPEN_OR_LOST):
        raise ValueError("the dispute's type or status is none that Shopify documents")
    # The day of the verdict may be the day of the dispute: what is told last must not seem to be told first.
    ended = max(dispute.finalized_on or 0, dispute.initiated_at + 1)
    over = won or dispute.status in ("lost", "accepted", "charge_refunded")
    return Notice(dispute.order_id, ended if over else dispute.initiated_at, charged_back=not won)
