"""The checks of `gateway doctor`. Each only looks: nothing is written, started or charged."""

from __future__ import annotations

import asyncio
import os
import resource
import stat
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

from gateway.backends import journal_facts
from gateway.backends.embedded_redis import find_server
from gateway.backends.maxmind import Databases
from gateway.backends.redis_client import Wire, connect
from gateway.backends.redis_facts import look
from gateway.backends.redis_links import RedisLinks
from gateway.backends.redis_verdicts import RedisVerdicts
from gateway.backends.s3_exposure import ListRefused, probe, sample
from gateway.bootstrap.files import read_candidate, read_rules
from gateway.bootstrap.origin import open_store, stored
from gateway.cli import doctor_freeze
from gateway.cli.doctor_accounts import account_checks
from gateway.cli.doctor_orders import order_checks
from gateway.cli.output import utc
from gateway.errors import FileMissing, GatewayError, LedgerDown, OriginError, SettingsError
from gateway.policy.checkup import (
    Check,
    Line,
    of_clock,
    of_descriptors,
    of_doors,
    of_files,
    of_geo,
    of_journal,
    of_keys,
    of_management,
    of_public_url,
    of_redis,
    of_shards,
)
from gateway.policy.model import ByteRange
from gateway.policy.reach import unreached
from gateway.policy.rollback import Return
from gateway.policy.ruleset import NO_RULES, RuleSet
from gateway.policy.units import human_size
from gateway.services.checkup import Report
from gateway.services.rollback import known_returns
from gateway.settings import Settings, unsupported
from gateway.store_ports import FileBody
from gateway.web.connections import connections_within

LINKS_READ = 5000
FILES_LOOKED_AT = 10
KEYS_TRIED = 3
FOLDER_ENTRIES = 1000


def of_settings(settings: Settings) -> Iterator[Line]:
    """What the settings themselves say, without asking anybody."""
    refused = unsupported(settings)
    yield from (Line("FAIL", "settings", text) for text in refused)
    if not refused:
        yield Line("ok", "settings", "can be read, and nothing is missing")
    signing = settings.key_set().signing
    secrets = {key.kid: key.secret.get_secret_value() for key in settings.keys if key.secret is not None}
    yield from of_keys(signing.kid if signing else None, secrets)
    yield of_public_url(settings.public_url, settings.tls is not None)
    token = settings.management.token
    yield of_management(token.get_secret_value() if token else None, len(settings.management.users))
    if settings.when_redis_is_down == "deny":
        yield Line("ok", "redis_down", "downloads are refused while Redis is down")
    else:
        yield Line("warn", "redis_down", "no limit holds while Redis is down; write when_redis_is_down: deny")
    if settings.journal is None:
        said = "is not set, so what Redis loses in a crash or a failover is given again, and its events are gone"
        yield Line("warn", "journal", f"{said}; write journal: {{path: var/journal}}")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    most = sys.maxsize if hard == resource.RLIM_INFINITY else hard
    yield of_descriptors(most, connections_within(most, sys.maxsize))


@asynccontextmanager
async def open_wire(settings: Settings, report: Report) -> AsyncIterator[Wire | None]:
    """The settings' Redis; None for an address that is none, and for an embedded one that does not run, which a mere
    look must not start.
    """
    url = settings.redis.get_secret_value()
    if url.startswith("embedded://"):
        try:
            url = (Path(url.removeprefix("embedded://")) / "url").read_text()
        except OSError:
            yield None
            return
    try:
        wire = Wire(connect(url))
    except (ValueError, TypeError):
        # The library's text may quote the address, and with it the password.
        report(Line("FAIL", "redis", "is no address that can be used; write it like redis://127.0.0.1:6379/0"))
        yield None
        return
    try:
        yield wire
    finally:
        await wire.close()


