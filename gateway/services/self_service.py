"""Buyers help themselves: a link that goes on or begins anew, and links mailed again, to the order's own address alone.

Law: the answer never waits for what is known, and says nothing of it; the work is done behind it, and bounded.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

from gateway.errors import GatewayError, LedgerDown
from gateway.order_ports import OrderBook
from gateway.policy.model import Claims
from gateway.policy.orders import Order
from gateway.policy.renewing import Offer, link_of
from gateway.ports import Allowance
from gateway.services.faults import describe
from gateway.services.renewing import Renewed, Renewing

log = logging.getLogger(__name__)

PER_ORDER = ((3, 3600), (10, 86_400))
"""Mails, each in so many seconds."""
PER_NETWORK = ((30, 3600),)
FOUND_MAX = 5
"""Orders of one address that are mailed for one question, the newest."""
WAITING_MAX = 200
AT_ONCE = 2
PATIENCE = 60.0
"""Seconds for one question."""
OFFER_PATIENCE = 0.3
"""Seconds that the page of a refused link waits to know whether there is something to offer."""
STOP_PATIENCE = 3.0

Job = Callable[[], Awaitable[str]]


class SelfService:
    """One per worker. `count` is told of each question that it was `asked`, `limited` or left out (`full`, `failed`),
    and of what came of it: `mailed`, `nothing`, `limited` or `failed`.
    """

    def __init__(
        self, book: OrderBook, renewing: Renewing, allowance: Allowance, *, count: Callable[[str], None]
    ) -> None:
        self._book = book
        self._renewing = renewing
        self._allowance = allowance
        self._count = count
        self._jobs: asyncio.Queue[Job] = asyncio.Queue(WAITING_MAX)
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin, on the running loop."""
        self._tasks = [asyncio.create_task(self._work()) for _ in range(AT_ONCE)]

    async def stop(self) -> None:
        """End; what was asked for already has a moment to be done."""
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_PATIENCE):
                await self._jobs.join()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def offered(self, claims: Claims) -> Offer | None:
        """What the buyer of this link's order may have; None also where that is not known in time."""
        if claims.order_id is None:
            return None
        try:
            async with asyncio.timeout(OFFER_PATIENCE):
                order = await self._book.read(claims.order_id)
                link = None if order is None else link_of(order, claims.token_id)
                if order is None or link is None or not order.email:
                    return None
                return await self._renewing.offered(order, link, claims.issued_at)
        except (GatewayError, TimeoutError) as error:
            log.warning("the page of a link offers nothing: %s", describe(error))
            return None

    async def ask_for_link(self, network: str, claims: Claims) -> int | None:
        """Have what is offered for this link. Seconds to wait where the network has asked too often; None: done, or
        left, which nobody is told. Raises nothing of its own.
        """
        return await self._ask(network, lambda: self._renew(claims))

    async def ask_for_mail(self, network: str, text: str) -> int | None:
        """Have the links of the order with this number mailed again, or those of the orders of this e-mail address;
        otherwise as `ask_for_link`.
        """
        return await self._ask(network, lambda: self._mail(text))

    async def _ask(self, network: str, job: Job) -> int | None:
        try:
            seconds = await self._allowance.take(f"network:{network}", PER_NETWORK)
        except LedgerDown as error:
            self._left("failed", str(error))
            return None
        if seconds is not None:
            self._count("limited")
            return seconds
        try:
            self._jobs.put_nowait(job)
        except asyncio.QueueFull:
            self._left("full", f"{WAITING_MAX} others wait")
        else:
            self._count("asked")
        return None

    def _left(self, outcome: str, why: str) -> None:
        self._count(outcome)
        log.warning("a buyer who asked for links gets none: %s", why)

    async def _work(self) -> None:
        while True:
            job = await self._jobs.get()
            try:
                async with asyncio.timeout(PATIENCE):
                    self._count(await job())
            except Exception as error:  # noqa: BLE001  whatever one question does, the next is done
                self._left("failed", describe(error))
            finally:
                self._jobs.task_done()

    async def _renew(self, claims: Claims) -> str:
        order_id = claims.order_id
        if order_id is None:
            return "nothing"

        async def renew() -> bool:
            done = await self._renewing.renew(order_id, claims.token_id, by="link", issued_at=claims.issued_at)
            return isinstance(done, Renewed) and done.mailed

        return await self._of(order_id, renew)

    async def _mail(self, text: str) -> str:
        found = [order for order in await self._book.find(text) if _is_meant(order, text)][:FOUND_MAX]
        outcomes = [
            await self._of(each.order_id, partial(self._renewing.mail, each.order_id, by="help")) for each in found
        ]
        return next((each for each in ("mailed", "limited") if each in outcomes), "nothing")

    async def _of(self, order_id: str, act: Callable[[], Awaitable[bool]]) -> str:
        """Do it within what one order may have; `act` says whether a mail was queued."""
        name, mailed = f"order:{order_id}", False
        if await self._allowance.take(name, PER_ORDER) is not None:
            return "limited"
        try:
            mailed = await act()
        finally:
            if not mailed:
                await self._allowance.give_back(name, PER_ORDER)
        return "mailed" if mailed else "nothing"


def _is_meant(order: Order, text: str) -> bool:
    """Whether a buyer may call it so. The shop's own id of its customer is none of these names."""
    names = (order.order_id, order.shop_order_id, order.reference.removeprefix("#"), order.email)
    return text.removeprefix("#").casefold() in (name.casefold() for name in names if name)
