"""Crowds over 4 processes against one token: exactly what its limits allow is charged, whatever the interleaving.

Naive counters (look, then count) go through the same race and must be caught, or the race proves nothing.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import pytest

from gateway.backends.redis_client import Wire, connect
from gateway.backends.redis_ledger import RedisLedger
from gateway.backends.redis_shards import RedisShards
from gateway.policy.counting import CountingRules
from gateway.policy.limits import charges
from gateway.policy.model import Deny, Device, Limits, Outcome, Reservation
from gateway.ports import ReserveAsk

PROCESSES, SEEDS = 4, 20
PATIENCE = 20.0
"""Seconds for a reply: this is about what is counted, on a machine that may be busy."""


@dataclass(frozen=True)
class Crowd:
    """`clients` over all processes come at once, each from a network and device of its own, for `files` in turn.

    `rounds`: how often each asks; what it got it ends in between, having read all of it or nothing. Three at most:
    the fourth full read is another download of the same client.
    """

    limits: Limits
    clients: int
    files: int = 1
    rounds: int = 1


@dataclass(frozen=True)
class Count:
    """What one process was answered: the reasons of its refusals, and how many reservations it holds in the end."""

    reasons: tuple[str, ...]
    granted: int


@dataclass
class Peaks:
    """The most that was ever taken at once, by the events, which are written in the step that takes it."""

    downloads: int = 0
    networks: int = 0
    live: int = 0

    def follow(self, events: list[dict[str, str]]) -> Peaks:
        charged: dict[str, dict[str, str]] = {}
        live: Counter[str] = Counter()
        for event in events:
            if event["type"] == "download.denied":
                continue
            transfer, begins = event["transfer.id"], event["type"] == "download.allowed"
            live[transfer] += 1 if begins else -1
            if event["counted"] == "1":
                charged[transfer] = event
            elif event["counted"] == "-1":
                del charged[transfer]
            files = Counter(holder["file.key"] for holder in charged.values())
            self.downloads = max(self.downloads, *files.values(), 0)
            self.networks = max(self.networks, len({holder["client.network"] for holder in charged.values()}))
            self.live = max(self.live, sum(count > 0 for count in live.values()))
        return self


Run = Callable[[Wire, Crowd, int, int], Awaitable[Count]]


def ledger_on(wire: Wire) -> RedisLedger:
    return RedisLedger(wire, RedisShards(wire, 1), lease_ms=60_000, keep_ms=10**9)


def asked(crowd: Crowd, client: int, number: int) -> ReserveAsk:
    device = Device(cookie=f"c{client}", network=f"10.0.{client}.0/24", user_agent="same", id=f"c{client}")
    return ReserveAsk(
        request_id=f"{client}-{number}",
        shard=0,
        token_key="token",
        file_identity=f"file {client % crowd.files}",
        size=300_000,
        etag='"e"',
        start=0,
        asked=300_000,
        full=True,
        elsewhere=False,
        device=device,
        charges=charges(crowd.limits, device),
        expires_at=4_000_000_000,
        token_expires_at=4_000_000_000,
        rules=CountingRules(),
        status=200,
        stamp={},
        event={
            "request.id": f"{client}-{number}",
            "file.key": f"file {client % crowd.files}",
            "client.network": device.network,
        },
    )


async def through_the_ledger(wire: Wire, crowd: Crowd, process: int, seed: int) -> Count:
    ledger = ledger_on(wire)
    rng = random.Random(f"{seed}/{process}")
    reasons: list[str] = []
    held: list[Reservation] = []

    async def one(client: int) -> None:
        for number in range(crowd.rounds):
            await asyncio.sleep(rng.random() / 100)
            got = await ledger.reserve(asked(crowd, client, number))
            if isinstance(got, Deny):
                reasons.append(got.reason.text)
            elif number + 1 == crowd.rounds:
                held.append(got)
            else:
                await ledger.settle(got, Outcome("client_left", rng.choice((0, 300_000)), 1, "id", "time"))

    await asyncio.gather(*(one(client) for client in range(process, crowd.clients, PROCESSES)))
    return Count(tuple(reasons), len(held))


async def look_then_count(wire: Wire, crowd: Crowd, process: int, seed: int) -> Count:
    """The naive one: what is taken is looked up, compared here, and then added to."""
    rng = random.Random(f"{seed}/{process}")
    limits = crowd.limits

    async def one(client: int) -> bool:
        await asyncio.sleep(rng.random() / 100)
        names = [name for name in ("downloads", "networks", "devices", "concurrent") if limits.get(name)]
        taken = [int(await wire.execute("SCARD", name)) for name in names]
        if any(count >= (limits.get(name) or 0) for name, count in zip(names, taken, strict=True)):
            return False
        for name in names:
            await wire.execute("SADD", name, client)
        return True

    got = await asyncio.gather(*(one(client) for client in range(process, crowd.clients, PROCESSES)))
    return Count((), sum(got))


def in_a_process(redis_url: str, run: Run, crowd: Crowd, process: int, seed: int) -> Count:
    async def main() -> Count:
        wire = Wire(connect(redis_url, timeout=PATIENCE), timeout=PATIENCE)
        try:
            return await run(wire, crowd, process, seed)
        finally:
            await wire.close()

    return asyncio.run(main())


@pytest.fixture(scope="module")
def processes() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
        yield pool


async def race(redis_url: str, pool: ProcessPoolExecutor, run: Run, crowd: Crowd, seed: int) -> list[Count]:
    loop = asyncio.get_running_loop()
    return await asyncio.gather(
        *(loop.run_in_executor(pool, in_a_process, redis_url, run, crowd, n, seed) for n in range(PROCESSES))
    )


CROWDS = {
    "200 clients for 5 downloads": (Crowd(Limits(downloads=5), 200), 5, {"limit.downloads"}),
    "50 networks where 3 are allowed": (Crowd(Limits(networks=3), 50), 3, {"limit.networks"}),
    "50 devices where 3 are allowed": (Crowd(Limits(devices=3), 50, files=7), 3, {"limit.devices"}),
    "30 at once where 2 are allowed": (Crowd(Limits(concurrent=2), 30, files=30), 2, {"limit.concurrent"}),
    "all limits at once": (
        Crowd(Limits(downloads=2, networks=4, devices=5, concurrent=6, valid_after_first=1000), 60, files=3),
        4,
        {"limit.downloads", "limit.networks"},
    ),
    "the loosest is met last": (
        Crowd(Limits(downloads=3, networks=9, devices=8, concurrent=7), 60, files=3),
        7,
        {"limit.downloads", "limit.concurrent"},
    ),
}


async def written(wire: Wire) -> list[dict[str, str]]:
    return [fields for _, fields in await wire.execute("XRANGE", "gw:{0}:events", "-", "+")]


@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.parametrize("name", CROWDS)
async def test_exactly_the_limit_is_granted(
    redis_db: str, wire: Wire, processes: ProcessPoolExecutor, name: str, seed: int
) -> None:
    crowd, allowed, possible = CROWDS[name]
    counts = await race(redis_db, processes, through_the_ledger, crowd, seed)
    reasons = [reason for count in counts for reason in count.reasons]
    assert sum(count.granted for count in counts) == allowed
    assert len(reasons) == crowd.clients - allowed
    assert set(reasons) <= possible
    ledger = ledger_on(wire)
    used = await ledger.usage(0, "token", [f"file {n}" for n in range(crowd.files)])
    assert sum(used.values()) == allowed
    assert max(used.values()) <= (crowd.limits.get("downloads") or allowed)
    usage = await ledger.token_usage(0, "token")
    slots = [allowed if crowd.limits.get(name) else 0 for name in ("networks", "devices")]
    assert (usage.networks, usage.devices, usage.live) == (*slots, allowed)
    events = await written(wire)
    assert len(events) == crowd.clients
    assert sum(event.get("counted") == "1" for event in events) == allowed


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_no_limit_is_ever_exceeded_while_places_and_charges_come_back(
    redis_db: str, wire: Wire, processes: ProcessPoolExecutor, seed: int
) -> None:
    crowd = Crowd(Limits(downloads=4, networks=6, devices=6, concurrent=2), 32, files=2, rounds=3)
    counts = await race(redis_db, processes, through_the_ledger, crowd, seed)
    peaks = Peaks().follow(await written(wire))
    assert peaks.downloads <= 4
    assert peaks.networks <= 6
    assert peaks.live == 2
    ledger = ledger_on(wire)
    usage = await ledger.token_usage(0, "token")
    used = await ledger.usage(0, "token", ["file 0", "file 1"])
    assert usage.live == sum(count.granted for count in counts)
    assert usage.networks == usage.devices == sum(used.values()), "each download was another network's and device's"


@pytest.mark.parametrize("name", [name for name in CROWDS if name != "the loosest is met last"])
async def test_the_race_catches_the_naive_counter(
    redis_db: str, wire: Wire, processes: ProcessPoolExecutor, name: str
) -> None:
    crowd, allowed, _ = CROWDS[name]
    for seed in range(SEEDS):
        await wire.execute("FLUSHDB")
        counts = await race(redis_db, processes, look_then_count, crowd, seed)
        if sum(count.granted for count in counts) > allowed:
            return
    pytest.fail("the naive counter was right every time")
