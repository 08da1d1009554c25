"""The order book in a file of SQLite: for all processes of one machine. One writes at a time, in WAL, fsynced."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Any

import aiosqlite
from sqlalchemy import URL, Connection, event
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from gateway.errors import SettingsError

BUSY_SECONDS = 4.5
"""How long SQLite waits for another process; below the bound of a call, so that its own word is heard."""
CONNECTIONS = 4
"""Each is a thread."""
PAUSE_SECONDS = 0.02

_PRAGMAS = (
    # A webhook that was answered outlives a power cut; NORMAL would lose the last ones in WAL.
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
)


class SqliteDatabase:
    """The file of `sqlite:///path` (relative) or `sqlite:////path`. Nothing is opened yet."""

    insert = staticmethod(insert)
    errors: tuple[type[Exception], ...] = (sqlite3.Error,)

    def __init__(self, url: str) -> None:
        """Raises SettingsError where the url names no file."""
        name = url.removeprefix("sqlite:///")
        if name in ("", ":memory:") or name.endswith("/"):
            raise SettingsError("orders.url names no file; write sqlite:///var/orders.db")
        self._path = Path(name).absolute()
        self.engine = create_async_engine(
            URL.create("sqlite+aiosqlite", database=str(self._path)),
            async_creator=self._connect,
            pool_size=CONNECTIONS,
            max_overflow=0,
            hide_parameters=True,
        )
        event.listen(self.engine.sync_engine, "connect", _connected)
        event.listen(self.engine.sync_engine, "begin", _begun)
        self._writing = self.engine.execution_options(writes=True)
        # SQLite lets whoever comes by chance go first; within a process it goes in turn.
        self._turn = asyncio.Lock()

    async def prepare(self) -> None:
        """Make the folder and the file, for this user alone, and put it in WAL. Raises SettingsError."""
        try:
            await asyncio.to_thread(self._make)
        except OSError as error:
            raise SettingsError(
                f"orders.url: {self._path} cannot be made or opened: {error.strerror}; "
                "name a file in a folder that the gateway may write to"
            ) from None
        while True:
            try:
                await asyncio.to_thread(self._keep_in_wal)
                return
            except sqlite3.Error as error:
                # Who changes the mode waits for nobody, and another process may be changing it just now.
                if not _name(error).startswith("SQLITE_BUSY"):
                    raise
            await asyncio.sleep(PAUSE_SECONDS)

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """One transaction, alone with the file."""
        async with self._turn, self._writing.begin() as connection:
            yield connection

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """One transaction that only reads; it waits for nobody."""
        async with self.engine.begin() as connection:
            yield connection

    async def alone(self, connection: AsyncConnection, name: str) -> None:
        """Whoever writes is alone already."""

    def told(self, error: Exception) -> str:
        """What went wrong, for the log: the library's code, never its text."""
        name = _name(error)
        if name.startswith("SQLITE_BUSY"):
            return "is held by another process (SQLITE_BUSY)"
        if name == "SQLITE_FULL":
            return "cannot be written: the disk is full"
        return f"cannot be used: {name}"

    def mistake(self, error: Exception) -> str | None:
        """What is wrong with the setting, where it is the setting."""
        name = _name(error)
        if name in ("SQLITE_NOTADB", "SQLITE_CORRUPT"):
            return f"{self._path} is no database of SQLite, or a broken one; name another file, or put a backup there"
        if name.startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_PERM", "SQLITE_AUTH")):
            return f"{self._path} cannot be written; let the gateway's user write to it and to its folder"
        return None

    def _make(self) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # SQLite gives its other two files the same permissions.
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))

    def _keep_in_wal(self) -> None:
        with closing(sqlite3.connect(self._path, isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")

    async def _connect(self) -> aiosqlite.Connection:
        """A connection. Who is cancelled meanwhile waits until it is closed again, which takes milliseconds."""
        # A cancelled aiosqlite forgets the file that its thread is just opening (aiosqlite's issue 259).
        opening = asyncio.create_task(self._opened())
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            await asyncio.shield(_closed(opening))
            raise

    async def _opened(self) -> aiosqlite.Connection:
        # The driver's own BEGIN comes too late, with the first write: what was read until then may be old.
        connection = aiosqlite.connect(self._path, isolation_level=None, timeout=BUSY_SECONDS)
        # As SQLAlchemy has it: a connection that nobody could close does not keep the process from ending.
        connection._thread.daemon = True
        return await connection


async def _closed(opening: asyncio.Task[aiosqlite.Connection]) -> None:
    with suppress(sqlite3.Error):
        connection = await opening
        await connection.close()


def _connected(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    for pragma in _PRAGMAS:
        cursor.execute(pragma)
    cursor.close()


def _begun(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("writes") else "BEGIN")


def _name(error: Exception) -> str:
    inner = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    return str(getattr(inner, "sqlite_errorname", type(inner).__name__))
