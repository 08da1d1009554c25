"""What `gateway doctor` says of products, order book and mail server."""

from __future__ import annotations

import asyncio
import re
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.backends.order_book import SqlOrderBook

Run = Callable[..., subprocess.CompletedProcess[str]]


def settings(folder: Path, *more: str) -> Path:
    (folder / "files").mkdir(exist_ok=True)
    path = folder / "gateway.yaml"
    lines = [
        "redis: redis://127.0.0.1:1",
        f'origin: {{url: "file://{folder}/files"}}',
        "issuer: shop.example.com",
        "keys: [{kid: a, alg: HS256, secret: wmW3aYQ2ZLx0f9Jt7HcVkR5uB1nEoGdS, use: sign}]",
        "shops: [{name: main, kind: shopify, secrets: [wmW3aYQ2]}]",
        f'orders: {{url: "sqlite:///{folder}/orders.db"}}',
        *more,
    ]
    path.write_text("\n".join(lines))
    return path


def said(run: Run, path: Path, check: str) -> tuple[str, str]:
    """The state and the words of one check."""
    shown = run("doctor", "--config", path).stdout
    line, *_ = [line for line in shown.splitlines() if re.match(rf"\S+ +{check} ", line)]
    state, _, text = line.partition(check)
    return state.strip(), text.strip()


@pytest.mark.parametrize(
    ("written", "state", "text"),
    [
        (None, "warn", "is not set, so orders give nothing"),
        ("version: 1\nproducts: [{sku: SEA, files: [sea.pdf]}]\n", "ok", "1 can be sold"),
        ("version: 1\nproducts: [{sku: SEA, files: [sea.pdf], account: true}]\n", "warn", "opens for nobody"),
        ("version: 1\nproducts: [{sku: SEA, file: sea.pdf}]\n", "FAIL", "products.yaml:2"),
    ],
)
def test_products(run: Run, tmp_path: Path, written: str | None, state: str, text: str) -> None:
    products = tmp_path / "products.yaml"
    products.write_text(written or "")
    found = said(run, settings(tmp_path, *([f"products: {products}"] if written else [])), "products")
    assert found[0] == state
    assert text in found[1]


def test_the_book_is_looked_at_and_not_made(run: Run, tmp_path: Path) -> None:
    path = settings(tmp_path)
    assert said(run, path, "orders") == (
        "ok",
        f"{tmp_path}/orders.db is not there yet; the gateway makes it at its start",
    )
    assert not (tmp_path / "orders.db").exists()
    asyncio.run(make_book(tmp_path))
    assert said(run, path, "orders") == ("ok", "the order book answers, after 0 changes of orders")
    (tmp_path / "orders.db").write_bytes(b"not a database, but as long as its header would be, and longer")
    assert said(run, path, "orders")[0] == "FAIL"


async def make_book(folder: Path) -> None:
    book = SqlOrderBook(f"sqlite:///{folder}/orders.db")
    await book.open()
    await book.close()


def test_mail(run: Run, tmp_path: Path) -> None:
    assert said(run, settings(tmp_path), "mail")[0] == "warn"
    kept = settings(tmp_path, f'mail: {{server: "maildir://{tmp_path}/mails", sender: shop@example.com}}')
    assert said(run, kept, "mail")[0] == "warn"
    assert not (tmp_path / "mails").exists()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        mute = settings(tmp_path, f'mail: {{server: "smtp+plain://127.0.0.1:{port}", sender: shop@example.com}}')
        state, text = said(run, mute, "mail")
        assert state == "FAIL"
        assert "did not answer" in text
    state, text = said(run, mute, "mail")
    assert (state, "cannot be used" in text) == ("FAIL", True)
