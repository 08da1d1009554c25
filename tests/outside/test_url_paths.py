"""Hostile request targets: each is one route or a 4xx, and no path ever chooses what is sent; only the token does."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterable
from pathlib import Path

import pytest

MATERIAL = Path(__file__).parents[2] / ".." / "shared" / "material" / "names_urls_ips"
EVERY = 7
AT_ONCE = 16
INSIDE = "of this token"
pytestmark = [
    pytest.mark.skipif(not MATERIAL.is_dir(), reason="the outside material is not on this machine"),
    pytest.mark.timeout(120),
]


@pytest.fixture(scope="module")
def book(gateway) -> bytes:
    """The file of the token; others lie beside it, above it and outside of the origin's folder."""
    for path in (
        "books/a.pdf",
        "secret.pdf",
        "books/secret.pdf",
        "etc/passwd",
        "admin",
        "../secret.pdf",
        "../rules.yaml",
    ):
        (gateway.folder / path).parent.mkdir(exist_ok=True)
        (gateway.folder / path).write_text("of nobody")
    (gateway.folder / "books" / "book.pdf").write_text(INSIDE)
    return INSIDE.encode()


async def fetch(port: int, target: str) -> tuple[int | None, bytes]:
    """The status and body of a GET for exactly this target; no status where the connection was just closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(b"GET " + target.encode() + b" HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n")
        async with asyncio.timeout(20):
            answer = await reader.read(-1)
    finally:
        writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.count(b"HTTP/1.") <= 1
    status = re.match(rb"HTTP/1\.[01] (\d{3}) ", head)
    assert status or not answer
    assert not re.search(rb"(?im)^X-Injected", head)
    return int(status[1]) if status else None, body


async def fetch_all(gateway, targets: Iterable[str]) -> dict[str, tuple[int | None, bytes]]:
    """Every answer; checks what holds for all of them."""
    turn = asyncio.Semaphore(AT_ONCE)
    before = len(gateway.log())

    async def one(target: str) -> tuple[str, tuple[int | None, bytes]]:
        async with turn:
            return target, await fetch(gateway.port, target)

    answers = dict(await asyncio.gather(*(one(target) for target in targets)))
    for target, (status, body) in answers.items():
        assert status in {None, 200, 303, 400, 403, 404, 410}, (target, status)
        assert b"of nobody" not in body, target
        assert b"root:" not in body, target
        assert b"Traceback" not in body, target
    log = gateway.log()[before:]
    assert "Traceback" not in log
    assert "ERROR" not in log
    return answers


def expected(template: str) -> set[int | None]:
    """What a target of the list may be answered; the rest are refused."""
    return {
        "/d/TOKEN": {200},
        "/d/TOKEN?token=OTHER": {200},
        "http://127.0.0.1/d/TOKEN": {200},  # RFC 9112 §3.2.2
        "/d/TOKEN#frag": {200, 400},
    }.get(template, {None, 400, 403, 404})


async def test_request_targets(gateway, book: bytes) -> None:
    templates = json.loads((MATERIAL / "url_path_cases.json").read_text("utf-8"))["request_targets"]
    assert len(templates) >= 25
    token, other = gateway.token("books/book.pdf"), gateway.token("secret.pdf")
    targets = {template: template.replace("TOKEN", token).replace("OTHER", other) for template in templates}
    answers = await fetch_all(gateway, targets.values())
    for template, target in targets.items():
        status, body = answers[target]
        assert status in expected(template), template
        assert status != 200 or body == book
    assert not gateway.events(other)
    log = gateway.log()
    assert token not in log
    assert token.rpartition(".")[2] not in log


@pytest.mark.parametrize("name", ["patt_deep_traversal.txt", "patt_exotic_encoding.txt"])
async def test_traversals(gateway, book: bytes, name: str) -> None:
    lines = (MATERIAL / name).read_text("utf-8").splitlines()[::EVERY]
    assert len(lines) > 100
    token = gateway.token("books/book.pdf")
    fillings = ("etc/passwd", "secret.pdf", "books/secret.pdf")
    patterns = [line.replace("{FILE}", fillings[number % 3]) for number, line in enumerate(lines)]
    strange = [front + pattern for pattern in patterns for front in ("/", "/d/", "/l/", "/static/")]
    for target, (status, _) in (await fetch_all(gateway, strange)).items():
        assert status in {None, 400, 403, 404}, target
    decorated = [f"/d/{token}/1/{pattern}" for pattern in patterns]
    for target, (status, body) in (await fetch_all(gateway, decorated)).items():
        assert status in {None, 200, 400, 403, 404}, target
        assert status != 200 or body == book, target
        assert (status == 200) <= ("/" not in target.removeprefix(f"/d/{token}/1/").partition("?")[0]), target


async def test_keys_of_tokens_are_opaque(gateway, book: bytes) -> None:
    """A key is one exact name, never normalised into another file's; what cannot be one gets no token at all."""
    keys = json.loads((MATERIAL / "url_path_cases.json").read_text("utf-8"))["s3_keys"]
    present = "books/a.pdf"
    assert present in keys
    (gateway.folder / present).write_text(INSIDE)
    for key in keys:
        try:
            target = f"/d/{gateway.token(key)}"
        except ValueError:
            assert key != present
            continue
        status, body = (await fetch_all(gateway, [target]))[target]
        assert (status, body) == (200, book) if key == present else status in {400, 403, 404}, key
