"""The ledger's scripts against a naive model, step by step, on a real server with a clock that the test moves.

The model is written from the words of docs/architecture.md ("What counts as a download"), not from the scripts.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gateway.backends.redis_client import Script, Wire, connect
from gateway.backends.redis_ledger import RedisLedger
from gateway.errors import ReservationGone
from gateway.policy.counting import MIB, CountingRules
from gateway.policy.model import Charge, Deny, Device, Outcome, Reservation
from gateway.policy.reasons import Reason
from gateway.ports import ReserveAsk

TEST_CLOCK = "local function clock() return tonumber(redis.call('GET', 'test:clock')) end"
RULES = CountingRules(resume_window=3600, repeat_window=60, free_below=64 * 1024)
EPOCH = 1_800_000_000_000
LEASE_MS = 10_000


@dataclass(eq=False)
class ModelTransfer:
    size: int
    opened: int
    last: int
    device: Device
    charged: bool = True
    repeats: int = 0
    acked: list[tuple[int, int]] = field(default_factory=list)
    multipart_acked: int = 0
    requests: list[ModelRequest] = field(default_factory=list)

    def delivered(self) -> int:
        return sum(b - a for a, b in self.acked) + self.multipart_acked

    def inflight(self) -> int:
        return sum(r.granted - r.acked for r in self.requests)

    def complete(self) -> bool:
        reached = 0
        for a, b in sorted(self.acked):
            if a > reached:
                return False
            reached = max(reached, b)
        return reached == self.size

    def allowance(self) -> int:
        return self.size + self.size // 10 + min(MIB, self.size // 4) + self.repeats * self.size


@dataclass(eq=False)
class ModelRequest:
    start: int
    asked: int
    window: int
    full: bool
    device: Device
    transfer: ModelTransfer | None = None
    granted: int = 0
    acked: int = 0
    lease_until: int = 0


class Model:
    """One token's one file."""

    def __init__(self, size: int, limit: int | None, expires: int) -> None:
        self.size, self.limit, self.expires = size, limit, expires
        self.now = EPOCH
        self.used = 0
        self.refunds = 0
        self.transfers: list[ModelTransfer] = []

    def _window(self, asked: int, start: int) -> int:
        return min(asked, max(131_072, (self.size + 255) // 256) if start > 0 else max(MIB, (self.size + 31) // 32))

    def _same_device(self, transfer: ModelTransfer, request: ModelRequest, start: int) -> int | None:
        mine, theirs = request.device, transfer.device
        if mine.cookie and mine.cookie == theirs.cookie:
            return 0
        if mine.network == theirs.network:
            return 1
        if start > 0 and mine.user_agent and mine.user_agent == theirs.user_agent:
            return 2
        return None

    def _room(self, transfer: ModelTransfer, start: int, want: int, extra: int = 0) -> int:
        """Bytes that may be granted of `want`: all, or for a resume what is left, 64 KiB at least; else 0."""
        left = transfer.allowance() + extra - transfer.delivered() - transfer.inflight()
        if want <= left:
            return want
        return left if start > 0 and left >= 65_536 else 0

    def _joinable(
        self, transfer: ModelTransfer, request: ModelRequest, full: bool, start: int, window: int
    ) -> tuple[int, int] | None:
        if len(transfer.requests) >= 32:
            return None
        if not transfer.requests and self.now > transfer.last + RULES.resume_window * 1000:
            return None
        early = self.now <= transfer.opened + RULES.repeat_window * 1000
        if transfer.complete() and not early:
            return None
        taken = transfer.delivered() + transfer.inflight()
        repeat = int(full and early and taken > 0 and transfer.repeats < 2)
        granted = self._room(transfer, start, window, repeat * self.size)
        return (granted, repeat) if granted else None

    def _find(
        self, request: ModelRequest, full: bool, start: int, window: int
    ) -> tuple[ModelTransfer, int, int] | None:
        """The best open transfer to join, the window it grants and the repeat it costs."""
        found = []
        for order, transfer in enumerate(reversed(self.transfers)):
            nearness = self._same_device(transfer, request, start)
            joins = self._joinable(transfer, request, full, start, window)
            if nearness is not None and joins is not None:
                found.append((not transfer.charged, nearness, order, transfer, *joins))
        return min(found, key=lambda row: row[:3])[3:] if found else None

    def _spent(self) -> bool:
        return self.limit is not None and self.used >= self.limit

    def reserve(self, request: ModelRequest) -> str | int:
        request.window = self._window(request.asked, request.start)
        found = self._find(request, request.full, request.start, request.window)
        counted, granted = 0, request.window
        if found:
            transfer, granted, repeat = found
            if not transfer.charged:
                if self._spent():
                    return "limit.downloads"
                transfer.charged = True
                self.used += 1
                counted = 1
            transfer.repeats += repeat
        else:
            if self.expires <= self.now:
                return "token.expired"
            if self._spent():
                return "limit.downloads"
            transfer = self._open(request)
            counted = 1
        request.transfer = transfer
        request.granted = granted
        request.lease_until = self.now + LEASE_MS
        transfer.requests.append(request)
        return counted

    def _open(self, request: ModelRequest) -> ModelTransfer:
        transfer = ModelTransfer(self.size, self.now, self.now, request.device)
        self.transfers.append(transfer)
        self.used += 1
        return transfer

    def _credit(self, request: ModelRequest, acked: int) -> None:
        acked = min(acked, request.granted)
        transfer = request.transfer
        assert transfer is not None
        if acked <= request.acked:
            return
        if request.start >= 0:
            transfer.acked.append((request.start + request.acked, request.start + acked))
        else:
            transfer.multipart_acked += acked - request.acked
        transfer.last = self.now
        request.acked = acked

    def renew(self, request: ModelRequest, acked: int, wanted: int) -> int:
        self._credit(request, acked)
        request.lease_until = self.now + LEASE_MS
        transfer = request.transfer
        assert transfer is not None
        more = min(wanted, request.asked) - request.granted
        if more <= 0:
            return request.granted
        granted = self._room(transfer, request.start, more)
        if not granted:
            transfer.requests.remove(request)
            found = self._find(request, False, 0, request.granted - request.acked + more)
            if found and found[0].charged:
                request.transfer = found[0]
            elif self._spent() or (not found and self.expires <= self.now):
                transfer.requests.append(request)
                return request.granted
            elif found:
                request.transfer = found[0]
                request.transfer.charged = True
                self.used += 1
            else:
                request.transfer = self._open(request)
            request.transfer.requests.append(request)
            granted = more
        request.granted += granted
        return request.granted

    def settle(self, request: ModelRequest, acked: int | None, origin_failed: bool = False) -> None:
        if acked is not None:
            self._credit(request, acked)
        transfer = request.transfer
        assert transfer is not None
        transfer.requests.remove(request)
        small = transfer.delivered() < min(RULES.free_below, self.size / 2)
        free = origin_failed and transfer.delivered() == 0
        if not transfer.requests and transfer.charged and (free or (small and self.refunds < 8)):
            transfer.charged = False
            self.used -= 1
            self.refunds += not free


SIZES = st.sampled_from([1, 1000, 300_000, 3 * MIB, 80 * MIB])
DEVICES = st.builds(
    Device,
    cookie=st.sampled_from([None, "c1", "c2"]),
    network=st.sampled_from(["n1", "n2"]),
    user_agent=st.sampled_from([None, "a1", "a2"]),
)
FRACTION = st.sampled_from([0.0, 0.001, 0.1, 0.5, 0.9, 1.0])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("request"), DEVICES, FRACTION, FRACTION, st.booleans()),
        st.tuples(st.just("renew"), st.integers(0, 9), FRACTION),
        st.tuples(st.just("settle"), st.integers(0, 9), FRACTION),
        st.tuples(st.just("advance"), st.sampled_from([500, 9_000, 30_000, 61_000, 1_800_000, 3_700_000])),
        st.tuples(st.just("fail"), st.integers(0, 9)),
        st.tuples(st.just("reap")),
    ),
    max_size=40,
)


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


