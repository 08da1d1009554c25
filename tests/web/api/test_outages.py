"""Whatever is down, the API says so within 2 s, nothing is half done, and the listener's other pages never wait."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer
from pydantic import SecretStr
from redis.asyncio import Redis

from gateway.bootstrap.orders import open_desk
from gateway.errors import LedgerDown
from gateway.policy.shards import shard_of
from gateway.settings import Settings
from gateway.settings_sections import OrdersSettings
from gateway.web.api.office import Offices
from gateway.web.api.opening import open_api
from gateway.web.api.users import users_of
from gateway.web.management import build_management

Ask = Callable[..., Awaitable[Any]]


class Supervised:
    def views(self) -> tuple[()]:
        return ()

    def exposition(self) -> bytes:
        return b""


@pytest.fixture
def silent() -> Iterator[int]:
    """A port where somebody listens who never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


async def refused(settings: Settings) -> None:
    app = build_management(Supervised(), users_of(settings.management), open_api(settings))
    loop = asyncio.get_running_loop()
    async with TestClient(TestServer(app)) as session:
        began = loop.time()
        asking = asyncio.create_task(
            session.get("/api/v1/links?order=1", headers={"Authorization": "Bearer token of rita"})
        )
        while not asking.done():
            looked = loop.time()
            assert (await session.get("/healthz")).status == 200
            assert loop.time() - looked < 1.0
            await asyncio.wait([asking], timeout=0.2)
        answer = await asking
        assert (answer.status, (await answer.json())["reason"], answer.headers["Retry-After"]) == (503, "down", "5")
        assert loop.time() - began < 4.0  # 2 s, and what is imported the first time


async def test_a_redis_that_refuses(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    await refused(settings.model_copy(update={"redis": SecretStr(f"redis://127.0.0.1:{port}/0")}))


async def test_a_redis_that_never_answers(settings: Settings, silent: int) -> None:
    await refused(settings.model_copy(update={"redis": SecretStr(f"redis://127.0.0.1:{silent}/0")}))


async def test_a_database_that_never_answers(settings: Settings, silent: int) -> None:
    url = SecretStr(f"postgresql://gateway@127.0.0.1:{silent}/orders")
    await refused(settings.model_copy(update={"orders": OrdersSettings(url=url)}))


async def test_what_cannot_be_put_on_record_is_not_done(ask: Ask, settings: Settings) -> None:
    made = (await ask("ops", "POST", "/links", {"files": [{"key": "a"}], "order_id": "10001"})).body["token_id"]
    async with Redis.from_url(settings.redis.get_secret_value()) as client:
        key = f"gw:{{{shard_of('10001', settings.shards)}}}:events"
        await client.delete(key)
        await client.set(key, "no stream")
        calls = (("/links", {"files": [{"key": "b"}], "order_id": "10001"}), (f"/links/{made}/revoke", None))
        for path, body in calls:
            answer = await ask("ops", "POST", path, body)
            assert (answer.status, answer.body["reason"]) == (503, "down")
        assert await client.xlen("gw:{0}:control") == 0
    links = (await ask("ops", "GET", "/links?order=10001")).body["links"]
    assert [(each["token_id"], each["state"]) for each in links] == [(made, "valid")]


async def test_an_order_is_changed_also_where_its_event_has_to_wait(ask: Ask, paid: str, settings: Settings) -> None:
    """The event lies in the book with the change, and follows."""
    async with Redis.from_url(settings.redis.get_secret_value()) as client:
        await client.set(f"gw:{{{shard_of(paid, settings.shards)}}}:events", "no stream")
    assert (await ask("ops", "POST", f"/orders/{paid}/revoke")).status == 200
    async with open_desk(settings) as (book, _):
        kinds = [each.fields["type"] for each in await book.outgoing(100)]
    assert kinds[-2:] == ["staff.acted", "order.withdrawn"]


class Opening:
    """Counts who is inside."""

    def __init__(self) -> None:
        self.opened = 0
        self.closed = asyncio.Event()
        self.wrong: Exception | None = None

    @contextlib.asynccontextmanager
    async def __call__(self) -> AsyncIterator[Any]:
        if self.wrong is not None:
            raise self.wrong
        self.opened += 1
        yield object()
        self.closed.set()


async def test_what_is_open_is_shared_and_closed_when_nobody_is_there() -> None:
    opening = Opening()
    offices = Offices(lambda: None, opening, idle=0.05)
    async with offices.visit() as one, offices.visit() as two:
        assert one is two
        await asyncio.sleep(0.2)
        assert (opening.opened, opening.closed.is_set()) == (1, False)
    await asyncio.wait_for(opening.closed.wait(), 5)
    async with offices.visit() as three:
        assert three is not one
    await offices.close()
    assert opening.opened == 2


async def test_what_did_not_open_is_tried_again() -> None:
    opening = Opening()
    opening.wrong = LedgerDown("Redis is away")
    offices = Offices(lambda: None, opening, idle=1)
    for _ in range(2):
        with pytest.raises(LedgerDown):
            async with offices.visit():
                pass
    opening.wrong = None
    async with offices.visit():
        assert opening.opened == 1
    await offices.close()
