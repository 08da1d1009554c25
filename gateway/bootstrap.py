"""From settings to wired services: the only place that names a backend."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from gateway.backends import maxmind, rules_file
from gateway.backends.embedded_redis import EmbeddedRedis
from gateway.backends.files import FolderStore
from gateway.backends.journal import FileJournal
from gateway.backends.maxmind import Databases
from gateway.backends.memory_file import MemoryFile
from gateway.backends.redis_client import Wire, connect
from gateway.backends.redis_control import RedisControl
from gateway.backends.redis_events import RedisEventLog
from gateway.backends.redis_ledger import RedisLedger
from gateway.backends.redis_links import RedisLinks
from gateway.backends.redis_shards import RedisShards
from gateway.backends.rules_file import RulesFile
from gateway.errors import FileMissing, GatewayError, OriginError, SettingsError
from gateway.policy.counting import CountingRules
from gateway.policy.keys import KeySet
from gateway.policy.ruleset import NO_RULES, RuleSet
from gateway.ports import EventLog, Ledger, ObjectStore
from gateway.services.agreement import Agreement
from gateway.services.checkup import Threads
from gateway.services.control import Control
from gateway.services.gatekeeper import Gatekeeper, Grounds
from gateway.services.housekeeping import Housekeeping
from gateway.services.recovery import Recovery
from gateway.services.reloading import Keeper, Reloading, Watched
from gateway.services.settlement import Running, Settlement
from gateway.services.unchecked import UncheckedEvents, UncheckedLedger
from gateway.services.upkeep import Upkeep
from gateway.settings import Settings

log = logging.getLogger(__name__)

SOLD_KEYS = 5
SOLD_KEYS_SECONDS = 3.0


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
        ledger = _ledger(settings, wire, RedisShards(wire, settings.shards))
        await ledger.agree(secrets.token_hex(32))
        yield Tools(
            RedisEventLog(wire, settings.shards),
            RedisLinks(wire, settings.shards),
            RedisControl(wire),
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
    upkeep: Callable[[], Upkeep]


@dataclass(frozen=True, slots=True)
class Told:
    """Who in the front door hears what: `ledger` what is wrong with Redis or the journal, or '', and whether downloads
    go on all the same; `settled` each closed download;
    `reloaded` what was read again and whether it was `loaded` or `rejected`; `files` what is in force of it, and what
    is wrong with the files that are there now, or ''. `reload` is set when that is asked for. `keeper` holds good ones.
    """

    ledger: Callable[[str, bool], None]
    settled: Callable[[Running], None]
    reloaded: Callable[[str, str], None]
    files: Callable[[str, str, str], None]
    reload: asyncio.Event
    keeper: Keeper


@asynccontextmanager
async def open_services(settings: Settings, told: Told) -> AsyncIterator[Services]:
    """Everything a worker needs. It serves (and refuses) also while Redis is away. Raises SettingsError."""
    lease = settings.counting.lease
    async with open_redis(settings) as wire, AsyncExitStack() as closing:
        journal = open_journal(settings)
        if journal is not None:
            closing.callback(journal.close)
        shards = RedisShards(wire, settings.shards, journal=journal)
        closing.push_async_callback(shards.drain)
        events: EventLog = RedisEventLog(wire, settings.shards, shards)
        counting = _ledger(settings, wire, shards)
        ledger: Ledger = counting
        if journal is not None:
            owed = UncheckedEvents(events, journal)
            unchecked = UncheckedLedger(counting, journal, owed)
            unchecked.start()  # also where nothing more is given so: what was, is still to be told
            closing.push_async_callback(unchecked.stop)
            if settings.when_redis_is_down == "allow":
                ledger, events = unchecked, owed
        rules, geo = _watched_rules(settings, told.keeper), _watched_geo(settings, told.keeper)
        reloading = Reloading(
            [rules, geo],
            events,
            wanted=told.reload,
            versions=lambda: _versions(rules, geo),
            count=told.reloaded,
            show=told.files,
        )
        await reloading.start()
        closing.push_async_callback(reloading.stop)
        settlement = Settlement(ledger, lease=lease, on_settled=told.settled)
        commands = RedisControl(wire)
        control = Control(
            commands,
            on_revoked=lambda: settlement.stop_revoked(control.standing.is_revoked),
            on_command=journal.keep_command if journal else lambda command: None,
        )
        recovery = Recovery(shards, journal, commands, complete_at=lambda: control.complete_at) if journal else None
        store = open_store(settings)
        closing.push_async_callback(store.close)
        grounds = Grounds(
            keys=settings.key_set(),
            issuer=settings.issuer,
            rules=lambda: rules.current,
            geo=lambda: geo.current,
            control=control,
            ready=lambda: (
                settings.when_redis_is_down == "allow"
                or (control.current() and (recovery is None or shards.is_entered(0)))
            ),
            external_hosts=frozenset(settings.external_hosts),
        )
        gatekeeper = Gatekeeper(
            grounds,
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
            agree=Agreement(ledger, journal, gatekeeper.agreed),
            on_ledger=lambda wrong: told.ledger(
                wrong, settings.when_redis_is_down == "allow" and not (journal and journal.trouble)
            ),
            trouble=lambda: (recovery.trouble() if recovery else "") or _control_trouble(control),
        )
        if journal is not None:
            for command in journal.commands():
                control.standing.apply(command)
        if recovery is not None:
            await recovery.start()
            closing.push_async_callback(recovery.stop)
        await control.start()
        closing.push_async_callback(control.stop)
        if recovery is not None:
            await recovery.look()
        await housekeeping.start()
        closing.push_async_callback(housekeeping.stop)
        settlement.start()
        closing.push_async_callback(settlement.stop)
        yield Services(gatekeeper, store, ledger, settlement, lambda: Upkeep.of(journal, shards))


def read_rules(settings: Settings) -> RuleSet:
    """The settings' rules as they are now, or NO_RULES. Raises SettingsError with a line per mistake."""
    if settings.rules is None:
        return NO_RULES
    return rules_file.read_rules(settings.rules, _databases(settings))