D = Device(cookie="c1", network="n1", user_agent="a1")
OTHER_NETWORK = Device(cookie=None, network="n2", user_agent="a1")
WHOLE = ("request", D, 0.0, 1.0, False)
TAIL = ("request", D, 0.95, 1.0, False)
TRAPS = {
    "a complete transfer takes no tail after repeat_window": [WHOLE, ("settle", 0, 1.0), ("advance", 61_000), TAIL],
    "but does before": [WHOLE, ("settle", 0, 1.0), ("advance", 30_000), TAIL],
    "an overlap is not completeness": [
        WHOLE,
        ("settle", 0, 0.9),
        ("request", D, 0.0, 0.1, False),
        ("settle", 0, 1.0),
        ("advance", 61_000),
        TAIL,
    ],
    "a third repeat is another download": [step for _ in range(4) for step in (WHOLE, ("settle", 0, 1.0))],
    "repeats all in flight": [WHOLE] * 5,
    "a refund is charged again": [WHOLE, ("settle", 0, 0.0), WHOLE, ("settle", 0, 1.0)],
    "eight refunds": [step for _ in range(10) for step in (WHOLE, ("settle", 0, 0.0), ("advance", 3_700_000))],
    "a resume after expiry": [WHOLE, ("settle", 0, 0.5), ("advance", 61_000), ("request", D, 0.5, 1.0, False)],
    "the user agent resumes but does not begin": [
        WHOLE,
        ("settle", 0, 0.5),
        ("request", OTHER_NETWORK, 0.5, 1.0, False),
        ("request", OTHER_NETWORK, 0.0, 1.0, False),
    ],
    "past the resume window": [WHOLE, ("settle", 0, 0.5), ("advance", 3_700_000), ("request", D, 0.5, 1.0, False)],
    "a stalled reader stays joinable": [WHOLE, ("advance", 3_700_000), ("request", D, 0.5, 0.1, False)],
    "past its budget a renewal opens the next": [
        ("request", D, 0.0, 0.9, False),
        *[("renew", 0, 1.0)] * 32,
        ("settle", 0, 1.0),
        ("advance", 61_000),
        WHOLE,
        *[("renew", 0, 1.0)] * 32,
    ],
    "a failed origin costs nothing, however often": [step for _ in range(12) for step in (WHOLE, ("fail", 0))],
    "two devices of one network, one budget after the other": [
        WHOLE,
        ("advance", 61_000),
        ("request", Device(cookie="c2", network="n1", user_agent="a1"), 0.0, 1.0, False),
        *[step for _ in range(32) for step in (("renew", 0, 1.0), ("renew", 1, 1.0))],
    ],
    "sixteen open-ended ranges": [
        WHOLE,
        *[("request", D, n / 16, 1.0, False) for n in range(1, 16)],
        *[("settle", 0, 0.06)] * 15,
    ],
    "33 requests at once": [WHOLE] + [("request", D, 0.5, 0.0, False)] * 33,
}


