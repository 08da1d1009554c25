"""Every reservation is settled exactly once, outside the request that made it, and kept alive until then.

The client's last acknowledgements arrive after the handler has ended, so finished transfers wait here for them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gateway.errors import LedgerDown, LedgerFault, ReservationGone
from gateway.policy.events import rfc3339
from gateway.policy.model import Claims, FileEntry, Outcome, Reservation
from gateway.policy.reasons import Reason
from gateway.policy.standing import Standing
from gateway.ports import Inspectable, Ledger
from gateway.services.faults import describe
from gateway.services.identifiers import new_id, now_ms

log = logging.getLogger(__name__)

SWEEP = 0.02
SILENCE = 10.0
"""Seconds without a new acknowledgement after which a finished transfer is settled with what it has."""
RETRY = 0.5
BATCH = 100
GONE = "ledger.gone"
STOP_PATIENCE = SILENCE + 3.0


@dataclass(eq=False)
class Running:
    """One reservation of this worker, from the ledger's yes to its closing event."""

    reservation: Reservation
    claims: Claims | None = None
    file: FileEntry | None = None
    cut: Callable[[], None] = lambda: None
    """Ends the response at once."""
    connection: Inspectable | None = None
    sent: int = 0
    """Body bytes handed to the kernel; what counts where no acknowledgements can be read."""
    granted: int = 0
    outcome: str = ""
    reason: str = ""
    began: float = field(default_factory=time.monotonic)
    ended: float = 0.0
    acknowledged: int = 0
    heard: float = 0.0
    """When the last new acknowledgement was seen."""
    stopped: str = ""
    """Why it may not go on, where something other than its own response has said so."""
    status: int | None = None
    """What was answered in place of the planned status, where nothing of the plan was sent."""
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once the ledger has closed the reservation."""

    def __post_init__(self) -> None:
        self.granted = max(self.granted, self.reservation.granted)

    def listen(self) -> int:
        """Read the acknowledged bytes so far from the connection, as long as there is one."""
        if self.connection is None:
            return self.acknowledged
        told = self.connection.acknowledged()
        now = min(self.sent if told is None else told, self.reservation.asked)
        if now > self.acknowledged:
            self.acknowledged, self.heard = now, time.monotonic()
        return self.acknowledged

    def stop(self, reason: str) -> None:
        """End the response now; its closing event will say `cut` and the reason."""
        self.stopped = self.stopped or reason
        self.cut()

    def nothing_more(self) -> bool:
        """Whether no further acknowledgement is to be expected."""
        if self.connection is None or self.acknowledged >= self.sent:
            return True
        return self.connection.peer_gone() or time.monotonic() - max(self.heard, self.ended) > SILENCE


class Settlement:
    """Holds this worker's reservations: renews their leases, and settles the finished ones in one sweep.

    `standing` gives what the ops have ordered until now.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        lease: float,
        standing: Callable[[], Standing] = Standing,
        on_settled: Callable[[Running], None] = lambda running: None,
    ) -> None:
        self._ledger = ledger
        self._standing = standing
        self._beat_every = lease / 3
        self._on_settled = on_settled
        self._running: set[Running] = set()
        self._finished: set[Running] = set()
        self._settling: dict[asyncio.Task[None], Running] = {}
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def live(self) -> int:
        """Reservations whose response is still being sent."""
        return len(self._running)

    def start(self) -> None:
        """Begin renewing and sweeping, on the running loop."""
        self._tasks = [asyncio.create_task(self._renew_leases()), asyncio.create_task(self._sweep())]

    async def stop(self, patience: float = STOP_PATIENCE) -> None:
        """Settle what is finished, for at most `patience` seconds, then end. What is left the reaper closes."""
        closing = [running.closed.wait() for running in (*self._finished, *self._settling.values())]
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*closing), patience)
        for task in (*self._tasks, *self._settling):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def begin(self, running: Running) -> None:
        """Keep this reservation alive from now on. One that was refused since it was admitted is stopped at once."""
        self._running.add(running)
        if (deny := self._standing().refused(running.claims)) is not None:
            running.stop(deny.reason.text)

    def finish(self, running: Running, outcome: str, reason: str = "") -> None:
        """The response has ended in this way; settle it once the client's acknowledgements are in. Never waits."""
        self._running.discard(running)
        if running.stopped:
            outcome, reason = "cut", running.stopped
        running.outcome, running.reason = outcome, reason
        running.ended = time.monotonic()
        self._finished.add(running)
        self._wake.set()

    def forsake(self, reservation: Reservation, reason: Reason | None = None) -> None:
        """Settle a reservation whose response never began: its client left, or it was refused for this reason."""
        running = Running(reservation, status=reason.status if reason else None)
        self.finish(running, "cut" if reason else "client_left", reason.text if reason else "")

    def running(self) -> Sequence[Running]:
        """What is being sent now."""
        return tuple(self._running)

    def stop_refused(self) -> None:
        """Cut what is running with a link that has been revoked, and everything where all is frozen."""
        refused = self._standing().refused
        found = [(running, deny) for running in self._running if (deny := refused(running.claims)) is not None]
        for running, deny in found:
            running.stop(deny.reason.text)
        for text, count in Counter(deny.reason.text for _, deny in found).items():
            log.info("cut %d running downloads: %s", count, text)

    async def _sweep(self) -> None:
        while True:
            if not self._finished:
                self._wake.clear()
                await self._wake.wait()
            for running in list(self._finished):
                if self._is_ready(running):
                    self._finished.discard(running)
                    task = asyncio.create_task(self._settle(running))
                    self._settling[task] = running
                    task.add_done_callback(self._settling.pop)
            await asyncio.sleep(SWEEP)

    @staticmethod
    def _is_ready(running: Running) -> bool:
        try:
            running.listen()
            return running.nothing_more()
        except Exception as error:  # noqa: BLE001  one connection that cannot be read must not end the sweep
            log.error("request %s is settled with what is known: %s", running.reservation.request_id, describe(error))
            return True

    async def _settle(self, running: Running) -> None:
        outcome = self._outcome_of(running)
        while True:
            try:
                if not await self._ledger.settle(running.reservation, outcome):
                    log.warning("request %s had been closed before", running.reservation.request_id)
                break
            except LedgerFault as error:
                log.error("request %s cannot be closed: %s", running.reservation.request_id, error)
                break
            except LedgerDown:
                await asyncio.sleep(RETRY)
        running.closed.set()
        self._on_settled(running)

    @staticmethod
    def _outcome_of(running: Running) -> Outcome:
        delivered = running.acknowledged
        with contextlib.suppress(Exception):
            delivered = running.listen()
        if running.connection is not None:
            running.connection.release()
            running.connection = None
        if running.outcome in ("complete", "client_left"):
            running.outcome = "complete" if delivered == running.reservation.asked else "client_left"
        return Outcome(
            outcome=running.outcome,
            delivered=delivered,
            duration_ms=round((running.ended - running.began) * 1000),
            event_id=new_id(),
            time=rfc3339(now_ms()),
            reason=running.reason,
            status=running.status,
        )

    async def _renew_leases(self) -> None:
        """Renew every lease once a beat, spread over it, so that no batch holds up the requests beside it."""
        while True:
            kept = [*self._running, *self._finished, *self._settling.values()]
            if not kept:
                await asyncio.sleep(self._beat_every)
            for at in range(0, len(kept), BATCH):
                await asyncio.gather(*(self._renew_lease(running) for running in kept[at : at + BATCH]))
                await asyncio.sleep(self._beat_every / -(-len(kept) // BATCH))

    async def _renew_lease(self, running: Running) -> None:
        try:
            grant = await self._ledger.renew(running.reservation, running.listen(), running.granted)
            if grant.reason is not None and running in self._running:
                running.stop(grant.reason.text)
        except LedgerDown:
            return  # a reaper waits a whole lease after Redis is back, and the next beat comes before that
        except ReservationGone:
            if running in self._running:
                log.error("request %s is no longer known to the ledger: cut", running.reservation.request_id)
                running.stop(GONE)
        except Exception as error:  # noqa: BLE001  one lease that cannot be renewed must not end the others
            log.error("the lease of request %s: %s", running.reservation.request_id, describe(error))
