"""Any other shop: one JSON form of our own, signed together with its time. docs/shops.md has all of it.

Whoever sends it can put it right, so whatever is not as documented is refused, and the field is named.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated

from pydantic import BeforeValidator, ConfigDict

from gateway.policy.orders import Buyer, Line, Notice, Refund
from gateway.shops.base import Headers, Ignored
from gateway.shops.fields import (
    AtMostLines,
    Id,
    Moment,
    StrictEmail,
    StrictIp,
    StrictLanguage,
    StrictQuantity,
    StrictText,
    lines_of,
)
from gateway.shops.genuine import digest, hmac_sha256, judged, only, unfit
from gateway.shops.payload import Payload, read_as

SIGNATURE = "x-gateway-signature"

_SIGNATURE = re.compile(r"t=([1-9][0-9]{0,11}),v1=([0-9a-f]{64})")
_DELIVERY = re.compile(r"[!-~]{1,100}")


class Signed:
    """See docs/shops.md."""

    kept: frozenset[str] = frozenset()
    ours = True

    def verify(self, headers: Headers, body: bytes, secrets: Sequence[bytes]) -> str:
        """ "" where `v1` is the HMAC of `t.body`. Its age is judged by who has a clock."""
        found = _parts(headers)
        if found is None:
            return f"the header {SIGNATURE} is not there once, as t=UNIX,v1=HEX"
        return unfit(headers, body) or judged(found[2], [_hmac(secret, found[1], body) for secret in secrets])

    def signed_at(self, headers: Headers) -> int | None:
        """The `t` of the header (Unix s), or None where there is none. It is proven by `verify`, and only then."""
        found = _parts(headers)
        return None if found is None else int(found[1])

    def delivery_id(self, headers: Headers, body: bytes) -> str:
        """The sender's `id` and the body's name: a second notice under a used id is news, not a copy."""
        try:
            name = read_as(_Named, body).id
        except ValueError:
            name = ""
        return f"{name}:{digest(body)}"

    def read(self, headers: Headers, body: bytes, received_at: int) -> Notice | Ignored:
        """What it says of its order. Raises ValueError."""
        form = read_as(_Form, body)
        return Notice(
            shop_order_id=form.order,
            at=form.at,
            reference=form.reference,
            paid=form.paid,
            confirmed=form.confirmed,
            cancelled=form.cancelled,
            refunded=form.refunded,
            charged_back=form.charged_back,
            ends_at=None if form.ends_at is None else form.ends_at // 1000,
            buyer=_buyer(form.buyer),
            address=form.ip,
            lines=None if form.lines is None else lines_of([_line(each) for each in form.lines]),
            refunds=_refunds(form.refunds or []),
        )


def sign(secret: bytes, body: bytes, at: int) -> dict[str, str]:
    """The header for this body, signed at this time (Unix s)."""
    return {SIGNATURE: f"t={at},v1={_hmac(secret, str(at), body)}"}


def _hmac(secret: bytes, at: str, body: bytes) -> str:
    return hmac_sha256(secret, at.encode() + b"." + body).hex()


def _parts(headers: Headers) -> re.Match[str] | None:
    return _SIGNATURE.fullmatch(only(headers, SIGNATURE) or "")


def _delivery(value: object) -> str:
    if not isinstance(value, str) or not _DELIVERY.fullmatch(value):
        raise ValueError("is no text of 1 to 100 visible ASCII characters")
    return value


def _is_given(value: object) -> object:
    if value == "":
        raise ValueError('is empty; leave it out where there is none, instead of ""')
    return value


DeliveryId = Annotated[str, BeforeValidator(_delivery)]
GivenText = Annotated[StrictText, BeforeValidator(_is_given)]


class _Named(Payload):
    id: DeliveryId


class _Strict(Payload):
    model_config = ConfigDict(extra="forbid")


class _FormBuyer(_Strict):
    email: StrictEmail = ""
    name: StrictText = ""
    customer: StrictText = ""
    language: StrictLanguage = ""


class _FormLine(_Strict):
    id: Id
    quantity: StrictQuantity = 1
    sku: GivenText = ""
    product: GivenText = ""
    variant: GivenText = ""
    title: StrictText = ""


class _FormRefundLine(_Strict):
    id: Id
    quantity: StrictQuantity


class _FormRefund(_Strict):
    id: Id
    lines: Annotated[list[_FormRefundLine] | None, AtMostLines] = None


class _Form(_Strict):
    id: DeliveryId
    at: Moment
    order: Id
    reference: StrictText = ""
    paid: bool | None = None
    confirmed: bool | None = None
    cancelled: bool | None = None
    refunded: bool | None = None
    charged_back: bool | None = None
    ends_at: Moment | None = None
    buyer: _FormBuyer | None = None
    ip: StrictIp = None
    lines: Annotated[list[_FormLine] | None, AtMostLines] = None
    refunds: Annotated[list[_FormRefund] | None, AtMostLines] = None


def _buyer(buyer: _FormBuyer | None) -> Buyer | None:
    return None if buyer is None else Buyer(buyer.email, buyer.name, buyer.customer, buyer.language)


def _line(line: _FormLine) -> Line:
    return Line(line.id, line.quantity, line.sku, line.product, line.variant, line.title)


def _refunds(refunds: list[_FormRefund]) -> tuple[Refund, ...]:
    if len({refund.id for refund in refunds}) != len(refunds):
        raise ValueError("two refunds have the same id")
    return tuple(_refund(refund) for refund in refunds)


def _refund(refund: _FormRefund) -> Refund:
    quantities = [(line.id, line.quantity) for line in refund.lines or []]
    if len(dict(quantities)) != len(quantities):
        raise ValueError("a refund names one line twice")
    return Refund(refund.id, tuple(quantities))
