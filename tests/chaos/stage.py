"""The stage of the chaos run: Redis behind a proxy, a gateway of several workers, an origin, links, clients, events.

All of it is real, on loopback, in one folder, and ended when the `async with` ends; what its clients saw is kept.
"""

from __future__ import annotations

import asyncio
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence, Set
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Self

from audit import Evidence, unsettled
from clients import Ask, ClientLog, Fetched, Kind, Ticket, Versions, fetch
from gateway_process import ISSUER, KEY_ID, LEASE, MANAGEMENT, SECRET, GatewayProcess
from outages import NotedProxy, NotedRedis, Outages
from redis_server import Persistence
from streams import Fields, read_events

from gateway.policy.keys import SigningKey, load_key
from gateway.policy.model import Claims, FileEntry, Limits
from gateway.policy.tokens import encode

PROBE = "probe.bin"
PROBE_SIZE = 4096
POLL = 0.1
CALM = 5.0
SETTLING = 10 * LEASE + 13.0
"""Seconds in which everything must be closed: the last acknowledgements, and the reaper behind dead workers."""
HOLLOW_FROM = 64 << 20
_MARK = 64
_SIGNATURE = 43
"""Letters of an HS256 signature (RFC 7515: 32 bytes, base64url without padding)."""
_LONG_RUN = re.compile(rf"[A-Za-z0-9_-]{{{_SIGNATURE},}}")


