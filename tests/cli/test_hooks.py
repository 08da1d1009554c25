"""`gateway hooks send` against a small server, which verifies and reads what arrives as the gateway would."""

from __future__ import annotations

import asyncio
import json
import shlex
import socket
import subprocess
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from gateway.policy.orders import Notice
from gateway.shops import SHOPS
from gateway.shops.base import Ignored

Run = Callable[..., subprocess.CompletedProcess[str]]
SECRETS = {kind: f"made-up-secret-of-{kind}" for kind in SHOPS}


@dataclass
class Door:
    """Takes webhooks at /hooks/{kind}, and remembers what they said."""

    server: TestServer
    status: int = 200
    heard: list[Notice | Ignored] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return str(self.server.make_url("")).rstrip("/")


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    async def take(request: web.Request) -> web.Response:
        body, kind = await request.read(), request.path.rpartition("/")[2]
        headers = {name.lower(): (value,) for name, value in request.headers.items()}
        wrong = SHOPS[kind].verify(headers, body, [SECRETS[kind].encode()])
        made.paths.append(request.path)
        made.heard.append(SHOPS[kind].read(headers, body, 1))
        return web.json_response({"wrong": wrong}, status=made.status)

    app = web.Application()
    app.router.add_post("/{any:.*}", take)
    made = Door(TestServer(app))
    await made.server.start_server()
    yield made
    await made.server.close()


@pytest.fixture
def shops(tmp_path: Path) -> Path:
    """Settings with a shop of each kind, named as its kind; nothing of them is running."""
    shops = [
        f"{{name: {kind}, kind: {kind}, secrets: [{secret}, older]"
        + (", trust_unproven_signature: true}" if kind == "shoper" else "}")
        for kind, secret in SECRETS.items()
    ]
    path = tmp_path / "shops.yaml"
    path.write_text(
        "redis: redis://127.0.0.1:1/0\norigin: {url: file:///srv/files}\nissuer: shop.example.com\n"
        "keys: [{kid: a, alg: HS256, secret: 0123456789abcdef0123456789abcdef, use: sign}]\n"
        f"public_url: http://127.0.0.1:1\nshops: [{', '.join(shops)}]\n"
    )
    return path


@pytest.mark.parametrize("kind", SHOPS)
async def test_a_sample_is_taken(run: Run, shops: Path, door: Door, kind: str) -> None:
    options = ("--shop", kind, "--order", "10042", "--sku", "SEA", "--email", "ada@example.com", "--config", shops)
    shown = await asyncio.to_thread(run, "hooks", "send", *options, "--sample", kind, "--to", door.url)
    assert (shown.returncode, shown.stdout, shown.stderr) == (0, '200  {"wrong": ""}\n', "")
    await asyncio.to_thread(run, "hooks", "send", *options, "--to", door.url, "--refund")
    await asyncio.to_thread(run, "hooks", "send", *options, "--to", f"{door.url}/elsewhere/{kind}", "--unpaid")
    assert door.paths == [f"/hooks/{kind}", f"/hooks/{kind}", f"/elsewhere/{kind}"]
    paid, refund, unpaid = door.heard
    assert isinstance(paid, Notice)
    assert isinstance(refund, Notice)
    assert isinstance(unpaid, Notice)
    assert {each.shop_order_id for each in (paid, refund, unpaid)} == {"10042"}
    assert paid.paid
    assert paid.buyer is not None
    assert paid.buyer.email == "ada@example.com"
    assert [line.sku for line in paid.lines or ()] == ["SEA"]
    assert refund.refunds or refund.refunded or refund.cancelled
    assert not unpaid.paid


