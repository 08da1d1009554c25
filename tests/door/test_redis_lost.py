"""Through the door: Redis loses what it had, or is away, and the settings say what then."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from typing import Any

from aiohttp import ClientPayloadError

from gateway.backends.embedded_redis import EmbeddedRedis
from gateway.policy.standing import Command

Opener = Callable[..., AbstractAsyncContextManager[Any]]
SIZE = 100_000


async def asked(gateway: Any, token: str, address: str) -> tuple[int, str]:
    headers = {"X-Forwarded-For": address}
    async with gateway.client.get(f"{gateway.base}/d/{token}", headers=headers) as answer:
        if answer.status == 200:
            assert len(await answer.read()) == SIZE
            return 200, ""
        return answer.status, (await answer.json())["reason"]


async def until(hold: Callable[[], Awaitable[bool]]) -> None:
    for _ in range(100):
        if await hold():
            return
        await asyncio.sleep(0.1)
    raise AssertionError("it did not come to that")


async def answered(gateway: Any, token: str, address: str) -> tuple[int, str]:
    """The first answer that is not for want of Redis."""
    got = (0, "")

    async def is_decided() -> bool:
        nonlocal got
        got = await asked(gateway, token, address)
        return got != (503, "redis.down")

    await until(is_decided)
    return got


async def test_what_redis_loses_is_not_given_again(open_gateway: Opener, tmp_path: Path) -> None:
    journal = f"journal: {{path: {tmp_path / 'journal'}}}\n"
    async with open_gateway(journal) as first, open_gateway(journal) as second:
        first.file("a.bin", SIZE)
        used = first.token("a.bin", downloads=1)
        revoked = first.token("a.bin", order_id="10002")
        assert await answered(first, used, "10.1.0.1") == (200, "")
        await first.command(Command("revoke", int(time.time()), order_id="10002"))

        async def is_revoked() -> bool:
            with suppress(ClientPayloadError):  # what runs at that moment is cut
                return await asked(first, revoked, "10.1.0.2") == (410, "token.revoked")
            return False

        await until(is_revoked)
        before = await first.settled()
        await first.wire.execute("FLUSHALL")
        seen = [await asked(gateway, used, f"10.2.0.{n}") for n, gateway in enumerate((second, first), 1)]
        assert seen == [(503, "redis.down")] * 2, "nothing is given before it is put back"
        for n, gateway in enumerate((second, first)):
            assert await answered(gateway, used, f"10.3.{n}.1") == (410, "limit.downloads")
            assert await answered(gateway, revoked, f"10.3.{n}.2") == (410, "token.revoked")
        ids = [event["id"] for event in await first.settled()]
        assert len(ids) == len(set(ids))
        assert {event["id"] for event in before} <= set(ids), "each event is there, once"


async def test_a_journal_that_cannot_be_written_is_a_redis_that_is_down(open_gateway: Opener, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    async with open_gateway(f"journal: {{path: {tmp_path / 'file'}/journal}}\n") as gateway:
        gateway.file("a.bin", SIZE)
        assert await asked(gateway, gateway.token("a.bin"), "10.1.0.1") == (503, "redis.down")
        (tmp_path / "file").unlink()
        assert await answered(gateway, gateway.token("a.bin"), "10.1.0.1") == (200, "")


async def test_where_the_shop_has_chosen_so_downloads_go_on_without_redis(open_gateway: Opener, tmp_path: Path) -> None:
    redis = EmbeddedRedis(tmp_path / "redis")
    url = redis.start()
    more = f"journal: {{path: {tmp_path / 'journal'}}}\nwhen_redis_is_down: allow\n"
    async with open_gateway(more, url) as gateway:
        gateway.file("a.bin", SIZE)
        token = gateway.token("a.bin", downloads=2)
        expired = gateway.token("a.bin", expires_at=int(time.time()) - 5)
        assert await answered(gateway, token, "10.1.0.1") == (200, "")
        await gateway.settled()
        redis.stop()
        began = time.monotonic()
        assert await asked(gateway, token, "10.1.1.1") == (200, "")
        assert await asked(gateway, expired, "10.1.2.1") == (410, "token.expired")
        assert time.monotonic() - began < 2
        assert redis.start() == url

        async def events() -> list[dict[str, str]]:
            return [event for event in await gateway.events() if event.get("client.address") == "10.1.1.1"]

        async def is_told() -> bool:
            return len(await events()) == 2

        await until(is_told)
        told = await events()
        assert [(e["type"], e["unchecked"]) for e in told] == [
            ("download.allowed", "redis.down"),
            ("download.finished", "redis.down"),
        ]
        assert told[0]["counted"] == "1"
        assert await asked(gateway, token, "10.1.4.1") == (410, "limit.downloads")
    redis.stop()


async def test_a_refusal_whose_event_cannot_be_written_is_none(open_gateway: Opener, tmp_path: Path) -> None:
    redis = EmbeddedRedis(tmp_path / "redis")
    async with open_gateway("", redis.start()) as gateway:
        expired = gateway.token("a.bin", expires_at=int(time.time()) - 5)
        assert await answered(gateway, expired, "10.1.0.1") == (410, "token.expired")
        redis.stop()
        assert await asked(gateway, expired, "10.1.0.1") == (503, "redis.down")
