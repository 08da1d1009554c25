"""Malformed and ambiguous requests, byte for byte: a refusal or an end, never a second request, a 5xx or a leak."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest

CASES = Path(__file__).parents[2] / ".." / "shared" / "material" / "http" / "raw_request_cases.json"
SIZE = 5000
SMUGGLED = "GET /d/HIDDEN HTTP/1.1\r\nHost: h\r\n\r\n"

ANSWERED = {
    "absolute-form host mismatch": [200],  # RFC 9112 §3.2.2: accepted by every server, and Host ignored
    "GET with body": [200],
    "GET Expect 100": [100, 200],
    "TRACE": [405],
}
"""The well-formed ones. All others are refused with one 4xx, or not answered at all."""

AMBIGUOUS = {
    "both lengths": f"Content-Length: {len(SMUGGLED) + 5}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": "Content-Length: 0\r\nContent-Length: 36\r\n\r\n",
    "a list of lengths": "Content-Length: 0, 36\r\n\r\n",
    "a signed length": "Content-Length: +0\r\n\r\n",
    "a length in hexadecimal": "Content-Length: 0x0\r\n\r\n",
    "a length after a line folding": "X: a\r\n Content-Length: 36\r\nContent-Length: 0\r\n\r\n",
    "an unknown coding": "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "chunked twice": "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a space before the colon": "Transfer-Encoding : chunked\r\nContent-Length: 0\r\n\r\n",
    "a vertical tab in the coding": "Transfer-Encoding: \x0bchunked\r\nContent-Length: 0\r\n\r\n",
    "a bare carriage return": "X: a\rContent-Length: 36\r\nContent-Length: 0\r\n\r\n",
    "a signed chunk": "Transfer-Encoding: chunked\r\n\r\n+0\r\n\r\n",
    "a line feed after the chunk size": "Transfer-Encoding: chunked\r\n\r\n0\n\n",
    "a NUL in a header": "X: a\x00b\r\nContent-Length: 0\r\n\r\n",
}
"""Heads of a POST after which one reader sees the body's end where another sees it later; then comes SMUGGLED."""


@dataclass
class Sent:
    """One connection: what is written to it, and what came back."""

    name: str
    raw: bytes
    token: str
    answer: bytes = b""
    lasted: float = field(default=0.0)

    def statuses(self) -> list[int]:
        return [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3}) ", self.answer)]


async def send(port: int, sent: Sent) -> None:
    """Write it all, give the server a moment, then half-close and time how long it takes to end the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    loop = asyncio.get_running_loop()
    try:
        writer.write(sent.raw)
        await take(reader, sent, 1.0)
        half_closed = loop.time()
        writer.write_eof()
        await take(reader, sent, 15.0)
        sent.lasted = loop.time() - half_closed
    except OSError:
        pass  # cut, which is an answer too
    finally:
        writer.close()


async def take(reader: asyncio.StreamReader, sent: Sent, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            while data := await reader.read(65_536):
                sent.answer += data
    except TimeoutError:
        pass


async def play(gateway, rows: list[Sent]) -> str:
    """All at once; returns what the gateway logged meanwhile. It must be unharmed, and quote nothing."""
    before, pids = len(gateway.log()), gateway.pids()
    await asyncio.gather(*(send(gateway.port, sent) for sent in rows))
    healthy = Sent("healthy", f"GET /d/{gateway.token('raw.bin')} HTTP/1.1\r\nHost: h\r\n\r\n".encode(), "")
    await send(gateway.port, healthy)
    assert healthy.statuses() == [200]
    assert healthy.answer.endswith(bytes(100))
    assert gateway.pids() == pids
    log = gateway.log()[before:]
    assert "Traceback" not in log
    assert "ERROR" not in log
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} [A-Z]+ ", line) for line in log.splitlines()), log
    for sent in rows:
        assert sent.token not in log
        assert sent.token.rpartition(".")[2] not in log
    return log


@pytest.fixture(scope="module", autouse=True)
def small(gateway) -> None:
    gateway.file("raw.bin", SIZE)


@pytest.mark.skipif(not CASES.is_file(), reason="the outside material is not on this machine")
@pytest.mark.timeout(120)
async def test_raw_requests(gateway) -> None:
    rows = []
    for case in json.loads(CASES.read_text("utf-8"))["cases"]:
        token = gateway.token("raw.bin")
        rows.append(Sent(case["id"], case["raw"].replace("/d/T", f"/d/{token}").encode("latin-1"), token))
    await play(gateway, rows)
    assert len(rows) >= 20
    for sent in rows:
        statuses = sent.statuses()
        assert sent.lasted <= 2.0, sent.name
        assert not [status for status in statuses if status >= 500], (sent.name, statuses)
        decisions = [e for e in gateway.settled(sent.token) if e["type"] in ("download.allowed", "download.denied")]
        requests = sent.raw.count(sent.token.encode())
        assert len(decisions) <= requests, sent.name
        if sent.name.startswith("pipelined"):
            assert set(statuses) <= {200}
            assert len(statuses) <= requests
        elif sent.name in ANSWERED:
            assert statuses == ANSWERED[sent.name], sent.name
        else:
            assert not decisions, sent.name
            assert not statuses or (len(statuses) == 1 and 400 <= statuses[0] < 500), (sent.name, statuses)


@pytest.mark.timeout(120)
async def test_no_request_is_smuggled(gateway) -> None:
    """RFC 9112 §6.3, §11.2: what is ambiguous is refused and the connection closed; what follows is never a request."""
    rows = []
    for name, head in AMBIGUOUS.items():
        token = gateway.token("raw.bin")
        raw = f"POST /d/{token} HTTP/1.1\r\nHost: h\r\n{head}{SMUGGLED}".replace("HIDDEN", token)
        rows.append(Sent(name, raw.encode("latin-1"), token))
    token = gateway.token("raw.bin")
    raw = f"POST /d/{token} HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n{SMUGGLED}".replace("HIDDEN", token)
    control = Sent("nothing is ambiguous", raw.encode(), token)
    await play(gateway, [*rows, control])
    assert control.statuses() == [405, 200], "a request that follows would have been seen"
    for sent in rows:
        assert not gateway.events(sent.token), sent.name
        statuses = sent.statuses()
        assert not statuses or (len(statuses) == 1 and 400 <= statuses[0] < 500), (sent.name, statuses)
