"""Through the door: what a worker holds it gives back, and nothing is given before Redis has said yes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import ClientError
from redis import Redis

from gateway.backends.files import FolderStore
from gateway.backends.maxmind import Databases
from gateway.backends.redis_ledger import RedisLedger
from gateway.errors import GeoDown
from gateway.policy.standing import Command

SIZE = 300_000
LARGE = 8 << 20
ROUNDS = 5


async def becomes_true(ask: Callable[[], bool], patience: float = 4.0) -> bool:
    until = time.monotonic() + patience
    while not ask() and time.monotonic() < until:  # noqa: ASYNC110 - descriptors tell nobody
        await asyncio.sleep(0.02)
    return ask()


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def leave_early(gateway, token: str) -> None:
    reader, writer = await asyncio.open_connection(*gateway.base.removeprefix("http://").split(":"))
    writer.write(f"GET /d/{token} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    await reader.readexactly(1000)
    writer.transport.abort()


async def test_descriptors_go_back_to_where_they_were(gateway) -> None:
    gateway.file("a.bin", SIZE)
    gateway.file("large.bin", LARGE)
    small, large = gateway.token("a.bin"), gateway.token("large.bin")

    async def everything() -> None:
        close = {"Connection": "close"}
        for headers in ({}, {"Range": "bytes=9-99"}, {"Range": "bytes=0-9,100-199"}, {"If-Match": '"x"'}):
            async with gateway.client.get(f"{gateway.base}/d/{small}", headers={**headers, **close}) as response:
                await response.read()
        async with gateway.client.get(f"{gateway.base}/d/{small}x", headers=close) as response:
            await response.read()
        await leave_early(gateway, large)
        await gateway.settled()

    await everything()
    before = descriptors()
    for _ in range(ROUNDS):
        await everything()
    # The pool to Redis may have grown by a connection; what leaks, leaks in each round.
    assert await becomes_true(lambda: descriptors() <= before + ROUNDS - 2), f"{descriptors() - before} are left open"


@asynccontextmanager
async def overslept() -> AsyncIterator[list[float]]:
    """By how much this process' naps of 50 ms were too long, in seconds: the machine's doing, not the gateway's."""
    late: list[float] = []

    async def nap() -> None:
        while True:
            began = time.monotonic()
            await asyncio.sleep(0.05)
            late.append(time.monotonic() - began - 0.05)

    napping = asyncio.create_task(nap())
    yield late
    napping.cancel()


async def test_no_byte_goes_out_while_redis_says_nothing(gateway, redis_db: str) -> None:
    data = gateway.file("a.bin", SIZE)
    url = f"{gateway.base}/d/{gateway.token('a.bin')}"
    with Redis.from_url(redis_db) as redis:
        redis.execute_command("CLIENT", "PAUSE", 1200)
        began = time.monotonic()
        async with overslept() as late, gateway.client.get(url) as response:
            assert response.status == 503
            assert (await response.json())["reason"] == "redis.down"
            assert int(response.headers["Retry-After"]) >= 1
        assert time.monotonic() - began - sum(late) < 1.15
        redis.ping()
    async with asyncio.timeout(8):
        while True:
            async with gateway.client.get(url) as response:
                if response.status == 200:
                    assert await response.read() == data
                    return
            await asyncio.sleep(0.1)


