"""Too much of everything: stalled readers, half-sent heads, storms of connects, hoards, pushed bodies, full memory.

Who comes to download is served meanwhile or told to come again; nobody's bytes, and no worker, are lost to it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from bucket import Bucket
from clients import Fetched
from crowd import Crowd, Told
from fault import Fault
from memory import descriptors, pss_kib, resident
from redis_server import RedisServer
from stage import PROBE, Stage

Play = Callable[[Stage], Awaitable[None]]

KIB, MIB = 1 << 10, 1 << 20
LEGITIMATE = 100
SUCCESS = 0.99
LAG_P99 = 0.1
HEAD_WITHIN = 10.0
LATE = 3.0
"""Seconds that a deadline of the gateway's may come late on a busy machine."""
BACK_WITHIN = 20.0
ROOM = 64
"""Descriptors that the crowd beside it, and the gateway's pools, may have open at one moment and not at another."""
OVERLOAD = "503 overload"
_ESTABLISHED = "01"


def stalled(count: int) -> Play:
    """Readers that stop in mid-body cost next to nothing, and nobody waits for them."""

    async def play(stage: Stage) -> None:
        async with crowded(stage, f"stalled-{count}") as (own, crowd), back_to_baseline(own), Crowd() as other:
            own.file("large.bin", 32 * MIB)
            told = await crowd.ask("stall", port=own.gateway.port, paths=await links(own, "large.bin", count))
            await note(own, told)
            assert told["outcomes"].get("200", 0) >= SUCCESS * count, f"stalled readers: {told['outcomes']}"
            pulse = asyncio.create_task(other.ask("pulse", port=own.gateway.port, path="/", seconds=4.0, every=0.01))
            await legitimate(own)
            late = await pulse
            assert set(late["outcomes"]) == {"404 link.unknown"}, f"the pulse: {late['outcomes']}"
            # The client's own sleeps are as late as the machine is busy with other things.
            lag = late["p99"] - late["overslept_p99"]
            assert lag < LAG_P99, f"a worker's loop answers {lag * 1000:.0f} ms late at p99"
            alive = await crowd.ask("alive")
            assert alive["alive"] == alive["held"], f"stalled readers were cut: {alive}"
            await note(own, await crowd.ask("leave"))

    return play


def half_heads(count: int, bodies: int) -> Play:
    """Heads that stop half-way, and bodies that come a byte a second, are given up in time."""

    async def play(stage: Stage) -> None:
        async with crowded(stage, "half") as (own, crowd), back_to_baseline(own), Crowd() as other:
            port = own.gateway.port
            patience = HEAD_WITHIN + 3 * LATE
            heads = asyncio.create_task(crowd.ask("half", port=port, count=count, patience=patience))
            drips = asyncio.create_task(other.ask("drip", port=port, path="/", count=bodies, patience=2 * patience))
            await asyncio.sleep(0.5)
            await legitimate(own)
            told = await heads
            assert told["outcomes"] == {"ended by the server": count}, f"half heads: {told['outcomes']}"
            assert told["slowest"] < HEAD_WITHIN + LATE, f"a half head was borne for {told['slowest']:.1f} s"
            told = await drips
            ended = count_of(told, "BrokenPipeError", "ConnectionResetError")
            assert ended == bodies, f"dripping bodies: {told['outcomes']}"

    return play


def connects(count: int) -> Play:
    """A storm of connections, and then one in which everybody asks: whoever is not served is told why."""

    async def play(stage: Stage) -> None:
        async with crowded(stage, f"connects-{count}") as (own, crowd), back_to_baseline(own):
            port = own.gateway.port
            storm = asyncio.create_task(crowd.ask("burst", port=port, paths=[""] * count))
            await legitimate(own)
            told = await storm
            assert told["outcomes"] == {"connected": count}, f"connects: {told['outcomes']}"
            told = await crowd.ask("burst", port=port, paths=await links(own, PROBE, count), patience=60)
            await note(own, told)
            assert count_of(told, "200", OVERLOAD) >= SUCCESS * count, f"requests: {told['outcomes']}"
            assert told["outcomes"].get("200", 0) >= count // 2, f"too few are served: {told['outcomes']}"

    return play


