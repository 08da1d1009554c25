"""What holds whenever the counters are out of reach: no byte without a decision, an answer in time, back unaided."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from stage import Stage

from gateway.policy.model import Limits

Play = Callable[[Stage], Awaitable[None]]

REFUSED_WITHIN = 1.0
SERVED_WITHIN = 5.0
DOWN = "redis.down"
LARGE = 8 << 20
RATE = 4_000_000
"""Bytes per second: so slow that it is still running when the fault comes, and asks for its turn all the time."""
POLL = 0.1


@asynccontextmanager
async def under_way(stage: Stage) -> AsyncIterator[None]:
    """A large download that runs meanwhile: what its client gets is right, and what is missing it can see."""
    name = "under-way.bin"
    stage.file(name, LARGE)
    running = asyncio.create_task(stage.fetch(stage.token(name, limits=Limits(rate=RATE)), timeout=60))
    await asyncio.sleep(0.05)
    try:
        yield
    finally:
        got = await running
    assert got.sha_ok or not got.received, f"a running download got bytes of no version: {got}"
    assert not got.complete or got.whole, f"a running download ended early and looked complete: {got}"


async def down(
    stage: Stage,
    broken: Callable[[], object],
    mended: Callable[[], object],
    *,
    again: int = 3,
    meanwhile: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """While it is `broken` everybody is refused, and soon after it is `mended` everybody is served.

    Both block, so they run in a thread.
    """
    async with under_way(stage):
        await asyncio.to_thread(broken)
        try:
            for _ in range(again):
                await stage.refuses_within(REFUSED_WITHIN, DOWN)
                await asyncio.sleep(stage.rng.uniform(0, 0.4))
            if meanwhile is not None:
                await meanwhile()
        finally:
            await asyncio.to_thread(mended)
        await stage.serves_within(SERVED_WITHIN)


async def until_served(stage: Stage, token: str, seconds: float) -> float:
    """Ask with this very token until it is served; how long it took. Nothing but a refusal is borne meanwhile."""
    began = time.monotonic()
    while True:
        got = await stage.fetch(token)
        took = time.monotonic() - began
        if got.served:
            assert (got.whole, got.sha_ok) == (True, True), f"served, but not what was asked for: {got}"
            return took
        assert took < seconds, f"still refused after {took:.1f} s: {got}"
        await asyncio.sleep(POLL)
