"""Reaping on a real server: a dead worker's reservation is closed once, after its lease, and never a living one's."""

from __future__ import annotations

import asyncio

import pytest

from gateway.backends.redis_client import Wire
from gateway.backends.redis_events import RedisEventLog
from gateway.backends.redis_ledger import RedisLedger
from gateway.backends.redis_shards import RedisShards
from gateway.errors import LedgerDown, SettingsError
from gateway.policy.counting import CountingRules
from gateway.policy.model import Charge, Device, Reservation
from gateway.policy.reasons import Reason
from gateway.ports import ReserveAsk
from gateway.services import housekeeping
from gateway.services.housekeeping import Housekeeping
from gateway.services.settlement import Running, Settlement

LEASE = 2


def ask(number: int) -> ReserveAsk:
    return ReserveAsk(
        request_id=f"r{number}",
        shard=number % 2,
        token_key="token",
        file_identity="file",
        size=300_000,
        etag='"e"',
        start=0,
        asked=300_000,
        full=True,
        elsewhere=False,
        device=Device(cookie=None, network=f"10.0.{number}.0/24", user_agent=None),
        charges=(Charge("count", None, Reason.LIMIT_DOWNLOADS),),
        expires_at=4_000_000_000,
        token_expires_at=4_000_000_000,
        rules=CountingRules(),
        status=200,
        stamp={"id": f"e{number}", "time": "t"},
        event={"request.id": f"r{number}", "v": "1"},
    )


def ledger_on(wire: Wire, shards: int = 2) -> RedisLedger:
    return RedisLedger(wire, RedisShards(wire, shards), lease_ms=LEASE * 1000, keep_ms=10**9)


async def agreed(ledger: RedisLedger) -> None:
    await ledger.agree("one")


def housekeeping_on(wire: Wire, ledger: RedisLedger, told: list[str]) -> Housekeeping:
    return Housekeeping(
        ledger,
        RedisEventLog(wire, 2),
        shards=2,
        lease=LEASE,
        keep_events=3600,
        agree=lambda: agreed(ledger),
        on_ledger=told.append,
    )


async def events(wire: Wire) -> list[dict[str, str]]:
    rows = [await wire.execute("XRANGE", f"gw:{{{shard}}}:events", "-", "+") for shard in range(2)]
    return [fields for page in rows for _, fields in page]


async def lapse(wire: Wire) -> None:
    """Wait until every lease of shard 0 has run out by the server's clock, which may be stepped while we sleep."""
    ((_, last),) = await wire.execute("ZREVRANGE", "gw:{0}:leases", 0, 0, "WITHSCORES")
    async with asyncio.timeout(10 * LEASE):
        while True:
            seconds, microseconds = await wire.execute("TIME")
            if int(seconds) * 1000 + int(microseconds) / 1000 > float(last) + 1:
                return
            await asyncio.sleep(0.02)


async def test_what_a_dead_worker_left_is_closed_once_and_the_living_are_left_alone(wire: Wire) -> None:
    ledger = ledger_on(wire)
    told: list[str] = []
    keepers = [housekeeping_on(wire, ledger, told) for _ in range(2)]
    reserved = [await ledger.reserve(ask(number)) for number in range(4)]
    settlement = Settlement(ledger, lease=LEASE)
    settlement.start()
    living = reserved[3]
    assert isinstance(living, Reservation)
    settlement.begin(Running(living))
    for keeper in keepers:
        await keeper.start()
    await asyncio.sleep(LEASE + 3.5)
    for keeper in keepers:
        await keeper.stop()
    lost = [event for event in await events(wire) if event["type"] == "download.lost"]
    assert sorted(event["request.id"] for event in lost) == ["r0", "r1", "r2"]
    assert all(event["bytes.delivered"] == "0" and event["counted"] == "-1" for event in lost)
    assert len({event["id"] for event in lost}) == 3
    assert told == ["", ""]
    await settlement.stop(0)
    assert await ledger.usage(1, "token", ["file"]) == {"file": 1}


