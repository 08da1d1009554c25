"""Plays steps to the ledger on a real server and to its naive model; compares what they answer and what they hold."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from gateway.backends.redis_client import Script, Wire, connect
from gateway.backends.redis_ledger import RedisLedger, TokenUsage
from gateway.backends.redis_shards import RedisShards
from gateway.errors import LedgerFault, ReservationGone
from gateway.policy.model import Deny, Device, Limits, Outcome, Reservation
from gateway.ports import ReserveAsk

_spec = importlib.util.spec_from_file_location("ledger_model", Path(__file__).with_name("ledger_model.py"))
model = importlib.util.module_from_spec(_spec)
sys.modules["ledger_model"] = model
_spec.loader.exec_module(model)

Steps = list[tuple]
Mutation = Callable[[RedisLedger], None]
TEST_CLOCK = "local function clock() return tonumber(redis.call('GET', 'test:clock')) end"


class Who(NamedTuple):
    """Who asks: by a cookie of its own, by the one that was offered last ("offered"), or by its headers alone."""

    cookie: str | None
    network: str
    agent: str | None
    scanner: bool = False


def plain(ledger: RedisLedger) -> None:
    """No mutation."""


def mutant(old: str, new: str) -> Mutation:
    """What changes the text `old` of the scripts to `new`, in which %s is the old text."""

    def mutate(ledger: RedisLedger) -> None:
        scripts = [value for value in vars(ledger).values() if isinstance(value, Script)]
        if not any(old in script.text for script in scripts):
            raise LookupError(f"the mutated text is no longer in any script: {old}")
        for script in scripts:
            script.text = script.text.replace(old, new.replace("%s", old))
            script.sha = hashlib.sha1(script.text.encode(), usedforsecurity=False).hexdigest()

    return mutate


class Player:
    """`limits`: each request comes under one of these, by its number."""

    def __init__(self, wire: Wire, ledger: RedisLedger, limits: list[Limits], life: int, size: int) -> None:
        self.wire, self.ledger, self.limits = wire, ledger, limits
        self.model = model.Model(model.EPOCH + life * 1000)
        self.files = [model.File("file", size), model.File("other", 300_000), model.File("url:x", 0, elsewhere=True)]
        self.live: list[tuple[model.Request, Reservation]] = []
        self.count = 0
        self.offered: str | None = None

    async def play(self, steps: Steps) -> None:
        await self._set_clock()
        for step in steps:
            await getattr(self, f"_{step[0]}")(*step[1:])
            await self._compare()
        for _ in range(len(self.live)):
            await self._settle(0, 1.0)
        await self._compare()
        assert await self.wire.execute("ZCARD", "gw:{0}:live:token") == 0, "all is settled, so nothing is live"
        await self._check_events()

    async def _compare(self) -> None:
        used = await self.ledger.usage(0, "token", [file.identity for file in self.files])
        assert used == {file.identity: self.model.used(file) for file in self.files}
        networks, devices = (len(self.model.slots(name)) for name in ("networks", "devices"))
        standing = TokenUsage(networks, devices, len(self.model.live()), self.model.first)
        assert await self.ledger.token_usage(0, "token") == standing

    async def _set_clock(self) -> None:
        await self.wire.execute("SET", "test:clock", self.model.now)

    async def _advance(self, ms: int) -> None:
        self.model.now += ms
        await self._set_clock()

    def _device(self, who: Who) -> Device:
        brought = self.offered if who.cookie == "offered" else who.cookie
        if brought is None:
            self.offered = f"offered-{self.count}"
            return Device(self.offered, who.network, who.agent, f"headers-{who.network}-{who.agent}")
        return Device(brought, who.network, who.agent, brought)

    async def _visit(self, who: Who, limits: int = 0) -> None:
        await self._ask(who, self.files[2], 0, 0, limits)

    async def _request(
        self, who: Who, start: float, length: float, multipart: bool = False, file: int = 0, limits: int = 0
    ) -> None:
        wanted = self.files[file]
        first = min(int(start * wanted.size), wanted.size - 1)
        asked = max(1, int(length * (wanted.size - first)))
        await self._ask(who, wanted, -1 if multipart and asked != wanted.size else first, asked, limits)

    async def _ask(self, who: Who, file: model.File, start: int, asked: int, limits: int) -> None:
        self.count += 1
        request = model.Request(file, start, asked, self._device(who), self._limits(limits), who.scanner)
        ask = self._asked(request)
        would = await self.ledger.peek(ask)
        assert not await self.wire.execute("EXISTS", f"gw:{{0}}:request:{ask.request_id}"), "a peek changes nothing"
        await self._compare()
        got = await self.ledger.reserve(ask)
        expected = self.model.reserve(request)
        if isinstance(got, Deny):
            assert got.reason.text == expected
            assert would == got
            return
        assert would is None
        assert got.counted == expected
        assert got.granted == request.granted
        assert await self.ledger.reserve(ask) == got, "a replayed reserve changes nothing"
        self.live.append((request, got))

    async def _confirm(self, who: Who, file: int = 0, limits: int = 0) -> None:
        self.count += 1
        request = model.Request(self.files[file], 0, 0, self._device(who), self._limits(limits))
        ask = self._asked(request)
        assert await self.ledger.confirm(ask) == self.model.confirm(request)
        assert not await self.ledger.confirm(ask), "and no second time"

    def _limits(self, number: int) -> Limits:
        return self.limits[number % len(self.limits)]

    def _asked(self, request: model.Request) -> ReserveAsk:
        return model.ask_of(request, f"r{self.count}", f"e{self.count}", token="token", expires=self.model.expires)

    async def _renew(self, index: int, fraction: float) -> None:
        if not self.live:
            return
        request, reservation = self.live[index % len(self.live)]
        acked = int(fraction * request.granted)
        wanted = request.granted + request.window
        expected = self.model.renew(request, acked, wanted)
        for _ in range(2):  # the second call is a replay
            grant = await self.ledger.renew(reservation, acked, wanted)
            assert (grant.granted, grant.reason and grant.reason.text) == expected

    async def _beat(self) -> None:
        """Every lease is renewed, as its worker does it."""
        for request, reservation in self.live:
            expected = self.model.renew(request, request.acked, request.granted)
            grant = await self.ledger.renew(reservation, request.acked, request.granted)
            assert (grant.granted, grant.reason and grant.reason.text) == expected

    async def _fail(self, index: int) -> None:
        await self._settle(index, 0.0, "origin_failed")

    async def _settle(self, index: int, fraction: float, how: str = "complete") -> None:
        if not self.live:
            return
        request, reservation = self.live.pop(index % len(self.live))
        acked = int(fraction * request.granted)
        self.model.settle(request, acked, how == "origin_failed")
        outcome = Outcome(how, acked, 1, "id", "time")
        assert await self.ledger.settle(reservation, outcome)
        assert not await self.ledger.settle(reservation, outcome), "the first closing wins"
        with pytest.raises(ReservationGone):
            await self.ledger.renew(reservation, 0, 0)

    async def _reap(self) -> None:
        lapsed = [pair for pair in self.live if pair[0].lease_until <= self.model.now]
        lapsed.sort(key=lambda pair: (pair[0].lease_until, pair[1].request_id))
        for pair in lapsed:
            self.model.settle(pair[0], None)
            self.live.remove(pair)
        assert await self.ledger.reap(lambda: {"id": "x"}) == len(lapsed)

    async def _check_events(self) -> None:
        rows = await self.wire.execute("XRANGE", "gw:{0}:events", "-", "+")
        events = [fields for _, fields in rows]
        allowed = [e["request.id"] for e in events if e["type"] == "download.allowed"]
        closed = [e["request.id"] for e in events if e["type"] in ("download.finished", "download.lost")]
        assert sorted(allowed) == sorted(closed), "each allowed event has exactly one closing event"
        used = sum(self.model.used(file) for file in self.files)
        assert sum(int(e.get("counted", 0)) for e in events) == used, "the events add up to the counters"


async def play(
    redis_url: str, limits: list[Limits], life: int, size: int, steps: Steps, mutate: Mutation = plain
) -> None:
    """One token that lives `life` seconds, of a file of `size`, another one and one elsewhere, on an emptied server."""
    wire = Wire(connect(redis_url))
    try:
        await wire.execute("FLUSHDB")
        ledger = RedisLedger(
            wire, RedisShards(wire, 1, clock=TEST_CLOCK), lease_ms=model.LEASE_MS, keep_ms=10**9, clock=TEST_CLOCK
        )
        mutate(ledger)
        await Player(wire, ledger, limits, life, size).play(steps)
    finally:
        await wire.close()


async def is_caught(
    redis_url: str, limits: list[Limits], life: int, size: int, steps: Steps, mutation: tuple[str, str]
) -> bool:
    """Whether these steps tell the mutated scripts from the model."""
    try:
        await play(redis_url, limits, life, size, steps, mutant(*mutation))
    except (AssertionError, ReservationGone, LedgerFault, KeyError):
        return True
    return False
