"""One-time codes in a real Redis: how many, for how long, and that tries at once are as many as tries one by one."""

from __future__ import annotations

import asyncio

from gateway.backends.redis_client import Wire
from gateway.backends.redis_codes import TRIES_MAX, RedisCodes


async def test_tries_at_once_are_counted_one_by_one(wire: Wire) -> None:
    codes = RedisCodes(wire)
    assert await codes.put(0, "t", "d", "hash")
    tried = await asyncio.gather(*(codes.take_try(0, "t", "d") for _ in range(20)))
    assert sorted(each[1] for each in tried if each is not None) == [0, 1, 2, 3, 4]
    assert await wire.execute("KEYS", "*:code:*") == []


async def test_a_code_is_of_one_token_and_device_and_is_spent_once(wire: Wire) -> None:
    codes = RedisCodes(wire)
    await codes.put(3, "t", "d", "hash")
    assert await codes.take_try(3, "t", "other") is None
    assert await codes.take_try(3, "other", "d") is None
    assert not await codes.spend(3, "t", "d", "another hash")
    spent = await asyncio.gather(*(codes.spend(3, "t", "d", "hash") for _ in range(5)))
    assert sum(spent) == 1
    assert await codes.take_try(3, "t", "d") is None


async def test_a_new_code_has_all_its_tries_and_all_its_time(wire: Wire) -> None:
    codes = RedisCodes(wire)
    await codes.put(0, "t", "d", "old")
    await codes.take_try(0, "t", "d")
    await wire.execute("EXPIRE", "gw:{0}:code:t:d", 5)
    await codes.put(0, "t", "d", "new")
    assert await codes.take_try(0, "t", "d") == ("new", TRIES_MAX - 1)
    assert 590 < await wire.execute("TTL", "gw:{0}:code:t:d") <= 600


async def test_so_many_codes_for_a_device_and_for_a_token_in_an_hour_and_in_a_day(wire: Wire) -> None:
    codes = RedisCodes(wire)
    made = [await codes.put(0, "t", "a", "h") for _ in range(4)]
    assert made == [True, True, True, False]
    assert [await codes.put(0, "t", device, "h") for device in "bcde"] == [True, True, True, False]
    assert await codes.put(0, "another", "a", "h")
    # What was refused counts for nothing, and a count ends by its first code.
    assert await wire.execute("GET", "gw:{0}:codes:t:3600") == "6"
    assert 3590 < await wire.execute("TTL", "gw:{0}:codes:t:3600") <= 3600
    await wire.execute("DEL", "gw:{0}:codes:t:3600")
    assert [await codes.put(0, "t", device, "h") for device in "fghijk"] == [True] * 6
    await wire.execute("DEL", "gw:{0}:codes:t:3600")
    assert not await codes.put(0, "t", "l", "h")
    assert 86_000 < await wire.execute("TTL", "gw:{0}:codes:t:86400") <= 86_400
