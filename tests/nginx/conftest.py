"""A whole worker in this process, and the real nginx before it, with a folder or with a bucket."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiohttp import ClientSession, DummyCookieJar, web
from nginx.proxy import ABSENT, PROGRAM, REDIRECT, SECRET, Nginx
from nginx.stores import Bucket, Folder

from gateway.backends.redis_client import Wire, connect
from gateway.policy.keys import SigningKey, load_key
from gateway.policy.model import Claims, FileEntry, Limits
from gateway.policy.tokens import encode
from gateway.settings import load
from gateway.web.app import build_app
from gateway.web.status import WorkerStatus

KEY = "a secret of a shop, for tests only, 40 long"
SETTINGS = """
listen: 127.0.0.1:0
origin: {origin}
redis: "{redis}"
keys: [{{kid: "2026-11", alg: HS256, secret: "{key}", use: sign}}]
issuer: shop.example.com
trusted_proxies: [127.0.0.1/32]
external_hosts: [cdn.example.com]
counting: {{repeat_window: {window}, resume_window: 60s, lease: 2s}}
doors: {{secret: "{secret}", nginx: {{{nginx}}}}}
"""


@dataclass
class Running:
    """A gateway behind nginx: `base` is nginx's, `direct` the gateway's own address."""

    base: str
    direct: str
    nginx: Nginx
    store: Folder | Bucket
    wire: Wire
    client: ClientSession
    key: SigningKey
    status: WorkerStatus

    def token(self, *files: str, downloads: int | None = None, **changes: object) -> str:
        claims: dict[str, object] = {
            "issuer": "shop.example.com",
            "token_id": os.urandom(8).hex(),
            "expires_at": int(time.time()) + 600,
            "files": tuple(FileEntry(key=name) for name in files),
            "order_id": "10001",
            "limits": Limits(downloads=downloads),
        }
        return encode(Claims(**{**claims, **changes}), self.key)

    async def events(self) -> list[dict[str, str]]:
        """Those of requests, once each that was allowed has its closing one."""
        for _ in range(400):
            events = [fields for _, fields in await self.wire.execute("XRANGE", "gw:{0}:events", "-", "+")]
            events = [event for event in events if event["type"].startswith("download.")]
            kinds = [event["type"] for event in events]
            if kinds.count("download.allowed") == kinds.count("download.finished"):
                return events
            await asyncio.sleep(0.01)
        raise AssertionError("a request was not settled")

    async def counted(self) -> int:
        return sum(int(event.get("counted", 0)) for event in await self.events() if event["type"] == "download.allowed")


Opener = Callable[..., AbstractAsyncContextManager[Running]]


@pytest.fixture(params=["folder", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Folder | Bucket:
    return Folder(tmp_path / "files") if request.param == "folder" else Bucket(request.getfixturevalue("moto_s3"))


@pytest.fixture
def open_behind(redis_db: str, tmp_path: Path) -> Opener:
    """Opens a worker and nginx; `way`: x-accel or auth-request."""
    if PROGRAM is None:
        pytest.skip(ABSENT)

    @asynccontextmanager
    async def opened(
        way: str,
        store: Folder | Bucket,
        *,
        redis: str = redis_db,
        window: str = "60s",
        waive: str = "",
        changes: dict[str, str] | None = None,
        redirect: bool = True,
    ) -> AsyncIterator[Running]:
        file = tmp_path / "gateway.yaml"
        handed = way == "x-accel" and redirect
        nginx_settings = f"redirect: {REDIRECT}, waive: [{waive}]" if handed else ""
        text = SETTINGS.format(
            origin=store.origin, redis=redis, key=KEY, window=window, secret=SECRET, nginx=nginx_settings
        )
        if way == "auth-request":
            text = text.replace("nginx: {}", f"auth: {{waive: [{waive}]}}")
        file.write_text(text, encoding="utf-8")
        status = WorkerStatus()
        runner = web.AppRunner(await build_app(load(file, {}), status), handler_cancellation=True, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        direct = "http://{}:{}".format(*runner.addresses[0][:2])
        nginx = Nginx(tmp_path / "nginx", way, direct, files=store.path, changes=changes)
        wire = Wire(connect(redis))
        key = load_key(kid="2026-11", alg="HS256", use="sign", secret=KEY)
        assert isinstance(key, SigningKey)
        try:
            async with ClientSession(cookie_jar=DummyCookieJar(), auto_decompress=False) as client:
                yield Running(nginx.base, direct, nginx, store, wire, client, key, status)
        finally:
            nginx.close()
            await runner.cleanup()
            await wire.close()

    return opened