def full_memory(count: int, workers: int, cap: int) -> Play:
    """Behind a bucket, more stalled readers than fit: some are refused before they cost anything, the rest finish."""

    async def play(stage: Stage) -> None:
        name = f"full-{workers}"
        folder = stage.folder / name / "files"
        folder.mkdir(parents=True)
        settings = {"memory": f"{cap // MIB}MiB"}
        async with (
            Bucket(folder) as bucket,
            crowded(stage, name, origin=bucket.origin, workers=workers, settings=settings) as (own, crowd),
            watched(own.gateway.pids()) as peak,
        ):
            own.file("large.bin", 8 * MIB)
            told = await crowd.ask("stall", port=own.gateway.port, paths=await links(own, "large.bin", count))
            await note(own, told)
            served, refused = told["outcomes"].get("200", 0), told["outcomes"].get(OVERLOAD, 0)
            assert served + refused >= SUCCESS * count, f"neither served nor told to come again: {told['outcomes']}"
            assert served >= 16 * workers, f"only {served} fit into {cap // MIB} MiB"
            assert refused, f"{count} fit into {cap // MIB} MiB: nothing was tried"
            looked = await own.fetch(own.token(PROBE), method="HEAD")
            assert looked.status == 200, f"a look costs nothing and is refused: {looked.status} {looked.reason}"
            told = await crowd.ask("finish")
            await note(own, told)
            cut = [seen["fault"] for seen in told["seen"] if seen["received"] != seen["length"]]
            assert not cut, f"{len(cut)} of {served} that ran were cut: {set(cut)}"
            await own.serves_within(3 * LATE)
            assert max(peak) <= cap, f"{max(peak) // MIB} MiB were taken and {cap // MIB} allowed"

    return play


async def hoard(stage: Stage) -> None:
    """One address takes every place that a worker has: idle ones make room, and running ones stay."""
    few = ("/bin/sh", "-c", 'ulimit -n 200; exec "$0" "$@"')
    async with crowded(stage, "hoard", workers=1, command=few) as (own, crowd), Crowd() as other:
        own.file("large.bin", 8 * MIB)
        (worker,) = own.gateway.pids()
        before = descriptors(worker)
        told = await other.ask("stall", port=own.gateway.port, paths=await links(own, "large.bin", 10))
        await note(own, told)
        assert told["outcomes"] == {"200": 10}, f"before the hoard: {told['outcomes']}"
        await crowd.ask("hold", port=own.gateway.port, count=1000)
        spent = cpu_seconds(worker)
        await asyncio.sleep(1)
        assert cpu_seconds(worker) - spent < 0.5, "a worker without a free place spins"
        await legitimate(own)
        told = await other.ask("finish")
        await note(own, told)
        assert all(seen["received"] == seen["length"] for seen in told["seen"]), "the hoard cut who was running"
        await crowd.ask("leave")
        await fewer_descriptors({worker: before})


async def pushed(stage: Stage) -> None:
    """Who sends a body that nobody asked for, and reads nothing, holds neither the worker's memory nor the kernel's."""
    count = 200
    async with crowded(stage, "pushed", workers=1) as (own, crowd):
        own.file("large.bin", 8 * MIB)
        (worker,) = own.gateway.pids()
        before = pss_kib(worker)
        paths = await links(own, "large.bin", count)
        await crowd.ask("push", port=own.gateway.port, paths=paths, size=8 * MIB, seconds=6.0)
        each = (pss_kib(worker) - before) / count
        assert each < 128, f"a pushed body holds {each:.0f} KiB of the worker"
        unread = unread_bytes(own.gateway.port)
        assert len(unread) >= SUCCESS * count, f"only {len(unread)} connections hold a body"
        assert max(unread) < 128 * KIB, f"a pushed body holds {max(unread) // KIB} KiB of the kernel"
        await legitimate(own)


@asynccontextmanager
async def crowded(
    stage: Stage, name: str, *, settings: Mapping[str, str] | None = None, **options: object
) -> AsyncIterator[tuple[Stage, Crowd]]:
    """A stage of its own, whose Redis is asked without a proxy in this process, which is busy; and a crowd for it.

    Its leases are as long as a shop's: a thousand of two seconds would be a load by themselves.
    """
    redis = RedisServer(stage.folder / f"{name}-redis")
    await asyncio.to_thread(redis.start)
    settings = {"counting": "{repeat_window: 2s, resume_window: 60s, lease: 10s}", **(settings or {})}
    try:
        async with stage.beside(name, redis_url=redis.url, settings=settings, **options) as own, Crowd() as crowd:
            yield own, crowd
    finally:
        await asyncio.to_thread(redis.kill)


