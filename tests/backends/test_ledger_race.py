"""200 clients over 4 processes against one token of 5 downloads: exactly 5 are charged, whatever the interleaving.

The naive counter (look, then increment) goes through the same race and must be caught, or the race proves nothing.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from gateway.backends.redis_client import Wire, connect
from gateway.backends.redis_ledger import RedisLedger
from gateway.policy.counting import CountingRules
from gateway.policy.model import Charge, Deny, Device
from gateway.policy.reasons import Reason
from gateway.ports import ReserveAsk

PROCESSES, CLIENTS, DOWNLOADS, SEEDS = 4, 50, 5, 20
PATIENCE = 20.0
"""Seconds for a reply: this is about what is counted, on a machine that may be busy."""
Taken = Callable[[Wire, RedisLedger, int, int], Awaitable[bool]]


def ledger_on(wire: Wire) -> RedisLedger:
    return RedisLedger(wire, shards=1, lease_ms=10_000, keep_ms=10**9)


async def through_the_ledger(wire: Wire, ledger: RedisLedger, process: int, client: int) -> bool:
    ask = ReserveAsk(
        request_id=f"{process}-{client}",
        shard=0,
        token_key="token",
        file_identity="file",
        size=300_000,
        etag='"e"',
        start=0,
        asked=300_000,
        full=True,
        device=Device(cookie=None, network=f"10.{process}.{client}.0/24", user_agent="same"),
        charges=(Charge("count", DOWNLOADS, Reason.LIMIT_DOWNLOADS),),
        expires_at=4_000_000_000,
        rules=CountingRules(),
        status=200,
        stamp={},
        event={"request.id": f"{process}-{client}"},
    )
    return not isinstance(await ledger.reserve(ask), Deny)


async def look_then_increment(wire: Wire, ledger: RedisLedger, process: int, client: int) -> bool:
    if int(await wire.execute("GET", "naive") or 0) >= DOWNLOADS:
        return False
    await wire.execute("INCR", "naive")
    return True


def crowd(redis_url: str, process: int, seed: int, taken: Taken) -> int:
    """One process's clients, all at once; how many got a download."""

    async def run() -> int:
        wire = Wire(connect(redis_url, timeout=PATIENCE), timeout=PATIENCE)
        ledger = ledger_on(wire)
        rng = random.Random(f"{seed}/{process}")

        async def one(client: int, wait: float) -> bool:
            await asyncio.sleep(wait)
            return await taken(wire, ledger, process, client)

        try:
            got = await asyncio.gather(*(one(n, rng.random() / 100) for n in range(CLIENTS)))
        finally:
            await wire.close()
        return sum(got)

    return asyncio.run(run())


@pytest.fixture(scope="module")
def processes() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
        yield pool


async def race(redis_url: str, pool: ProcessPoolExecutor, seed: int, taken: Taken) -> int:
    loop = asyncio.get_running_loop()
    crowds = [loop.run_in_executor(pool, crowd, redis_url, n, seed, taken) for n in range(PROCESSES)]
    return sum(await asyncio.gather(*crowds))


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_exactly_the_limit_is_charged(redis_db: str, processes: ProcessPoolExecutor, seed: int) -> None:
    assert await race(redis_db, processes, seed, through_the_ledger) == DOWNLOADS
    wire = Wire(connect(redis_db, timeout=PATIENCE), timeout=PATIENCE)
    try:
        assert await ledger_on(wire).usage(0, "token", ["file"]) == {"file": DOWNLOADS}
        events = [fields for _, fields in await wire.execute("XRANGE", "gw:{0}:events", "-", "+")]
        assert len(events) == PROCESSES * CLIENTS
        assert sum(event.get("counted") == "1" for event in events) == DOWNLOADS
        assert sum(event["type"] == "download.denied" for event in events) == PROCESSES * CLIENTS - DOWNLOADS
    finally:
        await wire.close()


async def test_the_race_catches_the_naive_counter(redis_db: str, processes: ProcessPoolExecutor) -> None:
    granted = []
    for seed in range(SEEDS):
        wire = Wire(connect(redis_db))
        await wire.execute("FLUSHDB")
        await wire.close()
        granted.append(await race(redis_db, processes, seed, look_then_increment))
    assert max(granted) > DOWNLOADS
