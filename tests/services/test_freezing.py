"""Freezing and thawing whatever Redis knows of it, and whoever's clock said the last word."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from gateway.backends.redis_client import Wire
from gateway.backends.redis_control import RedisControl
from gateway.policy.standing import Command, Frozen
from gateway.services import freezing
from gateway.services.control import Control

AHEAD = int(time.time()) + 3600


async def on_record() -> None:
    pass


@pytest.fixture
def commands(wire: Wire) -> RedisControl:
    return RedisControl(wire)


async def soon(holds: Callable[[], bool]) -> None:
    for _ in range(200):
        if holds():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it did not come to pass")


async def frozen_by(commands: RedisControl) -> Frozen | None:
    return (await commands.read_all()).frozen


@pytest.mark.parametrize(
    "before", [(), (Command("thaw", AHEAD),), (Command("freeze", AHEAD), Command("thaw", AHEAD + 1))]
)
async def test_frozen_and_thawed_whatever_was_said_by_clocks_ahead(
    commands: RedisControl, before: tuple[Command, ...]
) -> None:
    for command in before:
        await commands.append(command)
    began = int(time.time())
    frozen = await freezing.freeze(commands, on_record, "Soon.")
    assert await frozen_by(commands) == frozen == Frozen(frozen.since, "Soon.")
    assert began <= frozen.since <= time.time(), "since it was said, by the clock of who said it"
    assert await freezing.thaw(commands, on_record)
    assert await frozen_by(commands) is None
    assert not await freezing.thaw(commands, on_record)


async def test_a_message_is_kept_changed_and_taken_away_and_the_beginning_stays(commands: RedisControl) -> None:
    await commands.append(Command("freeze", 60, message="Soon."))
    for given, told in ((None, "Soon."), ("Later.", "Later."), ("", None), (None, None)):
        assert await freezing.freeze(commands, on_record, given) == Frozen(60, told) == await frozen_by(commands)


async def test_a_freeze_that_only_a_worker_knows_is_thawed(wire: Wire, commands: RedisControl) -> None:
    await commands.append(Command("freeze", 60))
    worker = Control(commands)
    await worker.start()
    try:
        await wire.execute("FLUSHALL")
        assert not await freezing.thaw(commands, on_record), "before it is put back"
        await soon(lambda: worker.standing.frozen is None)
    finally:
        await worker.stop()


async def test_a_freeze_by_a_clock_behind_a_lost_thaw_freezes(wire: Wire, commands: RedisControl) -> None:
    await commands.append(Command("thaw", AHEAD))
    worker = Control(commands)
    await worker.start()
    try:
        await wire.execute("FLUSHALL")
        lost_at = time.monotonic()
        await soon(lambda: worker.complete_at > lost_at + 0.8)
        await freezing.freeze(commands, on_record)
        await soon(lambda: worker.standing.frozen is not None)
    finally:
        await worker.stop()
