"""`when_redis_is_down: allow`: a real Redis that goes and comes back, and what was given meanwhile entered once."""

from __future__ import annotations

import asyncio
import errno
import math
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import pytest

from gateway.backends import journal_file, journal_tidy, redis_line, redis_shards
from gateway.backends.embedded_redis import EmbeddedRedis
from gateway.backends.journal import FileJournal
from gateway.backends.redis_client import Wire, connect
from gateway.backends.redis_control import RedisControl
from gateway.backends.redis_events import RedisEventLog
from gateway.backends.redis_ledger import RedisLedger
from gateway.backends.redis_shards import RedisShards
from gateway.errors import JournalDown, LedgerDown, LedgerFault
from gateway.policy.counting import CountingRules
from gateway.policy.limits import charges
from gateway.policy.model import Deny, Device, Grant, Limits, Outcome, Reservation
from gateway.ports import ReserveAsk, Unasked
from gateway.services import recovery, unchecked
from gateway.services.recovery import Recovery
from gateway.services.unchecked import UncheckedEvents, UncheckedLedger

NUMBERS = count()
SIZE = 4_000_000
LEASE_MS = 300
Events = list[dict[str, str]]


@dataclass
class Worker:
    """One worker with `allow`, as bootstrap wires it."""

    wire: Wire
    journal: FileJournal
    ledger: UncheckedLedger
    events: UncheckedEvents
    recovery: Recovery
    shards: RedisShards
    is_dead: bool = False

    async def die(self) -> None:
        """Without telling anything: what is not in the journal is gone."""
        if not self.is_dead:
            self.is_dead = True
            task = self.ledger._task
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
            self.journal.close()
            await self.wire.close()