class Stage:
    """`origin`: YAML of the setting, else the folder `files`. `redis_url`: a Redis of the caller's, for which neither
    server nor proxy is started here. `settings`: YAML texts by name, over the defaults.
    """

    def __init__(
        self,
        folder: Path,
        rng: random.Random,
        *,
        workers: int = 4,
        shards: int = 1,
        origin: str | None = None,
        redis_url: str | None = None,
        persistence: Persistence = "aof",
        redis_options: Sequence[str] = (),
        settings: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
        command: Sequence[str] = (),
    ) -> None:
        self.folder, self.rng, self.shards = folder, rng, shards
        self.files = folder / "files"
        self.files.mkdir(parents=True, exist_ok=True)
        (folder / "versions").mkdir(exist_ok=True)
        self.outages = Outages()
        self.redis = NotedRedis(folder / "redis", self.outages, persistence=persistence, options=redis_options)
        self.proxy = NotedProxy(self.outages)
        self.versions = Versions()
        self.log = ClientLog(folder / "requests.jsonl")
        self.tickets: dict[str, Ticket] = {}
        self.disturbed: list[tuple[float, float]] = []
        self.recoveries: list[float] = []
        self.evidence: list[Evidence] = []
        """What the stages beside this one have left, once they are closed."""
        self._own_redis = redis_url is None
        self._redis_url = redis_url or self.redis.url
        self._gateway_options = {"workers": workers, "shards": shards}
        self._origin = origin or f'{{url: "file://{self.files}"}}'
        self._settings, self._environment, self._command = settings, environment, command
        self._networks = 0
        # Apart from `rng`, so that the crowd's pace does not change what the faults draw.
        self._content = random.Random(rng.random())
        key = load_key(kid=KEY_ID, alg="HS256", use="sign", secret=SECRET)
        assert isinstance(key, SigningKey)
        self._key = key
        self.gateway: GatewayProcess

    async def __aenter__(self) -> Self:
        if self._own_redis:
            await asyncio.to_thread(self.redis.start)
            self._redis_url = f"redis://127.0.0.1:{await self.proxy.start(self.redis.port)}/0"
        self.gateway = GatewayProcess(
            self.folder,
            redis=self._redis_url,
            origin=self._origin,
            settings=self._settings,
            environment=self._environment,
            command=self._command,
            **self._gateway_options,
        )
        self.file(PROBE, PROBE_SIZE)
        try:
            await self.gateway.start()
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._end()

    async def _end(self) -> None:
        await self.gateway.terminate()
        if self._own_redis:
            await self.proxy.close()
            await asyncio.to_thread(self.redis.kill)
        self.log.close()

    @asynccontextmanager
    async def beside(self, name: str, **options: object) -> AsyncIterator[Stage]:
        """A stage of its own for one fault, audited with this one: `async with stage.beside("sentinel", …) as own`."""
        async with Stage(self.folder / name, self.rng, **options) as own:
            own.disturbed.append((0.0, float("inf")))
            own.recoveries = self.recoveries
            try:
                yield own
            except Exception:
                # What its clients have seen is evidence all the same, as far as it can still be had.
                with suppress(Exception):
                    await own.mend()
                    self.evidence += await own.testify(name)
                raise
            self.evidence += await own.testify(name)

    def file(self, name: str, size: int) -> Path:
        """Put a file of `size` bytes into the origin's folder, in one step; again with the same name: a new version.

        From HOLLOW_FROM bytes on it is sparse, each megabyte of it different.
        """
        count = sum(1 for _ in (self.folder / "versions").iterdir())
        kept = self.folder / "versions" / f"{count}"
        with kept.open("wb") as file:
            if size < HOLLOW_FROM:
                file.write(self._content.randbytes(size))
            else:
                file.truncate(size)
                for start in range(0, size, 1 << 20):
                    file.seek(start)
                    file.write(self._content.randbytes(min(_MARK, size - start)))
        self.versions.add(name, kept)
        path = self.files / name
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f".{path.name}.{count}")
        # A copy, not a link: a fault may write into the origin's file, and the version must stay what it was.
        shutil.copyfile(kept, fresh)
        fresh.replace(path)
        return path

    def token(self, *files: str, downloads: int | None = None, kind: Kind = "good", **claims: object) -> str:
        """A link's token for files by name; `claims` are those of gateway.policy.model.Claims."""
        token_id = self._content.randbytes(8).hex()
        told: dict[str, object] = {
            "issuer": ISSUER,
            "token_id": token_id,
            "expires_at": int(time.time()) + (3600 if kind != "expired" else -60),
            "files": tuple(FileEntry(key=name) for name in files),
            "limits": Limits(downloads=downloads),
            **claims,
        }
        token = encode(Claims(**told), self._key)
        if kind == "forged":
            token = token[:-8] + ("A" * 8 if token[-8:] != "A" * 8 else "B" * 8)
        self.tickets[token] = Ticket(str(told["token_id"]), files, kind, downloads, time.monotonic())
        return token

    async def revoke(self, token: str) -> bool:
        """End the link with `gateway link revoke`; whether that was taken."""
        arguments = ["-m", "gateway", "link", "revoke", token, "--config", str(self.gateway.config)]
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *arguments,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=self.gateway.environment,
        )
        taken = await process.wait() == 0
        if taken:
            self.tickets[token].revoked = time.monotonic()
        return taken

    def network(self) -> str:
        """An address in a network that no other client of this stage has."""
        self._networks += 1
        return f"10.{self._networks >> 8 & 255}.{self._networks & 255}.9"

    async def fetch(
        self,
        token: str,
        *,
        number: int = 1,
        method: str = "GET",
        range: str | None = None,  # noqa: A002  the header's name
        timeout: float = 30.0,  # noqa: ASYNC109  of the whole exchange, told in the log
        read_limit: int | None = None,
        address: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Fetched:
        """Ask for the token's file once, from a network of its own where no `address` is given.

        `range`: `bytes=0-9`. `read_limit`: leave after that many body bytes. Nothing is raised; see Fetched.
        """
        ticket = self.tickets.get(token) or Ticket("", kind="unknown")
        ask = Ask(
            token,
            ticket.token_id,
            ticket.files[number - 1] if number <= len(ticket.files) else "",
            address or self.network(),
            number=number,
            method=method,
            range=range or "",
            timeout=timeout,
            read_limit=read_limit,
            headers={"User-Agent": f"chaos {ticket.token_id}", **(headers or {})},
        )
        return await fetch(self.gateway.port, ask, self.versions, self.log)

    async def refuses_within(self, seconds: float, reason: str) -> None:
        """A fresh legitimate request is refused with 503 and that reason, and its answer is in within `seconds`."""
        seen = await self.fetch(self.token(PROBE, downloads=1), timeout=seconds + 5)
        assert (seen.status, seen.reason) == (503, reason), f"503 {reason} was due: {_told(seen)}"
        assert seen.ended - seen.began <= seconds, f"the refusal took {seen.ended - seen.began:.1f} s"

    async def serves_within(self, seconds: float) -> float:
        """Ask until a fresh legitimate download succeeds; the seconds that took, which count as a recovery."""
        began = time.monotonic()
        while True:
            left = began + seconds - time.monotonic()
            seen = await self.fetch(self.token(PROBE, downloads=1), timeout=max(left, 1.0))
            took = time.monotonic() - began
            if seen.complete and seen.sha_ok and took <= seconds:
                self.recoveries.append(took)
                return took
            assert took < seconds, f"no download succeeded within {seconds:g} s; the last: {_told(seen)}"
            await asyncio.sleep(POLL)

    def events(self) -> list[Fields]:
        """Every event of every shard. Raises redis.RedisError."""
        return read_events(self.redis.url if self._own_redis else self._redis_url, self.shards)

    async def settle(self, patience: float = SETTLING) -> list[Fields]:
        """The events, once every allowed request is closed or `patience` is over; what is open then is the audit's."""
        until = time.monotonic() + patience
        while True:
            events = await asyncio.to_thread(self.events)
            if not unsettled(events) or time.monotonic() > until:
                return events
            await asyncio.sleep(1)

    async def testify(self, name: str) -> list[Evidence]:
        """What this stage's clients saw and its streams hold, settled, and that of the stages beside it."""
        events = await self.settle()
        places = [self.gateway.log(), (await asyncio.to_thread(self.gateway.ask, "/metrics"))[1], repr(events)]
        journal = (path for path in (self.folder / "journal").rglob("*") if path.is_file())
        places += [path.read_bytes().decode("latin-1") for path in journal]
        signatures = {token.rpartition(".")[2] for token in self.tickets}
        assert {len(signature) for signature in signatures} <= {_SIGNATURE}
        secrets = {secret for secret in (SECRET, MANAGEMENT) for place in places if secret in place}
        secrets = secrets.union(*(signatures_in(place, signatures) for place in places))
        own = Evidence(
            name=name,
            requests=self.log.requests,
            tickets=list(self.tickets.values()),
            events=events,
            outages=self.outages.spans,
            losses=self.outages.losses,
            disturbed=self.disturbed,
            may_open=self.gateway.settings.get("when_redis_is_down") == "allow",
            secrets=sorted(f"…{secret[-6:]}" for secret in secrets),
        )
        return [own, *self.evidence]

    async def mend(self) -> None:
        """Undo what a fault that failed may have left, so that the next one starts from a stage that works."""
        if self._own_redis:
            self.proxy.let_pass()
            if self.redis.pid is None:
                await asyncio.to_thread(self.redis.start)
            else:
                self.redis.resume()
        if self.gateway.process is None or self.gateway.process.poll() is not None:
            await self.gateway.restart()

    @asynccontextmanager
    async def disturbance(self) -> AsyncIterator[None]:
        """Inside, and CALM seconds after it, the crowd may be refused with 5xx."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.disturbed.append((began, time.monotonic() + CALM))


def signatures_in(text: str, signatures: Set[str]) -> set[str]:
    """Those that stand in the text: each is looked up, since there are too many to search for one by one."""
    windows = (
        run[start : start + _SIGNATURE]
        for run in set(_LONG_RUN.findall(text))
        for start in range(len(run) - _SIGNATURE + 1)
    )
    return signatures.intersection(windows)


def _told(seen: Fetched) -> str:
    return f"{seen.status} {seen.reason} {seen.error} after {seen.ended - seen.began:.1f} s".replace("  ", " ")