def check_policy(settings: Settings) -> None:
    """Read rules and geo databases once, so that nothing is started that could not serve. Raises SettingsError."""
    mistakes = []
    for read in (read_rules, _read_geo):
        try:
            read(settings)
        except SettingsError as error:
            mistakes.append(str(error))
    if mistakes:
        raise SettingsError("\n".join(mistakes))


async def refuse_public_bucket(settings: Settings) -> None:
    """Raises SettingsError where the bucket can be read without us; an origin that does not answer is only logged."""
    if settings.origin.kind != "s3":
        return
    from gateway.backends import s3_exposure  # noqa: PLC0415  only in front of a bucket

    asyncio.get_running_loop().set_default_executor(Threads())  # or the end of the loop waits for a hung name look-up
    keys = []
    with suppress(OriginError, TimeoutError):
        async with asyncio.timeout(SOLD_KEYS_SECONDS):
            keys = await stored(settings, await _sold_keys(settings))
    await s3_exposure.refuse_public_bucket(settings, keys)


async def stored(settings: Settings, keys: Sequence[str]) -> list[str]:
    """Those of the keys that the store has: that others may not read what is not there proves nothing.

    Raises OriginError.
    """
    found = []
    store = open_store(settings)
    try:
        for key in keys:
            with suppress(FileMissing):
                await store.stat(key)
                found.append(key)
    finally:
        await store.close()
    return found


async def _sold_keys(settings: Settings) -> list[str]:
    """Some keys that links were made for, where Redis tells."""
    if settings.redis.get_secret_value().startswith("embedded://"):
        return []  # not running yet, and not worth a start
    with suppress(GatewayError):
        async with open_redis(settings) as wire:
            keys: list[str] = []
            async for link in RedisLinks(wire, settings.shards).all():
                keys += [file.key for file in link.claims.files if file.key is not None]
                if len(keys) >= SOLD_KEYS:
                    break
            return keys
    return []


def _databases(settings: Settings) -> frozenset[str]:
    geo = settings.geo
    named = {"city": geo and geo.city, "asn": geo and geo.asn, "anonymous": geo and geo.anonymous}
    return frozenset(name for name, path in named.items() if path is not None)


def _read_geo(settings: Settings) -> Databases:
    geo = settings.geo
    return Databases() if geo is None else Databases.load(geo.city, geo.asn, geo.anonymous)


def _watched_rules(settings: Settings, keeper: Keeper) -> Watched[RuleSet]:
    what = "rules"
    if settings.rules is None:
        return Watched(what, lambda: NO_RULES, None)
    file, name = RulesFile(settings.rules, _databases(settings)), str(settings.rules)

    def keep(_: RuleSet) -> None:
        if copy := file.take_copy():
            keeper.keep(what, {name: copy.fileno()})

    def last_good() -> RuleSet | None:
        copy = keeper.kept(what).get(name)
        return None if copy is None else file.read_copy(MemoryFile.of(copy).read())

    return Watched(what, file.read, file.fingerprint, keep=keep, last_good=last_good)


def _watched_geo(settings: Settings, keeper: Keeper) -> Watched[Databases]:
    what, geo = "geo databases", settings.geo
    if geo is None:
        return Watched(what, Databases, None)

    def last_good() -> Databases | None:
        copies = keeper.kept(what)
        return Databases.load_copies(copies, geo.city, geo.asn, geo.anonymous) if copies else None

    return Watched(
        what,
        lambda: _read_geo(settings),
        partial(maxmind.fingerprint, (geo.city, geo.asn, geo.anonymous)),
        # A look-up never spans an await, so on the event loop none can be under way in what is being closed.
        Databases.close,
        keep=lambda databases: keeper.keep(what, databases.copies),
        last_good=last_good,
    )


def _versions(rules: Watched[RuleSet], geo: Watched[Databases]) -> dict[str, str]:
    return {"rules.version": rules.current.version, "geo.version": geo.current.version}


def open_store(settings: Settings) -> ObjectStore:
    """The settings' origin; nothing is asked of it yet."""
    origin = settings.origin
    if origin.kind == "file":
        return FolderStore(origin.folder)
    # botocore alone takes as long to import as the rest, and a folder's gateway and most commands do without it.
    from gateway.backends.s3 import S3Store  # noqa: PLC0415  botocore is slow to import
    from gateway.backends.s3_client import Wire as S3Wire  # noqa: PLC0415  botocore is slow to import

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


def _control_trouble(control: Control) -> str:
    return "" if control.current() else control.trouble or "the control stream is being read"


def _ledger(settings: Settings, wire: Wire, shards: RedisShards) -> RedisLedger:
    return RedisLedger(
        wire,
        shards,
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
