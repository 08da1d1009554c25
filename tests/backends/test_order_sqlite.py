"""What a cancellation leaves of a connection to SQLite: nothing, wherever it comes."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Coroutine, Generator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from gateway.backends.order_sqlite import SqliteDatabase

MOST = 100
"""Times that a transaction waits, at the very most."""


class CancelledAt(Coroutine[Any, Any, None]):
    """What a task runs that is cancelled as soon as it waits for the nth time."""

    def __init__(self, work: Coroutine[Any, Any, None], nth: int) -> None:
        self._work = work
        self._left = nth

    def send(self, value: Any) -> Any:
        return self._waits_for(self._work.send(value))

    def throw(self, *error: Any) -> Any:
        return self._waits_for(self._work.throw(*error))

    def close(self) -> None:
        self._work.close()

    def __await__(self) -> Generator[Any, Any, None]:
        raise NotImplementedError

    def _waits_for(self, future: Any) -> Any:
        self._left -= 1
        task = asyncio.current_task()
        if not self._left and task is not None:
            task.cancel()
        return future


def is_open(connection: sqlite3.Connection) -> bool:
    try:
        _ = connection.total_changes
    except sqlite3.ProgrammingError:
        return False
    return True


async def test_a_cancellation_leaves_no_connection_open_wherever_it_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[sqlite3.Connection] = []
    connect = sqlite3.connect

    def remembered(*arguments: Any, **more: Any) -> sqlite3.Connection:
        opened.append(connect(*arguments, **more))
        return opened[-1]

    async def change(database: SqliteDatabase) -> None:
        async with database.writing() as connection:
            await connection.execute(text("CREATE TABLE IF NOT EXISTS changed (one)"))

    monkeypatch.setattr(sqlite3, "connect", remembered)
    for nth in range(1, MOST):
        database = SqliteDatabase(f"sqlite:///{tmp_path}/orders.db")
        await database.prepare()
        task = asyncio.create_task(CancelledAt(change(database), nth))
        await asyncio.wait({task})
        await database.engine.dispose()
        assert not any(map(is_open, opened)), f"cancelled when it waited for the {nth}th time"
        if not task.cancelled():
            break
    await task
    assert nth > 5, "it has waited for its connection, and then for its statements"
    assert len(opened) > nth
