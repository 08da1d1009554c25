"""Reservations are made here, and none is lost: also not where its client leaves while the ledger is being asked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from gateway.policy.model import Deny, Reservation
from gateway.policy.reasons import Reason
from gateway.ports import Ledger, ReserveAsk

PLACE_PATIENCE = 0.4
PLACE_RETRY = 0.03
"""Both in seconds; a settlement takes 20 to 50 ms."""


class Reserving:
    """`forsake` is told of a reservation whose client left while it was being made."""

    def __init__(self, ledger: Ledger, forsake: Callable[[Reservation, Reason | None], None]) -> None:
        self._ledger = ledger
        self._forsake = forsake
        self._tasks: set[asyncio.Task[Reservation | Deny]] = set()

    async def reserve(self, ask: ReserveAsk) -> Reservation | Deny:
        """A place among the concurrent transfers is waited for a moment: one that has just ended is still being
        settled when its client, one file after another, asks for the next. Raises LedgerDown.
        """
        until = time.monotonic() + PLACE_PATIENCE
        while time.monotonic() < until:
            answer = await self._once(ask, attempt=True)
            if not isinstance(answer, Deny) or answer.reason is not Reason.LIMIT_CONCURRENT:
                return answer
            await asyncio.sleep(PLACE_RETRY)
        return await self._once(ask, attempt=False)

    async def _once(self, ask: ReserveAsk, *, attempt: bool) -> Reservation | Deny:
        # The client may leave while the script runs: the charge is then made and must still be settled.
        task = asyncio.create_task(self._ledger.reserve(ask, attempt=attempt))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(self._give_back)
            raise

    def _give_back(self, task: asyncio.Task[Reservation | Deny]) -> None:
        reservation = None if task.cancelled() or task.exception() else task.result()
        if isinstance(reservation, Reservation):
            self._forsake(reservation, None)