class Checks:
    """One look at everything outside the settings. `file`: a key that surely is in the store."""

    def __init__(self, settings: Settings, wire: Wire | None, file: str | None) -> None:
        self._settings = settings
        self._wire = wire
        self._file = file
        self._sold: asyncio.Task[list[str]] | None = None
        self._sampled: asyncio.Task[list[str]] | None = None

    def all(self) -> dict[Check, Callable[[Report], Awaitable[None]]]:
        found: dict[Check, Callable[[Report], Awaitable[None]]] = {
            "redis": self._redis,
            "freeze": self._freeze,
            "files": self._files,
        }
        if self._settings.origin.kind == "s3":
            found |= {"origin": self._origin, "private": self._private}
        else:
            found |= {"origin": self._folder}
        if self._settings.journal is not None:
            found["journal"] = self._journal
        if self._settings.geo is not None:
            found["geo"] = self._geo
        if self._settings.rules is not None or self._settings.rules_candidate is not None:
            found["rules"] = self._rules
        if self._settings.doors.refused:
            found["doors"] = self._doors
        return found | order_checks(self._settings) | account_checks(self._settings)

    async def _redis(self, report: Report) -> None:
        embedded = self._settings.redis.get_secret_value().startswith("embedded://")
        try:
            if self._wire is None:
                raise LedgerDown("it does not run")
            facts = await look(self._wire)
        except LedgerDown as error:
            if not embedded:
                raise LedgerDown(f"{error}; check that Redis runs at the address in the setting redis") from None
            program = await asyncio.to_thread(find_server)
            report(Line("ok", "redis", f"not running now; the gateway starts its own ({program})"))
            return
        for name, info in facts.servers.items():
            for line in of_redis(info, facts.answered_ms):
                report(Line(line.state, line.check, f"{name}: {line.text}") if name else line)
        report(of_shards(facts.first_used_with, self._settings.shards))
        report(of_clock("Redis", facts.ahead, facts.uncertain))

    async def _freeze(self, report: Report) -> None:
        if self._wire is not None:
            await doctor_freeze.check(self._wire, self._settings.management.listen, report)

    async def _journal(self, report: Report) -> None:
        journal = self._settings.journal
        if journal is None:
            return
        try:
            facts = await asyncio.to_thread(journal_facts.look, journal.path)
        except OSError as error:
            why = os.strerror(error.errno or 0)
            said = f"{journal.path} cannot be written and fsynced ({why}), and without it nothing is given"
            report(Line("FAIL", "journal", f"{said}; make it a folder that is writable to the gateway's user"))
        else:
            report(of_journal(str(journal.path), journal.size, facts, time.time()))

    async def _origin(self, report: Report) -> None:
        keys, failure = await self._keys()
        if not keys:
            if failure is not None and not isinstance(failure, ListRefused):
                raise failure
            said = str(failure or "the bucket is reachable and holds no file here; put one there")
            report(Line("warn", "origin", f"{said}; name a file that is there with --file KEY to see it read"))
            return
        store = open_store(self._settings)
        try:
            began = time.monotonic()
            stored = await store.stat(keys[0], fresh=True)
            if stored.size:
                body = await store.open(stored, ByteRange(0, 1))
                try:
                    if not isinstance(body, FileBody):
                        await body.read()
                finally:
                    await body.aclose()
            took = (time.monotonic() - began) * 1000
            report(Line("ok", "origin", f"{keys[0]} can be read: {human_size(stored.size)}, after {took:.0f} ms"))
        except FileMissing:
            report(Line("FAIL", "origin", f"the store has no {keys[0]}; is origin.url its bucket and prefix?"))
        except OriginError as error:
            report(Line("FAIL", "origin", f"{keys[0]} cannot be read: {error}"))
        finally:
            await store.close()

    async def _private(self, report: Report) -> None:
        origin = self._settings.origin
        listed, (known, failure) = await asyncio.gather(probe(origin, ()), self._keys())
        keys = await stored(self._settings, known)
        objects = await probe(origin, keys, lists=False)
        for found in (listed, objects):
            if found.text is not None:
                report(Line("FAIL", "private", found.text))
        if listed.lists_refused and not listed.open:
            report(Line("ok", "private", "nobody can list the bucket without our keys"))
        elif not listed.open:
            report(Line("warn", "private", f"whether anybody can list the bucket is not known: {listed.failure}"))
        if objects.objects_refused and not objects.open:
            report(Line("ok", "private", f"nobody can read {', '.join(keys)} without our keys"))
        elif not objects.open:
            said = objects.failure or failure or "no file is known"
            report(Line("warn", "private", f"that nobody can read a file is not proven: {said}; try --file KEY"))
        if listed.ahead is not None:
            report(of_clock("the bucket", listed.ahead, listed.uncertain))

    async def _folder(self, report: Report) -> None:
        folder = self._settings.origin.folder
        for line in await asyncio.to_thread(_look_at_folder, folder, self._file):
            report(line)

    async def _files(self, report: Report) -> None:
        if self._wire is None:
            return
        try:
            sold = await self._newest_sold()
        except LedgerDown:
            report(Line("warn", "files", "without Redis it is not known which files were sold"))
            return
        store = open_store(self._settings)

        async def is_missing(key: str) -> bool:
            try:
                await store.stat(key, fresh=True)
            except FileMissing:
                return True
            return False

        try:
            absent = await asyncio.gather(*(is_missing(key) for key in sold))
            report(of_files(len(sold), [key for key, missing in zip(sold, absent, strict=True) if missing]))
        except OriginError as error:
            report(Line("warn", "files", f"whether the sold files are in the store is not known: {error}"))
        finally:
            await store.close()

    async def _geo(self, report: Report) -> None:
        geo = self._settings.geo
        given = {name: getattr(geo, name) for name in ("city", "asn", "anonymous")}

        def load(name: str, path: Path) -> Line:
            try:
                databases = Databases.load(**{"city": None, "asn": None, "anonymous": None, name: path})
            except GatewayError as error:
                return Line("FAIL", "geo", f"{error}")
            version = databases.version
            databases.close()
            return of_geo(f"geo.{name}: {version}", _built(version), time.time())

        for line in await asyncio.gather(
            *(asyncio.to_thread(load, name, path) for name, path in given.items() if path is not None)
        ):
            report(line)

    async def _rules(self, report: Report) -> None:
        if (candidate := self._settings.rules_candidate) is not None:
            try:
                beside = await asyncio.to_thread(read_candidate, self._settings)
            except SettingsError as error:
                said = f"the candidate is wrong and not judged: {str(error).splitlines()[0]}"
                report(Line("warn", "rules", said))
            else:
                state = "is not there, so nothing is judged" if beside is NO_RULES else "can be read"
                report(Line("ok", "rules", f"the candidate {candidate} {state}"))
        if self._settings.rules is not None:
            rules = await asyncio.to_thread(read_rules, self._settings)
            if (why := await self._rolled_back(rules)) is not None:
                said = f"was rolled back at {utc(why.at)} and others are in force: {why.said}; change it"
                report(Line("FAIL", "rules", f"{self._settings.rules} {said}"))
                return
            idle = await asyncio.to_thread(lambda: sum(1 for _ in unreached(rules.rules)))
            said = f"; rules that are never reached: {idle}, see `gateway rules check`" if idle else ""
            text = f"{self._settings.rules} can be read, version {rules.version}{said}"
            report(Line("warn" if idle else "ok", "rules", text))

    async def _doors(self, report: Report) -> None:
        try:
            rules = await asyncio.to_thread(read_rules, self._settings)
        except SettingsError:
            return  # which `rules` says
        if not self._settings.trusted_proxies:
            text = "trusted_proxies is empty, so nobody is told where the bytes lie, and the gateway itself sends them"
            report(Line("warn", "doors", f"{text}; name the network that nginx asks from"))
        for line in of_doors(rules, self._settings.doors.refused):
            report(line)

    async def _rolled_back(self, rules: RuleSet) -> Return | None:
        wanted = self._settings.rollback
        if self._wire is None or wanted is None:
            return None
        return (await known_returns(RedisVerdicts(self._wire, wanted.within))).why(rules)

    async def _keys(self) -> tuple[list[str], GatewayError | None]:
        """Objects that should be there, and why the bucket names none: the given one, else listed, else sold ones."""
        if self._file is not None:
            return [self._file], None
        if self._sampled is None:
            self._sampled = asyncio.ensure_future(sample(self._settings.origin, KEYS_TRIED))
        try:
            return await asyncio.shield(self._sampled), None
        except (OriginError, FileMissing) as error:
            try:
                sold = await self._newest_sold()
            except LedgerDown:
                sold = []
            return sold[:KEYS_TRIED], error

    async def _newest_sold(self) -> list[str]:
        """The files of the newest links that are still good, of all that a few seconds allow to read."""
        if self._sold is None:
            self._sold = asyncio.ensure_future(self._read_sold())
        return await asyncio.shield(self._sold)

    async def _read_sold(self) -> list[str]:
        if self._wire is None:
            return []
        links = []
        async for link in RedisLinks(self._wire, self._settings.shards).all():
            links.append(link)
            if len(links) >= LINKS_READ:
                break
        links.sort(key=lambda link: link.created_ms or 0, reverse=True)
        good = [link.claims for link in links if link.claims.expires_at > time.time()]
        return list(dict.fromkeys(file.key for claims in good for file in claims.files if file.key))[:FILES_LOOKED_AT]


