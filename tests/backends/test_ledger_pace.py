"""The shared rate: kept, fairly shared and never saved up, in simulated time and, over two processes, in real time."""

from __future__ import annotations

import asyncio
import hashlib
import heapq
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.backends.redis_client import Script, Wire, connect
from gateway.backends.redis_ledger import RedisLedger
from gateway.backends.redis_shards import RedisShards
from gateway.errors import ReservationGone
from gateway.policy.counting import CountingRules
from gateway.policy.limits import charges
from gateway.policy.model import Device, Limits, Outcome, Reservation
from gateway.ports import ReserveAsk

TEST_CLOCK = "local function clock() return tonumber(redis.call('GET', 'test:clock')) end"
EPOCH = 4_000_000_000.0
TOLERANCE = 1.02
"""The clock in these tests counts whole microseconds."""


async def reserved(ledger: RedisLedger, name: str, token: str = "token", asked: int = 10**12) -> Reservation:
    device = Device(cookie=None, network=name, user_agent=None, id=name)
    ask = ReserveAsk(
        request_id=name,
        shard=0,
        token_key=token,
        file_identity="file",
        size=asked,
        etag='"e"',
        start=0,
        asked=asked,
        full=True,
        elsewhere=False,
        device=device,
        charges=charges(Limits(rate=1), device),
        expires_at=9_000_000_000,
        token_expires_at=9_000_000_000,
        rules=CountingRules(),
        status=200,
        stamp={},
        event={"request.id": name},
    )
    reservation = await ledger.reserve(ask)
    assert isinstance(reservation, Reservation)
    return reservation


def _mutate(ledger: RedisLedger, old: str, new: str) -> None:
    script = next(value for value in vars(ledger).values() if isinstance(value, Script) and old in value.text)
    script.text = script.text.replace(old, new)
    script.sha = hashlib.sha1(script.text.encode(), usedforsecurity=False).hexdigest()


class Simulation:
    """Streams that ask for their turn, wait, and take `sending(name, size)` seconds to send it."""

    mutation: ClassVar[tuple[str, str] | None] = None

    def __init__(self, wire: Wire, rate: int, sending: Callable[[str, int], float] = lambda name, size: 0.001) -> None:
        self.wire, self.rate, self.sending = wire, rate, sending
        self.ledger = RedisLedger(
            wire, RedisShards(wire, 1, clock=TEST_CLOCK), lease_ms=10_000, keep_ms=10**9, clock=TEST_CLOCK
        )
        if self.mutation is not None:
            _mutate(self.ledger, *self.mutation)
        self.now = 0.0
        self.turns: list[tuple[float, str, int]] = []
        self.waits: list[float] = []
        self.asking: list[tuple[float, str]] = []
        self.reservations: dict[str, Reservation] = {}

    async def set_clock(self, at: float) -> None:
        self.now = at
        await self.wire.execute("SET", "test:clock", f"{(EPOCH + at) * 1000:.3f}")

    async def enter(self, *names: str, asked: int = 10**12) -> None:
        await self.set_clock(self.now)
        for name in names:
            self.reservations[name] = await reserved(self.ledger, name, asked=asked)
            heapq.heappush(self.asking, (self.now, name))

    async def leave(self, name: str) -> None:
        await self.ledger.settle(self.reservations.pop(name), Outcome("complete", 10**6, 1, "id", "time"))

    async def run(self, until: float) -> None:
        while self.asking and self.asking[0][0] < until:
            at, name = heapq.heappop(self.asking)
            if name not in self.reservations:
                continue
            await self.set_clock(at)
            slot = await self.ledger.pace(self.reservations[name], self.rate)
            assert slot.size >= 1
            assert slot.wait >= 0
            self.waits.append(slot.wait)
            self.turns.append((at + slot.wait, name, slot.size))
            heapq.heappush(self.asking, (at + slot.wait + self.sending(name, slot.size), name))
        await self.set_clock(until)

    def sent(self, since: float = 0.0, until: float = 10**9) -> dict[str, int]:
        sent: dict[str, int] = defaultdict(int)
        for at, name, size in self.turns:
            if since <= at < until:
                sent[name] += size
        return sent

    def most_ahead(self) -> float:
        """The most that any stretch of time had more than the rate allows in it, in seconds of the rate."""
        total, least, most = 0.0, 0.0, 0.0
        for at, _, size in sorted(self.turns):
            least = min(least, total - at * self.rate)
            total += size
            most = max(most, total - at * self.rate - least)
        return most / self.rate


