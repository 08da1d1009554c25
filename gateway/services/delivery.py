"""Moves an admitted body to its client, window by window; every way it can end leads to one settlement.

No byte is sent beyond what the ledger granted. A body that cannot be completed is aborted, never ended politely.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from gateway.errors import (
    ClientGone,
    FileMissing,
    LedgerDown,
    OriginError,
    ReservationGone,
)
from gateway.policy.model import ByteRange, Reservation
from gateway.policy.reasons import Reason
from gateway.ports import Ledger
from gateway.services.broken import reason_of
from gateway.services.gatekeeper import Admitted
from gateway.services.settlement import GONE, Running, Settlement
from gateway.store_ports import Body, ObjectStore
from gateway.transfer.channel import Channel
from gateway.transfer.choose import mover_for

log = logging.getLogger(__name__)

PATIENCE = 30.0
"""Seconds that a running download waits for a ledger that went away, before it is cut."""
RETRY = 0.25

T = TypeVar("T")


class Cut(Exception):
    """The download may not go on; `reason` is the event's."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Delivery:
    """One admitted response with a body: `open`, then `send`; `end` exactly once whatever happened in between."""

    def __init__(
        self,
        admitted: Admitted,
        reservation: Reservation,
        *,
        store: ObjectStore,
        ledger: Ledger,
        settlement: Settlement,
    ) -> None:
        self._plan = admitted.plan
        self._stored = admitted.stored
        self._store = store
        self._ledger = ledger
        self._settlement = settlement
        self._first: Body | None = None
        self._rate = admitted.rate
        self._paced_to = 0
        self._running = Running(reservation, admitted.claims, admitted.file)
        self._channel: Channel | None = None
        settlement.begin(self._running)

    async def open(self) -> None:
        """Open the first part, so that a failing origin still gets a status. Raises OriginError, FileMissing."""
        part = next(segment for segment in self._plan.segments if isinstance(segment, ByteRange))
        self._first = await self._store.open(self._stored, part)

    async def send(self, channel: Channel) -> None:
        """Send every segment. Raises ClientGone, OriginError, FileMissing, Cut."""
        self._channel = channel
        self._running.connection = channel
        self._running.cut = channel.abort
        if self._running.stopped:
            raise Cut(self._running.stopped)
        for segment in self._plan.segments:
            if isinstance(segment, ByteRange):
                await self._send_part(channel, segment)
            else:
                await self._send_frame(channel, segment)

    async def end(self, error: BaseException | None) -> None:
        """Close what is open and hand over to the settlement. `error` is how `open` or `send` ended, None: all sent."""
        outcome, reason = _outcome(error)
        if self._channel is None and isinstance(error, OriginError | FileMissing):
            self._running.status = reason_of(error).status
        if self._channel is not None:
            if error is None:
                self._channel.finish()
            else:
                self._channel.abort()
            self._running.sent = self._channel.sent
        self._settlement.finish(self._running, outcome, reason)
        if self._first is not None:
            await self._first.aclose()

    async def closed(self, patience: float = 1.0) -> None:
        """Wait until the ledger has closed it, at most `patience` seconds, so that a next attempt finds it refunded."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._running.closed.wait(), patience)

    async def _send_part(self, channel: Channel, part: ByteRange) -> None:
        body, self._first = self._first, None
        if body is None:
            body = await self._store.open(self._stored, part)
        try:
            mover = mover_for(body, channel)
            left = part.length
            while left:
                piece = min(left, await self._allowed(channel))
                await mover.move(piece)
                left -= piece
        finally:
            await body.aclose()

    async def _send_frame(self, channel: Channel, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            piece = rest[: await self._allowed(channel)]
            await channel.send(piece)
            rest = rest[len(piece) :]

    async def _allowed(self, channel: Channel) -> int:
        """How many more bytes may be sent now, at least 1. Raises Cut where the ledger grants no more."""
        self._running.sent = channel.sent
        allowed = self._running.granted - channel.sent
        if allowed <= 0:
            allowed = await self._renew(channel)
        return allowed if self._rate is None else min(allowed, await self._turn(channel, self._rate))

    async def _turn(self, channel: Channel, rate: int) -> int:
        """How many bytes of the token's shared rate are this response's to send now. Raises Cut."""
        if self._paced_to <= channel.sent:
            slot = await self._patiently(lambda: self._ledger.pace(self._running.reservation, rate))
            await asyncio.sleep(slot.wait)
            self._paced_to = channel.sent + slot.size
        return self._paced_to - channel.sent

    async def _renew(self, channel: Channel) -> int:
        running = self._running
        wanted = min(running.granted + running.reservation.window, running.reservation.asked)
        grant = await self._patiently(
            lambda: self._ledger.renew(running.reservation, running.listen(), wanted),
        )
        if grant.granted <= running.granted:
            raise Cut((grant.reason or Reason.LIMIT_DOWNLOADS).text)
        running.granted = grant.granted
        return grant.granted - channel.sent

    @staticmethod
    async def _patiently(ask: Callable[[], Awaitable[T]]) -> T:
        """The ledger's answer, also where it is away for a while. Raises Cut."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return await ask()
            except ReservationGone:
                raise Cut(GONE) from None
            except LedgerDown:
                if time.monotonic() > deadline:
                    raise Cut(Reason.REDIS_DOWN.text) from None
            await asyncio.sleep(RETRY)


def _outcome(error: BaseException | None) -> tuple[str, str]:
    match error:
        case None:
            return "complete", ""
        case Cut():
            return "cut", error.reason
        case OriginError() | FileMissing():
            return "origin_failed", reason_of(error).text
        case ClientGone() | asyncio.CancelledError():
            return "client_left", ""
        case _:
            return "cut", "internal"
