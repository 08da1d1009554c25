"""What the API works with, opened when it is first needed and closed when nobody has needed it for a minute.

Law: whoever waits for it waits 2 s at most; what opens and closes it is a task of its own, so nobody's leaving ends it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING

from gateway.errors import GatewayError
from gateway.services.faults import describe

if TYPE_CHECKING:
    from gateway.bootstrap.desk import Office

log = logging.getLogger(__name__)

PATIENCE = 2.0
IDLE = 60.0


class OfficeClosed(GatewayError):
    """It did not open in time."""


class Offices:
    """`imports` is run once in a thread, before `opening` is called."""

    def __init__(
        self,
        imports: Callable[[], None],
        opening: Callable[[], AbstractAsyncContextManager[Office]],
        *,
        idle: float = IDLE,
    ) -> None:
        self._imports = imports
        self._opening = opening
        self._idle = idle
        self._imported: asyncio.Task[None] | None = None
        self._office: asyncio.Future[Office] | None = None
        self._task: asyncio.Task[None] | None = None
        self._used = 0
        self._visitors = 0

    @asynccontextmanager
    async def visit(self) -> AsyncIterator[Office]:
        """The office, for a while. Raises OfficeClosed, SettingsError, LedgerDown, OrdersDown."""
        if self._imported is None or (self._imported.done() and self._imported.exception() is not None):
            self._imported = asyncio.create_task(asyncio.to_thread(self._imports))
        await asyncio.shield(self._imported)
        if self._office is None:
            self._office = asyncio.get_running_loop().create_future()
            self._office.add_done_callback(_looked_at)
            self._task = asyncio.create_task(self._keep(self._office))
        self._visitors += 1
        self._used += 1
        try:
            yield await self._opened(self._office)
        finally:
            self._visitors -= 1

    async def _opened(self, office: asyncio.Future[Office]) -> Office:
        try:
            return await asyncio.wait_for(asyncio.shield(office), PATIENCE)
        except TimeoutError:
            raise OfficeClosed("Redis or the order book did not answer in time") from None

    async def close(self) -> None:
        """Close what is open. Call it once, at the end."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _keep(self, office: asyncio.Future[Office]) -> None:
        try:
            async with self._opening() as opened:
                office.set_result(opened)
                await self._quiet()
                self._forget(office)
        except Exception as error:  # noqa: BLE001  whatever it is, the supervisor lives on, and the next one tries again
            if office.done():
                log.error("what the API works with could not be closed: %s", describe(error))
            else:
                office.set_exception(error)
        finally:
            office.cancel()
            self._forget(office)

    async def _quiet(self) -> None:
        """Returns when nobody came in for a while, and nobody is there."""
        seen = -1
        while seen != self._used or self._visitors:
            seen = self._used
            await asyncio.sleep(self._idle)

    def _forget(self, office: asyncio.Future[Office]) -> None:
        if self._office is office:
            self._office = None


def _looked_at(office: asyncio.Future[Office]) -> None:
    if not office.cancelled():
        office.exception()
