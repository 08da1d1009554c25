"""Events and links on their way from a real order book to a real Redis: once, in their sequence, whoever fails."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from gateway.backends.order_book import SqlOrderBook
from gateway.backends.redis_client import Wire
from gateway.backends.redis_events import RedisEventLog
from gateway.backends.redis_links import RedisLinks
from gateway.backends.redis_shards import RedisShards
from gateway.errors import LedgerDown
from gateway.policy.events import new_event
from gateway.policy.links import write_link
from gateway.policy.model import Claims, FileEntry
from gateway.policy.orders import Order
from gateway.policy.shards import shard_of
from gateway.services import relay as module
from gateway.services.relay import AT_ONCE, Relay

SHARDS = 3
CLAIMS = Claims("shop.example.com", "t1", 4_000_000_000, (FileEntry("ebooks/sea.pdf"),), order_id="main-1")


class Events(RedisEventLog):
    """The real log; it can be away, after so many events."""

    allowed = 10**9

    async def append_once(self, *arguments: object) -> bool:
        if self.allowed <= 0:
            raise LedgerDown("Redis is away")
        self.allowed -= 1
        return await super().append_once(*arguments)  # type: ignore[arg-type]  as they came


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EVERY", 0.02)


@pytest.fixture
async def book(tmp_path: Path) -> AsyncIterator[SqlOrderBook]:
    opened = SqlOrderBook(f"sqlite:///{tmp_path}/orders.db")
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
async def events(wire: Wire) -> AsyncIterator[Events]:
    shards = RedisShards(wire, SHARDS)
    yield Events(wire, SHARDS, shards)
    await shards.drain()


@pytest.fixture
def links(wire: Wire) -> RedisLinks:
    return RedisLinks(wire, SHARDS)


def event(event_id: str, order_id: str = "main-1", kind: str = "order.paid") -> dict[str, str]:
    return new_event(kind, event_id, 1, {"order.id": order_id})


async def put(book: SqlOrderBook, *ids: str, order_id: str = "main-1", link: str = "") -> None:
    async with book.change(order_id) as draft:
        draft.order = draft.order or Order(order_id, "main", order_id)
        if link:
            draft.links.extend((event(each, order_id, "link.created"), link) for each in ids)
        else:
            draft.events.extend(event(each, order_id) for each in ids)


async def written(events: RedisEventLog, order_id: str = "main-1") -> list[str]:
    shard = shard_of(order_id, SHARDS)
    return [fields["id"] async for _, fields in events.scan(shard) if fields.get("order.id") == order_id]


async def until(what: Callable[[], Awaitable[bool]]) -> None:
    end = time.monotonic() + 5
    while not await what():
        assert time.monotonic() < end, "it never came to that"
        await asyncio.sleep(0.01)


def emptied(book: SqlOrderBook) -> Callable[[], Awaitable[bool]]:
    async def is_empty() -> bool:
        return not await book.outgoing(1)

    return is_empty


async def test_events_are_written_in_their_sequence_each_to_its_shard(
    book: SqlOrderBook, events: Events, links: RedisLinks
) -> None:
    ids = [f"{number:03d}" for number in range(AT_ONCE * 2 + 5)]
    await put(book, *ids)
    await put(book, "other", order_id="main-2")
    relay = Relay(book, events, links, SHARDS)
    relay.start()
    await until(emptied(book))
    await relay.stop()
    assert await written(events) == ids
    assert await written(events, "main-2") == ["other"]


async def test_several_workers_write_each_once_and_in_sequence(
    book: SqlOrderBook, events: Events, links: RedisLinks, tmp_path: Path
) -> None:
    ids = [f"{number:03d}" for number in range(150)]
    await put(book, *ids)
    others = [SqlOrderBook(f"sqlite:///{tmp_path}/orders.db") for _ in range(3)]
    relays = [Relay(each, events, links, SHARDS) for each in (book, *others)]
    for relay in relays:
        relay.start()
    await until(emptied(book))
    for relay in relays:
        await relay.stop()
    for other in others:
        await other.close()
    assert await written(events) == ids


async def test_a_link_is_listed_before_its_event_is_told(book: SqlOrderBook, events: Events, links: RedisLinks) -> None:
    await put(book, "e1", link=write_link(CLAIMS, 5))
    relay = Relay(book, events, links, SHARDS)
    relay.start()
    await until(emptied(book))
    await relay.stop()
    [link] = await links.of_order("main-1")
    assert (link.claims, link.created_ms) == (CLAIMS, 5)
    assert await written(events) == ["e1"]


async def test_while_redis_is_away_events_wait_and_none_is_lost_or_doubled(
    book: SqlOrderBook, events: Events, links: RedisLinks, caplog: pytest.LogCaptureFixture
) -> None:
    events.allowed = 3
    ids = [f"{number:03d}" for number in range(10)]
    await put(book, *ids)
    relay = Relay(book, events, links, SHARDS)
    relay.start()

    async def some() -> bool:
        return len(await written(events)) == 3

    await until(some)
    await asyncio.sleep(0.1)
    assert [each.fields["id"] for each in await book.outgoing(100)] == ids[3:]
    assert [record.message for record in caplog.records] == ["events of orders wait in the order book: Redis is away"]
    events.allowed = 10**9
    await until(emptied(book))
    await relay.stop()
    assert await written(events) == ids


async def test_a_worker_that_dies_between_writing_and_noting_it_doubles_nothing(
    book: SqlOrderBook, events: Events, links: RedisLinks, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(book, "e1", "e2")

    async def dead(_numbers: object) -> None:
        await asyncio.Event().wait()

    first = Relay(book, events, links, SHARDS)
    with monkeypatch.context() as patch:
        patch.setattr(book, "sent", dead)
        first.start()

        async def both() -> bool:
            return len(await written(events)) == 2

        await until(both)
        await first.stop()
    second = Relay(book, events, links, SHARDS)
    second.start()
    await until(emptied(book))
    await second.stop()
    assert await written(events) == ["e1", "e2"]


async def test_a_link_that_cannot_be_read_holds_nothing_up(
    book: SqlOrderBook, events: Events, links: RedisLinks, caplog: pytest.LogCaptureFixture
) -> None:
    await put(book, "e1", link='{"claims": {"secret": 1}}')
    await put(book, "e2")
    relay = Relay(book, events, links, SHARDS)
    relay.start()
    await until(emptied(book))
    await relay.stop()
    assert await written(events) == ["e1", "e2"]
    assert "cannot be read, and is not listed" in caplog.text
    assert "secret" not in caplog.text


async def test_whatever_breaks_it_goes_on(
    book: SqlOrderBook, events: Events, links: RedisLinks, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = [RuntimeError("x"), ValueError("y")]
    outgoing = book.outgoing

    async def sometimes(most: int) -> object:
        if broken:
            raise broken.pop()
        return await outgoing(most)

    await put(book, "e1")
    monkeypatch.setattr(book, "outgoing", sometimes)
    relay = Relay(book, events, links, SHARDS)
    relay.start()

    async def told() -> bool:
        return await written(events) == ["e1"]

    await until(told)
    await relay.stop()
