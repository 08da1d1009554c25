"""The order book in PostgreSQL: for gateways on several machines. Orders are locked by name, so also new ones."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg  # type: ignore[import-untyped]  # it comes without types
from sqlalchemy import event, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from gateway.errors import SettingsError

CONNECT_SECONDS = 4.0
CONNECTIONS = 4
"""Kept open by a process; as many again come and go."""
RECYCLE_SECONDS = 600
"""A connection is not kept for longer: firewalls forget those that say nothing, and let them hang."""
ABANDONED = "10s"
"""How long the server waits for a gateway that holds a lock and has vanished with its machine."""

_SETTINGS = {"application_name": "download-gateway"}
_EXAMPLE = "postgresql://user:password@host:5432/name?sslmode=verify-full"
_MISTAKES = {
    "28P01": "has the wrong user or password",
    "28000": "names a user that the server does not let in from here; look into its pg_hba.conf",
    "3D000": "names a database that is not there; make it with createdb, or write the right name behind the host",
    "42501": "names a user who may not make or use the tables; "
    "GRANT USAGE, CREATE ON SCHEMA public TO that user, or make it the database's owner",
    "3F000": "leads to a database without a schema to make tables in; set the user's search_path",
    "42704": "has an option behind its ? that PostgreSQL does not know",
    "22023": "has an option behind its ? whose value PostgreSQL does not take",
}
"""By SQLSTATE (PostgreSQL's Appendix A)."""


class PostgresqlDatabase:
    """The database of `postgresql://user:password@host/name?sslmode=…`, as libpq writes it. Nothing is opened yet.

    Behind a pooler sessions must be pooled, not transactions.
    """

    insert = staticmethod(insert)
    errors: tuple[type[Exception], ...] = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError)

    def __init__(self, url: str) -> None:
        async def connect() -> object:
            try:
                connection = await asyncpg.connect(url, timeout=CONNECT_SECONDS, server_settings=_SETTINGS)
            except ValueError:
                raise SettingsError(f"orders.url cannot be understood; write it like {_EXAMPLE}") from None
            try:
                await connection.execute(f"SET idle_in_transaction_session_timeout = '{ABANDONED}'")
            except BaseException:
                connection.terminate()
                raise
            return connection

        self.engine = create_async_engine(
            "postgresql+asyncpg://",
            async_creator=connect,
            isolation_level="READ COMMITTED",
            pool_size=CONNECTIONS,
            max_overflow=CONNECTIONS,
            pool_recycle=RECYCLE_SECONDS,
            hide_parameters=True,
        )
        event.listen(self.engine.sync_engine, "checkout", _still_there)
        self._reading = self.engine.execution_options(isolation_level="AUTOCOMMIT")

    async def prepare(self) -> None:
        """The database is there, or it is the setting that is wrong."""

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """One transaction, in which each statement sees what others have committed until then."""
        async with self.engine.begin() as connection:
            yield connection

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """Statements that each see what is committed, without the two round trips of a transaction."""
        async with self._reading.connect() as connection:
            yield connection

    async def alone(self, connection: AsyncConnection, name: str) -> None:
        """Wait until nobody else holds this name, and hold it to the transaction's end."""
        digest = hashlib.sha256(f"download-gateway\0{name}".encode()).digest()
        await connection.execute(select(func.pg_advisory_xact_lock(int.from_bytes(digest[:8], signed=True))))

    def told(self, error: Exception) -> str:
        """What went wrong, for the log: the library's code, never its text."""
        return f"cannot be used: {type(_inner(error)).__name__} {_state(error)}".rstrip()

    def mistake(self, error: Exception) -> str | None:
        """What is wrong with the setting, where it is the setting."""
        return _MISTAKES.get(_state(error))


def _still_there(connection: Any, _record: object, _proxy: object) -> None:
    # After a restart of the server all pooled connections are closed: new ones are made before anybody fails.
    if connection.driver_connection.is_closed():
        raise DisconnectionError


def _inner(error: Exception) -> BaseException:
    if isinstance(error, DBAPIError) and error.orig is not None:
        return error.orig.__cause__ or error.orig
    return error


def _state(error: Exception) -> str:
    inner = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    return str(getattr(inner, "sqlstate", None) or "")
