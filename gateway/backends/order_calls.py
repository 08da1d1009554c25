"""How the order book asks its database: each call is one transaction, in a task of its own, with a bound on its time.

Who asks waits no longer than that, also where a connection cannot even be closed. All that fails is OrdersDown.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any, Protocol, TypeVar

from sqlalchemy import Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from gateway.errors import OrdersDown, SettingsError

T = TypeVar("T")
Work = Callable[[AsyncConnection], Awaitable[T]]

LIMIT = 5.0
"""Seconds that a call may take; a change from its beginning to its end."""
GRACE = 0.2
"""Seconds more for giving the connection back; what takes longer is left to itself."""
_LATE = "the order book gave no answer in time"


class Database(Protocol):
    """What SQLite and PostgreSQL do each in their own way. `errors`: what its driver raises, beside SQLAlchemy's."""

    engine: AsyncEngine
    errors: tuple[type[Exception], ...]

    def insert(self, table: Table) -> sqlite.Insert | postgresql.Insert:
        """An INSERT that can leave out what is there already."""

    async def prepare(self) -> None:
        """Make what the tables lie in. Raises SettingsError."""

    def writing(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """A transaction that will write."""

    def reading(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """A connection for statements that only read."""

    async def alone(self, connection: AsyncConnection, name: str) -> None:
        """Hold this name until the transaction ends, waiting for who holds it now."""

    def told(self, error: Exception) -> str:
        """What went wrong, safe to log."""

    def mistake(self, error: Exception) -> str | None:
        """What is wrong with the setting, if it is the setting."""


class Calls:
    """Calls of one process to one database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._errors: tuple[type[Exception], ...] = (SQLAlchemyError, *database.errors)
        self._running: set[asyncio.Task[object]] = set()

    async def open(self, work: Work[None]) -> None:
        """Prepare the database and do this in it. Raises SettingsError where the setting is wrong, OrdersDown."""

        async def opening() -> None:
            try:
                await self._database.prepare()
                async with self._database.writing() as connection:
                    await work(connection)
            except self._errors as error:
                if mistake := self._database.mistake(error):
                    raise SettingsError(f"orders.url {mistake}") from None
                raise

        await self._ended(self._begun(opening))

    async def read(self, work: Work[T]) -> T:
        """What this reads. Raises OrdersDown."""

        async def reading() -> T:
            async with self._database.reading() as connection:
                return await work(connection)

        return await self._ended(self._begun(reading))

    async def write(self, work: Work[T]) -> T:
        """Do this, all of it or nothing. Raises OrdersDown."""

        async def writing() -> T:
            async with self._database.writing() as connection:
                return await work(connection)

        return await self._ended(self._begun(writing))

    @asynccontextmanager
    async def hold(self, before: Work[T], after: Callable[[AsyncConnection, T], Awaitable[None]]) -> AsyncIterator[T]:
        """One transaction around what the caller does between `before` and `after`. Raises OrdersDown.

        The caller's exception undoes all of it; so does more than LIMIT, which lets go of what is locked.
        """
        loop = asyncio.get_running_loop()
        found: asyncio.Future[T] = loop.create_future()
        settled: asyncio.Future[None] = loop.create_future()

        async def holding() -> None:
            async with self._database.writing() as connection:
                value = await before(connection)
                found.set_result(value)
                await settled
                await after(connection, value)

        task = self._begun(holding)
        try:
            either: set[asyncio.Future[Any]] = {task, found}
            await asyncio.wait(either, timeout=LIMIT + GRACE, return_when=asyncio.FIRST_COMPLETED)
            if not found.done():
                await self._ended(task, 0)
            yield found.result()
        except BaseException:
            _cancel(task)
            raise
        if not settled.done():
            settled.set_result(None)
        await self._ended(task)

    async def close(self) -> None:
        """End what is still running, and drop every connection."""
        for task in self._running:
            _cancel(task)
        if self._running:
            await asyncio.wait(self._running, timeout=LIMIT)
        with suppress(OrdersDown):
            await self._ended(self._begun(self._database.engine.dispose))

    def _begun(self, work: Callable[[], Awaitable[T]]) -> asyncio.Task[T]:
        task = asyncio.create_task(self._limited(work))
        self._running.add(task)
        task.add_done_callback(self._left)
        return task

    def _left(self, task: asyncio.Task[T]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            # Nobody may be waiting for it any more.
            task.exception()

    async def _limited(self, work: Callable[[], Awaitable[T]]) -> T:
        try:
            async with asyncio.timeout(LIMIT):
                return await work()
        except TimeoutError:
            raise OrdersDown(_LATE) from None
        except self._errors as error:
            raise OrdersDown(f"the order book {self._database.told(error)}") from None

    async def _ended(self, task: asyncio.Task[T], patience: float | None = None) -> T:
        """What the task gives. Raises OrdersDown where it does not end in time: it goes on by itself, cancelled."""
        try:
            await asyncio.wait({task}, timeout=LIMIT + GRACE if patience is None else patience)
        finally:
            _cancel(task)
        if not task.done():
            raise OrdersDown(_LATE)
        if task.cancelled():
            raise OrdersDown("the order book was closed meanwhile")
        return task.result()


def _cancel(task: asyncio.Task[T]) -> None:
    # Once: a second time would meet the giving back of the connection, which then never ends in aiosqlite.
    if not task.cancelling():
        task.cancel()
