"""One body that mitmproxy passes on from the store to its client: counted, renewed at the ledger, ended exactly once.

What mitmproxy has in its hands cannot be taken back, so the ledger is asked ahead; past its word nothing more is read.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress

from gateway.errors import ClientGone, FileMissing, OriginDown, OriginError, OriginTimeout
from gateway.front.plain import Answer
from gateway.mitm.wire import Line, place_of
from gateway.policy.model import ByteRange, Reservation
from gateway.policy.reasons import Reason
from gateway.ports import Ledger
from gateway.services.broken import reason_of
from gateway.services.faults import describe
from gateway.services.gatekeeper import Admitted
from gateway.services.settlement import Running, Settlement
from gateway.services.windows import Cut, outcome_of, renew
from gateway.store_ports import Headers, Remote

log = logging.getLogger(__name__)

BROKEN = 503
"""The status where something of our own failed."""


class Passing:
    """One admitted response with a body, from the ledger's yes to its end.

    `refuse` makes the answer for a failure before the first byte; its reason is None for one of our own.
    """

    def __init__(
        self,
        admitted: Admitted,
        reservation: Reservation,
        remote: Remote,
        *,
        ledger: Ledger,
        settlement: Settlement,
        refuse: Callable[[Reason | None], Answer],
        silence: float,
    ) -> None:
        """`silence`: seconds in which the store must send something."""
        self.admitted = admitted
        self.remote = remote
        self.on_end: Callable[[str], None] = lambda outcome: None
        self._line: Line | None = None
        self._left = admitted.plan.length
        self._ledger = ledger
        self._settlement = settlement
        self._refuse = refuse
        self._silence = silence
        self._running = Running(reservation, admitted.claims, admitted.file, cut=self._cut)
        self._low = asyncio.Event()
        self._renewing: asyncio.Task[None] | None = None
        self._heard = time.monotonic()
        self._begun = False
        self._fault: BaseException | None = None
        self.ended = False
        self.settled = asyncio.Event()
        self.place = place_of(remote.url)

    @property
    def part(self) -> ByteRange:
        """What is to be sent of the object."""
        return ByteRange(self.admitted.plan.start, self.admitted.plan.start + self.admitted.plan.length)

    def begin(self, line: Line) -> None:
        """From here on it is kept alive, and can be cut."""
        self._line = line
        line.keep_little()
        self._settlement.begin(self._running)
        if not self.ended:
            self._renewing = asyncio.create_task(self._renew())

    def forsake(self) -> None:
        """Nothing of it began."""
        self._end(ClientGone("the client left"))

    def check(self, status: int, headers: Headers) -> None:
        """Whether the store answers with the part that was asked for. Raises OriginError, FileMissing."""
        self._heard = time.monotonic()
        self.remote.check(self.part, status, headers)
        if self._line is not None:
            self._line.measure(self._room)
        self._begun = True

    def take(self, data: bytes) -> bytes | list[bytes]:
        """What may go to the client of a chunk that has come. mitmproxy hangs where this raises, and an empty text
        would end a chunked body.
        """
        try:
            return self._take(data)
        except BaseException as error:  # noqa: BLE001  mitmproxy hangs where this raises
            self._fault = self._fault or error
            asyncio.get_running_loop().call_soon(self.fail, self._fault)
            return []

    def finished(self) -> None:
        """The store's answer has ended as HTTP has it."""
        if self._fault is not None:
            self.fail(self._fault)
        elif self._left:
            self.fail(OriginDown(f"the store's answer ended {self._left} bytes early"))
        else:
            self._end(None)

    def lost(self, *, client: bool) -> None:
        """A connection broke: the client's, or the store's."""
        self.fail(ClientGone("the client left") if client else OriginDown("the store's answer broke off"))

    def look(self, now: float) -> None:
        """Once a second: whether both ends are still there."""
        if self._line is None or self.ended:
            return
        if self._line.client_gone:
            self.fail(ClientGone("the client left"))
        elif self._line.unsent or self._line.is_held:
            self._heard = now  # it is not the store that is waited for
        elif now - self._heard > self._silence:
            self.fail(OriginTimeout("the store sends nothing"))

    def stop(self, reason: str) -> None:
        """End it for a reason of the gateway's own."""
        self.fail(Cut(reason))

    def fail(self, error: BaseException) -> None:
        """It cannot be completed: refused while nothing of it has gone out, else aborted, never ended politely."""
        if self.ended:
            return
        if not isinstance(error, ClientGone):
            why = error.reason if isinstance(error, Cut) else describe(error)
            log.warning("request %s was aborted: %s", self.admitted.request_id, why)
        try:
            if self._line is not None:
                self._stop_line(self._line, error)
        finally:
            self._end(error)

    def _stop_line(self, line: Line, error: BaseException) -> None:
        line.kill()
        if self._begun or isinstance(error, ClientGone | Cut):
            line.end()
            return
        reason = reason_of(error) if isinstance(error, OriginError | FileMissing) else None
        self._running.status = reason.status if reason else BROKEN
        line.say(self._refuse(reason))

    def _take(self, data: bytes) -> bytes | list[bytes]:
        piece = data[: self._left]
        if self.ended or not piece:
            return []
        running = self._running
        self._left -= len(piece)
        self._heard = time.monotonic()
        # Passed on is all that is known here: nobody tells what the client's TCP has acknowledged.
        running.sent = running.acknowledged = running.sent + len(piece)
        if self._is_low():
            self._low.set()
        return piece

    def _room(self) -> int | None:
        running = self._running
        return None if running.granted >= running.reservation.asked else running.granted - running.sent

    def _is_low(self) -> bool:
        running = self._running
        ahead = running.granted - running.sent
        return running.granted < running.reservation.asked and ahead <= running.reservation.window // 2

    async def _renew(self) -> None:
        try:
            while self._running.granted < self._running.reservation.asked:
                await self._low.wait()
                await renew(self._ledger, self._running)
                if not self._is_low():
                    self._low.clear()
                if self._line is not None:
                    self._line.go_on()
        except Exception as error:  # noqa: BLE001  whatever it is, nothing may go on without the ledger
            self.fail(error)

    def _cut(self) -> None:
        self.stop(self._running.stopped)

    def _end(self, error: BaseException | None) -> None:
        if self.ended:
            return
        self.ended = True
        if self._line is not None:
            self._line.let_go()
        renewing, self._renewing = self._renewing, None
        if renewing is not None and renewing is not asyncio.current_task():
            renewing.cancel()
        if self._running.sent > self._running.granted and not isinstance(error, Cut):
            # What TLS had kept back, or came with the store's head: the ledger counts no more than it granted.
            self._renewing = asyncio.create_task(self._catch_up(error))
        else:
            self._settle(error)

    async def _catch_up(self, error: BaseException | None) -> None:
        try:
            while self._running.sent > self._running.granted:
                await renew(self._ledger, self._running)
        except Exception as fault:  # noqa: BLE001  it is over, and what was granted is settled
            why = fault.reason if isinstance(fault, Cut) else describe(fault)
            log.warning("request %s had more than it was granted: %s", self.admitted.request_id, why)
        self._settle(error)

    def _settle(self, error: BaseException | None) -> None:
        outcome, reason = outcome_of(error)
        self._settlement.finish(self._running, outcome, reason)
        self.settled.set()
        with suppress(Exception):
            self.on_end(" · ".join(part for part in (outcome, reason, f"{self._running.sent} bytes") if part))
