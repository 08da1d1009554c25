"""The way back, on a real Redis: who counts, who decides, and what of it survives."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import pytest

from gateway.backends.redis_client import Wire, connect
from gateway.backends.redis_events import RedisEventLog
from gateway.backends.redis_shards import RedisShards
from gateway.backends.redis_verdicts import RedisVerdicts
from gateway.policy.reasons import Reason
from gateway.policy.rollback import Came, Return, Tally, Terms
from gateway.policy.ruleset import RuleSet
from gateway.services import rollback
from gateway.services.reloading import Watched
from gateway.services.rollback import MINUTE, Returns, Rollback, known_returns

TERMS = Terms(factor=3, within=600, least=20)
WHY = Return("old", 1_795_000_000, Tally(100, 100), Tally(100, 2))


@pytest.fixture
async def wire(redis_db: str) -> AsyncIterator[Wire]:
    wire = Wire(connect(redis_db))
    yield wire
    await wire.close()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollback, "EVERY", 0.02)


@dataclass
class Worker:
    """One Rollback over rules that are what `text` says, with a copy of what was before them where it has one."""

    wire: Wire
    copy: str | None = "old"
    text: str = "old"
    shown: list[tuple[str, str, str]] = field(default_factory=list)
    told: list[bool] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.book = RedisVerdicts(self.wire, 3600)
        self.rules = Watched("rules", lambda: RuleSet(version=self.text), lambda: self.text)

    async def start(self) -> Worker:
        await self.rules.load()
        self.rollback = Rollback(
            self.rules,
            self.book,
            RedisEventLog(self.wire, 1, RedisShards(self.wire, 1)),
            await known_returns(self.book),
            terms=TERMS,
            before=lambda: None if self.copy is None else RuleSet(version=self.copy),
            show=lambda what, version, wrong: self.shown.append((what, version, wrong)),
            tell=self.told.append,
        )
        self.rollback.start()
        return self

    async def change(self, text: str) -> None:
        self.text = text
        await self.rules.reload()

    def decide(self, version: str, count: int, reason: Reason | None = None) -> None:
        for number in range(count):
            self.rollback.note(version, f"link {number} {reason}", reason)


@pytest.fixture
async def workers(wire: Wire) -> AsyncIterator[Callable[..., object]]:
    started: list[Worker] = []

    async def start(**given: object) -> Worker:
        started.append(await Worker(wire, **given).start())
        return started[-1]

    yield start
    for each in started:
        await each.rollback.stop()


async def soon(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + 3
    while not holds():
        assert time.monotonic() < until, "it did not come to pass"
        await asyncio.sleep(0.01)


async def rounds(worker: Worker, count: int = 3) -> None:
    before = len(worker.told)
    await soon(lambda: len(worker.told) >= before + count)


async def events(wire: Wire) -> list[dict[str, str]]:
    return [fields async for _, fields in RedisEventLog(wire, 1, RedisShards(wire, 1)).scan(0)]


async def test_all_count_together_and_go_back_together(workers, wire: Wire, caplog: pytest.LogCaptureFixture) -> None:
    one, two = await workers(), await workers()
    one.decide("old", 30)
    await rounds(one)
    await one.change("new")
    await rounds(one)
    await two.change("new")
    await rounds(two)
    came = await one.book.came()
    assert (came.version, came.before) == ("new", "old")
    for each in (one, two):
        each.decide("new", 15, Reason.RULE_DENIED)  # neither alone has seen twenty
    await soon(lambda: one.rules.version == two.rules.version == "old")
    await rounds(one)
    assert one.told[-1] is True
    assert [each.levelno for each in caplog.records if "in force again" in each.message] == [logging.CRITICAL] * 2
    assert one.shown[-1][:2] == ("rules", "old")
    [event] = [each for each in await events(wire) if each["type"] == "rules.rolled_back"]
    assert (event["rules.version"], event["rules.refused"]) == ("old", "new")
    assert (event["share.refused"], event["share.before"]) == ("1.0000", "0.0000")
    assert (await one.book.returns())["new"].new == Tally(30, 30)
    await one.change("newer")
    await rounds(one)
    assert (one.rules.version, one.told[-1]) == ("newer", False)


async def test_a_worker_that_reads_the_refused_version_late_goes_back_too(workers) -> None:
    one = await workers()
    await one.book.refuse("new", WHY)
    await one.change("new")
    await soon(lambda: one.rules.version == "old")


@pytest.mark.parametrize(
    ("reason", "count", "since"),
    [
        (Reason.TOKEN_REVOKED, 100, 0),
        (Reason.REDIS_DOWN, 100, 0),
        (Reason.RULE_DENIED, 19, 0),
        (None, 100, 0),
        (Reason.RULE_DENIED, 100, 601),
    ],
)
async def test_what_is_no_reason_to_go_back(workers, reason: Reason | None, count: int, since: int) -> None:
    one = await workers()
    await one.change("new")
    await rounds(one)
    await one.book.note(Came("new", "old", int(time.time()) - since))
    one.decide("new", count, reason)
    await rounds(one)
    assert one.rules.version == "new"
    assert await one.book.returns() == {}


async def test_one_buyer_who_tries_and_tries_is_one(workers) -> None:
    one = await workers()
    await one.change("new")
    for _ in range(1000):
        one.rollback.note("new", "the same link", Reason.LIMIT_DOWNLOADS)
    await rounds(one)
    now = int(time.time()) // MINUTE
    assert await one.book.tally("new", now - 1, now) == Tally(1, 1)


async def test_without_a_copy_it_is_left_to_others_and_said(workers, caplog: pytest.LogCaptureFixture) -> None:
    one = await workers(copy=None)
    await one.change("new")
    await rounds(one)
    one.decide("new", 100, Reason.RULE_DENIED)
    await rounds(one)
    assert await one.book.returns() == {}, "who cannot go back does not decide it"
    await one.book.refuse("new", WHY)
    await rounds(one)
    assert one.rules.version == "new"
    assert [each.levelno for each in caplog.records if "no copy" in each.message] == [logging.CRITICAL]


async def test_what_redis_loses_of_it_is_put_back(workers, wire: Wire) -> None:
    one = await workers()
    await one.book.refuse("new", WHY)
    await rounds(one)
    await wire.execute("FLUSHALL")
    await rounds(one)
    assert (await one.book.returns())["new"] == WHY


async def test_counts_are_of_the_minutes_asked_for(wire: Wire) -> None:
    book = RedisVerdicts(wire, 3600)
    assert await book.tally("v", 0, 10) == Tally()
    for minute in (1, 2, 2, 3):
        await book.add("v", minute, Tally(2, 1))
    assert await book.tally("v", 2, 3) == Tally(6, 3)
    assert 0 < await wire.execute("TTL", "gw:{0}:verdicts:v") <= 3600
    assert await book.came() is None


async def test_without_redis_nothing_is_known_and_nobody_waits(unused_tcp_port: int) -> None:
    away = Wire(connect(f"redis://127.0.0.1:{unused_tcp_port}/0"))
    returns = await known_returns(RedisVerdicts(away, 60))
    assert "new" not in returns
    one = Worker(away)
    await one.start()
    one.decide("old", 100, Reason.RULE_DENIED)
    await asyncio.sleep(0.1)
    assert one.rules.version == "old"
    await one.rollback.stop()
    await away.close()


def test_what_was_read_is_not_forgotten() -> None:
    returns = Returns()
    returns.add("new", WHY)
    returns.add("new", Return("other", 0, Tally(), Tally()))
    assert returns["new"] == WHY
