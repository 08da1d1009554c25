"""The tail of the control stream in one worker, on a real server that is paused, emptied, killed and started again."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from gateway.backends.embedded_redis import EmbeddedRedis
from gateway.backends.redis_client import Wire, connect
from gateway.backends.redis_control import STREAM, RedisControl
from gateway.policy.model import Claims, FileEntry
from gateway.policy.standing import Command, Frozen
from gateway.services.control import SILENCE, Control

LINK = Claims("shop", "t1", 1000, (FileEntry("a"),), issued_at=50, order_id="10001")
OTHER = replace(LINK, token_id="t2", order_id="10002")
REVOKED = Command("revoke", 60, token_key=LINK.token_key)


async def soon(holds: Callable[[], bool], within: float = 5.0) -> float:
    """How long it took, in seconds."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < within, "it did not come to pass"
        await asyncio.sleep(0.01)
    return time.monotonic() - began


@asynccontextmanager
async def following(wire: Wire, on_refused: Callable[[], None] = lambda: None) -> AsyncIterator[Control]:
    control = Control(RedisControl(wire), on_refused=on_refused)
    await control.start()
    try:
        yield control
    finally:
        await control.stop()


@dataclass
class Server:
    """A server of one test, which may hurt it."""

    embedded: EmbeddedRedis
    wire: Wire

    async def stop(self) -> None:
        await asyncio.to_thread(self.embedded.stop)

    async def start(self) -> None:
        await asyncio.to_thread(self.embedded.start)

    async def kill(self) -> None:
        """Without a word to anyone, as by power loss; the file has what was written until a second ago."""
        os.kill((await self.wire.execute("INFO", "server"))["process_id"], signal.SIGKILL)
        await asyncio.to_thread(self.embedded.stop)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    embedded = EmbeddedRedis(tmp_path / "redis")
    wire = Wire(connect(await asyncio.to_thread(embedded.start)))
    yield Server(embedded, wire)
    await wire.close()
    await asyncio.to_thread(embedded.stop)


