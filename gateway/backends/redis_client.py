"""One way to reach Redis or Valkey: short timeouts, no hidden retries, one write per turn of the event loop.

redis-py's default retry runs a charging script again after a lost reply; here a failed call fails, as LedgerDown.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

from redis.asyncio import BlockingConnectionPool, Redis, RedisCluster
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoScriptError, ReadOnlyError, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from gateway.errors import LedgerDown, LedgerFault

Client = Redis | RedisCluster
Reply = Any
"""What a command answers: its shape is the command's own, and checked where it is used."""

TIMEOUT = 1.0
CONNECTIONS = 32
FAIL_FAST = 0.25
_FAULTS = frozenset({"ERR", "WRONGTYPE", "ResponseError"})
"""Errors of one command or script; every other error reply says that the server cannot serve now."""


def connect(url: str, *, timeout: float = TIMEOUT) -> Client:
    """A client for redis:// rediss:// unix:// redis+sentinel://host,host/master/db or redis+cluster://host,host.

    `timeout` (s) bounds connecting and each reply. Nothing is connected yet. Raises ValueError for other schemes.
    """
    scheme, _, rest = url.partition("://")
    options: dict[str, Any] = {
        "decode_responses": True,
        "socket_timeout": timeout,
        "socket_connect_timeout": min(timeout, 0.5),
        "retry": Retry(NoBackoff(), 0),
    }
    if scheme in ("redis", "rediss", "unix"):
        pool = BlockingConnectionPool.from_url(url, max_connections=CONNECTIONS, timeout=timeout, **options)
        return Redis.from_pool(pool)
    if scheme == "redis+sentinel":
        parts = urlsplit(url)
        name, _, database = parts.path.strip("/").partition("/")
        ssl = parse_qs(parts.query).get("ssl") == ["true"]
        hosts = _hosts(parts.netloc.rpartition("@")[2], 26379)
        sentinel = Sentinel(hosts, sentinel_kwargs=dict(options))  # type: ignore[no-untyped-call]  # redis-py's own
        options |= {"username": parts.username, "password": parts.password, "db": int(database or 0), "ssl": ssl}
        master: Redis = sentinel.master_for(name or "mymaster", **options)
        return master
    if scheme == "redis+cluster":
        first, *_ = rest.split(",")
        path = "" if "/" in first else "/" + rest.partition("/")[2]
        return RedisCluster.from_url(f"redis://{first}{path}", **options)
    raise ValueError(
        f"cannot connect to a {scheme}:// address: write redis://, rediss://, unix:// or redis+sentinel://"
    )


def _hosts(netloc: str, default_port: int) -> list[tuple[str, int]]:
    hosts = []
    for entry in netloc.split(","):
        host, _, port = entry.partition(":")
        hosts.append((host, int(port or default_port)))
    return hosts


class Script:
    """A Lua script and its SHA-1, run by EVALSHA with EVAL as the fallback."""

    def __init__(self, *files: str, clock: str | None = None) -> None:
        folder = Path(__file__).with_name("lua")
        texts = [(folder / name).read_text(encoding="utf-8") for name in files]
        self.text = "\n".join([clock or (folder / "clock.lua").read_text(encoding="utf-8"), *texts])
        self.sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()


class Wire:
    """Sends commands; those issued in the same turn of the event loop share one round trip.

    Every failure (no connection, timeout, OOM, READONLY, NOREPLICAS, BUSY, LOADING …) is LedgerDown, within about a
    second. After one, calls fail at once for a quarter of a second, so a dead server is not asked by each request.
    """

    def __init__(self, client: Client, *, timeout: float = TIMEOUT) -> None:
        self.client = client
        self._timeout = timeout
        self._batch: list[tuple[tuple[Any, ...], asyncio.Future[Reply]]] = []
        self._flushes: set[asyncio.Task[None]] = set()
        self._fail_until = 0.0

    async def execute(self, *command: str | int | float) -> Reply:
        """One command's reply. Raises LedgerDown."""
        reply = await self._send(command)
        return _good(reply)

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[str | int]) -> Reply:
        """One script's reply. Raises LedgerDown."""
        reply = await self._send(("EVALSHA", script.sha, len(keys), *keys, *args))
        if isinstance(reply, NoScriptError):
            reply = await self._send(("EVAL", script.text, len(keys), *keys, *args))
        return _good(reply)

    async def close(self) -> None:
        """Wait for what is on its way and drop the connections."""
        if self._flushes:
            await asyncio.wait(self._flushes)
        await self.client.aclose()

    async def _send(self, command: tuple[Any, ...]) -> Reply:
        loop = asyncio.get_running_loop()
        if loop.time() < self._fail_until:
            raise LedgerDown("Redis failed a moment ago")
        if isinstance(self.client, RedisCluster):
            return await self._send_to_cluster(command)
        future: asyncio.Future[Reply] = loop.create_future()
        if not self._batch:
            loop.call_soon(self._flush)
        self._batch.append((command, future))
        return await future

    async def _send_to_cluster(self, command: tuple[Any, ...]) -> Reply:
        try:
            async with asyncio.timeout(self._timeout):
                return await self.client.execute_command(*command)
        except NoScriptError as error:
            return error
        except (RedisError, OSError, TimeoutError) as error:
            raise LedgerDown(f"Redis Cluster cannot be asked: {_kind(error)}") from None

    def _flush(self) -> None:
        batch, self._batch = self._batch, []
        task = asyncio.get_running_loop().create_task(self._exchange(batch))
        self._flushes.add(task)
        task.add_done_callback(self._flushes.discard)

    async def _exchange(self, batch: list[tuple[tuple[Any, ...], asyncio.Future[Reply]]]) -> None:
        client = cast(Redis, self.client)
        pipeline = client.pipeline(transaction=False)
        for command, _ in batch:
            pipeline.execute_command(*command)
        try:
            async with asyncio.timeout(self._timeout):
                replies = await pipeline.execute(raise_on_error=False)
        except BaseException as error:
            # Whatever it was: who waits for these replies must not wait for ever.
            self._fail_until = asyncio.get_running_loop().time() + FAIL_FAST
            for _, future in batch:
                if not future.done():
                    future.set_exception(LedgerDown(f"Redis cannot be asked: {_kind(error)}"))
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
        with contextlib.suppress(RedisError, OSError):
            await cast(Redis, self.client).connection_pool.disconnect(inuse_connections=False)


def _good(reply: Reply) -> Reply:
    """The reply, unless it is an error. Raises LedgerDown, or LedgerFault where the server itself is well."""
    if not isinstance(reply, RedisError):
        return reply
    kind = _kind(reply)
    fault = isinstance(reply, ResponseError) and kind in _FAULTS
    raise (LedgerFault if fault else LedgerDown)(f"Redis answered {kind}") from None


def _kind(error: BaseException) -> str:
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
