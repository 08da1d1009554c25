"""Through the door: all downloads are stopped at once, through restarts and losses of Redis, and allowed again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from gateway.bootstrap import services
from gateway.errors import OrdersDown
from gateway.policy.model import Limits
from gateway.policy.standing import Command, Verb

Opener = Callable[..., AbstractAsyncContextManager[Any]]


class Order:
    """The order book's answer, which is none; `second` happens while it is asked for the second time."""

    def __init__(self) -> None:
        self.asked = 0
        self.is_away = False
        self.second: Callable[[], Awaitable[None]] | None = None

    async def ask(self, _order: str | None) -> None:
        self.asked += 1
        if self.is_away:
            raise OrdersDown("the order book is away")
        if self.second is not None and self.asked == 2:
            await self.second()


async def until(hold: Callable[[], Awaitable[bool]]) -> None:
    for _ in range(200):
        if await hold():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("it did not come to that")


async def reason(gateway: Any, token: str) -> str:
    async with gateway.client.get(f"{gateway.base}/d/{token}") as answer:
        return "" if answer.status == 200 else (await answer.json())["reason"]


async def test_all_is_stopped_at_once_and_stays_so(open_gateway: Opener, tmp_path: Path) -> None:
    journal = f"journal: {{path: {tmp_path / 'journal'}}}\n"
    frozen_at = int(time.time())
    async with open_gateway(journal) as gateway:
        gateway.file("a.bin", 1000)
        gateway.file("big.bin", 4_000_000)
        token = gateway.token("a.bin")
        slow = gateway.token("big.bin", limits=Limits(rate=100_000))

        async def is_open() -> bool:
            return await reason(gateway, token) == ""

        await until(is_open)
        async with gateway.client.get(f"{gateway.base}/d/{slow}") as running:
            await running.content.readexactly(1000)
            await gateway.command(Command("freeze", frozen_at, message="Back at 18:00."))
            began = time.monotonic()
            try:
                await running.content.read()
            except Exception:  # noqa: BLE001  however the client library names a connection that ends early
                assert time.monotonic() - began < 5
            else:
                raise AssertionError("it was not cut")
        async with gateway.client.get(f"{gateway.base}/d/{token}") as answer:
            told = await answer.json()
            assert (answer.status, told["reason"], told["detail"]) == (503, "frozen", "Back at 18:00.")
            assert answer.headers["Retry-After"] == "60"
        async with gateway.client.get(f"{gateway.base}/l/{token}", headers={"Accept": "text/html"}) as answer:
            page = await answer.text()
            assert answer.status == 503
            assert "Downloads are paused" in page
            assert "Back at 18:00." in page
        events = await gateway.settled()
        assert [(e["outcome"], e["reason"]) for e in events if e.get("outcome") == "cut"] == [("cut", "frozen")]
        assert [e["reason"] for e in events if e["type"] == "download.denied"] == ["frozen", "frozen"]

        async def says_so() -> bool:
            return gateway.status.frozen.startswith(time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(frozen_at)))

        await until(says_so)
        await gateway.wire.execute("FLUSHALL")

        async def is_frozen_again() -> bool:
            return await reason(gateway, token) == "frozen"

        await until(is_frozen_again)
    async with open_gateway(journal) as gateway:

        async def is_put_back() -> bool:
            return await gateway.wire.execute("XLEN", "gw:{0}:control") > 0

        await until(is_put_back)

        async def is_frozen() -> bool:
            return await reason(gateway, token) == "frozen"

        await until(is_frozen)
        await gateway.command(Command("thaw", frozen_at + 1))

        async def is_thawed() -> bool:
            return await reason(gateway, token) == ""

        await until(is_thawed)


@pytest.mark.parametrize("verb", ["freeze", "revoke"])
async def test_said_while_the_order_book_is_asked_gives_nothing(
    open_gateway: Opener, monkeypatch: pytest.MonkeyPatch, verb: Verb
) -> None:
    """Asked for the second time, that is after the ledger has said yes."""
    order = Order()
    monkeypatch.setattr(services, "_no_orders", order.ask)
    async with open_gateway() as gateway:
        gateway.file("a.bin", 1000)
        token = gateway.token("a.bin", order_id="10002")
        freezing = Command("freeze", int(time.time()), message="Back at 18:00.")
        revoking = Command("revoke", int(time.time()), order_id="10002")

        async def say() -> None:
            await gateway.command(freezing if verb == "freeze" else revoking)
            await asyncio.sleep(0.5)

        order.second = say
        expected = (503, "frozen", "Back at 18:00.") if verb == "freeze" else (410, "token.revoked", None)
        async with gateway.client.get(f"{gateway.base}/d/{token}") as answer:
            assert answer.status == expected[0]
            told = await answer.json()
            assert (told["reason"], told["detail"] if verb == "freeze" else None) == expected[1:]
        [_, finished] = await gateway.settled()
        assert (finished["outcome"], finished["reason"], finished["counted"]) == ("cut", expected[1], "-1")


async def test_frozen_is_said_before_anything_else_is_asked(
    open_gateway: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = Order()
    monkeypatch.setattr(services, "_no_orders", order.ask)
    async with open_gateway() as gateway:
        gateway.file("a.bin", 1000)
        token = gateway.token("a.bin", order_id="10002")

        async def is_frozen() -> bool:
            return await reason(gateway, token) == "frozen"

        await gateway.command(Command("freeze", int(time.time()), message="Back at 18:00."))
        await until(is_frozen)
        order.asked, order.is_away = 0, True
        for path in (f"/d/{token}", f"/d/{token}/2/a.bin", f"/l/{token}", f"/z/{token}"):
            async with gateway.client.get(gateway.base + path) as answer:
                told = await answer.json()
                assert (answer.status, told["reason"], told["detail"]) == (503, "frozen", "Back at 18:00."), path
        assert order.asked == 0
        assert (await gateway.events())[-4]["file.key"] == "a.bin"
