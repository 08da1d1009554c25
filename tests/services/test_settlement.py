"""Settling and lease keeping when single steps fail: one that breaks must not stop the others."""

from __future__ import annotations

import asyncio
import time

import pytest

from gateway.errors import LedgerDown, ReservationGone
from gateway.policy.model import Claims, FileEntry, Grant, Outcome, Reservation
from gateway.policy.reasons import Reason
from gateway.policy.standing import Command, Standing, Verb
from gateway.services.settlement import BATCH, RETRY, Running, Settlement


class Ledger:
    """A stand-in that fails on demand; the real ledger's behaviour is tested in tests/backends."""

    def __init__(self) -> None:
        self.renewed: list[str] = []
        self.settled: list[tuple[str, Outcome]] = []
        self.failures: dict[str, list[Exception]] = {}
        self.reasons: dict[str, Reason] = {}
        self.at_once = 0
        self.most_at_once = 0

    def _fail(self, request_id: str) -> None:
        if self.failures.get(request_id):
            raise self.failures[request_id].pop(0)

    async def renew(self, reservation: Reservation, acknowledged: int, granted: int) -> Grant:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        self.renewed.append(reservation.request_id)
        self._fail(reservation.request_id)
        return Grant(granted, self.reasons.get(reservation.request_id))

    async def settle(self, reservation: Reservation, outcome: Outcome) -> bool:
        self._fail(reservation.request_id)
        self.settled.append((reservation.request_id, outcome))
        return True


class Connection:
    """A client's connection whose counters are the test's."""

    def __init__(self, acknowledged: int | Exception) -> None:
        self.bytes = acknowledged
        self.released = 0

    def acknowledged(self) -> int | None:
        if isinstance(self.bytes, Exception):
            raise self.bytes
        return self.bytes

    def peer_gone(self) -> bool:
        return False

    def release(self) -> None:
        self.released += 1


def running(name: str, connection: Connection | None = None) -> Running:
    reservation = Reservation(name, "t", 0, (), asked=100, granted=100, window=100, counted=1)
    return Running(reservation, connection=connection, sent=100)


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


async def test_it_waits_for_the_last_acknowledgement(ledger: Ledger) -> None:
    settlement = Settlement(ledger, lease=30)
    settlement.start()
    connection = Connection(60)
    one = running("one", connection)
    settlement.begin(one)
    settlement.finish(one, "complete")
    await asyncio.sleep(0.1)
    assert ledger.settled == []
    connection.bytes = 100
    await asyncio.wait_for(one.closed.wait(), 1)
    [(name, outcome)] = ledger.settled
    assert (name, outcome.outcome, outcome.delivered, connection.released) == ("one", "complete", 100, 1)
    await settlement.stop(0)


async def test_a_connection_that_cannot_be_read_stops_nobody(ledger: Ledger) -> None:
    settlement = Settlement(ledger, lease=30)
    settlement.start()
    broken, sound = running("broken", Connection(ValueError("bad"))), running("sound", Connection(100))
    for each in (broken, sound):
        settlement.begin(each)
        settlement.finish(each, "complete")
    await asyncio.wait_for(asyncio.gather(broken.closed.wait(), sound.closed.wait()), 1)
    assert {name: outcome.delivered for name, outcome in ledger.settled} == {"broken": 0, "sound": 100}
    await settlement.stop(0)


async def test_a_ledger_that_is_away_is_asked_again(ledger: Ledger) -> None:
    ledger.failures["one"] = [LedgerDown("away"), LedgerDown("away")]
    settlement = Settlement(ledger, lease=30)
    settlement.start()
    one = running("one", Connection(100))
    began = time.monotonic()
    settlement.finish(one, "complete")
    await asyncio.wait_for(one.closed.wait(), 3)
    assert len(ledger.settled) == 1
    assert time.monotonic() - began > 0.5 * RETRY, "who is down is not asked as fast as can be"
    await settlement.stop(0)


