"""What a host does to a gateway: workers are killed, the gateway is told to stop, its clock jumps, its files break.

Who is cut sees it and goes on free of charge; who is not, notices nothing. No duration is measured by the wall clock.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable

from audit import CLOSINGS
from clients import Fetched
from clock_faults import CLOCK_FAULTS
from fault import Fault
from file_faults import FILE_FAULTS
from gateway_process import LEASE
from processes import busiest, charged, descriptors, in_flight, views
from stage import Stage

from gateway.policy.model import Limits

Play = Callable[[Stage], Awaitable[None]]

KIB, MIB = 1 << 10, 1 << 20
CROWD = 8
SIZES = (("killed.bin", 3 * MIB, 2 * MIB), ("killed-small.bin", 600 * KIB, 400 * KIB))
"""Name, size, and bytes per second."""
REPLACED_WITHIN = 30.0
CLOSED_WITHIN = 4 * LEASE + 4.0
"""Seconds after a worker's death: its last renewal lapses, and whoever reaps comes round, on a machine under load."""
KILLS_PER_WORKER = 5
"""A worker that dies young is replaced after a pause that doubles: who kills more often waits for that."""
BUSY = 503
"""What a machine that is loaded beyond its two cores answers now and then; it says when to come again."""
ROOM = 64
"""Descriptors that may be open for a moment more than before, for whoever the crowd has just sent."""


def killed(times: int) -> Play:
    """Workers die in the middle of downloads, one after another."""

    async def play(stage: Stage) -> None:
        for name, size, _ in SIZES:
            stage.file(name, size)
        supervisor = stage.gateway.process
        assert supervisor is not None
        before = len(descriptors(supervisor.pid))
        cuts: list[tuple[str, Fetched]] = []
        dead: list[int] = []
        hits = 0
        kills: Counter[object] = Counter()
        while hits < times:
            assert len(dead) < 2 * times + 2, f"{hits} of {len(dead)} kills met a download"
            running = [asyncio.create_task(through(stage, *SIZES[number % len(SIZES)])) for number in range(CROWD)]
            await asyncio.sleep(stage.rng.uniform(0.3, 0.9))
            await replaced(stage, dead, stage.gateway.workers - 1)
            slots = {int(str(view["pid"])): view["slot"] for view in await views(stage) if view["ready"]}
            spared = {pid for pid, slot in slots.items() if kills[slot] < KILLS_PER_WORKER}
            victim = busiest(spared or slots, stage.gateway.port)
            kills[slots[victim]] += 1
            async with stage.disturbance():
                os.kill(victim, signal.SIGKILL)
                dead.append(victim)
                died = time.monotonic()
                await stage.serves_within(5.0)
                cut = [(token, got) for token, got in await asyncio.gather(*running) if not got.complete]
            hits += bool(cut)
            cuts += cut
        await replaced(stage, dead, stage.gateway.workers)
        await closed_as_lost(stage, cuts, died)
        assert len(descriptors(supervisor.pid)) <= before + 2, "the supervisor keeps descriptors of dead workers"
        for pid in await asyncio.to_thread(stage.gateway.pids):
            assert len(descriptors(pid)) <= before + ROOM, f"worker {pid} has {len(descriptors(pid))} descriptors open"

    return play


async def through(stage: Stage, name: str, size: int, rate: int) -> tuple[str, Fetched]:
    """A download, and its rest where it is cut, which costs nothing; the first answer is returned."""
    token = stage.token(name, downloads=1, limits=Limits(downloads=1, rate=rate))
    address = stage.network()
    got = rest = await stage.fetch(token, address=address)
    if got.status == BUSY:
        got = rest = await stage.fetch(token, address=address)
    assert got.status == 200, f"a download was not begun: {got}"
    have = got.received
    while have < size:
        assert rest.sha_ok or not rest.received, f"bytes of no version: {rest}"
        # What the dead had reserved is held until its lease lapses, and until then the last bytes may have to wait.
        assert rest.ended < got.ended + CLOSED_WITHIN, f"no way to go on: {rest} after {got}"
        await asyncio.sleep(0.2)
        rest = await stage.fetch(token, address=address, range=f"bytes={have}-")
        assert rest.status in (206, 410, BUSY), f"no way to go on: {rest} after {got}"
        have += rest.received
    return token, got


