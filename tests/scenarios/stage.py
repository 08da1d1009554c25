"""What the scenarios run on: a store with files, a Redis of its own, rules, geo data and settings, for any front door.

Clients connect from addresses of 127.0.0.0/8, each the real one of its connection: 127.0.0.1 is the trusted proxy, all
others are buyers. What the third number of an address means to the geo data stands in PLACES.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from mmdb_writer import MMDBWriter
from netaddr import IPSet
from redis import Redis
from redis_server import RedisServer

from gateway.backends.redis_ledger import file_keys
from gateway.policy.fronts import Front

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
SECRET = "a secret of a shop, for scenarios only, 40"
ISSUER = "shop.example.com"
EVENTS = "gw:{0}:events"
PROXY = "127.0.0.1"
PATIENCE = 20.0

_WARSAW = {"continent": {"code": "EU"}, "country": {"iso_code": "PL"}, "subdivisions": [{"iso_code": "14"}]}
PLACES: Mapping[str, Mapping[str, Mapping[str, object]]] = {
    "127.0.1.0/24": {"City": _WARSAW, "ASN": {"autonomous_system_number": 64500}},
    "127.0.2.0/24": {"City": _WARSAW, "ASN": {"autonomous_system_number": 64500}},
    "127.0.66.0/24": {"City": {"continent": {"code": "NA"}, "country": {"iso_code": "CU"}}},
    "127.0.77.0/24": {
        "City": {"continent": {"code": "NA"}, "country": {"iso_code": "US"}},
        "ASN": {"autonomous_system_number": 64510},
        "Anonymous-IP": {"is_anonymous": True, "is_hosting_provider": True},
    },
    "127.0.78.0/24": {
        "City": {"continent": {"code": "EU"}, "country": {"iso_code": "NL"}},
        "Anonymous-IP": {"is_anonymous": True, "is_tor_exit_node": True},
    },
}

_SITE = """
    # Makes the gateway's own hook crash while a file `crash` lies here: the product itself has no switch for that.
    import importlib.abc, importlib.machinery, pathlib, sys
    HERE = pathlib.Path(__file__).parent
    NAME = "gateway.services.gatekeeper"

    class Breaker(importlib.abc.MetaPathFinder):
        def find_spec(self, name, path=None, target=None):
            if name != NAME:
                return None
            sys.meta_path.remove(self)
            spec = importlib.machinery.PathFinder.find_spec(name, path)
            run = spec.loader.exec_module
            def exec_module(module):
                run(module)
                admit = module.Gatekeeper.admit
                async def crashing(self, request, **more):
                    if (HERE / "crash").exists():
                        raise RuntimeError(f"nobody has thought of this: {request.token}")
                    return await admit(self, request, **more)
                module.Gatekeeper.admit = crashing
                (HERE / "instrumented").touch()
            spec.loader.exec_module = exec_module
            return spec

    sys.meta_path.insert(0, Breaker())
"""


@dataclass(frozen=True)
class Opened:
    """An open front door: what clients connect to, the logs that must hold no secret, the processes that serve."""

    base: str
    logs: Sequence[Path]
    pids: Sequence[int] = ()


class Shelf(Protocol):
    """The store, in the shop's own hand; `settings` are those of `origin`."""

    settings: dict[str, str]
    secrets: Sequence[str]

    def put(self, key: str, data: bytes) -> None: ...

    def remove(self, key: str) -> None: ...


class Folder:
    """A folder of files."""

    secrets: Sequence[str] = ()

    def __init__(self, path: Path) -> None:
        path.mkdir(parents=True)
        self._path = path
        self.settings = {"url": f"file://{path}"}

    def put(self, key: str, data: bytes) -> None:
        path = self._path / key
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = self._path / ".beside"
        beside.write_bytes(data)
        beside.replace(path)

    def remove(self, key: str) -> None:
        (self._path / key).unlink(missing_ok=True)


class Bucket:
    """A bucket of the S3 server that the tests share; `s3` is its S3Server."""

    def __init__(self, s3: Any) -> None:
        self._s3 = s3
        self.secrets = (s3.secret_key,) if len(s3.secret_key) > len("secret") else ()
        self.settings = {
            "url": f"s3://{s3.bucket}/scenarios",
            "endpoint": s3.endpoint,
            "region": "us-east-1",
            "access_key": s3.access_key,
            "secret_key": s3.secret_key,
        }

    def put(self, key: str, data: bytes) -> None:
        self._s3.client.put_object(Bucket=self._s3.bucket, Key=f"scenarios/{key}", Body=data)

    def remove(self, key: str) -> None:
        self._s3.client.delete_object(Bucket=self._s3.bucket, Key=f"scenarios/{key}")


