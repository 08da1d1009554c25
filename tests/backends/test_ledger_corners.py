"""What the ledger does where something is missing, odd or very large; on a real server, on its own clock."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from itertools import count

import pytest

from gateway.backends.redis_client import Wire
from gateway.backends.redis_ledger import RedisLedger, TokenUsage, file_keys
from gateway.backends.redis_shards import RedisShards
from gateway.errors import LedgerFault, ReservationGone
from gateway.policy.counting import CountingRules
from gateway.policy.limits import LIMIT_MAX, charges
from gateway.policy.model import Charge, Deny, Device, Limits, Outcome, Reservation
from gateway.policy.reasons import Reason
from gateway.ports import ReserveAsk

NUMBERS = count()
ALL = Limits(downloads=1, networks=1, devices=1, concurrent=1, valid_after_first=1000)


def ledger_on(wire: Wire, lease_ms: int = 10_000) -> RedisLedger:
    return RedisLedger(wire, RedisShards(wire, 1), lease_ms=lease_ms, keep_ms=10**9)


def device(value: str, alias: str | None = None) -> Device:
    return Device(cookie=alias, network=f"network of {value}", user_agent=None, id=value)


def ask(who: Device, charged: tuple[Charge, ...], file: str = "file", size: int = 1000) -> ReserveAsk:
    name = f"corner-{next(NUMBERS)}"
    return ReserveAsk(
        request_id=name,
        shard=0,
        token_key="token",
        file_identity=file,
        size=size,
        etag='"e"',
        start=0,
        asked=size,
        full=True,
        elsewhere=False,
        device=who,
        charges=charged,
        expires_at=4_000_000_000,
        token_expires_at=4_000_000_000,
        rules=CountingRules(),
        status=200,
        stamp={},
        event={"request.id": name},
    )


async def begun(
    ledger: RedisLedger, limits: Limits, who: Device, file: str = "file", size: int = 1000
) -> Reservation | Reason:
    got = await ledger.reserve(ask(who, charges(limits, who), file, size))
    return got.reason if isinstance(got, Deny) else got


def outcome(delivered: int = 1000) -> Outcome:
    return Outcome("complete", delivered, 1, "id", "time")


async def lose_the_transfer(wire: Wire) -> None:
    await wire.execute("DEL", file_keys(0, "token", "file")[0])


async def test_a_place_is_left_also_where_the_transfer_is_lost(wire: Wire) -> None:
    ledger = ledger_on(wire)
    limits = Limits(concurrent=1)
    first = await begun(ledger, limits, device("a"))
    assert isinstance(first, Reservation)
    await lose_the_transfer(wire)
    with pytest.raises(ReservationGone):
        await ledger.renew(first, 0, 1000)
    assert await begun(ledger, limits, device("b"), "other") is Reason.LIMIT_CONCURRENT
    assert await ledger.settle(first, outcome())
    assert isinstance(await begun(ledger, limits, device("b"), "other"), Reservation)


@pytest.mark.parametrize("change", [{"etag": '"f"'}, {"size": 1001, "asked": 1001}])
async def test_another_version_of_a_file_is_another_download(wire: Wire, change: dict[str, object]) -> None:
    ledger = ledger_on(wire)
    who = device("a")
    first = ask(who, charges(Limits(downloads=1), who))
    assert isinstance(await ledger.reserve(first), Reservation)
    again = await ledger.reserve(replace(ask(who, first.charges), **change))
    assert again == Deny(Reason.LIMIT_DOWNLOADS)
    assert isinstance(await ledger.reserve(ask(who, first.charges)), Reservation)


async def test_the_reaper_leaves_it_too(wire: Wire) -> None:
    ledger = ledger_on(wire, lease_ms=400)
    limits = Limits(concurrent=1)
    assert isinstance(await begun(ledger, limits, device("a")), Reservation)
    await lose_the_transfer(wire)
    await asyncio.sleep(0.5)
    assert (await ledger.token_usage(0, "token")).live == 1
    assert await ledger.reap(lambda: {"id": "x"}) == 1
    assert (await ledger.token_usage(0, "token")).live == 0


async def test_nothing_is_left_without_an_end(wire: Wire) -> None:
    ledger = ledger_on(wire, lease_ms=100)
    first = await begun(ledger, ALL, device("a", "cookie"))
    assert isinstance(first, Reservation)
    await ledger.pace(first, 1000)
    await asyncio.sleep(0.3)
    await begun(ledger, Limits(concurrent=1), device("b"), "other")
    await ledger.renew(first, 10, 1000)
    by_end: dict[bool, set[str]] = {True: set(), False: set()}
    for key in await wire.execute("KEYS", "*"):
        by_end[await wire.execute("PTTL", key) > 0].add(key.split(":")[2])
    assert by_end[True] == {"file", "token", "open", "live", "streams"}
    assert by_end[False] == {"request", "leases", "events", "meta"}, "these the reaper and the housekeeping end"


async def test_a_token_that_was_never_used(wire: Wire) -> None:
    assert await ledger_on(wire).token_usage(0, "token") == TokenUsage(networks=0, devices=0, live=0, first_ms=None)


async def test_a_charge_of_an_unknown_kind_is_a_fault_and_charges_nothing(wire: Wire) -> None:
    ledger = ledger_on(wire)
    who = device("a")
    odd = (*charges(ALL, who), Charge("moonlight", 1, Reason.LIMIT_DOWNLOADS))
    with pytest.raises(LedgerFault):
        await ledger.reserve(ask(who, odd))
    assert await wire.execute("KEYS", "*") == ["gw:{0}:meta"]


async def test_the_largest_limits_and_files(wire: Wire) -> None:
    ledger = ledger_on(wire)
    names = ("downloads", "networks", "devices", "concurrent", "valid_after_first")
    limits = Limits(**dict.fromkeys(names, LIMIT_MAX))
    size = 10**13
    first = await begun(ledger, limits, device("a"), size=size)
    assert isinstance(first, Reservation)
    grant = await ledger.renew(first, first.granted, first.granted + first.window)
    assert grant.granted == 2 * first.window == 2 * (size // 32)
    assert (await ledger.pace(first, LIMIT_MAX)).size == LIMIT_MAX // 40
    assert isinstance(await begun(ledger, limits, device("b")), Reservation)
    usage = await ledger.token_usage(0, "token")
    assert (usage.networks, usage.devices, usage.live) == (2, 2, 2)


@pytest.mark.parametrize("value", ["2001:db8:42::/56", "a:b,c d", "", "ż\u2028", "s:1", "x" * 500])
async def test_a_value_may_be_any_text(wire: Wire, value: str) -> None:
    ledger = ledger_on(wire)
    limits = Limits(devices=1)
    first = await begun(ledger, limits, device(value))
    assert isinstance(first, Reservation)
    assert await begun(ledger, limits, device(value + "."), "other") is Reason.LIMIT_DEVICES
    assert isinstance(await begun(ledger, limits, device(value), "other"), Reservation)


async def had(ledger: RedisLedger, limits: Limits, value: str, alias: str | None = None, delivered: int = 1000) -> bool:
    got = await begun(ledger, limits, device(value, alias), f"file-{next(NUMBERS)}")
    if isinstance(got, Reason):
        assert got is Reason.LIMIT_DEVICES
        return False
    await ledger.settle(got, outcome(delivered))
    return True


async def test_a_device_that_keeps_no_cookie_does_not_grow_without_end(wire: Wire) -> None:
    ledger = ledger_on(wire)
    limits = Limits(devices=1)
    for number in range(40):
        assert await had(ledger, limits, "headers", f"cookie {number}")
        assert await had(ledger, limits, "cookie 0"), "a name that is used is kept"
    known = [field for field in await wire.execute("HKEYS", "gw:{0}:token:token") if field.startswith("v:devices:")]
    assert len(known) == 32
    assert await had(ledger, limits, "cookie 39")
    assert not await had(ledger, limits, "cookie 1"), "the one that was used least recently is forgotten"
    assert (await ledger.token_usage(0, "token")).devices == 1


async def test_a_name_stays_with_the_slot_that_had_it_first(wire: Wire) -> None:
    ledger = ledger_on(wire)
    limits = Limits(devices=2)
    assert await had(ledger, limits, "a", "shared")
    assert await had(ledger, limits, "b", "shared", delivered=0), "given back"
    assert (await ledger.token_usage(0, "token")).devices == 1
    assert await had(ledger, Limits(devices=1), "shared")


async def test_counters_are_kept_for_the_latest_end_that_is_known(wire: Wire) -> None:
    ledger = RedisLedger(wire, RedisShards(wire, 1), lease_ms=1000, keep_ms=1000)
    limits, now = Limits(downloads=1), int(time.time())

    async def kept() -> int:
        return min([int(await wire.execute("PTTL", key)) for key in file_keys(0, "token", "file")])

    def asked(name: str, ends: int, token_ends: int) -> ReserveAsk:
        who = device(name)
        return replace(ask(who, charges(limits, who)), expires_at=ends, token_expires_at=token_ends)

    first = await ledger.reserve(asked("a", now + 60, now + 300))
    assert isinstance(first, Reservation)
    assert 299_000 < await kept() <= 301_000
    await ledger.settle(first, outcome())
    assert isinstance(await ledger.reserve(asked("b", now + 10, now + 10)), Deny)
    assert await kept() > 298_000, "never shortened"
    assert isinstance(await ledger.reserve(asked("b", now + 900, now + 10)), Deny)
    assert await kept() > 898_000, "also by who is refused with an extended link"
    await ledger.prolong(0, "token", ["file", "never asked for"], now + 2000)
    assert await kept() > 1_998_000
    await ledger.prolong(0, "token", ["file"], now + 5)
    assert await kept() > 1_998_000
