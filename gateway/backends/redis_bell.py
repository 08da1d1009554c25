"""The bell over Redis, the stream `gw:{0}:bell`: wakes who works on the order book. See OrderBell for the contract.

What it says may be lost: whoever listens looks into the book every second all the same, also where Redis is away.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator

from redis.exceptions import RedisError

from gateway.backends.redis_client import Wire
from gateway.errors import LedgerDown

log = logging.getLogger(__name__)

STREAM = "gw:{0}:bell"
KEPT = 100
BLOCK_MS = 250
"""Below every reply timeout that a client may have been given."""
PATIENCE = 1.0
"""Seconds between two looks into the book, if it does not ring."""


class RedisBell:
    """gateway.order_ports.OrderBell on a Redis stream."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._away = False

    async def ring(self) -> None:
        """See OrderBell.ring."""
        try:
            await self._wire.execute("XADD", STREAM, "MAXLEN", "~", KEPT, "*", "rang", "1")
        except LedgerDown as error:
            self._note(error)
        else:
            self._note(None)

    async def heard(self) -> AsyncGenerator[None, None]:
        """See OrderBell.heard. The first one comes at once."""
        while True:
            until = asyncio.get_running_loop().time() + PATIENCE
            # Asked before each look, so that whatever rings during it is heard after it; a stream that was emptied
            # begins again with lower ids.
            last = await self._last()
            yield
            if last is not None:
                last = await self._rung(last, until)
            if last is None:
                await asyncio.sleep(until - asyncio.get_running_loop().time())

    async def _last(self) -> str | None:
        """The id of the last ring; None where Redis cannot be asked."""
        try:
            reply = await self._wire.execute("XREVRANGE", STREAM, "+", "-", "COUNT", 1)
        except LedgerDown as error:
            self._note(error)
            return None
        self._note(None)
        return str(reply[0][0]) if reply else "0-0"

    async def _rung(self, last: str, until: float) -> str | None:
        """`last` when it rang after that, or when it is time; None where Redis cannot be listened to."""
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        try:
            async with asyncio.timeout_at(until + BLOCK_MS / 1000):
                while (left := until - loop.time()) > 0:
                    # Not over the wire: it would hold up the commands that share its round trip.
                    block = max(1, min(BLOCK_MS, round(left * 1000)))
                    rings = await self._wire.client.xread({STREAM: last}, 1, block)
                    if task is not None and task.cancelling():
                        # redis-py loses a cancellation that meets the end of a reply.
                        raise asyncio.CancelledError
                    if rings:
                        break
        except (RedisError, LedgerDown, OSError) as error:
            self._note(error)
            return None
        return last

    def _note(self, error: Exception | None) -> None:
        """Log when Redis goes away, and when it is back; not each time that it is away."""
        if error is not None and not self._away:
            log.warning("Redis cannot be listened to (%s): the order book is looked into every second", _kind(error))
        elif error is None and self._away:
            log.info("Redis is there again, and wakes who works on the order book")
        self._away = error is not None


def _kind(error: Exception) -> str:
    return str(error) if isinstance(error, LedgerDown) else type(error).__name__
