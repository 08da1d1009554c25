from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from gateway.backends.redis_client import Wire, connect
from gateway.backends.redis_events import PAGE, RedisEventLog, stream
from gateway.errors import LedgerDown
from gateway.policy.shards import shard_of

SHARDS = 4


@pytest.fixture
def log(wire: Wire) -> RedisEventLog:
    return RedisEventLog(wire, SHARDS)


async def fill(log: RedisEventLog, shard: int, count: int, first: int = 0) -> None:
    await asyncio.gather(*(log.append(shard, {"n": str(number)}) for number in range(first, first + count)))


async def put(wire: Wire, shard: int, stream_id: str, n: str) -> None:
    await wire.execute("XADD", stream(shard), stream_id, "n", n)


async def kept(log: RedisEventLog, shard: int) -> list[str]:
    return [fields["n"] async for _, fields in log.scan(shard)]


async def test_what_is_written_is_read_in_order(log: RedisEventLog) -> None:
    await log.append(0, {"type": "link.created", "file.key": "zażółć 🎧/a.wav"})
    await log.append(0, {"type": "link.opened"})
    entries = [fields async for _, fields in log.scan(0)]
    assert entries == [{"type": "link.created", "file.key": "zażółć 🎧/a.wav"}, {"type": "link.opened"}]
    assert [entry async for entry in log.scan(1)] == []


@pytest.mark.parametrize("count", [PAGE - 1, PAGE, PAGE + 1, 2 * PAGE])
async def test_pages_lose_and_repeat_nothing(log: RedisEventLog, count: int) -> None:
    await fill(log, 2, count)
    assert await kept(log, 2) == [str(number) for number in range(count)]


async def test_scan_begins_at_a_time_and_keeps_what_matches(log: RedisEventLog, wire: Wire) -> None:
    for moment in (1000, 1999, 2000, 2001):
        await put(wire, 0, f"{moment}-5", str(moment))

    def even(fields: Mapping[str, str]) -> bool:
        return int(fields["n"]) % 2 == 0

    assert [fields["n"] async for _, fields in log.scan(0, since_ms=2000)] == ["2000", "2001"]
    assert [fields["n"] async for _, fields in log.scan(0, since_ms=-1, match=even)] == ["1000", "2000"]


async def test_history_merges_shards_by_time(log: RedisEventLog, wire: Wire) -> None:
    for moment in range(1, 13):
        await put(wire, moment * 7 % SHARDS, f"{moment}-0", str(moment))
    assert [int(fields["n"]) async for _, fields in log.history(range(SHARDS))] == [*range(1, 13)]


async def test_tail_gives_what_comes_after_it_began_from_every_shard(log: RedisEventLog) -> None:
    await fill(log, 0, 3)
    seen: dict[int, list[str]] = {shard: [] for shard in range(SHARDS)}
    began = asyncio.Event()

    async def read() -> None:
        async for shard, (_, fields) in log.tail(range(SHARDS)):
            began.set()
            seen[shard].append(fields["n"])
            if len(seen[1]) == len(seen[3]) == 3:
                return

    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        group.create_task(read())
        while not began.is_set():
            await log.append(0, {"n": "here"})
            await asyncio.sleep(0.05)
        await fill(log, 1, 3, first=10)
        await fill(log, 3, 3, first=20)
    assert set(seen[0]) == {"here"}
    assert (seen[1], seen[3]) == (["10", "11", "12"], ["20", "21", "22"])


async def test_tail_from_an_id_gives_the_past_first(log: RedisEventLog) -> None:
    await fill(log, 1, 3)
    tail = log.tail([1], "0-0")
    async with asyncio.timeout(5):
        assert [(await anext(tail))[1][1]["n"] for _ in range(3)] == ["0", "1", "2"]
        await log.append(1, {"n": "3"})
        assert (await anext(tail))[1][1]["n"] == "3"
    await tail.aclose()


async def test_trim_is_exact_and_by_age(log: RedisEventLog, wire: Wire) -> None:
    for moment in range(1, 1001):
        await put(wire, 0, f"{moment}-0", str(moment))
    await log.append(0, {"n": "new"})
    assert await log.trim(0, keep_seconds=3600) == 1000
    assert await kept(log, 0) == ["new"]
    assert await log.trim(0, keep_seconds=3600) == 0
    assert await log.trim(3, keep_seconds=3600) == 0


async def test_trim_never_takes_what_a_group_has_not_finished(log: RedisEventLog, wire: Wire) -> None:
    for moment in range(1, 7):
        await put(wire, 0, f"{moment}-0", str(moment))
    await wire.execute("XGROUP CREATE", stream(0), "fast", "0")
    await wire.execute("XGROUP CREATE", stream(0), "slow", "0")
    await wire.execute("XREADGROUP", "GROUP", "fast", "c", "COUNT", 6, "STREAMS", stream(0), ">")
    await wire.execute("XACK", stream(0), "fast", *(f"{moment}-0" for moment in range(1, 7)))

    assert await log.trim(0, keep_seconds=1) == 0  # slow has read nothing

    await wire.execute("XREADGROUP", "GROUP", "slow", "c", "COUNT", 4, "STREAMS", stream(0), ">")
    await wire.execute("XACK", stream(0), "slow", "1-0", "2-0", "4-0")
    assert await log.trim(0, keep_seconds=1) == 2  # 3 is not acknowledged, 5 and 6 not delivered
    assert await kept(log, 0) == ["3", "4", "5", "6"]

    await wire.execute("XACK", stream(0), "slow", "3-0")
    assert await log.trim(0, keep_seconds=1) == 2
    assert await kept(log, 0) == ["5", "6"]


async def test_without_redis_everything_is_ledger_down(unused_tcp_port: int) -> None:
    gone = Wire(connect(f"redis://127.0.0.1:{unused_tcp_port}/0"))
    log = RedisEventLog(gone, 1)
    with pytest.raises(LedgerDown):
        await log.append(0, {"n": "1"})
    with pytest.raises(LedgerDown):
        await anext(log.scan(0))
    with pytest.raises(LedgerDown):
        await anext(log.tail([0], "0-0"))
    await gone.close()


async def test_a_readers_failure_ends_the_tail(log: RedisEventLog, wire: Wire) -> None:
    await wire.execute("SET", stream(1), "no stream")
    with pytest.raises(LedgerDown, match="cannot be read"):
        await anext(log.tail([0, 1], "0-0"))


def test_events_of_an_order_are_in_one_stream() -> None:
    assert stream(shard_of("10001", 64)) == "gw:{19}:events"