@pytest.mark.parametrize("streams", [1, 4, 30])
@pytest.mark.parametrize("rate", [1, 700, 100_000, 2_000_000, 10**12])
async def test_the_rate_is_kept_and_shared(wire: Wire, rate: int, streams: int) -> None:
    simulation = Simulation(wire, rate)
    names = [f"s{n}" for n in range(streams)]
    await simulation.enter(*names)
    smallest = min(4096, 2 * rate) / rate
    slow = smallest * streams > 0.2
    seconds = max(10.0, 20 * streams * smallest)
    await simulation.run(2.0 + seconds)
    sent = simulation.sent(since=2.0)
    assert sum(sent.values()) == pytest.approx(rate * seconds, rel=0.05)
    assert all(0.5 <= sent[name] * streams / sum(sent.values()) <= 2 for name in names)
    assert max(simulation.waits) <= max(2 * smallest * streams, 1.0)
    assert simulation.most_ahead() <= max(0.2, smallest) * TOLERANCE
    if not slow:
        assert max(size for _, _, size in simulation.turns) <= rate * 0.2
        assert all(sum(simulation.sent(at, at + 0.5).values()) >= rate * 0.25 for at in (2.0, 5.0, 8.0)), "smooth"


async def test_no_more_than_the_rate_after_idling_or_with_a_crowd_at_once(wire: Wire) -> None:
    simulation = Simulation(wire, 1_000_000)
    await simulation.enter("first")
    await simulation.run(1.0)
    await simulation.leave("first")
    await simulation.set_clock(100.0)
    crowd = [f"s{n}" for n in range(30)]
    await simulation.enter(*crowd)
    await simulation.run(100.01)
    for name in crowd[:-1]:
        await simulation.leave(name)
    await simulation.run(103.0)
    assert simulation.most_ahead() <= 0.2 * TOLERANCE