async def closed_as_lost(stage: Stage, cuts: list[tuple[str, Fetched]], died: float) -> None:
    """Each cut request is closed once, as lost; the buyer was charged once for it all."""
    due = {got.request_id for _, got in cuts}
    while True:
        events = await asyncio.to_thread(stage.events)
        closed = Counter(event["request.id"] for event in events if event.get("type") in CLOSINGS)
        if due <= closed.keys():
            break
        assert time.monotonic() < died + CLOSED_WITHIN, f"{len(due - closed.keys())} leases of the dead are still held"
        await asyncio.sleep(0.1)
    kinds = Counter(event["type"] for event in events if event.get("request.id") in due)
    assert kinds == {"download.allowed": len(due), "download.lost": len(due)}, f"of {len(due)} cut requests: {kinds}"
    for token, _ in cuts:
        assert charged(events, stage.tickets[token].token_id) == 1, "a resume after a worker's death was charged"


async def replaced(stage: Stage, dead: list[int], count: int) -> None:
    """That many workers are ready, and no dead one is among them."""
    until = time.monotonic() + REPLACED_WITHIN
    while len(pids := await asyncio.to_thread(stage.gateway.pids)) < count or set(dead) & set(pids):
        assert time.monotonic() < until, f"worker {dead[-1]} was not replaced: {stage.gateway.log()[-1000:]}"
        await asyncio.sleep(0.1)


def stopped(count: int) -> Play:
    """SIGTERM with `count` downloads in flight, a fifth of which cannot end in the drain time."""

    async def play(stage: Stage) -> None:
        name, slow = "drained.bin", count // 5
        stage.file(name, 3 * MIB)
        rates = [60 * KIB] * slow + [MIB] * (count - slow)
        tokens = [stage.token(name, downloads=1, limits=Limits(downloads=1, rate=rate)) for rate in rates]
        supervisor = stage.gateway.process
        assert supervisor is not None
        async with stage.disturbance():
            running = [asyncio.create_task(stage.fetch(token, timeout=60)) for token in tokens]
            await in_flight(stage, count)
            ending = asyncio.create_task(stage.gateway.terminate())
            seen = await asyncio.gather(*running)
            status = await ending
            assert status == 0, f"told to stop, the gateway ended with {status}"
            await stage.gateway.start()
        assert all(got.sha_ok for got in seen), "bytes of no version"
        assert [got.complete for got in seen[slow:]] == [True] * (count - slow), "what had time to finish was cut"
        assert [got.complete for got in seen[:slow]] == [False] * slow, "what was cut looks complete"
        await stage.serves_within(5.0)
        for token, got in zip(tokens[:slow], seen[:slow], strict=True):
            rest = await stage.fetch(token, address=got.address, range=f"bytes={got.received}-", read_limit=16 * KIB)
            assert rest.status == 206, f"the restarted gateway knows nothing of it: {rest}"
        events = await stage.settle()
        for token, got in zip(tokens, seen, strict=True):
            kinds = Counter(event["type"] for event in events if event.get("request.id") == got.request_id)
            assert kinds == {"download.allowed": 1, "download.finished": 1}, f"{got.request_id} has {kinds}"
            assert charged(events, stage.tickets[token].token_id) == 1, "going on after a restart was charged"

    return play


FAULTS = [
    Fault("a worker killed in mid-download", killed(1), quick=True, whole=False),
    Fault("a worker killed in mid-download x20", killed(20)),
    Fault("SIGTERM with 50 in flight", stopped(50)),
    *CLOCK_FAULTS,
    *FILE_FAULTS,
]
