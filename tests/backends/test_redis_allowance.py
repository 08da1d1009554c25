"""How often something may be had: all limits or none of them, for everybody together."""

from __future__ import annotations

import asyncio

import pytest

from gateway.backends.redis_allowance import RedisAllowance
from gateway.backends.redis_client import Wire

LIMITS = ((2, 60), (3, 3600))


@pytest.fixture(params=[1, 64])
def allowance(wire: Wire, request: pytest.FixtureRequest) -> RedisAllowance:
    return RedisAllowance(wire, request.param)


async def test_so_many_and_no_more(allowance: RedisAllowance, wire: Wire) -> None:
    taken = await asyncio.gather(*(RedisAllowance(wire, 1).take("a", LIMITS) for _ in range(20)))
    assert taken.count(None) == 2
    assert all(1 <= seconds <= 60 for seconds in taken if seconds is not None)
    assert await allowance.take("another", LIMITS) is None


async def test_who_is_refused_takes_of_no_limit(allowance: RedisAllowance, wire: Wire) -> None:
    for _ in range(10):
        await allowance.take("a", LIMITS)
    [minute] = await wire.execute("KEYS", "gw:*:had:*:60")
    [hour] = await wire.execute("KEYS", "gw:*:had:*:3600")
    assert (await wire.execute("GET", minute), await wire.execute("GET", hour)) == ("2", "2")
    await wire.execute("DEL", minute)
    assert await allowance.take("a", LIMITS) is None
    seconds = await allowance.take("a", LIMITS)
    assert seconds is not None
    assert 3590 <= seconds <= 3600


async def test_what_is_given_back_may_be_had_again(allowance: RedisAllowance, wire: Wire) -> None:
    await allowance.give_back("a", LIMITS)
    for _ in range(2):
        assert await allowance.take("a", LIMITS) is None
    await allowance.give_back("a", LIMITS)
    assert await allowance.take("a", LIMITS) is None
    assert await allowance.take("a", LIMITS) is not None
    keys = await wire.execute("KEYS", "gw:*:had:*")
    left = [await wire.execute("TTL", key) for key in keys]
    assert (len(left), min(left) > 0) == (2, True)