@given(
    rate=st.sampled_from([1, 999, 50_000, 5_000_000]),
    streams=st.lists(
        st.tuples(st.floats(0, 5), st.sampled_from([0.0, 0.01, 0.3, 3.0]), st.sampled_from([10_000, 10**12])),
        min_size=1,
        max_size=12,
    ),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_rate_is_never_exceeded(
    redis_url: str, loop: asyncio.AbstractEventLoop, rate: int, streams: list[tuple[float, float, int]]
) -> None:
    async def main() -> None:
        wire = Wire(connect(redis_url))
        try:
            await wire.execute("FLUSHDB")
            pauses = {f"s{n}": pause for n, (_, pause, _) in enumerate(streams)}
            simulation = Simulation(wire, rate, lambda name, size: pauses[name])
            for (begins, _, asked), name in sorted(zip(streams, pauses, strict=True)):
                await simulation.run(begins)
                await simulation.enter(name, asked=asked)
            await simulation.run(10.0)
            assert simulation.most_ahead() <= max(0.2, min(4096, 2 * rate) / rate) * TOLERANCE
        finally:
            await wire.close()

    loop.run_until_complete(main())


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.mark.parametrize("pause", [0.5, 1.5, 30.0])
async def test_a_slow_readers_share_goes_to_the_others(wire: Wire, pause: float) -> None:
    simulation = Simulation(wire, 1_000_000, lambda name, size: pause if name == "slow" else 0.001)
    await simulation.enter("slow", "a", "b", "c")
    await simulation.run(30.0)
    sent = simulation.sent(since=2.0)
    assert sum(sent.values()) == pytest.approx(28_000_000, rel=0.05)
    assert sent["slow"] < 4_000_000
    assert all(sent[name] == pytest.approx((28_000_000 - sent["slow"]) / 3, rel=0.1) for name in "abc")


async def test_what_a_stream_had_goes_to_the_others_when_it_leaves_or_dies(wire: Wire) -> None:
    simulation = Simulation(wire, 1_000_000, lambda name, size: 3600.0 if name == "dead" else 0.001)
    await simulation.enter("dead", "gone", "here")
    await simulation.run(3.0)
    await simulation.leave("gone")
    await simulation.run(8.0)
    assert simulation.sent(since=5.0)["here"] == pytest.approx(3_000_000, rel=0.1)
    assert max(size for at, _, size in simulation.turns if at > 5) == 200_000, "a turn for one"


async def test_another_rate_counts_from_the_next_turn(wire: Wire) -> None:
    simulation = Simulation(wire, 1)
    await simulation.enter("a", "b")
    await simulation.run(20.0)
    simulation.rate = 1_000_000
    await simulation.run(30.0)
    assert sum(simulation.sent(since=24.0).values()) == pytest.approx(6_000_000, rel=0.05)
    simulation.rate = 10_000
    await simulation.run(60.0)
    assert sum(simulation.sent(since=35.0).values()) == pytest.approx(250_000, rel=0.05)


async def test_small_files_cost_the_schedule_no_more_than_their_bytes(wire: Wire) -> None:
    simulation = Simulation(wire, 1_000_000)
    for number in range(1000):
        name = f"s{number}"
        await simulation.enter(name, asked=5000)
        while name in simulation.reservations:
            simulation.asking.clear()
            slot = await simulation.ledger.pace(simulation.reservations[name], simulation.rate)
            assert slot.size == 5000
            await simulation.set_clock(simulation.now + slot.wait)
            await simulation.leave(name)
    assert simulation.now == pytest.approx(5.0, rel=0.05)


async def test_a_turn_is_given_also_where_answers_were_lost(wire: Wire) -> None:
    simulation = Simulation(wire, 1_000_000)
    await simulation.enter("s", asked=5000)
    slots = [await simulation.ledger.pace(simulation.reservations["s"], 1_000_000) for _ in range(3)]
    assert all(slot.size >= 5000 for slot in slots)


async def test_a_clock_that_is_set_back_holds_nobody_up(wire: Wire) -> None:
    simulation = Simulation(wire, 1_000_000)
    await simulation.set_clock(7200.0)
    await simulation.enter("s")
    await simulation.run(7201.0)
    simulation.asking.clear()
    await simulation.set_clock(0.0)
    assert (await simulation.ledger.pace(simulation.reservations["s"], 1_000_000)).wait <= 2.1


async def test_a_closed_or_unknown_request_has_no_turn_and_leaves_nothing_behind(wire: Wire) -> None:
    simulation = Simulation(wire, 1000)
    await simulation.enter("s")
    reservation = simulation.reservations["s"]
    await simulation.ledger.pace(reservation, 1000)
    await simulation.leave("s")
    with pytest.raises(ReservationGone):
        await simulation.ledger.pace(reservation, 1000)
    keys = (*reservation.keys[:5], "gw:{0}:request:never", *reservation.keys[6:])
    with pytest.raises(ReservationGone):
        await simulation.ledger.pace(replace(reservation, request_id="never", keys=keys), 1000)
    assert await wire.execute("KEYS", "*streams*") == []
    assert await wire.execute("KEYS", "*never*") == []


MUTANTS: dict[str, tuple[str, str, Callable[[Wire], Awaitable[None]]]] = {
    "each stream has the rate to itself": (
        "local free = tonumber(redis.call('HGET', TOKEN, 'paced') or '0')",
        "local free = 0",
        test_no_more_than_the_rate_after_idling_or_with_a_crowd_at_once,
    ),
    "what was not used is saved up": (
        "math.max(now - ROUND / 2, ",
        "math.max(now - 100 * ROUND, ",
        test_no_more_than_the_rate_after_idling_or_with_a_crowd_at_once,
    ),
    "a whole turn before it is earned": (
        "math.min(math.max(takes - ROUND / 2, 0), ROUND / 2)",
        "0",
        lambda wire: test_the_rate_is_kept_and_shared(wire, 2_000_000, 1),
    ),
    "turns as if for one": (
        "local sharers = row[3] and streams or math.max(streams, CROWD)",
        "local sharers = 1",
        lambda wire: test_the_rate_is_kept_and_shared(wire, 2_000_000, 30),
    ),
    "never less than the smallest turn": (
        "math.min(SMALLEST, rate * LONGEST / 1000)",
        "SMALLEST",
        lambda wire: test_the_rate_is_kept_and_shared(wire, 1, 4),
    ),
    "the dead are counted for ever": (
        "redis.call('ZREMRANGEBYSCORE', STREAMS, '-inf', now - SILENCE)",
        "",
        test_what_a_stream_had_goes_to_the_others_when_it_leaves_or_dies,
    ),
    "who waits is forgotten": (
        "redis.call('ZADD', STREAMS, now + wait, ARGV[1])",
        "",
        lambda wire: test_the_rate_is_kept_and_shared(wire, 700, 30),
    ),
    "the end of a file costs a whole turn": (
        "if left > 0 then size = math.min(size, left) end",
        "",
        test_small_files_cost_the_schedule_no_more_than_their_bytes,
    ),
    "the schedule is believed whatever it says": (
        "math.min(free, now + streams * LONGEST)",
        "free",
        test_a_clock_that_is_set_back_holds_nobody_up,
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
async def test_each_mutant_is_caught(wire: Wire, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    old, new, test = MUTANTS[name]
    monkeypatch.setattr(Simulation, "mutation", (old, new))
    with pytest.raises(AssertionError):
        await test(wire)


REAL_SECONDS, REAL_RATE = 5.0, 3_000_000


def stream_in_a_process(redis_url: str, process: int, begins: float) -> dict[str, int]:
    """Half the streams of three tokens (of 1, 4 and 30 streams), from `begins` on; the bytes of each stream."""

    async def main() -> dict[str, int]:
        wire = Wire(connect(redis_url, timeout=5.0), timeout=5.0)
        ledger = RedisLedger(wire, RedisShards(wire, 1), lease_ms=60_000, keep_ms=10**9)
        sent: dict[str, int] = {}

        async def stream(token: str, name: str) -> None:
            reservation = await reserved(ledger, name, token)
            sent[name] = 0
            await asyncio.sleep(begins - time.time())
            while True:
                slot = await ledger.pace(reservation, REAL_RATE)
                if time.time() + slot.wait > begins + REAL_SECONDS:
                    return
                await asyncio.sleep(slot.wait)
                sent[name] += slot.size

        names = [(f"t{count}", f"t{count}-{n}") for count in (1, 4, 30) for n in range(process, count, 2)]
        try:
            await asyncio.gather(*(stream(token, name) for token, name in names))
        finally:
            await wire.close()
        return sent

    return asyncio.run(main())


def come_up() -> None:
    """Takes long enough for each process to get one of these, and to have imported this module then."""
    time.sleep(0.5)


async def test_in_real_time_over_two_processes(redis_db: str) -> None:
    loop = asyncio.get_running_loop()
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        await asyncio.gather(*(loop.run_in_executor(pool, come_up) for _ in range(2)))
        begins = time.time() + 1.0
        halves = [loop.run_in_executor(pool, stream_in_a_process, redis_db, n, begins) for n in range(2)]
        sent = {name: count for half in await asyncio.gather(*halves) for name, count in half.items()}
    for count in (1, 4, 30):
        mine = [value for name, value in sent.items() if name.startswith(f"t{count}-")]
        assert len(mine) == count
        assert sum(mine) == pytest.approx(REAL_RATE * REAL_SECONDS, rel=0.1)
        assert all(0.5 <= value * count / sum(mine) <= 2 for value in mine), "no stream starves"
