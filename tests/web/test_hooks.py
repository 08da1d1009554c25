"""What strangers may make a worker hold: nothing for shops that are none, and bounded for those that are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer

from gateway.services.intake import BODY_MAX, Heard
from gateway.shops.base import Headers
from gateway.web import hooks as module
from gateway.web.hooks import Hooks


class Intake:
    """Takes what comes, and remembers it."""

    def __init__(self) -> None:
        self.taken: list[tuple[Headers, bytes]] = []

    def knows(self, shop: str) -> bool:
        return shop == "main"

    async def take(self, shop: str, headers: Headers, body: bytes) -> Heard:
        self.taken.append((headers, body))
        return Heard(200, "taken", "It is kept.")


class Worker:
    """A server with the hooks of one worker."""

    def __init__(self) -> None:
        self.intake = Intake()
        self.room = True
        self.hooks = Hooks(self.intake, lambda: self.room)
        self.base = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        return await self.hooks.answer(request, request.match_info["shop"], "r1")


@pytest.fixture
async def worker() -> AsyncIterator[Worker]:
    running = Worker()
    app = web.Application(client_max_size=10 * BODY_MAX)
    app.router.add_route("*", "/hooks/{shop}", running.handle)
    async with TestServer(app) as server:
        running.base = f"http://127.0.0.1:{server.port}"
        yield running


async def stalled(worker: Worker, shop: str, sent: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A client that sends so many bytes of a larger body, and then nothing."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(worker.base.rpartition(":")[2]))
    head = f"POST /hooks/{shop} HTTP/1.1\r\nHost: x\r\nContent-Length: {BODY_MAX}\r\n\r\n"
    writer.write(head.encode() + b"x" * sent)
    await writer.drain()
    return reader, writer


async def test_raw_bytes_and_every_header_reach_the_intake(worker: Worker) -> None:
    async with ClientSession() as client:
        given = [("X-Twice", "a"), ("X-Twice", "b")]
        async with client.post(f"{worker.base}/hooks/main", data=b'{ "a":1 }\n', headers=given) as answer:
            assert (answer.status, (await answer.json())["outcome"]) == (200, "taken")
    ((headers, body),) = worker.intake.taken
    assert body == b'{ "a":1 }\n'
    assert headers["x-twice"] == ["a", "b"]


async def test_nobody_reads_what_a_stranger_sends_to_no_shop(worker: Worker) -> None:
    reader, writer = await stalled(worker, "nobody", 1000)
    async with asyncio.timeout(2):
        assert (await reader.readline()).startswith(b"HTTP/1.1 404 ")
    writer.close()


async def test_bodies_that_do_not_end_are_bounded_together(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HELD_MAX", 300_000)
    monkeypatch.setattr(module, "WITHIN", 1.0)
    first = [await stalled(worker, "main", 100_000) for _ in range(2)]
    await asyncio.sleep(0.1)
    reader, writer = await stalled(worker, "main", 150_000)
    async with asyncio.timeout(2):
        assert (await reader.readline()).startswith(b"HTTP/1.1 503 ")
        for one, _ in first:
            assert (await one.readline()).startswith(b"HTTP/1.1 408 ")
    for _, each in (*first, (reader, writer)):
        each.close()
    async with ClientSession() as client, client.post(f"{worker.base}/hooks/main", data=b"x" * 250_000) as answer:
        assert answer.status == 200, "what was held is given back"


async def test_without_room_a_shop_is_to_come_again(worker: Worker) -> None:
    worker.room = False
    async with ClientSession() as client, client.post(f"{worker.base}/hooks/main", data=b"{}") as answer:
        assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
    assert not worker.intake.taken