@dataclass
class Stage:
    """All that a front door needs to be opened, but for the addresses that it listens on."""

    folder: Path
    front: Front
    settings: dict[str, Any]
    shelf: Shelf
    server: RedisServer
    redis: Redis
    files: dict[str, bytes] = field(default_factory=dict)

    @classmethod
    def build(cls, folder: Path, front: Front, shelf: Shelf, more: Mapping[str, Any]) -> Stage:
        """A new one in an empty folder, its Redis running; `more` goes over the settings, section by section."""
        server = RedisServer(folder / "redis")
        server.start()
        (folder / "rules.yaml").write_text((HERE / "shop" / "rules.yaml").read_text("utf-8"), "utf-8")
        site = folder / "site"
        site.mkdir()
        (site / "sitecustomize.py").write_text(textwrap.dedent(_SITE))
        settings: dict[str, Any] = {
            "origin": shelf.settings,
            "redis": server.url,
            "keys": [{"kid": "2026-11", "alg": "HS256", "secret": SECRET, "use": "sign"}],
            "issuer": ISSUER,
            "rules": str(folder / "rules.yaml"),
            "geo": write_places(folder),
            "trusted_proxies": [f"{PROXY}/32"],
            "external_hosts": ["cdn.example.com"],
            "counting": {"repeat_window": "1h", "resume_window": "2h", "lease": "2s"},
            "drain": "1s",
        }
        return cls(folder, front, _over(settings, more), shelf, server, server.client())

    def write(self, **more: object) -> Path:
        """gateway.yaml of the settings with `more` over them, section by section."""
        path = self.folder / "gateway.yaml"
        path.write_text(json.dumps(_over(self.settings, more)), encoding="utf-8")
        return path

    @property
    def environment(self) -> dict[str, str]:
        """For the processes of the gateway: those that have it can be made to crash (`do: crash`)."""
        return {**os.environ, "PYTHONPATH": f"{self.folder / 'site'}{os.pathsep}{ROOT}"}

    @property
    def rules(self) -> Path:
        return self.folder / "rules.yaml"

    @property
    def crash(self) -> Path:
        return self.folder / "site" / "crash"

    @property
    def can_crash(self) -> bool:
        """Whether the door's processes were started with `environment`."""
        return (self.folder / "site" / "instrumented").exists()

    def put(self, key: str, size: int, version: str = "") -> None:
        """A file of `size` bytes that follow from its key and version, in the store."""
        data = contents(key, size, version)
        if self.files.get(key) != data:
            self.shelf.put(key, data)
            self.files[key] = data

    def remove(self, key: str) -> None:
        self.shelf.remove(key)
        self.files.pop(key, None)

    def used(self, token_key: str, identity: str) -> int:
        """Downloads of the file that the ledger has charged to the token."""
        return int(self.redis.hget(file_keys(0, token_key, identity)[0], "used") or 0)

    def spoil(self, token_key: str, identity: str) -> None:
        """What the ledger keeps of the file becomes something that it cannot read."""
        key = file_keys(0, token_key, identity)[0]
        self.redis.delete(key)
        self.redis.set(key, "nonsense")

    def leased(self) -> int:
        """Requests that are not settled."""
        return int(self.redis.zcard("gw:{0}:leases"))

    def last(self) -> str:
        """The newest event's place."""
        newest = self.redis.xrevrange(EVENTS, count=1)
        return str(newest[0][0]) if newest else "0"

    def events(self, after: str = "0") -> list[dict[str, str]]:
        return [fields for _, fields in self.redis.xrange(EVENTS, f"({after}" if after != "0" else "-")]

    def close(self) -> None:
        self.redis.close()
        self.server.kill()


def contents(key: str, size: int, version: str = "") -> bytes:
    """The bytes of a file: no two files have the same, and no part of one repeats."""
    return hashlib.shake_128(f"{key}\n{version}".encode()).digest(size)


def write_places(folder: Path) -> dict[str, str]:
    """The geo databases of PLACES, as the setting `geo`."""
    written = {}
    for name, kind in (("city", "City"), ("asn", "ASN"), ("anonymous", "Anonymous-IP")):
        writer = MMDBWriter(6, f"{'GeoIP2' if kind == 'Anonymous-IP' else 'GeoLite2'}-{kind}", ipv4_compatible=True)
        for network, records in PLACES.items():
            if kind in records:
                writer.insert_network(IPSet([network]), records[kind])
        written[name] = str(folder / f"{kind}.mmdb")
        writer.to_db_file(written[name])
    return written


@asynccontextmanager
async def serving(stage: Stage, **more: object) -> AsyncIterator[Opened]:
    """`gateway serve` in processes of its own: the http door, and what stands behind nginx. Its port is a free one.

    `more` goes over the settings. Raises AssertionError with its log where it does not come up.
    """
    config = stage.write(listen="127.0.0.1:0", management={"listen": "127.0.0.1:0"}, **more)
    log_file = stage.folder / "gateway.log"
    process = _start(config, log_file, stage.environment)
    try:
        for _ in range(int(PATIENCE / 0.02)):
            listening = re.search(r"listening on http://\S+?:(\d+),", log_file.read_text(errors="replace"))
            if listening:
                break
            assert process.poll() is None, log_file.read_text(errors="replace")
            await asyncio.sleep(0.02)
        else:
            raise AssertionError(f"the gateway did not start:\n{log_file.read_text(errors='replace')}")
        yield Opened(f"http://127.0.0.1:{listening[1]}", [log_file], [process.pid])
    finally:
        process.terminate()
        try:
            await asyncio.to_thread(process.wait, PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _start(config: Path, log_file: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    # It must not outlive a run that was killed; its workers follow it.
    follows = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
    command = [*follows, sys.executable, "-m", "gateway", "serve", "--config", str(config), "--workers", "1"]
    with log_file.open("wb") as log:
        return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for name, value in above.items():
        mine = merged.get(name)
        merged[name] = _over(mine, value) if isinstance(mine, dict) and isinstance(value, Mapping) else value
    return merged
