"""Downloads while the ledger is down, where the shop has chosen `when_redis_is_down: allow`: unchecked, kept, flagged.

What is given is fsynced before its first byte, its events say `unchecked`, and the ledger is told when it is back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from gateway.errors import JournalDown, LedgerDown, LedgerFault
from gateway.policy.model import Deny, Grant, Outcome, Reservation, Slot
from gateway.policy.reasons import Reason
from gateway.ports import AfterwardsLedger, EventLog, Fields, Journal, ReserveAsk, Unasked
from gateway.services.faults import describe

log = logging.getLogger(__name__)

EVERY = 0.5
CLAIMED_EVERY = 20
FIELD = "unchecked"
TURN = 0.2
"""Seconds of a rate that one stream sends at a time where the others cannot be asked."""
SMALLEST_TURN = 4096
REMEMBERED = 86_400
"""Seconds in which an event that was told is not told again, should its worker die in between."""

T = TypeVar("T")


@dataclass(slots=True)
class _Given:
    reserve: Unasked
    is_ours: bool = True
    settle: Unasked | None = None
    told: bool = False


class UncheckedEvents:
    """gateway.ports.EventLog that keeps an event in the journal where `events` is down, and writes it later."""

    def __init__(self, events: EventLog, journal: Journal) -> None:
        self._events = events
        self._journal = journal
        self._owed: dict[str, Unasked] = {}

    async def append(self, shard: int, fields: Fields) -> None:
        """See EventLog.append. Raises JournalDown."""
        try:
            await self._events.append(shard, fields)
        except (LedgerFault, JournalDown):
            raise
        except LedgerDown:
            step = Unasked("event", fields["id"], {"shard": shard, "fields": dict(fields)})
            self._journal.keep_unasked(step)
            if self._journal.trouble:
                raise JournalDown(self._journal.trouble) from None
            self.owe(step)

    async def append_once(self, shard: int, mark: str, fields: Fields, seconds: int) -> bool:
        """See EventLog.append_once."""
        return await self._events.append_once(shard, mark, fields, seconds)

    async def trim(self, shard: int, keep_seconds: int) -> int:
        """See EventLog.trim."""
        return await self._events.trim(shard, keep_seconds)

    def owe(self, step: Unasked) -> None:
        """Write this one later; a journal has it."""
        self._owed[step.request_id] = step

    async def tell_all(self) -> None:
        """Write what is owed, each once. Raises LedgerDown."""
        for event_id, step in list(self._owed.items()):
            shard, fields = step.document["shard"], step.document["fields"]
            try:
                await self._events.append_once(shard, f"event:{event_id}", fields, REMEMBERED)
            except LedgerFault as error:
                log.error("event %s of the time when Redis was down cannot be stored: %s", event_id, error)
            self._journal.keep_unasked(Unasked("done", event_id, {}))
            del self._owed[event_id]


class UncheckedLedger:
    """gateway.ports.Ledger that says yes where `ledger` is down. A fault of one command is still a fault."""

    def __init__(self, ledger: AfterwardsLedger, journal: Journal, events: UncheckedEvents) -> None:
        self._ledger = ledger
        self._journal = journal
        self._events = events
        self._given: dict[str, _Given] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Tell the ledger, from now on, of what was given without it, by dead workers of this machine too."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Tell what can be told now; the rest is in the journal, for who comes after."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            await self._tell_all()

    async def reserve(self, ask: ReserveAsk, *, attempt: bool = False) -> Reservation | Deny:
        """See Ledger.reserve."""
        try:
            return await self._ledger.reserve(ask, attempt=attempt)
        except (LedgerFault, JournalDown):
            raise
        except LedgerDown:
            return await self._give(replace(ask, event={**ask.event, FIELD: Reason.REDIS_DOWN.text}))

    async def _give(self, ask: ReserveAsk) -> Reservation:
        reservation, step = self._ledger.assume(ask)
        self._journal.keep_unasked(step)
        try:
            await self._journal.synced()
        except JournalDown:
            # It may be on the disk all the same: nobody is to be charged for what was refused.
            self._journal.keep_unasked(Unasked("done", ask.request_id, {}))
            raise
        self._given[ask.request_id] = _Given(step)
        return reservation

    async def settle(self, reservation: Reservation, outcome: Outcome) -> bool:
        """See Ledger.settle."""
        given = self._given.get(reservation.request_id)
        if given is None:
            return await self._ledger.settle(reservation, outcome)
        given.settle = self._ledger.assume_settled(reservation, outcome)
        self._journal.keep_unasked(given.settle)
        return True

    async def renew(self, reservation: Reservation, acknowledged: int, granted: int) -> Grant:
        """See Ledger.renew."""
        given = self._given.get(reservation.request_id)
        if given is not None and not given.told:
            return Grant(granted)
        return await _or(Grant(granted), self._ledger.renew(reservation, acknowledged, granted))

    async def pace(self, reservation: Reservation, rate: int) -> Slot:
        """See Ledger.pace. Where it is down each stream keeps the rate by itself."""
        own = Slot(max(SMALLEST_TURN, round(rate * TURN)), max(SMALLEST_TURN / rate, TURN))
        given = self._given.get(reservation.request_id)
        if given is not None and not given.told:
            return own
        return await _or(own, self._ledger.pace(reservation, rate))

    async def peek(self, ask: ReserveAsk) -> Deny | None:
        """See Ledger.peek."""
        return await _or(None, self._ledger.peek(ask))

    async def confirm(self, ask: ReserveAsk) -> bool:
        """See Ledger.confirm. Where it is down, the look stays a look."""
        return await _or(False, self._ledger.confirm(ask))

    async def has_transfers(self, shard: int, token_key: str, file_identity: str) -> bool:
        """See Ledger.has_transfers. An expired link stays refused where nobody knows of its transfers."""
        return await _or(False, self._ledger.has_transfers(shard, token_key, file_identity))

    async def usage(self, shard: int, token_key: str, identities: Sequence[str]) -> Mapping[str, int]:
        """See Ledger.usage."""
        return await self._ledger.usage(shard, token_key, identities)

    async def is_unfinished(self, shard: int, token_key: str, file_identity: str, repeat_window: int) -> bool:
        """See Ledger.is_unfinished."""
        return await self._ledger.is_unfinished(shard, token_key, file_identity, repeat_window)

    async def first_download(self, shard: int, token_key: str) -> float | None:
        """See Ledger.first_download."""
        return await _or(None, self._ledger.first_download(shard, token_key))

    async def ping(self) -> None:
        """See Ledger.ping."""
        await self._ledger.ping()

    async def agree(self, proposed_secret: str) -> str:
        """See Ledger.agree."""
        return await self._ledger.agree(proposed_secret)

    async def reap(self, stamp: Callable[[], Fields]) -> int:
        """See Ledger.reap."""
        return await self._ledger.reap(stamp)

    async def _run(self) -> None:
        rounds = 0
        while True:
            try:
                if rounds % CLAIMED_EVERY == 0:
                    await self._take_over()
                await self._tell_all()
            except Exception as error:  # noqa: BLE001  this loop must outlive whatever goes wrong in it
                log.error("what was given while Redis was down cannot be told: %s", describe(error))
            rounds += 1
            await asyncio.sleep(EVERY)

    async def _take_over(self) -> None:
        for step in await asyncio.to_thread(lambda: list(self._journal.unasked())):
            if step.verb == "event":
                self._events.owe(step)
            elif step.verb == "reserve":
                self._given.setdefault(step.request_id, _Given(step, is_ours=False))
            elif step.verb == "settle" and step.request_id in self._given:
                self._given[step.request_id].settle = step

    async def _tell_all(self) -> None:
        told = 0
        try:
            await self._events.tell_all()
            for request_id, given in list(self._given.items()):
                was_told = given.told
                is_over = await self._tell(given)
                told += given.told and not was_told
                if is_over:
                    self._journal.keep_unasked(Unasked("done", request_id, {}))
                    del self._given[request_id]
        except LedgerDown:
            return
        finally:
            if told:
                log.warning("entered %d downloads that were given unchecked while Redis was down", told)

    async def _tell(self, given: _Given) -> bool:
        """Tell what is known of one download; whether that is all there will be. Raises LedgerDown."""
        try:
            if not given.told:
                await self._ledger.tell(given.reserve)
                given.told = True
            if given.settle is not None:
                await self._ledger.tell(given.settle)
        except LedgerFault as error:
            log.error(
                "request %s was given while Redis was down and cannot be entered: %s", given.reserve.request_id, error
            )
            return True
        # What a dead worker has not settled is the reaper's.
        return given.settle is not None or not given.is_ours


async def _or(otherwise: T, asking: Awaitable[T]) -> T:
    try:
        return await asking
    except LedgerFault:
        raise
    except LedgerDown:
        return otherwise
