"""A worker killed, a gateway told to stop, a Redis gone: no download is lost from the books, given away or cut."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from redis import Redis

from gateway.backends.embedded_redis import EmbeddedRedis

MIB = 1 << 20
LEASE = 2.0
SLOW_CLIENTS = 20
pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="/proc tells which worker serves a client"),
]


class Reader:
    """A client that reads as much of one answer as it is told to."""

    def __init__(self, port: int, token: str, extra: str = "") -> None:
        self.sock = socket.socket()
        self.sock.settimeout(20)
        # Fixed before the connection is made: the server's kernel cannot put much into ours.
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        self.sock.connect(("127.0.0.1", port))
        self.sock.sendall(f"GET /d/{token} HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n{extra}\r\n".encode())
        self.answer = self.sock.makefile("rb")
        self.status = int(self.answer.readline().split()[1])
        self.head = b"".join(iter(self.answer.readline, b"\r\n")).decode("latin-1")
        self.body = bytearray()

    def header(self, name: str) -> str:
        found = re.search(rf"(?im)^{name}: *(.*?)\r$", self.head)
        return found[1] if found else ""

    def read(self, count: int) -> None:
        self.body += self.answer.read(count)

    def read_all(self) -> bool:
        """Whether everything that was promised came."""
        try:
            while data := self.answer.read(64 * 1024):
                self.body += data
        except ConnectionError:
            return False
        return len(self.body) == int(self.header("Content-Length"))

    def close(self) -> None:
        self.answer.close()
        self.sock.close()


def test_killed_worker(gateway) -> None:
    """Its clients see the end at once, its leases are closed once each, and the rest of the file is free of charge."""
    data = gateway.file("films/killed.bin", 24 * MIB).read_bytes()
    token, other = (gateway.token("films/killed.bin", downloads=1) for _ in range(2))
    with closing(Reader(gateway.port, token)) as reader:
        assert reader.status == 200
        reader.read(9 * MIB)
        time.sleep(LEASE)  # which its worker goes on renewing
        assert [event["type"] for event in gateway.events(token)] == ["download.allowed"]
        pids, victim = gateway.pids(), gateway.worker_of(reader.sock)
        os.kill(victim, signal.SIGKILL)
        killed = time.monotonic()
        assert not reader.read_all()
        got = bytes(reader.body)
        assert len(got) >= 9 * MIB
        assert data.startswith(got)
    with closing(Reader(gateway.port, other)) as meanwhile:
        assert meanwhile.read_all(), "the other workers serve on"
    with closing(Reader(gateway.port, token, f"Range: bytes={len(got)}-\r\n")) as resumed:
        assert resumed.status == 206
        assert resumed.read_all()
        assert got + bytes(resumed.body) == data
    events = gateway.settled(token)
    assert time.monotonic() - killed < 4 * LEASE + 5.0
    assert sorted(event["type"] for event in events) == ["download.allowed"] * 2 + [
        "download.finished",
        "download.lost",
    ]
    lost = next(event for event in events if event["type"] == "download.lost")
    assert lost["request.id"] == reader.header("X-Request-Id")
    # The last renewal may be a lease old, and the client's kernel had taken what the client never read.
    assert 8 * MIB - MIB <= int(lost["bytes.delivered"]) <= len(got) + 2 * MIB
    assert gateway.used(token) == 1
    gateway.wait_ready(len(pids))
    assert victim not in gateway.pids()
    time.sleep(LEASE + 1.0)
    assert gateway.events(token) == events, "closed once"


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    """A Redis of the test's own, to be stopped and started."""
    server = EmbeddedRedis(tmp_path / "redis")
    yield server
    server.stop()


def test_redis_gone_and_back_and_then_the_end(start_gateway, redis: EmbeddedRedis) -> None:
    gateway = start_gateway(redis.start(), 2)
    data = gateway.file("films/a.bin", 48 * MIB).read_bytes()
    small = gateway.file("books/a.pdf", 300_000).read_bytes()
    token, begun = gateway.token("books/a.pdf"), gateway.token("films/a.bin", downloads=1)
    with closing(Reader(gateway.port, begun)) as running:
        running.read(8 * MIB)
        redis.stop()
        for _ in range(5):
            asked = time.monotonic()
            with closing(Reader(gateway.port, token)) as refused:
                assert refused.status == 503
                assert int(refused.header("Retry-After")) > 0
            assert time.monotonic() - asked < 2.0
        wait_for(lambda: gateway.ask("/readyz")[0] == 503)
        redis.start()
        back = time.monotonic()
        wait_for(lambda: status(gateway, token) == 200)
        assert time.monotonic() - back < 5.0
        wait_for(lambda: gateway.ask("/readyz")[0] == 200)
        assert running.read_all(), "what has begun outlives a short outage"
        assert bytes(running.body) == data
    assert gateway.used(begun) == 1
    assert gateway.delivered(begun) == len(data)
    with closing(Reader(gateway.port, token)) as last:
        assert last.read_all()
        assert bytes(last.body) == small
    assert "Traceback" not in gateway.log()
    assert gateway.stop() == 0


def status(gateway, token: str) -> int:
    with closing(Reader(gateway.port, token)) as reader:
        reader.read_all()
        return reader.status


def wait_for(true, patience: float = 15.0) -> None:
    until = time.monotonic() + patience
    while not true():
        assert time.monotonic() < until
        time.sleep(0.05)


async def test_told_to_stop_with_slow_downloads(start_gateway, redis: EmbeddedRedis) -> None:
    """SIGTERM: nothing new begins, what runs finishes in the drain time with its closing event, exit 0."""
    gateway = start_gateway(redis.start(), 2)
    data = gateway.file("films/b.bin", 6 * MIB).read_bytes()
    tokens = [gateway.token("films/b.bin", downloads=1) for _ in range(SLOW_CLIENTS)]
    started = asyncio.Semaphore(0)
    downloads = [asyncio.create_task(slowly(gateway.port, token, started)) for token in tokens]
    for _ in tokens:
        await asyncio.wait_for(started.acquire(), 30)
    gateway.process.send_signal(signal.SIGTERM)
    await asyncio.sleep(1.0)
    assert not any(download.done() for download in downloads)
    with pytest.raises(ConnectionError):
        await asyncio.open_connection("127.0.0.1", gateway.port)
    for body in await asyncio.wait_for(asyncio.gather(*downloads), 40):
        assert body == data
    assert await asyncio.to_thread(gateway.process.wait, 30) == 0
    with Redis.from_url(redis.start(), decode_responses=True) as events:
        gateway.redis = events
        for token in tokens:
            allowed, finished = gateway.settled(token, 0.1)
            assert (allowed["counted"], finished["outcome"]) == ("1", "complete")
            assert finished["bytes.delivered"] == str(len(data))
    assert "Traceback" not in gateway.log()


async def slowly(port: int, token: str, started: asyncio.Semaphore) -> bytes:
    """One download that takes about four seconds."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=sock, limit=32 * 1024)
    try:
        writer.write(f"GET /d/{token} HTTP/1.1\r\nHost: shop\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        started.release()
        length, body = int(re.search(rb"(?i)content-length: (\d+)", head)[1]), b""
        while len(body) < length:
            part = await reader.read(64 * 1024)
            assert part, "the download was cut"
            body += part
            await asyncio.sleep(4.0 * len(part) / length)
        return body
    finally:
        writer.close()