async def test_a_client_that_leaves_while_redis_is_asked_is_settled_by_its_worker(gateway, redis_db: str) -> None:
    """Or its charge and its place would be taken until the lease runs out, as a dead worker's are."""
    gateway.file("a.bin", SIZE)
    token = gateway.token("a.bin", downloads=1)
    with Redis.from_url(redis_db) as redis:
        redis.execute_command("CLIENT", "PAUSE", 300)
        _, writer = await asyncio.open_connection(*gateway.base.removeprefix("http://").split(":"))
        writer.write(f"GET /d/{token} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await asyncio.sleep(0.1)
        writer.transport.abort()
        await asyncio.sleep(0.3)
    events = await gateway.settled()
    assert [event["type"] for event in events] == ["download.allowed", "download.finished"]
    assert (events[-1]["outcome"], events[-1]["bytes.delivered"], events[-1]["counted"]) == ("client_left", "0", "-1")


async def test_a_link_revoked_while_the_ledger_is_asked_gives_nothing(gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway.file("a.bin", SIZE)
    token = gateway.token("a.bin", order_id="10002")
    reserve = RedisLedger.reserve

    async def slowly(*args, **options):
        answer = await reserve(*args, **options)
        await gateway.command(Command("revoke", int(time.time()), order_id="10002"))
        await asyncio.sleep(0.5)
        return answer

    monkeypatch.setattr(RedisLedger, "reserve", slowly)
    async with gateway.client.get(f"{gateway.base}/d/{token}") as response:
        assert response.status == 410
        assert (await response.json())["reason"] == "token.revoked"
    [_, finished] = await gateway.settled()
    assert (finished["outcome"], finished["reason"], finished["counted"]) == ("cut", "token.revoked", "-1")


async def test_a_link_revoked_while_its_file_is_opened_sends_nothing(gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway.file("a.bin", SIZE)
    token = gateway.token("a.bin", order_id="10002")
    opened = FolderStore.open

    async def slowly(*args):
        await gateway.command(Command("revoke", int(time.time()), order_id="10002"))
        await asyncio.sleep(0.5)
        return await opened(*args)

    monkeypatch.setattr(FolderStore, "open", slowly)
    with pytest.raises(ClientError):
        async with gateway.client.get(f"{gateway.base}/d/{token}") as response:
            assert len(await response.read()) == 0
    [_, finished] = await gateway.settled()
    assert (finished["outcome"], finished["reason"], finished["bytes.delivered"]) == ("cut", "token.revoked", "0")


async def test_what_mail_tools_append_plays_no_part(gateway) -> None:
    """Two spellings of one link are one device and one download; the events tell where it came from."""
    data = gateway.file("a.bin", SIZE)
    token = gateway.token("a.bin", downloads=1)
    for source in ("mail", "facebook&fbclid=1&view=0"):
        async with gateway.client.get(f"{gateway.base}/d/{token}?utm_source={source}") as response:
            assert await response.read() == data
        await gateway.settled()
    assert await gateway.used() == 1
    allowed = [event for event in await gateway.events() if event["type"] == "download.allowed"]
    assert [event["campaign"] for event in allowed] == ["utm_source=mail", "utm_source=facebook"]
    assert len({event["device.id"] for event in allowed}) == 1


async def test_nobody_is_let_in_while_revocations_cannot_be_read(gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway.file("a.bin", SIZE)
    token = gateway.token("a.bin")
    monkeypatch.setattr("gateway.services.control.SILENCE", -1.0)
    for path in (f"/d/{token}", f"/l/{token}"):
        async with gateway.client.get(gateway.base + path) as response:
            assert response.status == 503
            assert (await response.json())["reason"] == "redis.down"


async def test_broken_geo_data_let_nobody_in(gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """An address that they lack is unknown, which rules can name; what they cannot tell is nobody's guess."""
    gateway.file("a.bin", SIZE)
    token = gateway.token("a.bin")

    def broken(*_: object) -> None:
        raise GeoDown("damaged")

    monkeypatch.setattr(Databases, "look_up", broken)
    for path in (f"/d/{token}", f"/l/{token}"):
        async with gateway.client.get(gateway.base + path) as response:
            assert response.status == 503
            assert (await response.json())["reason"] == "geo.down"
    assert [event["type"] for event in await gateway.events()] == ["download.denied"] * 2


async def test_the_device_cookie_is_for_us_alone(gateway) -> None:
    gateway.file("a.bin", SIZE)
    async with gateway.client.get(f"{gateway.base}/d/{gateway.token('a.bin')}") as response:
        attributes = [part.strip() for part in response.headers["Set-Cookie"].split(";")[1:]]
    assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= set(attributes)
    assert not any(attribute.startswith("Domain") for attribute in attributes)
