"""The clients of a run, all on the client's core: bulk downloads, readers that stall, first bytes, and wrk."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import jwt
from machine import NotMeasured

ISSUER, KID, SECRET = "bench.example", "bench", "k" * 32
"""The key is the one in lua.conf, so that gateway and peer check the very same tokens."""
CHUNK = 1 << 20
CONNECTIONS = 32
WRK_SCRIPT = Path(__file__).with_name("requests.lua")


def mint(*files: str) -> str:
    """A fresh token for these files, with an order and no limits: as an unlimited link would be."""
    claims = {
        "iss": ISSUER,
        "aud": "download-gateway",
        "exp": int(time.time()) + 3600,
        "jti": os.urandom(12).hex(),
        "sub": "c-1042",
        "order": f"o-{os.urandom(4).hex()}",
        "files": list(files),
    }
    return jwt.encode(claims, SECRET, "HS256", headers={"kid": KID})


def _ask(sock: socket.socket, path: str) -> None:
    sock.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: bench/1\r\n\r\n".encode())


def _head(sock: socket.socket) -> tuple[int, int, bytes]:
    """Status, Content-Length, and what came of the body with the head."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = sock.recv(8192)
        if not part:
            raise ConnectionError("the server closed the connection before its head was complete")
        data += part
    head, _, rest = data.partition(b"\r\n\r\n")
    fields = dict(line.lower().split(b":", 1) for line in head.split(b"\r\n")[1:])
    return int(head.split()[1]), int(fields.get(b"content-length", 0)), rest


def _connect(port: int, receive_buffer: int = 0) -> socket.socket:
    sock = socket.socket()
    if receive_buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.settimeout(30)
    sock.connect(("127.0.0.1", port))
    return sock


def fetch(port: int, path: str) -> bytes:
    """A small body. Raises OSError where the answer is not 200."""
    with _connect(port) as sock:
        _ask(sock, path)
        status, length, body = _head(sock)
        if status != 200:
            raise ConnectionError(f"{status} {body[:200]!r}")
        while len(body) < length:
            part = sock.recv(CHUNK)
            if not part:
                raise ConnectionError("the body was cut")
            body += part
        return body


def download(port: int, paths: list[str], length: int) -> None:
    """Take these at the same time, a connection each; every body must have this length. The kernel drops the bytes."""

    def one(path: str) -> None:
        with _connect(port) as sock:
            _ask(sock, path)
            status, announced, body = _head(sock)
            if (status, announced) != (200, length):
                raise ConnectionError(f"{status} with {announced} bytes: {body[:200]!r}")
            left = length - len(body)
            buffer = bytearray(CHUNK)
            while left:
                # MSG_TRUNC (tcp(7)): taken and acknowledged, but not copied to us: the client is never the limit.
                count = sock.recv_into(buffer, min(CHUNK, left), socket.MSG_TRUNC)
                if not count:
                    raise ConnectionError("the body was cut")
                left -= count

    with ThreadPoolExecutor(len(paths)) as pool:
        list(pool.map(one, paths))


class Stalled:
    """Readers that take the head and the first bytes of a download, and then nothing more, until `close`."""

    RECEIVE_BUFFER = 32 * 1024

    def __init__(self, port: int, paths: list[str]) -> None:
        self._sockets: list[socket.socket] = []
        try:
            for first in range(0, len(paths), 50):
                opened = [_connect(port, self.RECEIVE_BUFFER) for _ in paths[first : first + 50]]
                self._sockets += opened
                for sock, path in zip(opened, paths[first:], strict=False):
                    _ask(sock, path)
                for sock in opened:
                    status, _, body = _head(sock)
                    if status != 200:
                        raise NotMeasured(f"a stalled download was answered {status}: {body[:80]!r}")
        except (OSError, NotMeasured):
            self.close()
            raise

    def close(self) -> None:
        for sock in self._sockets:
            sock.close()


def first_byte_seconds(sock: socket.socket, path: str) -> float:
    """From the request on an open connection to the first byte of its answer's body, which is then taken whole."""
    began = time.perf_counter()
    _ask(sock, path)
    status, length, body = _head(sock)
    while not body:
        body = sock.recv(CHUNK)
    took = time.perf_counter() - began
    if status != 200:
        raise NotMeasured(f"a first byte was answered {status}")
    left = length - len(body)
    while left:
        left -= len(sock.recv(CHUNK))
    return took


def open_connection(port: int) -> socket.socket:
    """A connection for `first_byte_seconds`."""
    return _connect(port)


@dataclass(frozen=True)
class Load:
    """What wrk saw: requests a second, and latencies in milliseconds."""

    requests: int
    rate: float
    p50: float
    p99: float


def wrk(port: int, paths: Path, seconds: float, *, rate: float = 0) -> Load:
    """Requests for the paths in this file, in turn, on 32 connections: as fast as can be, or at about `rate` a second.

    Raises NotMeasured where wrk is absent or an answer is an error.
    """
    program = shutil.which("wrk")
    if program is None:
        raise NotMeasured("no program wrk (Debian: wrk)")
    command = [program, "-t1", f"-c{CONNECTIONS}", f"-d{max(1, round(seconds))}s", "--timeout", "5s"]
    script = ["-s", str(WRK_SCRIPT), f"http://127.0.0.1:{port}", "--", str(paths), str(rate / CONNECTIONS)]
    shown = subprocess.run([*command, *script], capture_output=True, text=True, timeout=seconds + 30, check=False)
    result = shown.stdout.rpartition("RESULT ")[2]
    if not result:
        raise NotMeasured(f"wrk failed: {shown.stderr[-120:]}")
    told = json.loads(result)
    if told["errors"]:
        raise NotMeasured(f"{told['errors']} of {told['requests']} requests failed")
    return Load(told["requests"], told["requests"] / told["us"] * 1e6, told["p50"] / 1000, told["p99"] / 1000)
