"""The settings' Redis, and what of the gateway lies in it."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from gateway.backends.embedded_redis import EmbeddedRedis
from gateway.backends.journal import FileJournal
from gateway.backends.redis_client import Wire, connect
from gateway.backends.redis_control import RedisControl
from gateway.backends.redis_events import RedisEventLog
from gateway.backends.redis_ledger import RedisLedger
from gateway.backends.redis_links import RedisLinks
from gateway.backends.redis_shards import RedisShards
from gateway.backends.redis_sums import RedisSums
from gateway.errors import SettingsError
from gateway.policy.keys import KeySet
from gateway.settings import Settings


@dataclass(frozen=True, slots=True)
class Tools:
    """What the ops' commands work with."""

    events: RedisEventLog
    links: RedisLinks
    control: RedisControl
    ledger: RedisLedger
    keys: KeySet


@asynccontextmanager
async def open_redis(settings: Settings) -> AsyncIterator[Wire]:
    """The settings' Redis; an embedded one is started, or joined where the gateway runs.

    Raises SettingsError, and LedgerDown where the embedded one does not come up.
    """
    async with hold_embedded_redis(settings) as url, connected(url) as wire:
        yield wire


@asynccontextmanager
async def hold_embedded_redis(settings: Settings) -> AsyncIterator[str]:
    """The address of the settings' Redis. An embedded one is started, or joined, and ends with who started it."""
    url = settings.redis.get_secret_value()
    if not url.startswith("embedded://"):
        yield url
        return
    server = EmbeddedRedis(Path(url.removeprefix("embedded://")))
    starting = asyncio.ensure_future(asyncio.to_thread(server.start))
    try:
        yield await asyncio.shield(starting)
    finally:
        await asyncio.wait([starting])  # a thread cannot be cancelled, and what it started must be stopped
        await asyncio.to_thread(server.stop)


@asynccontextmanager
async def open_tools(settings: Settings) -> AsyncIterator[Tools]:
    """Events, links, counters and keys, once Redis agrees to the number of shards. Raises SettingsError, LedgerDown."""
    async with open_redis(settings) as wire:
        ledger = open_ledger(settings, wire, RedisShards(wire, settings.shards))
        await ledger.agree(secrets.token_hex(32))
        yield Tools(
            RedisEventLog(wire, settings.shards),
            RedisLinks(wire, settings.shards),
            RedisControl(wire),
            ledger,
            settings.key_set(),
        )


def open_ledger(settings: Settings, wire: Wire, shards: RedisShards) -> RedisLedger:
    return RedisLedger(
        wire,
        shards,
        lease_ms=settings.counting.lease * 1000,
        keep_ms=settings.events.keep * 1000,
    )


def open_journal(settings: Settings) -> FileJournal | None:
    """This worker's journal where the settings name a folder for it. A disk that fails is its `trouble`, not an error.

    Raises SettingsError for a folder that belongs to other settings.
    """
    if settings.journal is None:
        return None
    journal = FileJournal(settings.journal.path, keep_seconds=settings.journal.keep, bytes_max=settings.journal.size)
    journal.open()
    shards = journal.header.get("shards", settings.shards)
    if shards != settings.shards:
        journal.close()
        raise SettingsError(f"journal.path: was written with shards: {shards}; set that, or name an empty folder")
    journal.tell(shards=settings.shards)
    return journal


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Wire]:
    try:
        wire = Wire(connect(url))
    except ValueError:
        # The library's text may quote the address, and with it the password.
        raise SettingsError("redis: is no address that can be used; write it like redis://127.0.0.1:6379/0") from None
    try:
        yield wire
    finally:
        await wire.close()


@asynccontextmanager
async def open_sums(settings: Settings, wire: Wire) -> AsyncIterator[RedisSums]:
    """Remembers the checksums of what was sent, as long as events are kept."""
    sums = RedisSums(wire, settings.events.keep)
    try:
        yield sums
    finally:
        await sums.drain()