@dataclass
class Stage:
    server: EmbeddedRedis
    url: str
    folder: Path
    workers: list[Worker] = field(default_factory=list)

    async def worker(self) -> Worker:
        wire = Wire(connect(self.url))
        journal = FileJournal(self.folder, keep_seconds=3600, bytes_max=10**9)
        journal.open()
        shards = RedisShards(wire, 1, journal=journal)
        events = UncheckedEvents(RedisEventLog(wire, 1, shards), journal)
        ledger = UncheckedLedger(RedisLedger(wire, shards, lease_ms=LEASE_MS, keep_ms=10**9), journal, events)
        own = Recovery(shards, journal, RedisControl(wire), complete_at=lambda: math.inf)
        worker = Worker(wire, journal, ledger, events, own, shards)
        self.workers.append(worker)
        ledger.start()
        return worker

    async def down(self) -> None:
        await asyncio.to_thread(self.server.stop)

    async def back(self) -> None:
        assert await asyncio.to_thread(self.server.start) == self.url
        await self.entered()

    async def entered(self) -> None:
        """All living workers have found Redis as it is now, and use it."""
        living = [worker for worker in self.workers if not worker.is_dead]
        for worker in living:
            by = time.monotonic() + 10
            while not await self._is_well(worker):
                assert time.monotonic() < by
                await asyncio.sleep(0.01)

    async def _is_well(self, worker: Worker) -> bool:
        try:
            await worker.ledger.ping()
        except LedgerDown:
            return False
        await worker.recovery.look()
        return worker.shards.is_entered(0)

    async def events(self, request: str) -> Events:
        living = next(worker for worker in self.workers if not worker.is_dead)
        rows = await living.wire.execute("XRANGE", "gw:{0}:events", "-", "+")
        return [fields for _, fields in rows if fields["request.id"] == request]

    async def until(self, holds: Callable[[Events], bool], request: str) -> Events:
        by = time.monotonic() + 5
        while not holds(found := await self.events(request)):
            assert time.monotonic() < by, found
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.06)  # another round of telling
        assert await self.events(request) == found
        return found


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    server = EmbeddedRedis(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture
async def stage(server: EmbeddedRedis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    monkeypatch.setattr(redis_shards, "GRACE_MS", 30)
    monkeypatch.setattr(redis_shards, "SILENT_MS", 200)
    monkeypatch.setattr(redis_line, "FAIL_FAST", 0.02)
    monkeypatch.setattr(recovery, "FOR_THE_DEAD", 0.02)
    monkeypatch.setattr(unchecked, "EVERY", 0.02)
    monkeypatch.setattr(unchecked, "CLAIMED_EVERY", 2)
    monkeypatch.setattr(journal_tidy, "EVERY", 0.02)
    url = await asyncio.to_thread(server.start)
    made = Stage(server, url, tmp_path / "journal")
    await made.worker()
    await made.entered()
    yield made
    for worker in made.workers:
        await worker.die()


def ask(name: str, *, downloads: int = 1) -> ReserveAsk:
    device = Device(None, f"10.0.{next(NUMBERS)}.0/24", "agent", id=name)  # nobody joins another's transfer
    return ReserveAsk(
        request_id=name,
        shard=0,
        token_key=f"token-{name.partition('.')[0]}",
        file_identity="file",
        size=SIZE,
        etag='"e"',
        start=0,
        asked=SIZE,
        full=True,
        elsewhere=False,
        device=device,
        charges=charges(Limits(downloads=downloads), device),
        expires_at=4_000_000_000,
        token_expires_at=4_000_000_000,
        rules=CountingRules(repeat_window=0),
        status=200,
        stamp={"id": f"allow-{name}", "time": "t"},
        event={"request.id": name},
    )


def outcome(name: str) -> Outcome:
    return Outcome("complete", SIZE, 5, f"end-{name}", "t")


def name() -> str:
    return f"r{next(NUMBERS)}"


async def given(worker: Worker, request: str) -> Reservation:
    reservation = await worker.ledger.reserve(ask(request))
    assert isinstance(reservation, Reservation)
    return reservation


def whole(events: Events) -> bool:
    return [event["type"] for event in events] == ["download.allowed", "download.finished"]


def begun(events: Events) -> bool:
    return [event["type"] for event in events] == ["download.allowed"]


async def test_nothing_is_given_before_it_is_fsynced(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    (worker,) = stage.workers
    await worker.journal.synced()
    await stage.down()
    gate, fdatasync = threading.Event(), os.fdatasync
    monkeypatch.setattr(journal_file.os, "fdatasync", lambda descriptor: (gate.wait(5), fdatasync(descriptor)))
    giving = asyncio.ensure_future(given(worker, name()))
    await asyncio.sleep(0.08)
    assert not giving.done()
    gate.set()
    reservation = await giving
    assert reservation.granted == SIZE


@pytest.mark.parametrize("settled_first", [True, False])
async def test_what_was_given_is_entered_once_and_flagged(stage: Stage, settled_first: bool) -> None:
    (worker,) = stage.workers
    request = name()
    await stage.down()
    reservation = await given(worker, request)
    assert await worker.ledger.renew(reservation, 10, SIZE) == Grant(SIZE)
    assert (await worker.ledger.pace(reservation, 1_000_000)).size == 200_000
    if settled_first:
        assert await worker.ledger.settle(reservation, outcome(request))
    await stage.back()
    if not settled_first:
        await stage.until(begun, request)
        assert await worker.ledger.renew(reservation, 10, SIZE) == Grant(SIZE)
        assert await worker.ledger.settle(reservation, outcome(request))
    allowed, finished = await stage.until(whole, request)
    assert (allowed["unchecked"], finished["unchecked"]) == ("redis.down", "redis.down")
    assert (allowed["counted"], finished["counted"]) == ("1", "0")
    assert (allowed["id"], finished["id"]) == (f"allow-{request}", f"end-{request}")
    answer = await worker.ledger.reserve(ask(f"{request}.again"))
    assert isinstance(answer, Deny)  # it was charged
    (denied,) = await stage.events(f"{request}.again")
    assert "unchecked" not in denied


async def test_all_that_was_delivered_is_credited(stage: Stage) -> None:
    (worker,) = stage.workers
    request = name()
    await stage.down()
    assert await worker.ledger.settle(await given(worker, request), outcome(request))
    await stage.back()
    _, finished = await stage.until(whole, request)
    assert finished["bytes.delivered"] == str(SIZE)


async def test_no_limit_refuses_what_was_given_already(stage: Stage) -> None:
    (worker,) = stage.workers
    request = name()
    first = await given(worker, request)
    assert await worker.ledger.settle(first, outcome(request))
    await stage.down()
    for late in (f"{request}.late", f"{request}.later"):
        assert await worker.ledger.settle(await given(worker, late), outcome(late))
    await stage.back()
    for late in (f"{request}.late", f"{request}.later"):
        allowed, _ = await stage.until(whole, late)
        assert allowed["counted"] == "1"


async def test_what_a_dead_worker_gave_is_entered_by_another_and_only_once(stage: Stage) -> None:
    (first,) = stage.workers
    settled, running = name(), name()
    await stage.down()
    assert await first.ledger.settle(await given(first, settled), outcome(settled))
    await given(first, running)
    await first.die()
    second = await stage.worker()
    await stage.back()
    await stage.until(whole, settled)
    await stage.until(begun, running)  # its end is the reaper's
    await asyncio.sleep(LEASE_MS / 1000)
    assert await second.ledger.reap(lambda: {"id": "lost", "time": "t"}) == 1
    # Who takes the journals of both over knows what has been told, also when Redis does not any more.
    await second.wire.execute("DEL", f"gw:{{0}}:request:{settled}", f"gw:{{0}}:request:{running}")
    await second.die()
    third = await stage.worker()
    await stage.entered()
    await asyncio.sleep(0.15)
    assert len(await stage.events(settled)) == 2
    assert [event["type"] for event in await stage.events(running)] == ["download.allowed", "download.lost"]
    assert list(third.journal.unasked()) == []


async def test_telling_again_does_no_harm(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker dies between telling and writing down that it has told."""
    (first,) = stage.workers
    request = name()
    await stage.down()
    assert await first.ledger.settle(await given(first, request), outcome(request))
    keep = first.journal.keep_unasked
    monkeypatch.setattr(first.journal, "keep_unasked", lambda step: step.verb == "done" or keep(step))
    await stage.back()
    before = await stage.until(whole, request)
    await first.die()
    second = await stage.worker()
    await stage.entered()
    await asyncio.sleep(0.15)
    assert await stage.events(request) == before
    assert isinstance(await second.ledger.reserve(ask(f"{request}.again")), Deny)


async def test_events_wait_for_redis_and_outlive_their_worker(stage: Stage) -> None:
    (first,) = stage.workers
    one, two = name(), name()
    await stage.down()
    await first.events.append(0, {"id": f"opened-{one}", "type": "link.opened", "request.id": one})
    await stage.back()
    assert len(await stage.until(bool, one)) == 1
    await stage.down()
    await first.events.append(0, {"id": f"opened-{two}", "type": "link.opened", "request.id": two})
    await first.die()
    await stage.worker()
    await stage.back()
    assert [event["id"] for event in await stage.until(bool, two)] == [f"opened-{two}"]
    assert len(await stage.events(one)) == 1


async def test_an_event_that_cannot_be_stored_does_not_hold_up_the_others(stage: Stage) -> None:
    (worker,) = stage.workers
    one, two = name(), name()
    await worker.wire.execute("HSET", f"gw:{{0}}:told:event:opened-{one}", "not", "a text")
    await stage.down()
    for each in (one, two):
        await worker.events.append(0, {"id": f"opened-{each}", "type": "link.opened", "request.id": each})
    assert await worker.ledger.settle(await given(worker, two), outcome(two))
    await stage.back()
    found = await stage.until(lambda events: len(events) == 3, two)
    assert {event["type"] for event in found} == {"link.opened", "download.allowed", "download.finished"}
    assert await stage.events(one) == []


async def test_an_expired_link_stays_refused(stage: Stage) -> None:
    (worker,) = stage.workers
    request = name()
    await given(worker, request)
    assert await worker.ledger.has_transfers(0, f"token-{request}", "file")
    await stage.down()
    assert not await worker.ledger.has_transfers(0, f"token-{request}", "file")


async def test_a_fault_of_one_command_is_no_reason_to_give(stage: Stage) -> None:
    (worker,) = stage.workers
    request = name()
    wrong = ask(request)
    reservation = await given(worker, request)
    await worker.wire.execute("DEL", reservation.keys[0], reservation.keys[5])
    await worker.wire.execute("SET", reservation.keys[0], "not a hash")
    with pytest.raises(LedgerFault):
        await worker.ledger.reserve(wrong)


async def test_a_journal_that_cannot_be_fsynced_gives_nothing_and_charges_nothing(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    (worker,) = stage.workers
    request, fdatasync = name(), os.fdatasync
    await worker.journal.synced()
    await stage.down()

    def fails(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(journal_file.os, "fdatasync", fails)
    for _ in range(2):
        with pytest.raises(LedgerDown):
            await worker.ledger.reserve(ask(request))
    with pytest.raises(JournalDown):
        await worker.journal.synced()
    monkeypatch.setattr(journal_file.os, "fdatasync", fdatasync)
    worker.journal.revive()
    assert Unasked("done", request, {}) in list(worker.journal.folder.unasked(worker.journal.worker))
    await worker.die()
    await stage.worker()
    await stage.back()
    await asyncio.sleep(0.2)
    assert await stage.events(request) == []
