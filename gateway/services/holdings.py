"""What orders give their buyers, remembered for a moment: each decision for an order's token asks here.

Law: what is remembered is believed only while the book's changes are being followed; else the book itself is asked.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Collection

from gateway.errors import OrdersDown
from gateway.order_ports import OrderBook
from gateway.policy.decide import lost_by
from gateway.policy.orders import Holding
from gateway.services.faults import describe
from gateway.services.settlement import Running, Settlement

log = logging.getLogger(__name__)

EVERY = 1.0
SILENCE = 2.5
"""Seconds after which changes that were not heard of may be missing."""
REMEMBERED = 20_000
"""Orders: twice what one worker may have connections for, since what runs is looked at every second."""
AT_ONCE = 16


class Holdings:
    """One per worker. `confirmed_shops`: those whose orders need the shop's confirmation as well as the payment."""

    def __init__(self, book: OrderBook, settlement: Settlement, *, confirmed_shops: Collection[str]) -> None:
        self._book = book
        self._settlement = settlement
        self._confirmed_shops = confirmed_shops
        self._known: OrderedDict[str, Holding | None] = OrderedDict()
        self._asking: dict[str, asyncio.Task[Holding | None]] = {}
        self._change: int | None = None
        self._heard = float("-inf")
        self._complained = False
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to follow the book; where it cannot be asked, later. Raises SettingsError where it never can."""
        await self._look()
        self._task = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        """End; call it once."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def of(self, order_id: str | None) -> Holding | None:
        """What the order gives now; None without one, and for one that the book does not know. Raises OrdersDown."""
        if order_id is None:
            return None
        if order_id in self._known and time.monotonic() - self._heard < SILENCE:
            self._known.move_to_end(order_id)
            return self._known[order_id]
        # Sixteen ranges of one download begin at once: the book is asked for them together.
        task = self._asking.get(order_id)
        if task is None:
            task = self._asking[order_id] = asyncio.create_task(self._ask(order_id))
            task.add_done_callback(lambda done: self._asked(order_id, done))
        return await asyncio.shield(task)

    async def _ask(self, order_id: str) -> Holding | None:
        order = await self._book.read(order_id)
        return None if order is None else order.holding(needs_confirmation=order.shop in self._confirmed_shops)

    def _asked(self, order_id: str, task: asyncio.Task[Holding | None]) -> None:
        failed = task.cancelled() or task.exception() is not None
        # Where the order changed meanwhile, `_forget` has taken the task away, and its answer may be of yesterday.
        if self._asking.get(order_id) is not task:
            return
        del self._asking[order_id]
        if not failed:
            self._known[order_id] = task.result()
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)

    def _forget(self, order_id: str) -> None:
        self._known.pop(order_id, None)
        self._asking.pop(order_id, None)

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(EVERY)
            try:
                await self._look()
            except Exception as error:  # noqa: BLE001  whoever no longer follows would cut nothing any more
                if not self._complained:
                    log.error("the order book cannot be followed: %s", describe(error))
                self._complained = True

    async def _look(self) -> None:
        began = time.monotonic()
        try:
            if self._change is None:
                await self._book.open()
                self._change = await self._book.latest()
                self._known.clear()
            self._change, changed = await self._book.changed(self._change)
            for order_id in changed:
                self._forget(order_id)
            self._heard = began
            await self._cut()
        except OrdersDown as error:
            if not self._complained:
                log.error("the order book cannot be asked, and links of orders are refused: %s", describe(error))
            self._complained = True
        else:
            if self._complained:
                log.info("the order book can be asked again")
            self._complained = False

    async def _cut(self) -> None:
        """End what runs for an order that no longer gives it. An order that runs is asked for once a second at most."""
        turns, failed = asyncio.Semaphore(AT_ONCE), list[OrdersDown]()

        async def look(running: Running) -> None:
            if running.claims is None or running.file is None:
                return
            try:
                async with turns:
                    holding = await self.of(running.claims.order_id)
            except OrdersDown as error:  # of this order, perhaps: the others are cut all the same
                failed.append(error)
                return
            lost = None if holding is None else lost_by(holding, running.file, time.time())
            if lost is not None:
                log.info("a running download of order %s is cut: %s", running.claims.order_id, lost.text)
                running.stop(lost.text)

        await asyncio.gather(*(look(running) for running in self._settlement.running()))
        if failed:
            raise failed[0]
