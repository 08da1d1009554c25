"""From settings to wired services: the only place that names a backend."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from gateway.backends.embedded_redis import EmbeddedRedis
from gateway.backends.files import FolderStore
from gateway.backends.redis_client import Wire, connect
from gateway.backends.redis_events import RedisEventLog
from gateway.backends.redis_ledger import RedisLedger
from gateway.backends.redis_links import RedisLinks
from gateway.errors import SettingsError
from gateway.policy.counting import CountingRules
from gateway.policy.keys import KeySet
from gateway.ports import Ledger, ObjectStore
from gateway.services.gatekeeper import Gatekeeper
from gateway.services.housekeeping import Housekeeping
from gateway.services.settlement import Running, Settlement
from gateway.settings import Settings


@dataclass(frozen=True, slots=True)
class Tools:
    """What the ops' commands work with."""

    events: RedisEventLog
    links: RedisLinks
    ledger: RedisLedger
    keys: KeySet


@asynccontextmanager
async def open_redis(settings: Settings) -> AsyncIterator[Wire]:
    """The settings' Redis; an embedded one is started, or joined where the gateway runs.

    Raises SettingsError, and LedgerDown where the embedded one does not come up.
    """
    async with hold_embedded_redis(settings) as url, _connected(url) as wire:
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
        ledger = _ledger(settings, wire)
        await ledger.agree(secrets.token_hex(32))
        yield Tools(
            RedisEventLog(wire, settings.shards),
            RedisLinks(wire, settings.shards),
            ledger,
            settings.key_set(),
        )


@dataclass(frozen=True, slots=True)
class Services:
    """What a front door works with."""

    gatekeeper: Gatekeeper
    store: ObjectStore
    ledger: Ledger
    settlement: Settlement


@asynccontextmanager
async def open_services(
    settings: Settings,
    *,
    on_ledger: Callable[[str], None],
    on_settled: Callable[[Running], None],
) -> AsyncIterator[Services]:
    """Everything a worker needs. It serves (and refuses) also while Redis is away.

    `on_ledger` is told what is wrong with Redis, or ''; `on_settled` of each closed download. Raises SettingsError.
    """
    lease = settings.counting.lease
    async with open_redis(settings) as wire:
        events = RedisEventLog(wire, settings.shards)
        ledger = _ledger(settings, wire)
        settlement = Settlement(ledger, lease=lease, on_settled=on_settled)
        store = open_store(settings)
        gatekeeper = Gatekeeper(
            keys=settings.key_set(),
            issuer=settings.issuer,
            ledger=ledger,
            events=events,
            store=store,
            counting=CountingRules(
                settings.counting.resume_window, settings.counting.repeat_window, settings.counting.free_below
            ),
            shards=settings.shards,
            forsake=settlement.forsake,
        )
        housekeeping = Housekeeping(
            ledger,
            events,
            shards=settings.shards,
            lease=lease,
            keep_events=settings.events.keep,
            agreed=gatekeeper.agreed,
            on_ledger=on_ledger,
        )
        await housekeeping.start()
        settlement.start()
        try:
            yield Services(gatekeeper, store, ledger, settlement)
        finally:
            await settlement.stop()
            await housekeeping.stop()
            await store.close()


def open_store(settings: Settings) -> ObjectStore:
    """The settings' origin; nothing is asked of it yet."""
    origin = settings.origin
    if origin.kind == "file":
        return FolderStore(origin.folder)
    # botocore alone takes as long to import as the rest, and a folder's gateway and most commands do without it.
    from gateway.backends.s3 import S3Store  # noqa: PLC0415  as said above
    from gateway.backends.s3_client import Wire as S3Wire  # noqa: PLC0415  as said above

    return S3Store(
        origin.url,
        endpoint=origin.endpoint,
        region=origin.region,
        access_key=origin.access_key.get_secret_value() if origin.access_key else None,
        secret_key=origin.secret_key.get_secret_value() if origin.secret_key else None,
        session_token=origin.session_token.get_secret_value() if origin.session_token else None,
        addressing=origin.addressing,
        wire=S3Wire(connect_timeout=origin.connect_timeout, read_timeout=origin.read_timeout),
    )


def _ledger(settings: Settings, wire: Wire) -> RedisLedger:
    return RedisLedger(
        wire,
        shards=settings.shards,
        lease_ms=settings.counting.lease * 1000,
        keep_ms=settings.events.keep * 1000,
    )


@asynccontextmanager
async def _connected(url: str) -> AsyncIterator[Wire]:
    try:
        wire = Wire(connect(url))
    except ValueError:
        # The library's text may quote the address, and with it the password.
        raise SettingsError("redis: is no address that can be used; write it like redis://127.0.0.1:6379/0") from None
    try:
        yield wire
    finally:
        await wire.close()
