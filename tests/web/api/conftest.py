"""The API on a real Redis and a real order book, with one user of each role and one paid order."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from redis.asyncio import Redis

from gateway.bootstrap.orders import open_desk
from gateway.policy.orders import Buyer, Line, Notice
from gateway.services.identifiers import now_ms
from gateway.settings import Settings, load
from gateway.web.api.opening import open_api
from gateway.web.api.users import users_of
from gateway.web.management import build_management

TOKENS = {"read-only": "token of rita", "support": "token of sam", "ops": "token of otto"}
ORDER = "main-10001"
SETTINGS = """
origin: {{url: "file://{folder}/files"}}
redis: "{redis}"
issuer: shop.example.com
public_url: https://dl.example.com
shards: 4
keys: [{{kid: a, alg: HS256, secret: 0123456789abcdef0123456789abcdef, use: sign}}]
shops: [{{name: main, kind: signed, secrets: [0123456789abcdef0123456789abcdef]}}]
orders: {{url: "sqlite:///{folder}/orders.db"}}
products: {folder}/products.yaml
rules: {folder}/rules.yaml
mail: {{server: "smtp+plain://127.0.0.1:2525", sender: shop@example.com}}
management:
  listen: 127.0.0.1:0
  users:
    - {{name: rita, role: read-only, token: token of rita}}
    - {{name: sam, role: support, token: token of sam}}
    - {{name: otto, role: ops, token: token of otto}}
"""
RULES = "version: 1\notherwise: allow\nplans:\n  standard: {downloads: 5, valid_for: 30d}\n"
PRODUCTS = "version: 1\nproducts:\n  - {sku: SEA, files: [ebooks/sea.pdf], lasts: 10d}\n"


@dataclass(frozen=True)
class Answered:
    status: int
    body: Any
    headers: Any


Ask = Callable[..., Awaitable[Answered]]


@pytest.fixture
def settings(tmp_path: Path, redis_db: str) -> Settings:
    (tmp_path / "files/ebooks").mkdir(parents=True)
    (tmp_path / "files/ebooks/sea.pdf").write_bytes(b"%PDF")
    (tmp_path / "rules.yaml").write_text(RULES)
    (tmp_path / "products.yaml").write_text(PRODUCTS)
    path = tmp_path / "gateway.yaml"
    path.write_text(SETTINGS.format(folder=tmp_path, redis=redis_db))
    return load(path, {})


@pytest.fixture
async def paid(settings: Settings) -> str:
    """An order of the book: paid, granted, linked."""
    buyer = Buyer("buyer@example.com", "B. Buyer", "C7", "en")
    notice = Notice("10001", now_ms(), "#10001", paid=True, buyer=buyer, lines=(Line("1", sku="SEA", title="The Sea"),))
    async with open_desk(settings) as (_, fulfilment):
        await fulfilment.hear("main", notice)
    return ORDER


class Supervised:
    def views(self) -> tuple[()]:
        return ()

    def exposition(self) -> bytes:
        return b""


def application(settings: Settings, idle: float = 60.0) -> web.Application:
    return build_management(Supervised(), users_of(settings.management), open_api(settings, idle=idle))


@pytest.fixture
async def ask(settings: Settings) -> AsyncIterator[Ask]:
    """Asks as somebody of a role: `await ask("ops", "GET", "/links?order=1", {...})`."""
    async with TestClient(TestServer(application(settings))) as session:

        async def asked(role: str, method: str, path: str, body: object = None, **more: Any) -> Answered:
            headers = {"Authorization": f"Bearer {TOKENS[role]}", **more.pop("headers", {})}
            given = {"json": body} if body is not None else {}
            async with session.request(method, f"/api/v1{path}", headers=headers, **given, **more) as response:
                kind = response.headers["Content-Type"].partition(";")[0]
                assert kind == ("application/json" if response.ok else "application/problem+json")
                assert response.headers["Cache-Control"] == "no-store"
                assert "Access-Control-Allow-Origin" not in response.headers
                return Answered(response.status, await response.json(content_type=None), response.headers)

        yield asked


@pytest.fixture
async def acted(settings: Settings) -> AsyncIterator[Callable[[], Awaitable[list[dict[str, str]]]]]:
    """Everything that is on record, in Redis and still in the book, without ids and times."""
    client = Redis.from_url(settings.redis.get_secret_value(), decode_responses=True)

    async def look() -> list[dict[str, str]]:
        found: list[dict[str, str]] = []
        for shard in range(settings.shards):
            found += [fields for _, fields in await client.xrange(f"gw:{{{shard}}}:events")]
        async with open_desk(settings) as (book, _):
            found += [dict(each.fields) for each in await book.outgoing(1000)]
        own = [fields for fields in found if fields["type"] == "staff.acted"]
        kept = ("staff.name", "staff.action", "order.id", "token.id", "http.response.status_code")
        return [
            {name: fields[name] for name in kept if name in fields} for fields in sorted(own, key=lambda e: e["id"])
        ]

    yield look
    await client.aclose()
