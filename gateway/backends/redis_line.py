"""The line to one Redis server: one write per turn of the loop, every failure a LedgerDown, nothing sent twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, ReadOnlyError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from gateway.errors import LedgerDown

Reply = Any
"""What a command answers: its shape is the command's own, and checked where it is used."""
Command = tuple[str | int | float, ...]

FAIL_FAST = 0.25
LOOKS = 8
"""Into so many parts a wait is cut; between two of them the loop looks at its sockets."""


class Line:
    """Commands issued in the same turn of the event loop share one round trip.

    After a failure calls fail at once for a quarter of a second, so a dead server is not asked by each request.
    """

    def __init__(self, client: Redis, *, timeout: float) -> None:
        self.client = client
        self._timeout = timeout
        self._batch: list[tuple[Command, asyncio.Future[Reply]]] = []
        self._flushes: set[asyncio.Task[None]] = set()
        self._fail_until = 0.0

    async def send(self, command: Command, *, asking: bool = False) -> Reply:
        """The server's reply, which may be an error. Raises LedgerDown where none came in time.

        `asking`: the server has the key only since its slot moves there (Redis Cluster, ASK).
        """
        loop = asyncio.get_running_loop()
        if loop.time() < self._fail_until:
            raise LedgerDown("Redis failed a moment ago")
        future: asyncio.Future[Reply] = loop.create_future()
        if not self._batch:
            loop.call_soon(self._flush)
        if asking:
            self._batch.append((("ASKING",), loop.create_future()))
        self._batch.append((command, future))
        return await future

    async def aclose(self) -> None:
        """Wait for what is on its way and drop the connections."""
        if self._flushes:
            await asyncio.wait(self._flushes)
        await self.client.aclose()

    def _flush(self) -> None:
        batch, self._batch = self._batch, []
        task = asyncio.get_running_loop().create_task(self._exchange(batch))
        self._flushes.add(task)
        task.add_done_callback(self._flushes.discard)

    async def _exchange(self, batch: list[tuple[Command, asyncio.Future[Reply]]]) -> None:
        pipeline = self.client.pipeline(transaction=False)
        for command, _ in batch:
            pipeline.execute_command(*command)
        try:
            async with patience(self._timeout):
                replies = await pipeline.execute(raise_on_error=False)
        except BaseException as error:
            # Whatever it was: who waits for these replies must not wait for ever.
            self._fail_until = asyncio.get_running_loop().time() + FAIL_FAST
            for command, future in batch:
                if not future.done() and command != ("ASKING",):
                    future.set_exception(LedgerDown(f"Redis cannot be asked: {kind(error)}"))
            await self._drop_idle_connections()
            if not isinstance(error, Exception):
                raise
            return
        if any(isinstance(reply, ReadOnlyError) for reply in replies):
            await self._drop_idle_connections()
        for (_, future), reply in zip(batch, replies, strict=True):
            if not future.done():
                future.set_result(reply)

    async def _drop_idle_connections(self) -> None:
        # After a restart or failover every pooled connection is stale: one failure must be enough to notice.
        with suppress(RedisError, OSError):
            await self.client.connection_pool.disconnect(inuse_connections=False)


@asynccontextmanager
async def patience(seconds: float) -> AsyncIterator[None]:
    """Raises TimeoutError when the other side had that long. A turn of the event loop that takes longer than a part of
    it counts as one part: a reply that is here, and could not be read yet, is not late.
    """
    loop = asyncio.get_running_loop()
    part = seconds / LOOKS
    handle: asyncio.TimerHandle
    async with asyncio.timeout(None) as timeout:

        def look(left: int) -> None:
            nonlocal handle
            if left:
                handle = loop.call_later(part, look, left - 1)
            else:
                timeout.reschedule(loop.time())

        handle = loop.call_later(part, look, LOOKS - 1)
        try:
            yield
        finally:
            handle.cancel()


def kind(error: BaseException) -> str:
    """What went wrong, without the error's text, which may quote our arguments: in words, else its code or class."""
    text = str(error)
    word = text.partition(" ")[0]
    if isinstance(error, AuthenticationError) or word in ("NOAUTH", "WRONGPASS", "HELLO"):
        return "it wants another user or password; write redis://user:password@host"
    if text.startswith("DB index"):
        return "it has no database of that number"
    # redis-py takes the codes it knows out of the text and keeps them beside it.
    if code := getattr(error, "status_code", None):
        return str(code)
    if isinstance(error, TimeoutError | RedisTimeoutError):
        return "no answer in time"
    if isinstance(error, RedisConnectionError | OSError):
        return "no connection"
    return word if word.isupper() and word.isalpha() else type(error).__name__
