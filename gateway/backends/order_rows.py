"""Orders and mails as rows of the order book, and texts as they are looked up in it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import cast

from sqlalchemy import Row

from gateway.backends.order_documents import write_order
from gateway.order_ports import Mail, Purpose
from gateway.policy.orders import Order

TEXT_MAX = 500
"""Characters of a text that is looked up; PostgreSQL's indexes take 2,704 bytes."""

Values = Mapping[str, str | int]


def row_of_order(order: Order) -> Values:
    """The order's columns, but for its numbers."""
    buyer = order.buyer.value
    return {
        "order_id": order.order_id,
        "shop": kept(order.shop),
        "shop_order_id": exact(order.shop_order_id),
        "reference": reference(order.reference),
        "email": loose(order.email),
        "customer_id": exact(buyer.customer_id),
        "document": write_order(order),
    }


def row_of_mail(mail: Mail) -> Values:
    """The mail's columns."""
    return {
        "mail_id": mail.mail_id,
        "order_id": mail.order_id,
        "purpose": mail.purpose,
        "number": mail.number,
        "recipient": kept(mail.to),
        "language": kept(mail.language),
        "created_at": mail.created_at,
        **fate_of_mail(mail),
    }


def fate_of_mail(mail: Mail) -> Values:
    """Those that change with what becomes of it."""
    return {"state": mail.state, "attempts": mail.attempts, "due_at": mail.due_at, "answer": kept(mail.answer)}


def mail_of(row: Row[tuple[object, ...]]) -> Mail:
    """The mail that was kept so."""
    return Mail(
        mail_id=row.mail_id,
        order_id=row.order_id,
        purpose=cast(Purpose, row.purpose),
        number=row.number,
        to=row.recipient,
        language=row.language,
        created_at=row.created_at,
        state=row.state,
        attempts=row.attempts,
        due_at=row.due_at,
        answer=row.answer,
    )


def named(text: str) -> bool:
    """Whether a row can be called so: 1 to TEXT_MAX characters that every database takes."""
    return 0 < len(text) <= TEXT_MAX and kept(text) == text


def kept(text: str) -> str:
    """The text without what no database takes as text: NUL, and halves of surrogate pairs."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()


def exact(text: str) -> str:
    """How an id is looked up. A very long one is known by its hash."""
    text = kept(text).strip()
    return text if len(text) <= TEXT_MAX else hashlib.sha256(text.encode()).hexdigest()


def loose(text: str) -> str:
    """How an e-mail address is looked up: capital and small letters are the same."""
    return exact(text.casefold())


def reference(text: str) -> str:
    """How the number that the buyer knows is looked up: with or without the # that some shops print before it."""
    return loose(text.strip().removeprefix("#"))