def with_traps(test: Callable[..., None]) -> Callable[..., None]:
    for steps in TRAPS.values():
        for size in (1000, 300_000, 80 * MIB):
            for limit, life in ((1, 60), (1, 10**6), (2, 10**6)):
                test = example(size=size, limit=limit, life=life, steps=steps)(test)
    return test


@with_traps
@given(size=SIZES, limit=st.sampled_from([None, 0, 1, 2, 5]), life=st.sampled_from([60, 4000, 10**6]), steps=STEPS)
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_scripts_agree_with_the_model(
    redis_url: str, loop: asyncio.AbstractEventLoop, size: int, limit: int | None, life: int, steps: list[tuple]
) -> None:
    loop.run_until_complete(_play(redis_url, size, limit, life, steps))


MUTANTS = {
    "completeness forgotten": ("if not early and is_complete(transfer) then return nil end", ""),
    "completeness as a sum": ("return #transfer.spans == 2 and", "return transfer.acked >= transfer.size or"),
    "windows in flight forgotten": ("+ extra - transfer.acked - transfer.inflight", "+ extra - transfer.acked"),
    "a renewal always opens": ("local id, other = find_transfer(rest)", "local id, other"),
    "a failed origin costs a refund": (
        "local free = ARGV[3] == 'origin' and transfer.acked == 0",
        "local free = false",
    ),
    "what is left of a budget is lost": ("if ask.start > 0 and left >= SMALLEST_WINDOW then return left end", ""),
    "any number of requests": ("if transfer.live >= REQUESTS_PER_TRANSFER then return nil end", ""),
    "a user agent begins": ("or ask.start > 0 then", "or true then"),
    "expiry refuses joins": ("local counted = 0\nif not transfer", "if ask.expires <= now then transfer = nil end\n%s"),
    "refunds without end": ("< ask.refunds_max then", "< 1000000 then"),
    "a refund is not charged again": ("    apply_charges(transfer)\n", "    transfer.charged = 1\n"),
    "a replayed renewal is granted more": (
        "local more, reason = wanted - request.granted, ''",
        "local more, reason = wanted - request.acked, ''",
    ),
    "the last closing wins": ("if not request then return 0 end", "if not request then return 1 end"),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_the_model_catches_each_mutant(redis_url: str, loop: asyncio.AbstractEventLoop, name: str) -> None:
    old, new = MUTANTS[name]
    new = new.replace("%s", old)
    caught = 0
    for steps in TRAPS.values():
        for size, limit, life in ((300_000, 1, 60), (300_000, 1, 10**6), (80 * MIB, 1, 10**6), (80 * MIB, 2, 10**6)):
            try:
                loop.run_until_complete(_play(redis_url, size, limit, life, steps, mutation=(old, new)))
            except (AssertionError, ReservationGone, KeyError):
                caught += 1
        if caught:
            return
    raise AssertionError("no trap tells this mutant from the real thing")


def _mutate(ledger: RedisLedger, old: str, new: str) -> None:
    scripts = [value for value in vars(ledger).values() if isinstance(value, Script)]
    assert any(old in script.text for script in scripts), "the mutated text is no longer in any script"
    for script in scripts:
        script.text = script.text.replace(old, new)
        script.sha = hashlib.sha1(script.text.encode(), usedforsecurity=False).hexdigest()


async def _play(
    redis_url: str,
    size: int,
    limit: int | None,
    life: int,
    steps: list[tuple],
    mutation: tuple[str, str] | None = None,
) -> None:
    wire = Wire(connect(redis_url))
    try:
        await wire.execute("FLUSHDB")
        ledger = RedisLedger(wire, shards=1, lease_ms=LEASE_MS, keep_ms=10**9, clock=TEST_CLOCK)
        if mutation is not None:
            _mutate(ledger, *mutation)
        await Player(wire, ledger, Model(size, limit, EPOCH + life * 1000)).play(steps)
    finally:
        await wire.close()


class Player:
    """Does each step to the ledger and to the model, and compares what they answer and what they hold."""

    def __init__(self, wire: Wire, ledger: RedisLedger, model: Model) -> None:
        self.wire, self.ledger, self.model = wire, ledger, model
        self.live: list[tuple[ModelRequest, Reservation]] = []
        self.count = 0

    async def play(self, steps: list[tuple]) -> None:
        await self._set_clock()
        for step in steps:
            await getattr(self, f"_{step[0]}")(*step[1:])
            used = await self.ledger.usage(0, "token", ["file"])
            assert used["file"] == self.model.used
            assert self.model.limit is None or used["file"] <= max(self.model.limit, 0)
        for _ in range(len(self.live)):
            await self._settle(0, 1.0)
        await self._check_events()

    async def _set_clock(self) -> None:
        await self.wire.execute("SET", "test:clock", self.model.now)

    async def _advance(self, ms: int) -> None:
        self.model.now += ms
        await self._set_clock()

    async def _request(self, device: Device, start: float, length: float, multipart: bool) -> None:
        first = min(int(start * self.model.size), self.model.size - 1)
        asked = max(1, int(length * (self.model.size - first)))
        full = asked == self.model.size
        begin = -1 if multipart and not full else first
        request = ModelRequest(begin, asked, 0, full, device)
        ask = self._ask(request)
        would = await self.ledger.peek(ask)
        got = await self.ledger.reserve(ask)
        expected = self.model.reserve(request)
        assert (would is not None) == isinstance(expected, str)
        if isinstance(got, Deny):
            assert got.reason.text == expected
            assert would == got
            return
        assert got.counted == expected
        assert got.granted == request.granted
        assert await self.ledger.reserve(ask) == got, "a replayed reserve changes nothing"
        self.live.append((request, got))

    def _ask(self, request: ModelRequest) -> ReserveAsk:
        self.count += 1
        return ReserveAsk(
            request_id=f"r{self.count}",
            shard=0,
            token_key="token",
            file_identity="file",
            size=self.model.size,
            etag='"e"',
            start=request.start,
            asked=request.asked,
            full=request.full,
            device=request.device,
            charges=(Charge("count", self.model.limit, Reason.LIMIT_DOWNLOADS),),
            expires_at=self.model.expires // 1000,
            rules=RULES,
            status=200,
            stamp={"id": f"e{self.count}"},
            event={"request.id": f"r{self.count}"},
        )

    async def _renew(self, index: int, fraction: float) -> None:
        if not self.live:
            return
        request, reservation = self.live[index % len(self.live)]
        acked = int(fraction * request.granted)
        wanted = request.granted + request.window
        expected = self.model.renew(request, acked, wanted)
        for _ in range(2):  # the second call is a replay
            grant = await self.ledger.renew(reservation, acked, wanted)
            assert grant.granted == expected

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
        assert sum(int(e.get("counted", 0)) for e in events) == self.model.used, "the events add up to the counter"