async def test_a_freeze_is_said_at_the_start_and_cuts_and_a_thaw_is_said(
    wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    cuts: list[bool] = []
    await RedisControl(wire).append(Command("freeze", 60))
    async with following(wire, lambda: cuts.append(True)) as control:
        assert control.standing.frozen == Frozen(60)
        assert "all downloads are stopped since 1970-01-01T00:01:00.000Z" in caplog.text
        await RedisControl(wire).append(Command("thaw", 61))
        assert await soon(lambda: control.standing.frozen is None) < 1
        await RedisControl(wire).append(Command("freeze", 61))
        assert await soon(lambda: cuts == [True, True]) < 1, "at the start, too"
    assert caplog.text.count("allowed again") == 1
    assert caplog.text.count("are stopped") == 2


async def test_all_of_it_is_in_memory_before_start_returns(wire: Wire) -> None:
    commands = RedisControl(wire)
    many = [Command("revoke", 60, order_id=str(number)) for number in range(2500)]
    for start in range(0, len(many), 250):
        await asyncio.gather(*(commands.append(command) for command in many[start : start + 250]))
    await commands.append(REVOKED)
    async with following(wire) as control:
        assert control.current()
        assert control.standing.is_revoked(LINK)
        assert control.standing.order_revoked_until("2499") == 60


async def test_an_order_is_in_force_within_a_second_and_cuts(wire: Wire) -> None:
    cuts: list[bool] = []
    async with following(wire, lambda: cuts.append(control.standing.is_revoked(LINK))) as control:
        assert cuts == []
        commands = RedisControl(wire)
        await commands.append(Command("extend", 60, token_key=OTHER.token_key, expires_at=2000))
        assert await soon(lambda: control.standing.extended_to(OTHER) == 2000) < 1
        assert cuts == []
        await commands.append(REVOKED)
        assert await soon(lambda: cuts == [True]) < 1


async def test_one_that_fails_to_cut_is_told_again_and_lets_nobody_in(wire: Wire) -> None:
    failures = [OSError("broken"), OSError("broken")]

    def cut() -> None:
        if failures:
            raise failures.pop()

    async with following(wire, cut) as control:
        await RedisControl(wire).append(REVOKED)
        await soon(lambda: not control.current())
        await soon(control.current)
        assert failures == []
        assert control.standing.is_revoked(LINK)


async def test_a_worker_that_is_started_again_knows_all(wire: Wire) -> None:
    async with following(wire):
        await RedisControl(wire).append(REVOKED)
    async with following(wire) as control:
        assert control.standing.is_revoked(LINK)


async def test_what_was_read_is_not_forgotten_with_the_stream(
    wire: Wire, redis_db: str, caplog: pytest.LogCaptureFixture
) -> None:
    commands = RedisControl(wire)
    await commands.append(REVOKED)
    async with following(wire) as control:
        await wire.execute("FLUSHALL")
        await soon(lambda: "has lost entries" in caplog.text)
        await commands.append(Command("revoke", 60, order_id="10002"))
        await soon(lambda: control.standing.is_revoked(OTHER))
        assert control.standing.is_revoked(LINK)
        assert control.current()


@pytest.mark.parametrize("is_emptied", [True, False])
@pytest.mark.parametrize(
    ("said", "contrary"),
    [
        (Command("freeze", 60, message="Soon.", since=50), Command("thaw", 55)),
        (Command("thaw", 60), Command("freeze", 55)),
    ],
)
async def test_what_was_said_of_all_is_put_back_once_where_the_stream_has_lost_it(
    wire: Wire, said: Command, contrary: Command, is_emptied: bool
) -> None:
    commands = RedisControl(wire)
    await commands.append(said)
    ((last, _),) = await wire.execute("XRANGE", STREAM, "-", "+")
    async with following(wire) as control:
        if is_emptied:
            await wire.execute("FLUSHALL")
        else:  # an older copy, in which the contrary is what was said last, becomes master
            await commands.append(contrary)
            await wire.execute("XDEL", STREAM, last)
        lost_at = time.monotonic()
        await soon(lambda: control.complete_at > lost_at + 1)
        assert (await commands.read_all()).of_all == said
        assert await wire.execute("XLEN", STREAM) == 2 - is_emptied


async def test_a_server_that_says_nothing_counts_as_down_after_two_seconds(wire: Wire) -> None:
    async with following(wire) as control:
        await wire.execute("CLIENT PAUSE", 3500, "ALL")
        paused = time.monotonic()
        while time.monotonic() - paused < SILENCE - 0.8:
            assert control.current()
            await asyncio.sleep(0.05)
        await soon(lambda: not control.current(), SILENCE)
        assert time.monotonic() - paused < SILENCE + 1
        assert control.trouble
        await soon(control.current)
        assert time.monotonic() - paused > 3.4
        assert control.trouble == ""


async def test_a_killed_server_is_followed_on_when_it_is_back(server: Server) -> None:
    commands = RedisControl(server.wire)
    await commands.append(REVOKED)
    await asyncio.sleep(1.2)  # until it is on disk
    async with following(server.wire) as control:
        await server.kill()
        await soon(lambda: not control.current())
        assert control.standing.is_revoked(LINK)
        await server.start()
        await soon(control.current)
        await commands.append(Command("revoke", 60, order_id="10002"))
        assert await soon(lambda: control.standing.is_revoked(OTHER)) < 1


async def test_without_redis_it_starts_and_lets_nobody_in(server: Server) -> None:
    await RedisControl(server.wire).append(REVOKED)
    await server.stop()
    began = time.monotonic()
    async with following(server.wire) as control:
        assert time.monotonic() - began < 1.5
        assert not control.current()
        await server.start()
        await soon(control.current)
        assert control.standing.is_revoked(LINK)


async def test_after_silence_nobody_is_let_in_before_all_is_read() -> None:
    """A log of the test's own, since a real one cannot be held between two pages."""
    go_on = asyncio.Event()

    class Held:
        async def append(self, command: Command) -> None:
            raise NotImplementedError

        async def follow(self, last: str) -> AsyncIterator[tuple[str, list[Command]]]:
            yield "0", []
            await asyncio.sleep(SILENCE + 0.1)
            yield "1-0", [Command("revoke", 60, order_id="10002")]
            await go_on.wait()
            yield "2-0", [REVOKED]
            yield "2-0", []
            await asyncio.sleep(60)

    control = Control(Held())
    await control.start()
    assert control.current()
    await soon(lambda: control.standing.is_revoked(OTHER))
    assert not control.current()
    go_on.set()
    await soon(control.current)
    assert control.standing.is_revoked(LINK)
    await control.stop()


async def test_what_cannot_be_read_lets_nobody_in_at_once_and_is_logged_once(
    wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    async with following(wire) as control:
        await wire.execute("XADD", STREAM, "1-0", "v", "7", "verb", "revoke")
        assert await soon(lambda: not control.current()) < 1
        await RedisControl(wire).append(REVOKED)
        await asyncio.sleep(1)
        assert not control.current()
        assert "entry 1-0" in control.trouble
        assert [record.levelname for record in caplog.records] == ["CRITICAL"]
        await wire.execute("XDEL", STREAM, "1-0")
        await soon(control.current)
        assert control.standing.is_revoked(LINK)


async def test_eight_idle_tails_cost_next_to_nothing(wire: Wire) -> None:
    await RedisControl(wire).append(REVOKED)
    tails = [Control(RedisControl(wire)) for _ in range(8)]
    await asyncio.gather(*(tail.start() for tail in tails))
    before = time.process_time()
    await asyncio.sleep(2)
    spent = (time.process_time() - before) / 2
    await asyncio.gather(*(tail.stop() for tail in tails))
    assert spent < 0.1
