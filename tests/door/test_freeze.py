"""Through the door: all downloads are stopped at once, through restarts and losses of Redis, and allowed again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from gateway.policy.model import Limits
from gateway.policy.standing import Command

Opener = Callable[..., AbstractAsyncContextManager[Any]]


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
            return await gateway.wire.execute("XLEN", "gw:{0}:control") == 1

        await until(is_put_back)

        async def is_frozen() -> bool:
            return await reason(gateway, token) == "frozen"

        await until(is_frozen)
        await gateway.command(Command("thaw", frozen_at + 1))

        async def is_thawed() -> bool:
            return await reason(gateway, token) == ""

        await until(is_thawed)
