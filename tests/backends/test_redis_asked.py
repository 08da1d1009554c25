"""What was begun under a name: the first one's counts, for everybody, for its time."""

from __future__ import annotations

import asyncio

from gateway.backends.redis_asked import RedisAsked
from gateway.backends.redis_client import Wire


async def test_of_many_who_come_at_once_the_first_one_counts(wire: Wire) -> None:
    asked = RedisAsked(wire, 4)
    begun = await asyncio.gather(*(asked.first("name", f"by {each}", 60) for each in range(20)))
    assert len(set(begun)) == 1
    assert await asked.first("another name", "mine", 60) == "mine"


async def test_it_is_remembered_for_its_time_and_by_a_hash_alone(wire: Wire) -> None:
    await RedisAsked(wire, 1).first("anna\0key", "mine", 60)
    (key,) = await wire.execute("KEYS", "*")
    assert "anna" not in key
    assert 0 < await wire.execute("TTL", key) <= 60
    await wire.execute("PEXPIRE", key, 1)
    await asyncio.sleep(0.01)
    assert await RedisAsked(wire, 1).first("anna\0key", "again", 60) == "again"
