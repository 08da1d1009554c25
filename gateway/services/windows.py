"""How much of a body may go: windows that the ledger grants one after the other, and what ends a body before its end.

A ledger that is away is waited for, for a while; one that grants no more cuts.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from gateway.errors import ClientGone, FileMissing, LedgerDown, OriginError, ReservationGone
from gateway.policy.reasons import Reason
from gateway.ports import Ledger
from gateway.services.broken import reason_of
from gateway.services.settlement import GONE, Running

PATIENCE = 30.0
"""Seconds that a running download waits for a ledger that went away, before it is cut."""
RETRY = 0.25

T = TypeVar("T")


class Cut(Exception):
    """The download may not go on; `reason` is the event's."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


async def patiently(ask: Callable[[], Awaitable[T]]) -> T:
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


async def renew(ledger: Ledger, running: Running) -> None:
    """One window more. Raises Cut where the ledger grants no more."""
    wanted = min(running.granted + running.reservation.window, running.reservation.asked)
    grant = await patiently(lambda: ledger.renew(running.reservation, running.listen(), wanted))
    if grant.granted <= running.granted:
        raise Cut((grant.reason or Reason.LIMIT_DOWNLOADS).text)
    running.granted = grant.granted


def outcome_of(error: BaseException | None) -> tuple[str, str]:
    """The closing event's outcome and reason of a body that ended so; None: all was sent."""
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