async def test_one_lease_that_fails_stops_no_other(ledger: Ledger) -> None:
    ledger.failures["bad"] = [ValueError("bad"), LedgerDown("away")]
    settlement = Settlement(ledger, lease=0.3)
    for name in ("bad", "good"):
        settlement.begin(running(name, Connection(0)))
    settlement.start()
    await asyncio.sleep(0.55)
    await settlement.stop(0)
    assert ledger.renewed.count("good") >= 4
    assert ledger.renewed.count("bad") >= 4


async def test_a_lost_reservation_is_cut_and_told_so(ledger: Ledger) -> None:
    ledger.failures["gone"] = [ReservationGone("closed")]
    settlement = Settlement(ledger, lease=0.3)
    cuts: list[str] = []
    gone = running("gone", Connection(100))
    gone.cut = lambda: cuts.append("gone")
    settlement.begin(gone)
    settlement.start()
    await asyncio.sleep(0.25)
    assert cuts == ["gone"]
    settlement.finish(gone, "client_left")
    await asyncio.wait_for(gone.closed.wait(), 1)
    assert (ledger.settled[0][1].outcome, ledger.settled[0][1].reason) == ("cut", "ledger.gone")
    await settlement.stop(0)


async def test_a_renewal_that_says_why_it_may_not_go_on_is_heard(ledger: Ledger) -> None:
    ledger.reasons["late"] = Reason.LIMIT_CONCURRENT
    settlement = Settlement(ledger, lease=0.3)
    late, well = running("late", Connection(100)), running("well", Connection(100))
    settlement.begin(late)
    settlement.begin(well)
    settlement.start()
    await asyncio.sleep(0.25)
    assert (late.stopped, well.stopped) == ("limit.concurrent", "")
    await settlement.stop(0)


async def test_what_runs_with_a_revoked_link_is_cut_and_nothing_else(ledger: Ledger) -> None:
    standing = Standing()
    settlement = Settlement(ledger, lease=9, standing=lambda: standing)
    cuts: list[str] = []
    for name in ("a", "b", "unknown"):
        one = running(name, Connection(100))
        one.claims = None if name == "unknown" else Claims("shop", name, 100, (FileEntry("f"),))
        one.cut = lambda name=name: cuts.append(name)
        settlement.begin(one)
    standing.apply(Command("revoke", 5, token_key=Claims("shop", "b", 100, (FileEntry("f"),)).token_key))
    settlement.stop_refused()
    assert cuts == ["b"]
    standing.apply(Command("freeze", 6))
    settlement.stop_refused()
    assert sorted(cuts) == ["a", "b", "b", "unknown"], "all is frozen: also what runs with nobody knows which link"
    assert {each.stopped for each in settlement.running()} == {"token.revoked", "frozen"}, "the first word stays"


@pytest.mark.parametrize("verb", ["freeze", "revoke"])
def test_what_was_refused_since_it_was_admitted_is_stopped_as_it_begins(ledger: Ledger, verb: Verb) -> None:
    standing = Standing()
    settlement = Settlement(ledger, lease=9, standing=lambda: standing)
    late = running("late", Connection(100))
    late.claims = Claims("shop", "late", 100, (FileEntry("f"),))
    key = late.claims.token_key if verb == "revoke" else None
    standing.apply(Command(verb, 5, token_key=key))
    settlement.begin(late)
    assert late.stopped == ("frozen" if verb == "freeze" else "token.revoked")


async def test_who_stops_settles_what_has_ended(ledger: Ledger) -> None:
    settlement = Settlement(ledger, lease=30)
    settlement.start()
    late = Connection(60)
    settlement.finish(running("late", late), "complete")
    stopping = asyncio.create_task(settlement.stop(3))
    await asyncio.sleep(0.1)
    late.bytes = 100
    await stopping
    assert [(name, outcome.delivered) for name, outcome in ledger.settled] == [("late", 100)]


async def test_many_leases_are_spread_over_the_beat(ledger: Ledger) -> None:
    settlement = Settlement(ledger, lease=0.9)
    for number in range(10 * BATCH):
        settlement.begin(running(str(number), Connection(0)))
    settlement.start()
    await asyncio.sleep(0.8)
    await settlement.stop(0)
    assert len(set(ledger.renewed)) == 10 * BATCH
    assert ledger.most_at_once <= BATCH
