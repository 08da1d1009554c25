"""The wall clock of a gateway's processes jumps (libfaketime; the machine's own clock is never touched).

Law: `exp` and `nbf` obey the clock that there is; leases, timeouts, pace, drain and counting do not notice.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from clients import Fetched
from fault import Fault
from gateway_process import ROOT
from processes import busiest, charged, in_flight
from stage import Stage

from gateway.policy.model import Limits

LIBRARIES = tuple(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
HOUR, DAY = 3600, 86400
LEASE = 4
STEPS = (HOUR, -HOUR, DAY, -DAY)
RATE = 512 * 1024
SECONDS = 3
"""What a file takes at RATE, and about how long each step is watched."""
TOLERANCE = 3.0
LOST_WITHIN = 4 * LEASE + 4.0
LATE = ("no answer in time", "Redis failed a moment ago")
"""How the gateway's log says that Redis was too slow for it."""
ATTEMPTS = 3
WHOLE, HALF = "whole.bin", "half.bin"


class Clock:
    """The offset of the gateway's wall clock from the true one, which every process of it reads at each call."""

    def __init__(self, folder: Path) -> None:
        assert LIBRARIES, "the clock cannot be turned: install faketime (Debian: apt-get install faketime)"
        folder.mkdir(parents=True)
        self.offset = 0
        self._file = folder / "offset"
        self.turn(0)
        # libfaketime breaks clock_nanosleep(TIMER_ABSTIME), with which Python sleeps, whichever clock it is asked for.
        (folder / "sitecustomize.py").write_text(
            "import select\nimport time\n\ntime.sleep = lambda seconds: select.select([], [], [], seconds) and None\n"
        )
        self.environment = {
            "PYTHONPATH": f"{folder}:{ROOT}",
            "LD_PRELOAD": str(LIBRARIES[0]),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            # A step moves neither the monotonic clock nor the times of files.
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }

    def turn(self, seconds: int) -> None:
        fresh = self._file.with_suffix(".new")
        fresh.write_text(f"{seconds:+d}\n")
        fresh.replace(self._file)
        self.offset = seconds


def steps(offsets: tuple[int, ...]) -> Callable[[Stage], Awaitable[None]]:
    async def play(stage: Stage) -> None:
        clock = Clock(stage.folder / "clock")
        settings = {"counting": f"{{repeat_window: 2s, resume_window: 60s, lease: {LEASE}s}}"}
        async with stage.beside("clocks", workers=2, environment=clock.environment, settings=settings) as own:
            own.file(WHOLE, RATE * SECONDS)
            own.file(HALF, 600_000)
            pids = set(await asyncio.to_thread(own.gateway.pids))
            for offset in (*offsets, 0):
                await calmly(own, clock, offset)
                assert set(await asyncio.to_thread(own.gateway.pids)) == pids, "a worker did not outlive the step"
            await killed_at_a_step(own, clock, -DAY)
            await stopped_at_a_step(own, clock, HOUR)

    return play


async def calmly(stage: Stage, clock: Clock, offset: int) -> None:
    """A step; once more where the machine was so busy that Redis did not answer in time: that proves nothing."""
    former = clock.offset
    for left in reversed(range(ATTEMPTS)):
        late = sum(map(stage.gateway.log().count, LATE))
        try:
            await step(stage, clock, offset)
        except AssertionError:
            if not left or sum(map(stage.gateway.log().count, LATE)) == late:
                raise
            clock.turn(former)
            await asyncio.sleep(LEASE)
        else:
            return


