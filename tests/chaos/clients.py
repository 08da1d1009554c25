"""One download over a raw socket, and the log of what each client saw: the audit believes this and nothing else.

Nothing is asked twice. A body is judged by the sha256 of the bytes received against the same bytes of each version.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

CHUNK = 64 * 1024
HEAD_MAX = 16 * 1024
SMALL_BUFFER = 8 * 1024
"""Bytes of receive buffer of who will leave: so little is acknowledged beyond what it reads."""
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")

Kind = Literal["good", "expired", "forged", "unknown"]


@dataclass(slots=True)
class Ticket:
    """A token as the audit knows it. `downloads`: its limit for each file. Times are time.monotonic()'s."""

    token_id: str
    files: tuple[str, ...] = ()
    kind: Kind = "good"
    downloads: int | None = None
    made: float = 0.0
    revoked: float | None = None


@dataclass(slots=True)
class Fetched:
    """One request as its client saw it. `status` 0: no answer came, and `error` says how it ended.

    `length` is what the answer promised of its body, None where it promised nothing.
    """

    token_id: str
    file: str
    method: str
    address: str
    range: str = ""
    status: int = 0
    reason: str = ""
    request_id: str = ""
    etag: str = ""
    start: int = 0
    length: int | None = None
    size: int | None = None
    received: int = 0
    sha256: str = ""
    sha_ok: bool = False
    leaked: bool = False
    error: str = ""
    began: float = 0.0
    first_byte: float = 0.0
    ended: float = 0.0

    @property
    def served(self) -> bool:
        """Whether the answer was the file's, or a part of it."""
        return self.method == "GET" and self.status in (200, 206)

    @property
    def complete(self) -> bool:
        """Whether the client must believe that it has all it was promised."""
        return self.served and not self.error and self.length in (None, self.received)

    @property
    def whole(self) -> bool:
        """Whether it is a complete body of the whole file, as one answer."""
        return self.complete and self.start == 0 and self.size == self.received


@dataclass(frozen=True, slots=True)
class Version:
    """One state of a file, kept where no fault touches it."""

    path: Path
    size: int


class Versions:
    """Every version that a file of the origin ever had, so that any slice of a body can be judged."""

    def __init__(self) -> None:
        self._versions: dict[str, list[Version]] = {}
        self._digests: dict[tuple[Path, int, int], str] = {}

    def add(self, name: str, path: Path) -> None:
        """A version of `name` with the bytes of `path`, which must stay as it is."""
        self._versions.setdefault(name, []).append(Version(path, path.stat().st_size))

    def holds(self, name: str, *, start: int, length: int, size: int | None, sha256: str) -> bool:
        """Whether a version of `size` bytes (None: any) has these bytes from `start` on."""
        return any(
            self._digest(version.path, start, length) == sha256
            for version in self._versions.get(name, ())
            if size in (None, version.size) and start + length <= version.size
        )

    def _digest(self, path: Path, start: int, length: int) -> str:
        key = (path, start, length)
        if key not in self._digests:
            digest = hashlib.sha256()
            with path.open("rb") as file:
                file.seek(start)
                left = length
                while left and (piece := file.read(min(left, 1 << 20))):
                    digest.update(piece)
                    left -= len(piece)
            self._digests[key] = digest.hexdigest()
        return self._digests[key]


class ClientLog:
    """Every request, in memory and as JSON lines in a file that outlives the run's failures."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.requests: list[Fetched] = []
        self._file = path.open("a", encoding="utf-8")

    def add(self, fetched: Fetched) -> None:
        self.requests.append(fetched)
        self._file.write(json.dumps(asdict(fetched)) + "\n")

    def close(self) -> None:
        self._file.close()


@dataclass(frozen=True, slots=True)
class Ask:
    """What a client wants. `name` is the file's among the versions; `read_limit`: leave after that many body bytes."""

    token: str
    token_id: str
    name: str
    address: str
    number: int = 1
    method: str = "GET"
    range: str = ""
    timeout: float = 30.0
    read_limit: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def signature(self) -> str:
        """What nobody may ever repeat of the token."""
        return self.token.rpartition(".")[2]

    def head(self) -> bytes:
        """The request, which asks for one answer on one connection."""
        lines = [f"{self.method} /d/{self.token}/{self.number} HTTP/1.1", "Host: shop", "Connection: close"]
        lines += [f"X-Forwarded-For: {self.address}"]
        lines += [f"Range: {self.range}"] if self.range else []
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()


async def fetch(port: int, ask: Ask, versions: Versions, log: ClientLog) -> Fetched:
    """Ask once, read the answer, log it. What goes wrong is in the log too: nothing is raised but CancelledError."""
    seen = Fetched(ask.token_id, ask.name, ask.method, ask.address, ask.range, began=time.monotonic())
    digest = hashlib.sha256()
    try:
        async with asyncio.timeout(ask.timeout):
            await _talk(port, ask, seen, digest)
    except TimeoutError:
        seen.error = "no end in time"
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as error:
        seen.error = type(error).__name__
    except asyncio.CancelledError:
        seen.error = "left"
        raise
    finally:
        seen.ended = time.monotonic()
        seen.sha256 = digest.hexdigest()
        if seen.served and seen.received:
            # An incomplete body is judged as well: its client will go on from there.
            seen.sha_ok = versions.holds(
                ask.name, start=seen.start, length=seen.received, size=seen.size, sha256=seen.sha256
            )
        log.add(seen)
    return seen


async def _talk(port: int, ask: Ask, seen: Fetched, digest: hashlib._Hash) -> None:
    sock = socket.socket()
    sock.setblocking(False)
    if ask.read_limit is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
    try:
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    except BaseException:
        sock.close()
        raise
    reader, writer = await asyncio.open_connection(sock=sock, limit=CHUNK if ask.read_limit is None else HEAD_MAX)
    try:
        writer.write(ask.head())
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        seen.leaked = ask.signature in head
        _read_head(head, seen)
        if seen.served:
            await _read_body(reader, ask, seen, digest)
        elif ask.method != "HEAD":
            await _read_refusal(reader, ask, seen)
    finally:
        writer.transport.abort()


def _read_head(head: str, seen: Fetched) -> None:
    first, *rest = head.split("\r\n")
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in rest if line)}
    seen.status = int(first.split()[1])
    seen.request_id = fields.get("x-request-id", "")
    seen.etag = fields.get("etag", "")
    length = fields.get("content-length")
    seen.length = None if length is None else int(length)
    part = _CONTENT_RANGE.fullmatch(fields.get("content-range", ""))
    if part:
        seen.start, seen.size = int(part[1]), int(part[3])
    else:
        seen.size = seen.length


async def _read_body(reader: asyncio.StreamReader, ask: Ask, seen: Fetched, digest: hashlib._Hash) -> None:
    until = seen.length if seen.length is not None else 1 << 62
    stop = until if ask.read_limit is None else min(until, ask.read_limit)
    while seen.received < stop:
        piece = await reader.read(min(CHUNK, stop - seen.received))
        if not piece:
            break
        seen.first_byte = seen.first_byte or time.monotonic()
        seen.received += len(piece)
        digest.update(piece)
    if seen.length is not None and seen.received < seen.length:
        seen.error = "left" if seen.received == stop else "cut"


async def _read_refusal(reader: asyncio.StreamReader, ask: Ask, seen: Fetched) -> None:
    body = await reader.readexactly(min(seen.length or 0, CHUNK))
    seen.leaked = seen.leaked or ask.signature.encode() in body
    with suppress(ValueError):
        seen.reason = str(json.loads(body).get("reason", ""))
