"""The wire to Redis: one write per turn, every failure a LedgerDown in about a second, recovery unaided."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from gateway.backends.embedded_redis import EmbeddedRedis
from gateway.backends.redis_client import Script, Wire, connect
from gateway.errors import LedgerDown, LedgerFault


async def test_commands_of_one_turn_share_a_round_trip(redis_db: str) -> None:
    wire = Wire(connect(redis_db))
    try:
        await wire.execute("PING")
        before = (await wire.execute("INFO", "stats"))["total_reads_processed"]
        replies = await asyncio.gather(*(wire.execute("INCR", "n") for _ in range(100)))
        after = (await wire.execute("INFO", "stats"))["total_reads_processed"]
    finally:
        await wire.close()
    assert replies == list(range(1, 101))
    assert after - before <= 4


async def test_a_reply_that_a_busy_loop_could_not_read_yet_is_not_late(redis_db: str) -> None:
    """Else one long turn of the loop would be taken for a dead Redis, and everybody refused."""
    wire = Wire(connect(redis_db))
    try:
        await wire.execute("PING")
        asked = asyncio.create_task(wire.execute("INCR", "n"))
        for _ in range(6):
            await asyncio.sleep(0)
            time.sleep(0.3)  # noqa: ASYNC251  the loop is to be held up
        assert await asked == 1
    finally:
        await wire.close()


async def test_a_script_survives_a_script_flush(redis_db: str) -> None:
    wire = Wire(connect(redis_db))
    try:
        script = Script("lapsed.lua")
        assert await wire.run(script, ["gw:{0}:leases"], [1, "p"]) == []
        await wire.execute("SCRIPT FLUSH")
        assert await wire.run(script, ["gw:{0}:leases"], [1, "p"]) == []
    finally:
        await wire.close()


async def test_an_error_reply_names_its_code_and_none_of_our_arguments(redis_db: str) -> None:
    wire = Wire(connect(redis_db))
    try:
        await wire.execute("SET", "text", "secret-value")
        with pytest.raises(LedgerDown) as told:
            await wire.execute("XADD", "text", "*", "secret-field", "secret-value")
        assert "WRONGTYPE" in str(told.value)
        assert "secret" not in str(told.value)
    finally:
        await wire.close()


async def test_an_error_reply_that_quotes_our_arguments_is_not_passed_on(wire: Wire) -> None:
    for command in (("SECRET-COMMAND", "secret-value"), ("EVAL", "return redis.error_reply('secret words')", 0)):
        with pytest.raises(LedgerDown) as told:
            await wire.execute(*command)
        assert "secret" not in str(told.value).lower()
        assert told.value.__cause__ is None
        assert told.value.__suppress_context__


async def test_a_server_that_says_nothing_is_down_within_a_second() -> None:
    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(mute, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    wire = Wire(connect(f"redis://127.0.0.1:{port}"))
    began = time.monotonic()
    with pytest.raises(LedgerDown):
        await wire.execute("PING")
    assert time.monotonic() - began < 1.5
    with pytest.raises(LedgerDown, match="a moment ago"):
        await wire.execute("PING")
    await wire.close()
    server.close()
    await server.wait_closed()


async def test_it_recovers_when_the_server_is_back(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path / "redis")
    url = await asyncio.to_thread(server.start)
    wire = Wire(connect(url))
    try:
        await asyncio.gather(*(wire.execute("SET", f"k{n}", n) for n in range(5)))
        await asyncio.to_thread(server.stop)
        with pytest.raises(LedgerDown):
            await wire.execute("PING")
        assert await asyncio.to_thread(server.start) == url
        await asyncio.sleep(0.3)
        assert await wire.execute("GET", "k3") == "3"
    finally:
        await wire.close()
        await asyncio.to_thread(server.stop)


def test_unknown_schemes_are_refused() -> None:
    with pytest.raises(ValueError, match="http"):
        connect("http://127.0.0.1")


async def test_a_master_that_became_a_replica_is_left(redis_db: str) -> None:
    """After a failover the old master refuses writes; its idle connections must go, or they are asked for ever."""
    wire = Wire(connect(redis_db))
    try:
        first = await wire.execute("CLIENT ID")
        await wire.execute("REPLICAOF", "127.0.0.1", "1")
        with pytest.raises(LedgerDown, match="READONLY") as told:
            await wire.execute("SET", "k", "v")
        assert not isinstance(told.value, LedgerFault)
        assert await wire.execute("CLIENT ID") != first
    finally:
        await wire.execute("REPLICAOF", "NO", "ONE")
        await wire.close()


async def test_full_memory_is_down_and_not_a_fault_of_one_command(redis_db: str) -> None:
    wire = Wire(connect(redis_db))
    try:
        await wire.execute("CONFIG SET", "maxmemory", "1")
        with pytest.raises(LedgerDown, match="OOM") as told:
            await wire.execute("SET", "k", "v")
        assert not isinstance(told.value, LedgerFault)
    finally:
        await wire.execute("CONFIG SET", "maxmemory", "0")
        await wire.close()