async def legitimate(stage: Stage, count: int = LEGITIMATE) -> None:
    """So many ordinary downloads, ten at a time; 99 in 100 succeed."""
    gate = asyncio.Semaphore(10)

    async def one() -> Fetched:
        async with gate:
            return await stage.fetch(stage.token(PROBE, downloads=1))

    seen = await asyncio.gather(*(one() for _ in range(count)))
    failed = [f"{each.status} {each.reason} {each.error}" for each in seen if not (each.whole and each.sha_ok)]
    assert len(failed) <= (1 - SUCCESS) * count, f"{len(failed)} of {count} downloads failed: {set(failed)}"


async def links(stage: Stage, name: str, count: int) -> list[str]:
    """As many paths, each of a link of its own."""
    paths = []
    for _ in range(count):
        paths.append(f"/d/{stage.token(name, downloads=1)}/1")
        await asyncio.sleep(0)  # proxies of other stages live in this loop
    return paths


async def note(stage: Stage, told: Told) -> None:
    """Put what the crowd's clients saw into the stage's log, for the audit."""
    for seen in told["seen"]:
        await asyncio.sleep(0)
        ticket = stage.tickets[seen["path"].split("/")[2]]
        (name,) = ticket.files
        fetched = Fetched(ticket.token_id, name, "GET", "127.0.0.1", status=seen["status"], reason=seen["reason"])
        fetched.request_id, fetched.sha256 = seen["request_id"], seen["sha256"]
        fetched.began, fetched.ended = seen["began"], seen["began"] + seen["took"]
        fetched.error = seen["fault"]
        if fetched.served:
            fetched.length = fetched.size = seen["length"]
            fetched.received, fetched.first_byte = seen["received"], seen["began"]
            fetched.error = fetched.error or ("left" if fetched.received < fetched.length else "")
            fetched.sha_ok = stage.versions.holds(
                name, start=0, length=fetched.received, size=fetched.size, sha256=fetched.sha256
            )
        stage.log.add(fetched)


@asynccontextmanager
async def back_to_baseline(stage: Stage) -> AsyncIterator[None]:
    """The workers that were there before are there afterwards, with as many descriptors."""
    before = {pid: descriptors(pid) for pid in stage.gateway.pids()}
    yield
    await fewer_descriptors(before)
    assert sorted(before) == sorted(stage.gateway.pids()), "a worker has died"


async def fewer_descriptors(before: dict[int, int]) -> None:
    """Raises AssertionError where descriptors have not come back in time."""
    until = asyncio.get_running_loop().time() + BACK_WITHIN
    while more := {pid: descriptors(pid) - count for pid, count in before.items() if descriptors(pid) > count + ROOM}:
        assert asyncio.get_running_loop().time() < until, f"descriptors did not come back: {more}"
        await asyncio.sleep(0.2)


@asynccontextmanager
async def watched(pids: Iterable[int]) -> AsyncIterator[list[int]]:
    """The resident memory of these processes together, in bytes, read all the while."""
    readings: list[int] = []

    async def watch() -> None:
        while True:
            readings.append(sum(resident(pid) for pid in pids))
            await asyncio.sleep(0.02)

    task = asyncio.create_task(watch())
    try:
        yield readings
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def unread_bytes(port: int) -> list[int]:
    """What the kernel holds for the reader, of each connection to this port of 127.0.0.1 (proc(5), net/tcp)."""
    lines = Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]
    columns = [line.split() for line in lines]
    ours = f"0100007F:{port:04X}"
    return [int(row[4].partition(":")[2], 16) for row in columns if row[1] == ours and row[3] == _ESTABLISHED]


def cpu_seconds(pid: int) -> float:
    """User and system time of the process."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def count_of(told: Told, *outcomes: str) -> int:
    """How many clients had one of these outcomes."""
    return sum(told["outcomes"].get(outcome, 0) for outcome in outcomes)


FAULTS = [
    Fault("200 stalled readers", stalled(200), quick=True, whole=False),
    Fault("1,000 stalled readers", stalled(1000)),
    Fault("500 half heads, 100 dripping bodies", half_heads(500, 100)),
    Fault("500 connects at once", connects(500), quick=True, whole=False),
    Fault("5,000 connects at once", connects(5000)),
    Fault("more stalled readers than memory, one worker", full_memory(200, 1, 192 * MIB), quick=True, whole=False),
    Fault("more stalled readers than memory", full_memory(800, 2, 400 * MIB)),
    Fault("1,000 idle connections on one worker of few descriptors", hoard),
    Fault("bodies pushed into 200 downloads", pushed),
]