class Quiet:
    """A ledger that has nothing to say, and remembers that it was asked for what the dead have left."""

    def __init__(self) -> None:
        self.reaped = 0
        self.is_down = False

    async def ping(self) -> None:
        if self.is_down:
            raise LedgerDown("away")

    async def reap(self, stamp: object) -> int:
        self.reaped += 1
        return 0


async def test_after_an_outage_the_living_come_before_the_reaper(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their leases ran out with it: whoever reaped at once would close downloads that go on."""
    monkeypatch.setattr(housekeeping, "EVERY", 0.02)
    ledger = Quiet()
    keeper = Housekeeping(
        ledger, None, shards=1, lease=0.4, keep_events=1, agree=ledger.ping, on_ledger=lambda wrong: None
    )
    await keeper.start()
    for is_down, seconds, reaps in (
        (False, 0.25, False),
        (True, 0.05, False),
        (False, 0.25, False),
        (False, 0.4, True),
    ):
        ledger.is_down = is_down
        await asyncio.sleep(seconds)
        assert bool(ledger.reaped) == reaps
    await keeper.stop()


class Trimmed:
    """Events that remember what was trimmed."""

    def __init__(self) -> None:
        self.told: list[tuple[int, int]] = []

    async def trim(self, shard: int, keep_seconds: int) -> int:
        self.told.append((shard, keep_seconds))
        return 0


async def test_old_events_go_now_and_then_from_every_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(housekeeping, "EVERY", 0.01)
    monkeypatch.setattr(housekeeping, "TRIM_EVERY", 0.15)
    ledger, events = Quiet(), Trimmed()
    keeper = Housekeeping(
        ledger, events, shards=2, lease=9, keep_events=77, agree=ledger.ping, on_ledger=lambda wrong: None
    )
    await keeper.start()
    await asyncio.sleep(0.4)
    await keeper.stop()
    assert events.told == [(0, 77), (1, 77)] * (len(events.told) // 2)
    assert 2 <= len(events.told) <= 6


async def test_a_redis_that_comes_back_as_another_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(housekeeping, "EVERY", 0.01)
    ledger, told = Quiet(), list[str]()
    wrong = ""

    async def agree() -> None:
        if wrong:
            raise SettingsError(wrong)

    keeper = Housekeeping(ledger, Trimmed(), shards=1, lease=9, keep_events=1, agree=agree, on_ledger=told.append)
    await keeper.start()
    for is_down, wrong in ((True, "it evicts"), (False, "it evicts"), (False, "")):  # noqa: B007 - `agree` reads it
        ledger.is_down = is_down
        await asyncio.sleep(0.1)
    await keeper.stop()
    assert told == ["", "away", "it evicts", ""]


async def test_other_shards_on_the_same_redis_are_refused(wire: Wire) -> None:
    first = await ledger_on(wire, 2).agree("one")
    assert await ledger_on(wire, 2).agree("two") == first == "one"
    with pytest.raises(SettingsError, match="first used with 2"):
        await ledger_on(wire, 3).agree("three")


async def test_a_server_that_evicts_is_refused(wire: Wire) -> None:
    await wire.execute("CONFIG SET", "maxmemory-policy", "volatile-lru")
    await wire.execute("CONFIG SET", "maxmemory", "1gb")
    try:
        with pytest.raises(SettingsError, match="noeviction"):
            await ledger_on(wire).agree("one")
    finally:
        await wire.execute("CONFIG SET", "maxmemory", "0")
        await wire.execute("CONFIG SET", "maxmemory-policy", "noeviction")


async def test_one_unreadable_reservation_hides_none_behind_it(wire: Wire) -> None:
    ledger = ledger_on(wire)
    for number in (0, 2):
        await ledger.reserve(ask(number))
    await wire.execute("HSET", "gw:{0}:request:r0", "ask", "no JSON")
    await lapse(wire)
    assert await ledger.reap(lambda: {"id": "x"}) == 1
    assert await ledger.reap(lambda: {"id": "x"}) == 0
    lost = [event["request.id"] for event in await events(wire) if event["type"] == "download.lost"]
    assert lost == ["r2"]
