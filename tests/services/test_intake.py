"""Webhooks of shops as they come: genuine, kept in a real order book, and answered only then."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from pathlib import Path

import pytest

from gateway.backends.order_book import SqlOrderBook
from gateway.errors import OrdersDown
from gateway.order_ports import Delivery
from gateway.services.identifiers import now_ms
from gateway.services.intake import AGE_MAX, Heard, Intake, Source
from gateway.shops import SHOPS
from gateway.shops.samples import Wanted, Webhook, sample

OLD, NEW = b"the old secret of the shop", b"the new secret of the shop"


class Bell:
    """Counts."""

    rang = 0

    async def ring(self) -> None:
        self.rang += 1

    async def heard(self) -> AsyncGenerator[None, None]:
        yield


class Book(SqlOrderBook):
    """The real book; it can be away."""

    away = False

    async def take_in(self, delivery: Delivery) -> bool:
        if self.away:
            raise OrdersDown("the database is away")
        return await super().take_in(delivery)


@pytest.fixture
async def book(tmp_path: Path) -> AsyncIterator[Book]:
    opened = Book(f"sqlite:///{tmp_path}/orders.db")
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
def bell() -> Bell:
    return Bell()


@pytest.fixture
def intake(book: Book, bell: Bell) -> Intake:
    sources = {kind: Source(SHOPS[kind], (NEW, OLD)) for kind in ("signed", "shopify", "woocommerce")}
    return Intake(book, bell, sources)


def made(kind: str, *, secret: bytes = NEW, at: int | None = None, delivery: str = "d1") -> Webhook:
    wanted = Wanted("1", now_ms() if at is None else at, delivery, "SEA", "jan@example.com")
    return sample(kind, wanted, secret)


def headers(webhook: Webhook) -> Mapping[str, Sequence[str]]:
    return {name.lower(): (value,) for name, value in webhook.headers.items()}


async def take(intake: Intake, kind: str, webhook: Webhook) -> Heard:
    return await intake.take(kind, headers(webhook), webhook.body)


KINDS = pytest.mark.parametrize("kind", ["signed", "shopify", "woocommerce"])


@KINDS
@pytest.mark.parametrize("secret", [NEW, OLD])
async def test_a_genuine_one_is_kept_and_then_answered(
    intake: Intake, book: Book, bell: Bell, kind: str, secret: bytes
) -> None:
    webhook = made(kind, secret=secret)
    heard = await take(intake, kind, webhook)
    assert (heard.status, heard.outcome) == (200, "taken")
    assert bell.rang == 1
    delivery = await book.next_delivery(now_ms(), 1000)
    assert delivery is not None
    assert (delivery.shop, delivery.body) == (kind, webhook.body)
    assert set(delivery.headers) <= SHOPS[kind].kept, "no signature and no cookie is kept"


@KINDS
async def test_twenty_copies_at_once_are_one(intake: Intake, book: Book, bell: Bell, kind: str) -> None:
    webhook = made(kind)
    answers = await asyncio.gather(*(take(intake, kind, webhook) for _ in range(20)))
    assert sorted(answer.outcome for answer in answers) == ["known"] * 19 + ["taken"]
    assert {answer.status for answer in answers} == {200}
    assert bell.rang == 1
    assert await book.next_delivery(now_ms(), 1000) is not None
    assert await book.next_delivery(now_ms(), 1000) is None


@KINDS
async def test_what_cannot_be_kept_is_to_come_again(intake: Intake, book: Book, bell: Bell, kind: str) -> None:
    book.away = True
    heard = await take(intake, kind, made(kind))
    assert (heard.status, heard.outcome, bell.rang) == (503, "orders.down", 0)
    book.away = False
    assert (await take(intake, kind, made(kind))).outcome == "taken"


@KINDS
async def test_a_forged_one_is_refused_and_leaves_nothing(
    intake: Intake, book: Book, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    webhook = made(kind, secret=b"another secret")
    heard = await take(intake, kind, webhook)
    assert (heard.status, heard.outcome) == (401, "hook.signature")
    changed = made(kind)
    assert (await take(intake, kind, Webhook(changed.headers, changed.body + b" "))).status == 401
    assert (await intake.take(kind, {}, changed.body)).status == 401
    assert await book.next_delivery(now_ms(), 1000) is None
    said = caplog.text + heard.text
    assert not any(value in said for name, value in webhook.headers.items() if "signature" in name.lower())
    assert "jan@example.com" not in said


async def test_a_signature_that_has_a_time_gets_old(intake: Intake, book: Book) -> None:
    for apart in (-AGE_MAX - 5, AGE_MAX + 5):
        heard = await take(intake, "signed", made("signed", at=now_ms() + apart * 1000))
        assert (heard.status, heard.outcome) == (401, "hook.too_old")
    assert await book.next_delivery(now_ms() * 2, 1000) is None


async def test_a_shop_that_is_not_in_the_settings(intake: Intake) -> None:
    heard = await take(intake, "nobody", made("signed"))
    assert (heard.status, heard.outcome) == (404, "shop.unknown")