async def test_the_settings_name_the_address(run: Run, shops: Path, door: Door) -> None:
    own = {"GATEWAY_PUBLIC_URL": door.url}
    shown = await asyncio.to_thread(run, "hooks", "send", "--shop", "signed", "--json", "--config", shops, **own)
    assert json.loads(shown.stdout) == {"status": 200, "said": '{"wrong": ""}'}
    topic = ("--shop", "shopify", "--topic", "orders/cancelled", "--config", shops)
    await asyncio.to_thread(run, "hooks", "send", *topic, **own)
    assert isinstance(door.heard[1], Notice)
    assert door.heard[1].cancelled


async def test_a_refusal_is_shown_and_is_a_failure(run: Run, shops: Path, door: Door) -> None:
    door.status = 401
    shown = await asyncio.to_thread(run, "hooks", "send", "--shop", "woocommerce", "--config", shops, "--to", door.url)
    assert (shown.returncode, shown.stdout) == (1, '401  {"wrong": ""}\n')


def test_nobody_there(run: Run, shops: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://user:password@127.0.0.1:{unused.getsockname()[1]}"
        shown = run("hooks", "send", "--shop", "signed", "--config", shops, "--to", address)
    assert (shown.returncode, shown.stdout) == (1, "")
    assert "nobody took the webhook (ClientConnectorError); start `gateway serve`" in shown.stderr
    assert "password" not in shown.stderr


@pytest.mark.parametrize("kind", SHOPS)
def test_print_shows_a_curl_command_that_does_the_same(run: Run, shops: Path, kind: str) -> None:
    email = "o'hara@example.com"
    shown = run("hooks", "send", "--shop", kind, "--email", email, "--print", "--config", shops)
    assert (shown.returncode, shown.stderr) == (0, "")
    command = shlex.split(shown.stdout)
    assert (command[0], command[-1]) == ("curl", f"http://127.0.0.1:1/hooks/{kind}")
    pairs = [word.split(": ", 1) for before, word in pairwise(command) if before == "-H"]
    body = command[command.index("--data-binary") + 1].encode()
    headers = {name.lower(): (value,) for name, value in pairs}
    assert SHOPS[kind].verify(headers, body, [SECRETS[kind].encode()]) == ""
    notice = SHOPS[kind].read(headers, body, 1)
    assert isinstance(notice, Notice)
    assert notice.buyer is not None
    assert notice.buyer.email == email
    assert SECRETS[kind] not in shown.stdout


@pytest.mark.parametrize(
    ("options", "status", "line"),
    [
        (["--shop", "other"], 1, "there is no shop other; write one of shopify, woocommerce, shoper, signed"),
        (["--shop", "signed", "--sample", "shopify"], 1, "the shop signed is of the kind signed; leave out --sample"),
        ([], 2, "there are several shops; give --shop one of shopify,"),
        (["--shop", "signed", "--unpaid", "--refund"], 2, "give only one of --unpaid and --refund"),
        (["--shop", "signed", "--topic", "a\nb"], 2, "--topic has letters that no header can hold"),
        (["--shop", "signed", "--to", "127.0.0.1:8080"], 2, "--to is no address; write it like http://"),
        (["--shop", "signed", "--to", "http://["], 2, "--to is no address; write it like http://"),
        (["--sample", "magento"], 2, "'magento' is not one of"),
    ],
)
def test_wrong_use(run: Run, shops: Path, options: list[str], status: int, line: str) -> None:
    shown = run("hooks", "send", *options, "--config", shops)
    assert (shown.returncode, shown.stdout) == (status, "")
    assert line in shown.stderr


def test_the_only_shop_needs_no_name_and_none_is_an_error(run: Run, shops: Path) -> None:
    head, _, _ = shops.read_text().partition("shops:")
    shops.write_text(f"{head}shops: [{{name: main, kind: signed, secrets: [made-up]}}]\n")
    assert "/hooks/main" in run("hooks", "send", "--print", "--config", shops).stdout
    shops.write_text(head)
    shown = run("hooks", "send", "--print", "--config", shops)
    assert (shown.returncode, shown.stderr) == (
        1,
        "Error: the settings have no shops; write one under shops:, see docs/shops.md\n",
    )
