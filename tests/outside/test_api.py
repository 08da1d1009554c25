"""The management API of a gateway that runs: schemathesis on all of it, and each example of docs/api.md as written."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.bootstrap.orders import open_desk
from gateway.policy.orders import Buyer, Line, Notice
from gateway.services.identifiers import now_ms
from gateway.settings import load

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/api.md"
PATIENCE = 30.0
TOKEN = "token-of-otto-for-tests"
SETTINGS = """
listen: 127.0.0.1:0
origin: {{url: "file://{folder}/files"}}
redis: "{redis}"
issuer: shop.example.com
public_url: https://dl.example.com
keys: [{{kid: a, alg: HS256, secret: 0123456789abcdef0123456789abcdef, use: sign}}]
shops: [{{name: main, kind: signed, secrets: [0123456789abcdef0123456789abcdef]}}]
orders: {{url: "sqlite:///{folder}/orders.db"}}
products: {folder}/products.yaml
mail: {{server: "smtp+plain://127.0.0.1:9", sender: shop@example.com}}
management:
  listen: 127.0.0.1:0
  users: [{{name: otto, role: ops, token: {token}}}]
"""
PRODUCTS = "version: 1\nproducts:\n  - {sku: SEA, files: [ebooks/sea.pdf], lasts: 10d}\n"


@dataclass(frozen=True)
class Running:
    base: str
    process: subprocess.Popen[bytes]
    folder: Path

    def ask(self, path: str) -> dict[str, object]:
        with closing(http.client.HTTPConnection(self.base.removeprefix("http://"), timeout=10)) as connection:
            connection.request("GET", path, headers={"Authorization": f"Bearer {TOKEN}"})
            return dict(json.loads(connection.getresponse().read()))


@pytest.fixture
def running(tmp_path: Path, redis_db: str) -> Iterator[Running]:
    """`gateway serve` with one paid order, main-10001."""
    (tmp_path / "files/ebooks").mkdir(parents=True)
    (tmp_path / "files/ebooks/sea.pdf").write_bytes(b"%PDF")
    (tmp_path / "products.yaml").write_text(PRODUCTS)
    config = tmp_path / "gateway.yaml"
    config.write_text(SETTINGS.format(folder=tmp_path, redis=redis_db, token=TOKEN))

    async def sell() -> None:
        buyer = Buyer("buyer@example.com", "B. Buyer", "C7", "en")
        lines = (Line("1", sku="SEA", title="The Sea"),)
        async with open_desk(load(config, {})) as (_, fulfilment):
            await fulfilment.hear("main", Notice("10001", now_ms(), "#10001", paid=True, buyer=buyer, lines=lines))

    asyncio.run(sell())
    log = tmp_path / "log"
    command = [sys.executable, "-m", "gateway", "serve", "--config", str(config), "--workers", "1"]
    with log.open("wb") as written:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=written, stderr=written, env=environment)
    try:
        until = time.monotonic() + PATIENCE
        while not (said := re.search(r"management on (http://\S+)", log.read_text())):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.05)
        yield Running(said[1], process, tmp_path)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE)
    assert "Traceback" not in log.read_text()


@pytest.mark.timeout(150)
def test_schemathesis_finds_nothing(running: Running, tmp_path: Path) -> None:
    pytest.importorskip("schemathesis")
    command = [
        str(Path(sys.executable).with_name("schemathesis")),
        *("--config-file", str(Path(__file__).with_name("schemathesis.toml"))),
        *("run", f"{running.base}/api/v1/openapi.json", "--checks", "all", "--seed", "1", "--no-color"),
        *("--max-examples", "10", "--header", f"Authorization: Bearer {TOKEN}", "--warnings", "off"),
    ]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=140, check=False)
    assert found.returncode == 0, "\n".join(line[:400] for line in (found.stdout + found.stderr).splitlines())
    assert running.process.poll() is None
    # What people did in between is told of the order, and the supervisor still answers.
    assert running.ask("/api/v1/orders/main-10001/events")["events"]
    assert running.ask("/healthz") == {"alive": True}


VARYING = re.compile(r"|.*…|202\d-\d\d-\d\dT.*|[0-9a-f]{24}|\d{13}-\d")
EXAMPLES = re.findall(r"^```sh\n(curl .*?)^```\n\n```json\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not here")
def test_each_example_of_the_page_answers_as_written(running: Running) -> None:
    """In their sequence. What differs from run to run is compared by its kind alone; `…` stands for other members."""
    until = time.monotonic() + PATIENCE
    while not running.ask("/api/v1/orders/main-10001/events")["events"]:
        assert time.monotonic() < until, "what happened to the order is not told"
        time.sleep(0.05)
    known: dict[str, str] = {}
    assert len(EXAMPLES) >= 14
    for command, written in EXAMPLES:
        text = command.replace("\\\n", " ").replace("http://127.0.0.1:8081", running.base).replace("$TOKEN", TOKEN)
        for placeholder, value in known.items():
            text = text.replace(placeholder, value)
        done = subprocess.run(
            [*shlex.split(text), "--max-time", "10"], capture_output=True, text=True, timeout=20, check=True
        )
        answer, expected = json.loads(done.stdout), json.loads(written)
        _compare(answer, expected, command)
        if isinstance(expected.get("token_id"), str):
            known[expected["token_id"]] = answer["token_id"]


def _compare(answer: object, expected: object, where: str) -> None:
    if isinstance(expected, dict):
        assert isinstance(answer, dict), (where, answer)
        assert set(expected) - {"…"} <= set(answer), (where, answer)
        assert "…" in expected or len(expected) == len(answer), (where, answer)
        for name in expected.keys() - {"…"}:
            _compare(answer[name], expected[name], f"{where} {name}")
    elif isinstance(expected, list):
        assert isinstance(answer, list), (where, answer)
        assert len(answer) >= len(expected), (where, answer)
        for mine, value in zip(answer, expected, strict=False):
            _compare(mine, value, where)
    elif isinstance(expected, str) and not VARYING.fullmatch(expected):
        assert answer == expected, where
    else:
        assert type(answer) is type(expected), (where, answer)
