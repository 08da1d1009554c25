"""The limits as a state machine on a real server: tokens, devices, time, workers that die, replies that are lost.

Each token is held to the naive model of tests/backends/ledger_model.py, whose words are docs/architecture.md's.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from gateway.backends.embedded_redis import EmbeddedRedis
from gateway.backends.redis_client import Wire, connect
from gateway.backends.redis_ledger import RedisLedger, TokenUsage
from gateway.backends.redis_shards import RedisShards
from gateway.errors import ReservationGone
from gateway.policy.counting import MIB
from gateway.policy.model import Deny, Device, Limits, Outcome, Reservation
from gateway.ports import ReserveAsk

sys.path.append(str(Path(__file__).parents[1] / "backends"))
import ledger_model as model

T = TypeVar("T")
CLOCK = "local function clock() return tonumber(redis.call('GET', 'test:clock')) end"
TOKENS = ("t0", "t1", "t2")
NUMBER = st.integers(0, 9)
FRACTION = st.sampled_from([0.0, 0.001, 0.1, 0.5, 0.9, 1.0])
LIMIT = st.sampled_from([None, 1, 2, 5])
LIMITS = st.builds(
    Limits,
    downloads=LIMIT,
    networks=LIMIT,
    devices=LIMIT,
    concurrent=LIMIT,
    valid_after_first=st.sampled_from([None, 60, 4000]),
)
EXAMPLES = 25
STEPS = 50


class LimitsMachine(RuleBasedStateMachine):
    """`url` and `loop` are set for all; `steps` counts what was played."""

    url: str
    loop: asyncio.AbstractEventLoop
    steps = 0

    def __init__(self) -> None:
        super().__init__()
        self.wire = Wire(connect(self.url))
        self.now = model.EPOCH
        self.count = 0
        self.offered: str | None = None
        self.live: list[tuple[model.Request, Reservation, ReserveAsk, str]] = []
        self.gone: list[tuple[Reservation, ReserveAsk]] = []

    def do(self, call: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(call)

    @initialize(limits=st.tuples(LIMITS, LIMITS, LIMITS), size=st.sampled_from([1, 1000, 300_000, 3 * MIB, 80 * MIB]))
    def begin(self, limits: tuple[Limits, ...], size: int) -> None:
        self.do(self.wire.execute("FLUSHDB"))
        shards = RedisShards(self.wire, 1, clock=CLOCK)
        self.ledger = RedisLedger(self.wire, shards, lease_ms=model.LEASE_MS, keep_ms=10**9, clock=CLOCK)
        self.limits = dict(zip(TOKENS, limits, strict=True))
        self.models = {
            name: model.Model(model.EPOCH + life) for name, life in zip(TOKENS, (60_000, 4_000_000, 10**9), strict=True)
        }
        self.files = [model.File("file", size), model.File("other", 300_000), model.File("url:x", 0, elsewhere=True)]
        self.time_passes(0)

    # What clients do

    @rule(
        token=st.sampled_from(TOKENS),
        file=st.sampled_from([0, 0, 0, 1, 2]),
        start=FRACTION,
        length=FRACTION,
        multipart=st.booleans(),
        cookie=st.sampled_from([None, "c1", "c2", "offered"]),
        network=st.sampled_from(["n1", "n2", "n3"]),
        agent=st.sampled_from([None, "a1", "a2"]),
    )
    def asks(
        self,
        token: str,
        file: int,
        start: float,
        length: float,
        multipart: bool,
        cookie: str | None,
        network: str,
        agent: str | None,
    ) -> None:
        wanted, self.count = self.files[file], self.count + 1
        first = min(int(start * wanted.size), max(wanted.size - 1, 0))
        asked = 0 if wanted.elsewhere else max(1, int(length * (wanted.size - first)))
        if multipart and not wanted.elsewhere and asked != wanted.size:
            first = -1
        device = self._device(cookie, network, agent)
        request = model.Request(wanted, first, asked, device, self.limits[token])
        ask = self._ask(token, request)
        would, got = self.do(self.ledger.peek(ask)), self.do(self.ledger.reserve(ask))
        expected = self.models[token].reserve(request)
        if isinstance(got, Deny):
            assert got.reason.text == expected
            assert would == got
            return
        assert would is None
        assert (got.counted, got.granted) == (expected, request.granted)
        self.live.append((request, got, ask, token))

    @precondition(lambda self: self.live)
    @rule(which=NUMBER, acked=FRACTION, lost=st.booleans())
    def goes_on(self, which: int, acked: float, lost: bool) -> None:
        """A renewal; where its reply was lost the worker asks again."""
        request, reservation, _, token = self.live[which % len(self.live)]
        done, wanted = int(acked * request.granted), request.granted + request.window
        expected = self.models[token].renew(request, done, wanted)
        for _ in range(1 + lost):
            grant = self.do(self.ledger.renew(reservation, done, wanted))
            assert (grant.granted, grant.reason and grant.reason.text) == expected

    @precondition(lambda self: self.live)
    @rule(
        which=NUMBER,
        acked=FRACTION,
        how=st.sampled_from(["complete", "client_left", "origin_failed"]),
        lost=st.booleans(),
    )
    def ends(self, which: int, acked: float, how: str, lost: bool) -> None:
        request, reservation, ask, token = self.live.pop(which % len(self.live))
        done = 0 if how == "origin_failed" else int(acked * request.granted)
        self.models[token].settle(request, done, how == "origin_failed")
        outcome = Outcome(how, done, 1, "id", "time")
        assert self.do(self.ledger.settle(reservation, outcome))
        if lost:
            assert not self.do(self.ledger.settle(reservation, outcome)), "the first closing wins"
        self.gone.append((reservation, ask))

    # What goes wrong

    @precondition(lambda self: self.live)
    @rule(which=NUMBER)
    def a_reserve_comes_again(self, which: int) -> None:
        """Its reply was lost, and other things happened meanwhile: nothing is charged for the same request."""
        _, reservation, ask, _ = self.live[which % len(self.live)]
        again = self.do(self.ledger.reserve(ask))
        assert isinstance(again, Reservation)
        assert again.request_id == reservation.request_id

    @precondition(lambda self: self.gone)
    @rule(which=NUMBER)
    def the_dead_speak(self, which: int) -> None:
        """A worker that was taken for dead goes on with what was closed for it."""
        reservation, ask = self.gone[which % len(self.gone)]
        assert not self.do(self.ledger.settle(reservation, Outcome("complete", 10**9, 1, "late", "time")))
        for call in (self.ledger.renew(reservation, 10**9, 10**9), self.ledger.reserve(ask)):
            try:
                self.do(call)
            except ReservationGone:
                continue
            raise AssertionError("what was closed lives again")

    @rule()
    def is_reaped(self) -> None:
        lapsed = [each for each in self.live if each[0].lease_until <= self.now]
        for request, reservation, ask, token in sorted(
            lapsed, key=lambda each: (each[0].lease_until, each[1].request_id)
        ):
            self.models[token].settle(request, None)
            self.gone.append((reservation, ask))
        self.live = [each for each in self.live if each not in lapsed]
        assert self.do(self.ledger.reap(lambda: {"id": "x"})) == len(lapsed)

    @rule(ms=st.sampled_from([500, 9_000, 30_000, 61_000, 1_800_000, 3_700_000]))
    def time_passes(self, ms: int) -> None:
        self.now += ms
        for each in self.models.values():
            each.now = self.now
        self.do(self.wire.execute("SET", "test:clock", self.now))

    # What ops do

    @rule(token=st.sampled_from(TOKENS), ms=st.sampled_from([0, 61_000, 4_000_000]))
    def is_extended(self, token: str, ms: int) -> None:
        """An extension also ends valid_after_first (policy.decide)."""
        self.models[token].expires = max(self.models[token].expires, self.now + ms)
        self.limits[token] = self.limits[token].without("valid_after_first")

    @rule(token=st.sampled_from(TOKENS), limits=LIMITS)
    def is_tightened(self, token: str, limits: Limits) -> None:
        """The rules file changes; what has begun may finish."""
        self.limits[token] = self.limits[token].tightened(limits)

    # What always holds

    @invariant()
    def agrees_with_the_model(self) -> None:
        if not hasattr(self, "models"):
            return
        type(self).steps += 1
        for token, own in self.models.items():
            used = self.do(self.ledger.usage(0, token, [file.identity for file in self.files]))
            assert used == {file.identity: own.used(file) for file in self.files}
            networks, devices = (len(own.slots(name)) for name in ("networks", "devices"))
            usage = TokenUsage(networks, devices, len(own.live()), own.first)
            assert self.do(self.ledger.token_usage(0, token)) == usage

    def teardown(self) -> None:
        try:
            if hasattr(self, "models"):
                while self.live:
                    self.ends(0, 1.0, "complete", lost=False)
                self.agrees_with_the_model()
                self._check_events()
        finally:
            self.do(self.wire.close())

    def _check_events(self) -> None:
        rows = self.do(self.wire.execute("XRANGE", "gw:{0}:events", "-", "+"))
        events = [fields for _, fields in rows]
        allowed = sorted(event["request.id"] for event in events if event["type"] == "download.allowed")
        closed = sorted(
            event["request.id"] for event in events if event["type"] in ("download.finished", "download.lost")
        )
        assert len(set(allowed)) == len(allowed), "a request was allowed twice"
        assert allowed == closed, "each allowed event has exactly one closing event"
        used = sum(own.used(file) for own in self.models.values() for file in self.files)
        assert sum(int(event.get("counted", 0)) for event in events) == used, "the events add up to the counters"

    def _device(self, cookie: str | None, network: str, agent: str | None) -> Device:
        brought = self.offered if cookie == "offered" else cookie
        if brought is None:
            self.offered = f"offered-{self.count}"
            return Device(self.offered, network, agent, f"headers-{network}-{agent}")
        return Device(brought, network, agent, brought)

    def _ask(self, token: str, request: model.Request) -> ReserveAsk:
        return model.ask_of(
            request, f"r{self.count}", f"e{self.count}", token=token, expires=self.models[token].expires
        )


def play(seconds: float, number: int) -> int:
    """Machines until the time is up; returns the steps. Raises what hypothesis found, shrunk, and prints its steps."""
    LimitsMachine.loop = asyncio.new_event_loop()
    until = time.monotonic() + seconds
    profile = settings(
        max_examples=EXAMPLES,
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    with tempfile.TemporaryDirectory() as folder, EmbeddedRedis(Path(folder)) as url:
        LimitsMachine.url = url
        while time.monotonic() < until:
            seed(number)(LimitsMachine)
            run_state_machine_as_test(LimitsMachine, settings=profile)
            number += 1
    LimitsMachine.loop.close()
    print(f"limits: {LimitsMachine.steps} steps")
    return LimitsMachine.steps
