"""Requests of doubtful framing to the gateway, directly and through the sample nginx: none is taken for two.

tests/fuzz/smuggling.py has the requests and the judgement, and goes on with mutations of them for as long as is wanted.
"""

from __future__ import annotations

import asyncio
import importlib.util
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

FOLDER = Path(__file__).parents[1] / "fuzz"
_spec = importlib.util.spec_from_file_location("smuggling", FOLDER / "smuggling.py")
smuggling = importlib.util.module_from_spec(_spec)
sys.modules["smuggling"] = smuggling
_spec.loader.exec_module(smuggling)

SPOOFED = "198.51.100.66"
has_nginx = pytest.mark.skipif(smuggling.PROGRAM is None, reason="nginx is not on this machine")


@pytest.fixture(scope="module")
def served(gateway):
    for number in range(smuggling.FILES):
        (gateway.folder / smuggling.name(number)).write_bytes(smuggling.content(number))
    before = len(gateway.log())
    return smuggling.Served(gateway.port, gateway.redis, gateway.token, lambda: gateway.log()[before:])


@pytest.fixture
def nginx(served, tmp_path: Path) -> Iterator[object]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    running = smuggling.Nginx(tmp_path, port, served.port, keepalive=True)
    yield running
    running.close()


async def test_nothing_hidden_is_taken_for_a_request(served) -> None:
    attacker = smuggling.Attacker(served, Random(1))
    await smuggling.directly(served, attacker.every(), attacker)


@has_nginx
async def test_nginx_and_the_gateway_see_the_same_requests(served, nginx) -> None:
    await nginx.ready()
    attacker = smuggling.Attacker(served, Random(2), count=10_000)
    await smuggling.through_nginx(served, nginx, attacker.every(), attacker, rounds=1)


@has_nginx
async def test_no_client_chooses_its_address_through_nginx(served, nginx, gateway) -> None:
    await nginx.ready()
    token = gateway.token(smuggling.name(0))
    lines = [f"X-Forwarded-For: {SPOOFED}", f"x-forwarded-for: {SPOOFED}, 127.0.0.1", f"Forwarded: for={SPOOFED}"]
    lines += [f"X_Forwarded_For: {SPOOFED}", f"X-Real-IP: {SPOOFED}", f"X-Forwarded-For : {SPOOFED}"]
    for count in (len(lines) - 1, len(lines)):
        head = "\r\n".join([f"GET /d/{token} HTTP/1.1", "Host: h", "Connection: close", *lines[:count]])
        reader, writer = await asyncio.open_connection("127.0.0.1", nginx.port)
        writer.write(f"{head}\r\n\r\n".encode())
        status = (await reader.read()).split(b" ", 2)[1]
        writer.close()
        assert status == (b"200" if count < len(lines) else b"400")
    addresses = {event["client.address"] for event in gateway.events(token) if "client.address" in event}
    assert addresses == {"127.0.0.1"}


@pytest.mark.parametrize(
    ("line", "framing", "status"),
    [
        ("GET {path}", "", b"505"),
        ("GET {path} HTTP/2.0", "", b"505"),
        ("GET {path} HTTP/1.1", "Transfer-Encoding: \r\nContent-Length: 0\r\n", b"400"),
        ("CONNECT h:80 HTTP/1.1", "Content-Length: 0\r\n", b"404"),
    ],
)
async def test_what_the_parser_lets_through_is_refused_and_ends_the_connection(
    served, line: str, framing: str, status: bytes
) -> None:
    """Found by tests/fuzz: aiohttp 3.14 takes each for a whole request, and what follows for the next one."""
    attacker = smuggling.Attacker(served, Random(3), count=20_000 + len(line + framing) * 10)
    hidden, inner = attacker.request("h")
    _, head = attacker.request("s", framing, line)
    attack = smuggling.Attack(head.encode(), "", hidden, late=inner.encode())
    await smuggling.send(served.port, attack)
    assert attack.answer.split(b" ", 2)[1] == status
    assert attack.answer.count(b"HTTP/") == 1
    assert not served.agents()[hidden]
