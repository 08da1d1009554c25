"""The master that the Sentinels name: all of them are asked at once, and the newest word of their majority counts.

Connections to a server that is the master no longer are cut within about a second, also where it still answers.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel, SentinelConnectionPool
from redis.exceptions import RedisError

PATIENCE = 0.3
"""Seconds until those that have answered by then are enough; a call must still fit into what is left of its time."""
LOOK_EVERY = 1.0


class Sentinels(Sentinel):
    """redis-py asks one after the other: the first that hangs would take all the time that a call has."""

    _look: asyncio.Task[tuple[str, int]] | None = None

    async def discover_master(self, service_name: str) -> tuple[str, int]:
        """The master's address; those who ask meanwhile share the answer. Raises MasterNotFoundError."""
        if self._look is None or self._look.done():
            self._look = asyncio.create_task(self._ask_all(service_name))
            self._look.add_done_callback(_heard)
        return await asyncio.shield(self._look)

    async def aclose(self) -> None:
        """Drop the connections to the Sentinels."""
        if self._look is not None:
            self._look.cancel()
            await asyncio.wait([self._look])
        await super().aclose()

    async def _ask_all(self, name: str) -> tuple[str, int]:
        asks = [asyncio.create_task(_state(sentinel, name)) for sentinel in self.sentinels]
        answers = []
        try:
            for ask in asyncio.as_completed(asks, timeout=PATIENCE):
                if (state := await ask) is not None:
                    answers.append(state)
                if len(answers) > len(asks) // 2:
                    break
        except TimeoutError:
            pass
        finally:
            for task in asks:
                task.cancel()
            await asyncio.gather(*asks, return_exceptions=True)
        newest = max(answers, key=lambda state: int(state["config-epoch"]), default=None)
        if newest is None or not self.check_master_state(dict(newest), name):
            raise MasterNotFoundError("the Sentinels name no master that lives")
        return str(newest["ip"]), int(newest["port"])


class MasterPool(SentinelConnectionPool, BlockingConnectionPool):
    """Connections to the master, at most as many as are allowed: who finds none waits for one."""

    _look_after = 0.0
    _look: asyncio.Task[None] | None = None

    async def ensure_connection(self, connection: AbstractConnection) -> None:
        """Before each use; now and then it is looked up whether the master is the master still."""
        now = asyncio.get_running_loop().time()
        if now >= self._look_after and self.master_address is not None:
            self._look_after = now + LOOK_EVERY
            self._look = asyncio.create_task(self._leave_old_master())
        await super().ensure_connection(connection)

    async def aclose(self) -> None:
        """Drop all connections, those to the Sentinels too."""
        if self._look is not None:
            self._look.cancel()
            await asyncio.wait([self._look])
        await super().aclose()
        await self.sentinel_manager.aclose()

    async def _leave_old_master(self) -> None:
        before = self.master_address
        with contextlib.suppress(RedisError, OSError):
            if await self.get_master_address() != before:  # type: ignore[no-untyped-call]  # redis-py's own
                await self.disconnect()


def master(sentinels: list[tuple[str, int]], name: str, to_sentinels: dict[str, Any], **options: Any) -> Redis:
    """A client for the master of that name. `to_sentinels`, `options`: of the connections, as redis-py has them."""
    manager = Sentinels(sentinels, sentinel_kwargs=to_sentinels)  # type: ignore[no-untyped-call]  # redis-py's own
    client: Redis = manager.master_for(name, connection_pool_class=MasterPool, **options)
    return client


async def _state(sentinel: Redis, name: str) -> Mapping[str, Any] | None:
    try:
        state = await sentinel.sentinel_master(name)
    except (RedisError, OSError):
        return None
    return state if isinstance(state, dict) else None


def _heard(look: asyncio.Task[tuple[str, int]]) -> None:
    # Everyone who asked may have given up by now, and an exception that nobody hears is a warning.
    if not look.cancelled():
        look.exception()
