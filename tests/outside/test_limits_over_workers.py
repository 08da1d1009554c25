"""Limits over 4 real workers, through real HTTP: exact under a race, a rate in sum, a revocation within seconds."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from aiohttp import ClientError, ClientSession, ClientTimeout, DummyCookieJar, TCPConnector

from gateway.backends.embedded_redis import EmbeddedRedis
from gateway.policy.model import Limits

MIB = 1 << 20
SMALL = 300_000
RATE = 4_000_000
SECONDS = 5.0
pytestmark = pytest.mark.timeout(120)


def crowd() -> ClientSession:
    return ClientSession(cookie_jar=DummyCookieJar(), connector=TCPConnector(limit=0), timeout=ClientTimeout(60))


def by(number: int) -> dict[str, str]:
    return {"X-Forwarded-For": f"198.18.{number}.7", "User-Agent": f"client {number}"}


async def fetch(session: ClientSession, url: str, number: int) -> str:
    """`served`, or the reason of the refusal."""
    async with session.get(url, headers=by(number)) as response:
        if response.status == 200:
            assert len(await response.read()) == response.content_length
            return "served"
        return str((await response.json())["reason"])


@pytest.mark.parametrize("seed", range(5))
async def test_fifty_networks_for_three(gateway, seed: int) -> None:
    name = f"books/networks-{seed}.pdf"
    gateway.file(name, SMALL)
    token = gateway.token(name, limits=Limits(networks=3))
    numbers = list(range(50)) * 2
    random.Random(seed).shuffle(numbers)
    async with crowd() as session:
        answers = await asyncio.gather(*(fetch(session, f"{gateway.base}/d/{token}", number) for number in numbers))
    events = gateway.settled(token)
    served = {number for number, answer in zip(numbers, answers, strict=True) if answer == "served"}
    assert len(served) == 3
    assert Counter(answers) == {"served": 6, "limit.networks": 94}
    opened = {e["client.network"] for e in events if e["type"] == "download.allowed" and e["counted"] == "1"}
    assert len(opened) == 3


@pytest.mark.parametrize("seed", range(3))
async def test_thirty_transfers_for_two_at_once(gateway, seed: int) -> None:
    """Never more than two are live by the events; and as one ends, another may begin."""
    name = f"films/concurrent-{seed}.bin"
    gateway.file(name, 2 * MIB)
    token = gateway.token(name, limits=Limits(concurrent=2))
    choose = random.Random(seed)
    url = f"{gateway.base}/d/{token}"

    async def insist(session: ClientSession, number: int) -> None:
        while True:
            async with session.get(url, headers=by(number)) as response:
                if response.status == 200:
                    await asyncio.sleep(choose.uniform(0, 0.05))
                    await response.read()
                    return
                assert (response.status, (await response.json())["reason"]) == (429, "limit.concurrent")
            await asyncio.sleep(choose.uniform(0.02, 0.2))

    async with crowd() as session:
        await asyncio.gather(*(insist(session, number) for number in range(30)))
    assert gateway.used(token) == 30
    # The stream's order is the ledger's; a client's kernel has its last byte before the client itself.
    live, most = set[str](), 0
    for event in gateway.events(token):
        if event["type"] == "download.allowed":
            live.add(event["request.id"])
        elif event["type"] == "download.finished":
            live.discard(event["request.id"])
        most = max(most, len(live))
    assert most == 2


@pytest.mark.parametrize("streams", [1, 4, 30])
async def test_a_rate_is_kept_in_sum_and_shared(gateway, streams: int) -> None:
    name = f"films/rate-{streams}.bin"
    gateway.file(name, 64 * MIB)
    token = gateway.token(name, limits=Limits(rate=RATE))
    got = [0] * streams
    gaps = [0.0] * streams

    async def read(session: ClientSession, number: int, until: float) -> None:
        async with session.get(f"{gateway.base}/d/{token}", headers=by(number)) as response:
            assert response.status == 200
            last = time.monotonic()
            while (now := time.monotonic()) < until:
                gaps[number] = max(gaps[number], now - last)
                last = now
                got[number] += len(await response.content.readany())
            response.close()

    async with crowd() as session:
        until = time.monotonic() + SECONDS
        await asyncio.gather(*(read(session, number, until) for number in range(streams)))
    assert sum(got) == pytest.approx(RATE * SECONDS, rel=0.1)
    assert min(got) > sum(got) / streams / 2, "nobody starves"
    assert max(gaps) < 1.5, "smooth"
    gateway.settled(token)


async def test_a_revoked_order_is_cut_on_all_workers(gateway) -> None:
    gateway.file("films/revoked.bin", 64 * MIB)
    token = gateway.token("films/revoked.bin", order_id="r-1", limits=Limits(rate=RATE))
    url = f"{gateway.base}/d/{token}"

    async def until_cut(session: ClientSession, number: int) -> float:
        async with session.get(url, headers=by(number)) as response:
            assert response.status == 200
            with pytest.raises(ClientError):
                await response.read()
            return time.monotonic()

    async with crowd() as session:
        running = [asyncio.create_task(until_cut(session, number)) for number in range(12)]
        await asyncio.sleep(1.0)
        config = gateway.folder.parent / "gateway.yaml"
        command = [sys.executable, "-m", "gateway", "link", "revoke", "--order", "r-1", "--config", str(config)]
        revoked = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
        ordered = time.monotonic()
        assert revoked.returncode == 0, revoked.stderr
        assert max(await asyncio.gather(*running)) - ordered < 5.0
        for number in range(12):
            assert await fetch(session, url, number) == "token.revoked"
    closings = gateway.closings(gateway.settled(token))
    assert {(event["outcome"], event["reason"]) for event in closings} == {("cut", "token.revoked")}


def test_a_revocation_survives_a_restart(start_gateway, tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path / "redis") as redis:
        first = start_gateway(redis, 2)
        first.file("a.pdf", SMALL)
        token = first.token("a.pdf", order_id="r-2")
        config = first.folder.parent / "gateway.yaml"
        command = [sys.executable, "-m", "gateway", "link", "revoke", "--order", "r-2", "--config", str(config)]
        subprocess.run(command, check=True, capture_output=True)
        assert first.stop() == 0
        second = start_gateway(redis, 2)
        second.file("a.pdf", SMALL)

        async def ask() -> str:
            async with crowd() as session:
                return await fetch(session, f"{second.base}/d/{token}", 1)

        assert asyncio.run(ask()) == "token.revoked"
        assert second.stop() == 0
