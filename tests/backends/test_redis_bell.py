"""The bell on a real server: whoever listens wakes at once, and looks every second where Redis is away."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

import pytest

from gateway.backends.embedded_redis import EmbeddedRedis
from gateway.backends.redis_bell import PATIENCE, STREAM, RedisBell
from gateway.backends.redis_client import Wire, connect


async def taken(heard: AsyncGenerator[None, None]) -> float:
    """How long the next one took, in seconds."""
    began = asyncio.get_running_loop().time()
    await anext(heard)
    return asyncio.get_running_loop().time() - began


async def test_it_wakes_everybody_at_once(wire: Wire) -> None:
    bell = RedisBell(wire)
    async with aclosing(bell.heard()) as one, aclosing(bell.heard()) as two:
        await anext(one)
        await anext(two)
        both = asyncio.gather(taken(one), taken(two))
        await asyncio.sleep(0.05)  # by now they listen; what rings before that is the next test's
        await bell.ring()
        assert max(await both) < PATIENCE / 2


async def test_what_rings_while_somebody_works_is_heard_afterwards(wire: Wire) -> None:
    bell = RedisBell(wire)
    async with aclosing(bell.heard()) as heard:
        await anext(heard)
        await bell.ring()
        assert await taken(heard) < PATIENCE / 2


async def test_old_rings_wake_nobody_and_silence_is_a_second(wire: Wire) -> None:
    bell = RedisBell(wire)
    for _ in range(3):
        await bell.ring()
    async with aclosing(bell.heard()) as heard:
        await anext(heard)
        assert PATIENCE - 0.05 <= await taken(heard) < PATIENCE + 0.5


async def test_an_emptied_stream_is_heard_again(wire: Wire) -> None:
    await wire.execute("XADD", STREAM, "9999999999999-0", "rang", "1")
    bell = RedisBell(wire)
    async with aclosing(bell.heard()) as heard:
        await anext(heard)
        await wire.execute("FLUSHALL")
        await bell.ring()  # its id lies before the one that was there
        await anext(heard)
        await bell.ring()
        assert await taken(heard) < PATIENCE / 2


async def test_the_stream_stays_short(wire: Wire) -> None:
    bell = RedisBell(wire)
    await asyncio.gather(*(bell.ring() for _ in range(1000)))
    assert await wire.execute("XLEN", STREAM) < 300


async def test_without_redis_it_is_looked_every_second_and_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    server = EmbeddedRedis(tmp_path / "redis")
    wire = Wire(connect(await asyncio.to_thread(server.start)))
    bell = RedisBell(wire)
    try:
        async with aclosing(bell.heard()) as heard:
            await anext(heard)
            await asyncio.to_thread(server.stop)
            assert [0.5 < await taken(heard) < 2 for _ in range(3)] == [True] * 3
            await bell.ring()
            assert [record.levelname for record in caplog.records] == ["WARNING"]
            await asyncio.to_thread(server.start)
            await anext(heard)
            await anext(heard)
            assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
            await bell.ring()
            assert await taken(heard) < PATIENCE / 2
    finally:
        await wire.close()
        await asyncio.to_thread(server.stop)


async def test_a_server_that_says_nothing_is_listened_to_for_a_second_only() -> None:
    """Connections are taken, and never answered."""
    release = asyncio.Event()

    async def hold(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        writer.close()

    server = await asyncio.start_server(hold, "127.0.0.1", 0)
    wire = Wire(connect(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"))
    try:
        async with aclosing(RedisBell(wire).heard()) as heard:
            assert [await taken(heard) < 2 for _ in range(2)] == [True, True]
    finally:
        release.set()
        await wire.close()
        server.close()


async def test_who_listens_can_be_cancelled(wire: Wire) -> None:
    async def listen() -> None:
        async with aclosing(RedisBell(wire).heard()) as heard:
            async for _ in heard:
                pass

    listeners = [asyncio.create_task(listen()) for _ in range(20)]
    for listener in listeners:
        await asyncio.sleep(0.01)
        listener.cancel()
    assert len((await asyncio.wait(listeners, timeout=2))[0]) == 20