def _look_at_folder(folder: Path, file: str | None) -> list[Line]:
    try:
        mode = folder.stat().st_mode
        found = folder / file if file is not None else _some_file(folder)
        if found is None:
            return [Line("warn", "origin", f"no file was found in {folder}; is the right folder mounted there?")]
        with found.open("rb") as opened:
            opened.read(1)
    except OSError as error:
        why = os.strerror(error.errno or 0)
        right = (
            "is the name right?" if isinstance(error, FileNotFoundError) else "make it readable to the gateway's user"
        )
        return [Line("FAIL", "origin", f"{error.filename}: {why}; {right}")]
    lines = [Line("ok", "origin", f"{found} can be read")]
    if mode & stat.S_IWOTH:
        lines.append(Line("warn", "private", f"every user of this machine can write to {folder}; chmod o-w it"))
    return lines


def _some_file(folder: Path) -> Path | None:
    seen = 0
    for root, _, names in os.walk(folder):
        for name in names:
            path = Path(root, name)
            if stat.S_ISREG(path.lstat().st_mode):
                return path
        seen += 1 + len(names)
        if seen > FOLDER_ENTRIES:
            return None
    return None


def _built(version: str) -> int | None:
    """When the database of this version text (`GeoLite2-City 2026-11-18`) was built, in Unix seconds."""
    try:
        return int(datetime.fromisoformat(version.rpartition(" ")[2]).replace(tzinfo=UTC).timestamp())
    except ValueError:
        return None
