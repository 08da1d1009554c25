"""What the API answers: one model for each document, from which the description of the API is made, too."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from gateway.order_ports import Mail, Purpose
from gateway.policy.orders import Order
from gateway.services.desk import Shown


class Answer(BaseModel):
    """A JSON object. Times are RFC 3339 in UTC."""

    model_config = ConfigDict(frozen=True)


class FreezeAnswer(Answer):
    """Whether all downloads are stopped, and since when."""

    frozen: bool
    since: str | None = None


class FileUse(Answer):
    """A file of a link, and its downloads so far; `limit` is how many there may be."""

    key: str | None
    url: str | None
    name: str | None
    downloads: int
    limit: int | None


class Used(Answer):
    """What a link has taken of its limits; `networks` and `devices` are counted only where they are limited."""

    networks: int
    devices: int
    concurrent: int
    first_download: str | None


class LinkAnswer(Answer):
    """A link as it stands."""

    token_id: str = Field(examples=["5f2b8c1d9e0a7b6c5d4e3f21"])
    state: Literal["valid", "not yet valid", "expired", "used up", "revoked"]
    created: str | None = Field(examples=["2026-11-21T09:30:00Z"])
    expires: str
    extended: bool
    revoked: bool
    order_id: str | None
    customer_id: str | None
    plan: str | None
    tier: str | None
    account: bool
    ip: tuple[str, ...]
    limits: dict[str, int]
    used: Used
    files: tuple[FileUse, ...]


class MadeLink(LinkAnswer):
    """A link that was just made; `link` is the only place where its token is ever shown."""

    link: str = Field(examples=["https://dl.example.com/l/eyJ…"])


class LinksAnswer(Answer):
    """Links, oldest first."""

    links: tuple[LinkAnswer, ...]


class Extended(Answer):
    """A link, and until when it is valid now."""

    token_id: str
    expires: str


class Revoked(Answer):
    """A link that is revoked; `already`: it was before."""

    token_id: str
    already: bool


class FoundOrder(Answer):
    """An order that was found; nothing of its buyer."""

    order_id: str = Field(examples=["main-10001"])
    reference: str
    shop: str
    paid: bool


class FoundOrders(Answer):
    """Orders, the newest first, 100 at most."""

    orders: tuple[FoundOrder, ...]


class BuyerAnswer(Answer):
    """Whom the shop sold to; "" is what it did not tell."""

    email: str
    name: str
    customer_id: str
    language: str


class LineAnswer(Answer):
    """One line; `taken_back` says why it is not the buyer's any more, or is ""."""

    line_id: str
    title: str
    sku: str
    quantity: int
    taken_back: Literal["", "charged_back", "cancelled", "refunded", "withdrawn"]


class HoldingAnswer(Answer):
    """A file that is the buyer's now; `until` is null where that does not end."""

    file: str
    until: str | None


class MailAnswer(Answer):
    """A mail with the order's links, or with a one-time code; `answer` is the mail server's last word."""

    mail_id: str
    purpose: Purpose
    state: Literal["queued", "accepted", "bounced", "failed"]
    created: str
    attempts: int
    answer: str


class IssuedAnswer(Answer):
    """A link of the order, as it was made; `GET /links?order=` says how it stands."""

    token_id: str
    issued: str
    line_ids: tuple[str, ...]
    files: tuple[str, ...]


class OrderAnswer(FoundOrder):
    """An order as far as it is known; `mails` is null where they could not be read after a change that was made."""

    confirmed: bool
    buyer: BuyerAnswer
    lines: tuple[LineAnswer, ...]
    holdings: tuple[HoldingAnswer, ...]
    mails: tuple[MailAnswer, ...] | None
    links: tuple[IssuedAnswer, ...]


class EventsAnswer(Answer):
    """Events, oldest first, as in docs/events.md. While `next` is not null there may be more, even after none."""

    events: tuple[dict[str, str], ...]
    next: str | None = Field(examples=["1795228200125-0"])


def utc(moment: float) -> str:
    """Unix seconds as `2026-11-21T09:30:00Z` (RFC 3339)."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def link_answer(shown: Shown) -> LinkAnswer:
    """A link, for a caller."""
    now, claims = shown.now, shown.now.link.claims
    created, first = now.link.created_ms, shown.taken.first_ms
    most = now.limits.get("downloads")
    return LinkAnswer.model_validate(
        {
            "token_id": claims.token_id,
            "state": shown.state(int(time.time())),
            "created": None if created is None else utc(created / 1000),
            "expires": utc(now.expires_at),
            "extended": now.extended,
            "revoked": now.revoked,
            "order_id": claims.order_id,
            "customer_id": claims.customer_id,
            "plan": now.plan.name or claims.plan,
            "tier": claims.tier,
            "account": claims.account,
            "ip": [str(network) for network in claims.ip],
            "limits": dict(now.limits.values),
            "used": {
                "networks": shown.taken.networks,
                "devices": shown.taken.devices,
                "concurrent": shown.taken.live,
                "first_download": None if first is None else utc(first / 1000),
            },
            "files": [
                {
                    "key": file.key,
                    "url": file.url,
                    "name": file.name,
                    "downloads": shown.used[file.identity],
                    "limit": most,
                }
                for file in claims.files
            ],
        }
    )


def found_order(order: Order) -> FoundOrder:
    """An order that was found."""
    return FoundOrder(
        order_id=order.order_id,
        reference=order.reference or order.shop_order_id,
        shop=order.shop,
        paid=order.paid.value,
    )


def order_answer(order: Order, mails: Sequence[Mail] | None, *, needs_confirmation: bool) -> OrderAnswer:
    """An order, for a caller. `mails`: None where they are not known."""
    buyer = order.buyer.value
    until = order.holding(needs_confirmation=needs_confirmation).until
    return OrderAnswer.model_validate(
        {
            **found_order(order).model_dump(),
            "confirmed": order.confirmed.value,
            "buyer": {
                "email": order.email,
                "name": buyer.name,
                "customer_id": buyer.customer_id,
                "language": buyer.language,
            },
            "lines": [
                {
                    "line_id": line.line_id,
                    "title": line.title,
                    "sku": line.sku,
                    "quantity": line.quantity,
                    "taken_back": order.taken_back(line.line_id),
                }
                for line in order.lines.value
            ],
            "holdings": [{"file": file, "until": None if end is None else utc(end)} for file, end in until.items()],
            "mails": None
            if mails is None
            else [
                {
                    "mail_id": mail.mail_id,
                    "purpose": mail.purpose,
                    "state": mail.state,
                    "created": utc(mail.created_at / 1000),
                    "attempts": mail.attempts,
                    "answer": mail.answer,
                }
                for mail in mails
            ],
            "links": [
                {
                    "token_id": link.token_id,
                    "issued": utc(link.issued_at),
                    "line_ids": link.line_ids,
                    "files": [file.identity for file in link.files],
                }
                for link in order.links
            ],
        }
    )
