"""One way to reach Redis or Valkey, be it one server, what Sentinels name or a cluster: short timeouts, no retries.

redis-py's default retry runs a charging script again after a lost reply; here a failed call fails, as LedgerDown.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError, ResponseError

from gateway.backends import redis_sentinel
from gateway.backends.redis_cluster import Address, Cluster
from gateway.backends.redis_line import Line, Reply, kind
from gateway.errors import LedgerDown, LedgerFault

__all__ = ["Client", "Reply", "Script", "Wire", "connect"]

Client = Redis | Cluster

TIMEOUT = 0.8
"""Seconds. A refusal is promised within one, and its way to the client takes some of that."""
CONNECTIONS = 32
_FAULTS = frozenset({"ERR", "WRONGTYPE", "ResponseError"})
"""Errors of one command or script; every other error reply says that the server cannot serve now."""


def connect(url: str, *, timeout: float = TIMEOUT) -> Client:
    """A client for redis:// rediss:// unix:// redis+sentinel://host,host/master/db or redis+cluster://host,host.

    `timeout` (s) bounds connecting; a reply on a connection of one's own may take twice as long. Nothing is connected
    yet. Raises ValueError for other schemes.
    """
    scheme, _, rest = url.partition("://")
    options: dict[str, Any] = {
        "decode_responses": True,
        # Only for who waits on a connection of his own: a line counts for itself what is late.
        "socket_timeout": 2 * timeout,
        "socket_connect_timeout": min(timeout, 0.5),
        "retry": Retry(NoBackoff(), 0),
    }
    pooled: dict[str, Any] = {"max_connections": CONNECTIONS, "timeout": timeout}
    if scheme in ("redis", "rediss", "unix"):
        return Redis.from_pool(BlockingConnectionPool.from_url(url, **pooled, **options))
    if scheme == "redis+sentinel":
        hosts, path, given = _several(rest, 26379)
        name, _, database = path.partition("/")
        # Else a class of connection that knows no Sentinels.
        tls = given.pop("connection_class", None) is not None
        given |= {"db": int(database or 0), "ssl": tls}
        return redis_sentinel.master(hosts, name or "mymaster", options, **pooled, **(options | given))
    if scheme == "redis+cluster":
        hosts, _, given = _several(rest, 6379)

        def one(address: Address) -> Redis:
            host, port = address
            return Redis.from_pool(BlockingConnectionPool(host=host, port=port, **pooled, **(options | given)))

        return Cluster(hosts, one, timeout=timeout)
    raise ValueError(
        f"cannot connect to a {scheme}:// address: write redis://, rediss://, unix:// or redis+sentinel://"
    )


def _several(rest: str, default_port: int) -> tuple[list[Address], str, dict[str, Any]]:
    """`[user:password@]host[:port],host[:port]/path?ssl=true&…` as hosts, path and options as redis-py has them."""
    front, _, query = rest.partition("?")
    authority, _, path = front.partition("/")
    credentials, at, hosts = authority.rpartition("@")
    asked = dict(parse_qsl(query))
    scheme = "rediss" if asked.pop("ssl", "") == "true" else "redis"
    options: dict[str, Any] = dict(parse_url(f"{scheme}://{credentials}{at}host/?{urlencode(asked)}"))
    del options["host"]
    addresses = []
    for entry in hosts.split(","):
        parts = urlsplit(f"//{entry}")
        addresses.append((parts.hostname or "localhost", parts.port or default_port))
    return addresses, path.strip("/"), options


class Script:
    """A Lua script and its SHA-1, run by EVALSHA with EVAL as the fallback."""

    def __init__(self, *files: str, clock: str | None = None) -> None:
        folder = Path(__file__).with_name("lua")
        texts = [(folder / name).read_text(encoding="utf-8") for name in files]
        self.text = "\n".join([clock or (folder / "clock.lua").read_text(encoding="utf-8"), *texts])
        self.sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()


class Wire:
    """Sends commands, which share a round trip where they go to one server in the same turn of the event loop.

    Every failure (no connection, timeout, OOM, READONLY, NOREPLICAS, BUSY, LOADING, CLUSTERDOWN …) is LedgerDown,
    within a second.
    """

    def __init__(self, client: Client, *, timeout: float = TIMEOUT) -> None:
        self.client = client
        self._timeout = timeout
        self._servers = client if isinstance(client, Cluster) else Line(client, timeout=timeout)

    async def execute(self, *command: str | int | float) -> Reply:
        """One command's reply. Raises LedgerDown."""
        return _good(await self._servers.send(command))

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[str | int]) -> Reply:
        """One script's reply. Raises LedgerDown."""
        until = asyncio.get_running_loop().time() + self._timeout
        reply = await self._servers.send(("EVALSHA", script.sha, len(keys), *keys, *args))
        if isinstance(reply, NoScriptError):
            try:
                async with asyncio.timeout_at(until):
                    reply = await self._servers.send(("EVAL", script.text, len(keys), *keys, *args))
            except TimeoutError:
                raise LedgerDown("Redis gave no answer in time") from None
        return _good(reply)

    async def survey(self, *command: str) -> Mapping[str, Reply]:
        """The reply of each server by its address; a single server has the name ''. Raises LedgerDown."""
        if not isinstance(self._servers, Cluster):
            return {"": await self.execute(*command)}
        return {name: _good(reply) for name, reply in (await self._servers.survey(*command)).items()}

    async def close(self) -> None:
        """Wait for what is on its way and drop the connections."""
        await self._servers.aclose()


def _good(reply: Reply) -> Reply:
    """The reply, unless it is an error. Raises LedgerDown, or LedgerFault where the server itself is well."""
    if not isinstance(reply, RedisError):
        return reply
    what = kind(reply)
    fault = isinstance(reply, ResponseError) and what in _FAULTS
    raise (LedgerFault if fault else LedgerDown)(f"Redis answered {what}") from None
