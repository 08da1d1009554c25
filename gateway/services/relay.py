"""What fulfilment has to tell, from the order book to Redis: each event once, in its sequence, and links with theirs.

Every worker relays; the first one writes, and the others find it written.
"""

from __future__ import annotations

import asyncio
import logging
import secrets

from gateway.order_ports import OrderBook, Outgoing
from gateway.policy.links import read_link
from gateway.policy.shards import shard_of
from gateway.ports import EventLog, LinkRegistry
from gateway.services.faults import describe

log = logging.getLogger(__name__)

EVERY = 1.0
AT_ONCE = 100
REMEMBERED = 3600
"""Seconds for which Redis remembers that an event was written: longer than a worker may be paused in between."""
_JITTER = secrets.SystemRandom()


class Relay:
    """One loop per worker."""

    def __init__(self, book: OrderBook, events: EventLog, links: LinkRegistry, shards: int) -> None:
        self._book = book
        self._events = events
        self._links = links
        self._shards = shards
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, on the running loop."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End; call it once."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        complained = False
        while True:
            await asyncio.sleep(EVERY * _JITTER.uniform(0.5, 1.0))
            try:
                while await self._relay():
                    pass
            except Exception as error:  # noqa: BLE001  whoever stops relaying tells of no order any more
                if not complained:
                    log.warning("events of orders wait in the order book: %s", describe(error))
                complained = True
            else:
                complained = False

    async def _relay(self) -> bool:
        """Relay some; whether there may be more. Raises LedgerDown, OrdersDown."""
        outgoing = await self._book.outgoing(AT_ONCE)
        written = []
        try:
            for each in outgoing:
                await self._write(each)
                written.append(each.number)
        finally:
            # Also where Redis went away in the middle: what it has is not asked of it again.
            await self._book.sent(written)
        return len(written) == AT_ONCE

    async def _write(self, outgoing: Outgoing) -> None:
        if outgoing.link:
            try:
                link = read_link(outgoing.link)
            except ValueError as error:
                # The order has it too, and it works without being registered; nothing behind it must wait for that.
                log.error("a link of the order book cannot be read, and is not listed: %s", error)
            else:
                await self._links.add(link.claims, link.created_ms or 0)
        event_id = outgoing.fields["id"]
        shard = shard_of(outgoing.fields.get("order.id"), self._shards)
        await self._events.append_once(shard, f"event:{event_id}", outgoing.fields, REMEMBERED)