async def step(stage: Stage, clock: Clock, offset: int) -> None:
    """The clock jumps while downloads run; they go on, and those after it are judged by the clock that there is."""
    lost = await closed_as_lost(stage)
    now = int(time.time())
    limits = Limits(downloads=1, rate=RATE)
    begun = [stage.token(WHOLE, downloads=1, limits=limits, expires_at=now + 2 * DAY) for _ in range(4)]
    running = [asyncio.create_task(stage.fetch(token)) for token in begun]
    # What has begun may finish, though its link has run out meanwhile.
    over = now + (HOUR // 2 if clock.offset <= 0 else 2 * DAY)
    left, address = stage.token(HALF, downloads=1, expires_at=over), stage.network()
    first = await stage.fetch(left, address=address, read_limit=300_000)
    await asyncio.sleep(0.5)
    clock.turn(offset)
    assert (await asyncio.to_thread(stage.gateway.ask, "/readyz"))[0] == 200, "no longer ready"
    await limits_hold(stage)
    await times_are_judged(stage, offset)
    rest = await stage.fetch(left, address=address, range=f"bytes={first.received}-")
    assert (rest.status, rest.complete, rest.sha_ok) == (206, True, True), f"no way to go on: {rest}"
    for got in await asyncio.gather(*running):
        paced(got)
    await asyncio.sleep(LEASE)
    events = await stage.settle()
    assert await closed_as_lost(stage) == lost, "a living worker's download was reaped"
    counted = [charged(events, stage.tickets[token].token_id) for token in (left, *begun)]
    assert counted == [1] * len(counted), f"charged twice, or not at all: {counted}"


async def closed_as_lost(stage: Stage) -> int:
    return sum(event["type"] == "download.lost" for event in await asyncio.to_thread(stage.events))


async def limits_hold(stage: Stage) -> None:
    token = stage.token(HALF, downloads=1, expires_at=int(time.time()) + 2 * DAY)
    answers = [await stage.fetch(token) for _ in range(2)]
    told = [(got.status, got.reason) for got in answers]
    assert told == [(200, ""), (410, "limit.downloads")], f"one download was sold, and the answers are {told}"
    took = max(got.ended - got.began for got in answers)
    assert took < TOLERANCE, f"an answer took {took:.1f} s"


async def times_are_judged(stage: Stage, offset: int) -> None:
    """Where the gateway's clock and Redis's disagree, the stricter one counts."""
    now = int(time.time())
    soon = await stage.fetch(stage.token(HALF, expires_at=now + HOUR // 2))
    due = (410, "token.expired") if offset > HOUR // 2 else (200, "")
    assert (soon.status, soon.reason) == due, f"a token of half an hour, at {offset:+d} s: {soon}"
    late = await stage.fetch(stage.token(HALF, kind="expired", expires_at=now - HOUR // 2))
    assert (late.status, late.reason) == (410, "token.expired"), f"a token that is over, at {offset:+d} s: {late}"
    early = await stage.fetch(stage.token(HALF, not_before=now - HOUR // 2, expires_at=now + 2 * DAY))
    due = (403, "token.not_yet") if offset < -HOUR // 2 else (200, "")
    assert (early.status, early.reason) == due, f"a token that has begun, at {offset:+d} s: {early}"


def paced(got: Fetched) -> None:
    assert got.complete, f"a running download was cut: {got}"
    assert got.sha_ok, f"bytes of no version: {got}"
    took = got.ended - got.began
    assert SECONDS - 0.5 <= took <= SECONDS * TOLERANCE, f"{SECONDS} s of bytes came in {took:.1f} s"


async def killed_at_a_step(stage: Stage, clock: Clock, offset: int) -> None:
    """A worker dies and the clock jumps: its lease is closed neither earlier nor later for that."""
    lost = await closed_as_lost(stage)
    token = stage.token(WHOLE, downloads=1, limits=Limits(downloads=1, rate=RATE // 4))
    running = asyncio.create_task(stage.fetch(token))
    await in_flight(stage, 1)
    victim = busiest(await asyncio.to_thread(stage.gateway.pids), stage.gateway.port)
    clock.turn(offset)
    os.kill(victim, signal.SIGKILL)
    died = time.monotonic()
    seen = await running
    assert not seen.complete
    while await closed_as_lost(stage) == lost:
        assert time.monotonic() < died + LOST_WITHIN, "the lease of the dead is still held"
        await asyncio.sleep(0.1)


async def stopped_at_a_step(stage: Stage, clock: Clock, offset: int) -> None:
    """The clock jumps while the gateway drains: what runs has its drain time, and no more."""
    running = asyncio.create_task(stage.fetch(stage.token(WHOLE, limits=Limits(rate=RATE)), timeout=60))
    await in_flight(stage, 1)
    began = time.monotonic()
    ending = asyncio.create_task(stage.gateway.terminate())
    await asyncio.sleep(0.5)
    clock.turn(offset)
    paced(await running)
    status = await ending
    assert status == 0, f"told to stop, the gateway ended with {status}"
    assert time.monotonic() - began < SECONDS * TOLERANCE + 10, "the end waited for more than what ran"
    await stage.gateway.start()


CLOCK_FAULTS = [
    Fault("clock steps of an hour and a day", steps(STEPS)),
]
