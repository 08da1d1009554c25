"""Shoper: order webhooks as its help pages and public programs describe them; none was seen from a live shop.

The topic is not signed, so an order is paid only where the signed body says so.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Annotated

from pydantic import AliasChoices, BeforeValidator, Field

from gateway.policy.orders import Buyer, Line, Notice
from gateway.shops.base import Headers, Ignored
from gateway.shops.fields import AtMostLines, Email, Id, IdOrNone, Ip, Quantity, Text, lines_of, named
from gateway.shops.genuine import digest, judged, only, unfit, word
from gateway.shops.payload import Payload, read_as

SIGNATURE = "x-webhook-sha1"
WEBHOOK = "x-webhook-id"
TOPIC = "x-webhook-name"

CREATED = "order.create"
ORDERS = frozenset({CREATED, "order.edit", "order.paid", "order.status"})
DELETED = "order.delete"

_NOT_COMPLETED = 4  # of a status: 1 new, 2 in progress, 3 completed
_BILLING = AliasChoices("billingAddress", "billing_address")
_NUMBER = re.compile(r"[0-9]{1,12}(\.[0-9]{1,8})?")


class Shoper:
    """See docs/shops.md."""

    kept = frozenset({TOPIC, WEBHOOK})
    ours = False

    def verify(self, headers: Headers, body: bytes, secrets: Sequence[bytes]) -> str:
        """ "" where `X-Webhook-SHA1` is the SHA-1 of `id:secret:body`, with the id of `X-Webhook-Id`."""
        given = only(headers, SIGNATURE)
        if given is None:
            return f"the header {SIGNATURE} is missing, empty, too long or there twice"
        webhook = word(headers, WEBHOOK)
        if not webhook:
            return f"the header {WEBHOOK} is missing, there twice, or no plain word"
        return unfit(headers, body) or judged(given, [_sha1(webhook, secret, body) for secret in secrets])

    def signed_at(self, headers: Headers) -> int | None:
        """None: Shoper signs no time. A webhook sent again much later changes nothing."""
        return None

    def delivery_id(self, headers: Headers, body: bytes) -> str:
        """The webhook's id is the same for all orders, so the body's name stands beside it."""
        return f"{word(headers, TOPIC)[:40]}:{word(headers, WEBHOOK)}:{digest(body)}"

    def read(self, headers: Headers, body: bytes, received_at: int) -> Notice | Ignored:
        """What it says of its order, as of `received_at`: no time in it is when it was so. Raises ValueError."""
        topic = word(headers, TOPIC)
        if topic == DELETED:
            return Notice(read_as(_Deleted, body).order_id, received_at, cancelled=True)
        if topic in ORDERS:
            return _order(read_as(_Order, body), topic, received_at)
        return Ignored("its topic is none that says whether an order is paid")


def sign(secret: bytes, body: bytes, webhook: str) -> dict[str, str]:
    """The headers with which Shoper would send this body."""
    return {WEBHOOK: webhook, SIGNATURE: _sha1(webhook, secret, body)}


def _sha1(webhook: str, secret: bytes, body: bytes) -> str:
    return hashlib.sha1(b":".join((webhook.encode(), secret, body))).hexdigest()  # noqa: S324  # the shop's choice


def _flag(value: object) -> bool:
    if value in (0, "0") or value is False:
        return False
    if value in (1, "1") or value is True:
        return True
    raise ValueError("is neither 0 nor 1")


def _pieces(value: object) -> object:
    """Numbers come as texts too."""
    try:
        return Decimal(value) if isinstance(value, str) and _NUMBER.fullmatch(value) else value
    except InvalidOperation:
        return value


def _listed(value: object) -> object:
    """PHP writes a list as an object where its numbers do not begin at 0."""
    return list(value.values()) if isinstance(value, dict) else value


def _whole(value: object) -> object:
    return int(value) if isinstance(value, str) and value in ("1", "2", "3", "4") else value


Flag = Annotated[bool, BeforeValidator(_flag)]


class _Deleted(Payload):
    order_id: Id


class _Address(Payload):
    firstname: Text = ""
    lastname: Text = ""


class _Status(Payload):
    type: Annotated[int | None, BeforeValidator(_whole)] = None


class _Product(Payload):
    id: Id
    quantity: Annotated[Quantity, BeforeValidator(_pieces)]
    code: Text = ""
    product_id: IdOrNone = ""
    stock_id: IdOrNone = ""
    name: Text = ""


class _Order(Payload):
    order_id: Id
    is_paid: Flag | None = None
    confirm: Flag | None = None
    status: _Status | None = None
    user_id: IdOrNone = ""
    email: Email = ""
    ip_address: Ip = None
    billing_address: Annotated[_Address | None, Field(validation_alias=_BILLING)] = None
    products: Annotated[Annotated[list[_Product], AtMostLines] | None, BeforeValidator(_listed)] = None


def _order(order: _Order, topic: str, received_at: int) -> Notice:
    paid = order.is_paid
    if paid is None and topic == "order.paid":
        raise ValueError("is_paid is missing, and order.paid alone is not signed")
    address = order.billing_address or _Address()
    kind = order.status.type if order.status is not None else None
    return Notice(
        shop_order_id=order.order_id,
        at=received_at,
        reference=order.order_id,
        # Without a time of the shop's, a belated order.create must not undo the order.paid that overtook it.
        paid=None if topic == CREATED and not paid else paid,
        confirmed=order.confirm,
        cancelled=None if kind is None else kind == _NOT_COMPLETED,
        buyer=named(Buyer(order.email, f"{address.firstname} {address.lastname}".strip(), order.user_id)),
        address=order.ip_address,
        lines=None if order.products is None else lines_of([_line(each) for each in order.products]),
    )


def _line(product: _Product) -> Line:
    return Line(product.id, product.quantity, product.code, product.product_id, product.stock_id, product.name)
