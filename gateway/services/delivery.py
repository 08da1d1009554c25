"""Moves an admitted body to its client, window by window; every way it can end leads to one settlement.

No byte is sent beyond what the ledger granted. A body that cannot be completed is aborted, never ended politely.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

from gateway.errors import FileMissing, OriginError
from gateway.policy.model import ByteRange, Reservation
from gateway.ports import Ledger
from gateway.services.broken import reason_of
from gateway.services.gatekeeper import Admitted
from gateway.services.settlement import Running, Settlement
from gateway.services.windows import Cut, outcome_of, patiently, renew
from gateway.store_ports import Body, ObjectStore
from gateway.transfer.channel import Channel
from gateway.transfer.choose import mover_for

log = logging.getLogger(__name__)


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
        outcome, reason = outcome_of(error)
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
            await renew(self._ledger, self._running)
            allowed = self._running.granted - channel.sent
        return allowed if self._rate is None else min(allowed, await self._turn(channel, self._rate))

    async def _turn(self, channel: Channel, rate: int) -> int:
        """How many bytes of the token's shared rate are this response's to send now. Raises Cut."""
        if self._paced_to <= channel.sent:
            slot = await patiently(lambda: self._ledger.pace(self._running.reservation, rate))
            await asyncio.sleep(slot.wait)
            self._paced_to = channel.sent + slot.size
        return self._paced_to - channel.sent
