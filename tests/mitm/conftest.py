"""The real mitmproxy with our plugin in front of a bucket that misbehaves on demand; one process for each module."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from backends import fake_origin as fake
from redis import Redis

from gateway.policy.keys import SigningKey, load_key
from gateway.policy.model import Claims, FileEntry, Limits
from gateway.policy.tokens import encode

ROOT = Path(__file__).parents[2]
SECRET = "a secret of a shop, for tests only, 40 long"
S3_SECRET = "the-bucket-secret-that-nobody-may-see"


class Bucket(fake.FakeOrigin):
    """Objects with faults of their own, for whoever signs, in a thread of its own."""

    def __init__(self) -> None:
        super().__init__(b"", self._play)
        self.objects: dict[str, Any] = {}
        self._up = threading.Event()
        self._stop: Callable[[], None] = lambda: None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._until_stopped()))
        self._thread.start()
        self._up.wait(5)

    def put(self, key: str, size: int, fault: Any = fake.honest) -> bytes:
        data = hashlib.shake_128(key.encode()).digest(size)
        self.objects[key] = fake.FakeOrigin(data, fault)
        return data

    def asked_for(self, key: str) -> list[Any]:
        return [each for each in self.asked if each.target.partition("?")[0].endswith("/" + key)]

    def close(self) -> None:
        self._stop()
        self._thread.join(5)

    async def _play(self, x: Any) -> object:
        if "authorization" not in x.headers and "X-Amz-Signature" not in x.target:
            return await x.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        found = self.objects.get(x.target.partition("?")[0].removeprefix("/shop/"))
        if found is None:
            return await x.send(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        x.origin = found
        return await found.fault(x)

    async def _until_stopped(self) -> None:
        loop, stopped, open_ones = asyncio.get_running_loop(), asyncio.Event(), set()
        self._stop = lambda: loop.call_soon_threadsafe(stopped.set) and None

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            open_ones.add(writer)
            try:
                await self.serve(reader, writer)
            finally:
                open_ones.discard(writer)

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self._up.set()
        await stopped.wait()
        server.close()
        for writer in list(open_ones):
            writer.transport.abort()
        await asyncio.sleep(0.05)


@dataclass
class Mitm:
    """mitmproxy as `gateway mitm` runs it, or by itself."""

    base: str
    process: subprocess.Popen[bytes]
    bucket: Bucket
    redis: Any
    log: Path
    web: str = ""
    tokens: list[str] = field(default_factory=list)

    def token(self, *files: str, **changes: object) -> str:
        limits = Limits(**{name: changes.pop(name) for name in list(changes) if name in ("downloads", "rate")})
        claims: dict[str, object] = {
            "issuer": "shop.example.com",
            "token_id": os.urandom(8).hex(),
            "expires_at": int(time.time()) + 600,
            "files": tuple(FileEntry(key=name) for name in files),
            "order_id": "10001",
            "limits": limits,
        }
        key = load_key(kid="2026-11", alg="HS256", use="sign", secret=SECRET)
        assert isinstance(key, SigningKey)
        made = encode(Claims(**{**claims, **changes}), key)
        self.tokens.append(made)
        return made

    def events(self, token: str) -> list[dict[str, str]]:
        """Of this token."""
        number = self.number(token)
        found = [{k.decode(): v.decode() for k, v in e.items()} for _, e in self.redis.xrange("gw:{0}:events")]
        return [event for event in found if event.get("token.id") == number]

    @staticmethod
    def number(token: str) -> str:
        """Its id."""
        part = token.split(".")[1]
        return str(json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))["jti"])

    def key(self, token: str) -> str:
        """What it is counted under."""
        return Claims("shop.example.com", self.number(token), 0, ()).token_key

    async def settled(self, token: str) -> list[dict[str, str]]:
        """Its closing events, once there is one for each request that was allowed."""
        for _ in range(300):
            events = self.events(token)
            closed = [each for each in events if each["type"] in ("download.finished", "download.lost")]
            if closed and len(closed) == sum(each["type"] == "download.allowed" for each in events):
                return closed
            await asyncio.sleep(0.02)
        raise AssertionError(f"not settled: {self.events(token)}\n{self.log.read_text()}")

    def memory(self) -> int:
        """Its resident bytes."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


Starter = Callable[..., AbstractContextManager[Mitm]]


@pytest.fixture(scope="session")
def mitm_python() -> Path:
    """The Python of the environment that has mitmproxy."""
    python = Path(os.environ.get("GATEWAY_TEST_MITM", ROOT / ".venv-mitm")) / "bin" / "python"
    if not python.exists():
        pytest.skip("mitmproxy is not here: run `make setup-mitm`, or name an environment in GATEWAY_TEST_MITM")
    return python


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    made = Bucket()
    yield made
    made.close()


@pytest.fixture(scope="module")
def configured(bucket: Bucket, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes a settings file in a folder of its own."""

    def written(more: str = "", redis: str = redis_url) -> Path:
        folder = tmp_path_factory.mktemp("mitm")
        rules = folder / "rules.yaml"
        rules.write_text(
            "version: 1\nrules:\n  - {name: office-always, when: {ip: 127.0.0.0/8}, then: allow}\notherwise: allow\n"
        )
        config = folder / "gateway.yaml"
        config.write_text(
            f"""listen: 127.0.0.1:0
origin: {{url: s3://shop, endpoint: "{bucket.url}", region: us-east-1, access_key: key, secret_key: {S3_SECRET},
         connect_timeout: 1s, read_timeout: 1s}}
redis: "{redis}"
keys: [{{kid: "2026-11", alg: HS256, secret: "{SECRET}", use: sign}}]
issuer: shop.example.com
rules: "{rules}"
trusted_proxies: [127.0.0.1/32]
external_hosts: [cdn.example.com]
counting: {{repeat_window: 1s, resume_window: 60s, lease: 3s}}
drain: 5s
{more}
"""
        )
        return config

    return written


@pytest.fixture(scope="module")
def start(mitm_python: Path, bucket: Bucket, redis_url: str, configured: Callable[..., Path]) -> Starter:
    """Starts one with `more` lines of settings. `command` is what stands behind the Python, `{config}` filled in;
    `base`: where it will listen, if it does not say so.
    """

    @contextmanager
    def started(
        more: str = "",
        *options: str,
        redis: str = redis_url,
        command: Sequence[str] = ("-m", "gateway", "mitm", "--config", "{config}"),
        base: str = "",
    ) -> Iterator[Mitm]:
        config = configured(more, redis)
        log = config.with_name("log")
        filled = [part.replace("{config}", str(config)) for part in command]
        with log.open("wb") as sink:
            process = subprocess.Popen([mitm_python, *filled, *options], cwd=ROOT, stdout=sink, stderr=sink)
        try:
            told, web = (base, "") if base else _told(process, log)
            with Redis.from_url(redis) as client:
                yield Mitm(told, process, bucket, client, log, web)
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            process.kill()

    return started


@pytest.fixture(scope="module")
def mitm(start: Starter, redis_url: str) -> Iterator[Mitm]:
    with Redis.from_url(redis_url) as client:
        client.flushdb()
    with start() as running:
        yield running


def _told(process: subprocess.Popen[bytes], log: Path) -> tuple[str, str]:
    for _ in range(600):
        for line in log.read_text().splitlines():
            if line.startswith("listening on "):
                first, *rest = line.removeprefix("listening on ").split(", mitmweb on ")
                return first, rest[0] if rest else ""
        assert process.poll() is None, log.read_text()
        time.sleep(0.05)
    raise AssertionError(log.read_text())
