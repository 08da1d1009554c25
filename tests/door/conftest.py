"""A whole worker in this process: the real application on a real socket, a real folder and a real Redis."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiohttp import ClientSession, DummyCookieJar, web

from gateway.backends.redis_client import Wire, connect
from gateway.backends.redis_control import RedisControl
from gateway.policy.keys import SigningKey, load_key
from gateway.policy.model import Claims, FileEntry, Limits
from gateway.policy.standing import Command
from gateway.policy.tokens import encode
from gateway.settings import load
from gateway.web.app import build_app
from gateway.web.status import WorkerStatus

SECRET = "a secret of a shop, for tests only, 40 long"
SETTINGS = """
listen: 127.0.0.1:0
origin: {{url: "file://{folder}"}}
redis: "{redis}"
keys: [{{kid: "2026-11", alg: HS256, secret: "{secret}", use: sign}}]
issuer: shop.example.com
rules: "{rules}"
trusted_proxies: [127.0.0.0/8]
external_hosts: [cdn.example.com]
counting: {counting}
"""
COUNTING = "{repeat_window: 2s, resume_window: 60s, lease: 2s}"


@dataclass
class Running:
    """A gateway to ask, the folder behind it, and its Redis."""

    base: str
    folder: Path
    wire: Wire
    client: ClientSession
    key: SigningKey
    status: WorkerStatus
    rules_file: Path

    async def rules(self, text: str) -> None:
        """New rules, in force on return."""
        before = len([event for event in await self.events() if event["type"] == "rules.reloaded"])
        self.rules_file.write_text(text, encoding="utf-8")
        self.status.reload.set()
        for _ in range(200):
            if len([event for event in await self.events() if event["type"] == "rules.reloaded"]) > before:
                return
            await asyncio.sleep(0.02)
        raise AssertionError("the rules were not taken over")

    async def command(self, command: Command) -> None:
        """Revoke or extend; in force on return as soon as the worker's tail has read it."""
        await RedisControl(self.wire).append(command)

    def file(self, name: str, size: int) -> bytes:
        data = hashlib.shake_128(name.encode()).digest(size)
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return data

    def replace(self, name: str, data: bytes) -> None:
        (self.folder / name).write_bytes(data)

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
        return [fields for _, fields in await self.wire.execute("XRANGE", "gw:{0}:events", "-", "+")]

    async def settled(self) -> list[dict[str, str]]:
        """The events once every allowed request has its closing one."""
        for _ in range(400):
            events = await self.events()
            closings = [e for e in events if e["type"] in ("download.finished", "download.lost")]
            if len(closings) == sum(e["type"] == "download.allowed" for e in events):
                return events
            await asyncio.sleep(0.02)
        raise AssertionError("a request was not settled")

    async def used(self) -> int:
        """Downloads that are charged, by the events: the sum of what each one counted."""
        return sum(int(event.get("counted", 0)) for event in await self.settled())


Opener = Callable[..., AbstractAsyncContextManager[Running]]


@pytest.fixture
def open_gateway(redis_db: str, tmp_path: Path) -> Opener:
    """Opens a worker with `more` lines of settings, and variables: several one after the other, or at once, on one
    folder of files.
    """

    @asynccontextmanager
    async def opened(
        more: str = "", redis: str = redis_db, counting: str = COUNTING, port: int = 0, **environ: str
    ) -> AsyncIterator[Running]:
        folder = tmp_path / "files"
        folder.mkdir(exist_ok=True)
        settings_file = tmp_path / "gateway.yaml"
        rules = tmp_path / "rules.yaml"
        rules.write_text("version: 1\notherwise: allow\n", encoding="utf-8")
        text = SETTINGS.format(folder=folder, redis=redis, secret=SECRET, rules=rules, counting=counting)
        settings_file.write_text(text + more, encoding="utf-8")
        status = WorkerStatus()
        app = await build_app(load(settings_file, environ), status)
        runner = web.AppRunner(app, handler_cancellation=True, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", port)
        await site.start()
        host, port = runner.addresses[0][:2]
        wire = Wire(connect(redis))
        key = load_key(kid="2026-11", alg="HS256", use="sign", secret=SECRET)
        assert isinstance(key, SigningKey)
        try:
            async with ClientSession(cookie_jar=DummyCookieJar(), auto_decompress=False) as client:
                yield Running(f"http://{host}:{port}", folder, wire, client, key, status, rules)
        finally:
            await runner.cleanup()
            await wire.close()

    return opened


@pytest.fixture
async def gateway(open_gateway: Opener) -> AsyncIterator[Running]:
    async with open_gateway() as running:
        yield running
