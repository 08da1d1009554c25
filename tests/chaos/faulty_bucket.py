"""An S3 store in the runner's own loop that breaks on demand, key by key, and counts what it was asked and has sent.

It serves the folder of a stage by GET and HEAD with Range and If-Match, and checks no signature.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self
from urllib.parse import unquote, urlsplit

from stage import Stage

NAME = "shop"
PIECE = 64 * 1024
_RANGE = re.compile(r"bytes=(\d+)-(\d+)")


@dataclass(eq=False)
class Visit:
    """One request and the means to answer it badly. `number`, `get`: of this key's requests, and of its GETs."""

    bucket: FaultyBucket
    writer: asyncio.StreamWriter
    method: str
    key: str
    headers: dict[str, str]
    content: bytes
    etag: str
    number: int
    get: int
    reused: bool

    @property
    def part(self) -> tuple[int, int]:
        found = _RANGE.fullmatch(self.headers.get("range", ""))
        return (int(found[1]), min(int(found[2]) + 1, len(self.content))) if found else (0, len(self.content))

    @property
    def body(self) -> bytes:
        """What an honest answer carries."""
        start, stop = self.part
        return self.content[start:stop] if self.method == "GET" else b""

    def head(self, status: str = "", **changed: str | None) -> bytes:
        """An honest head, but for `changed` (None takes a field away; `_` stands for `-`)."""
        start, stop = self.part
        partial = self.method == "GET" and "range" in self.headers
        status = status or ("206 Partial Content" if partial else "200 OK")
        fields: dict[str, str | None] = {
            "ETag": self.etag,
            "Last-Modified": "Wed, 21 Oct 2026 07:28:00 GMT",
            "Content-Type": "application/octet-stream",
            "Content-Length": str(stop - start),
        }
        if status.startswith("206"):
            fields["Content-Range"] = f"bytes {start}-{stop - 1}/{len(self.content)}"
        fields |= {name.replace("_", "-"): value for name, value in changed.items()}
        lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in fields.items() if value is not None)]
        return "\r\n".join([*lines, "", ""]).encode()

    async def send(self, head: bytes, body: bytes = b"") -> None:
        """Only what the kernel has taken of `body` is counted as sent."""
        self.writer.write(head)
        await self.writer.drain()
        for at in range(0, len(body), PIECE):
            piece = body[at : at + PIECE]
            self.writer.write(piece)
            await self.writer.drain()
            self.bucket.sent[self.key] += len(piece)

    async def honest(self) -> None:
        if self.headers.get("if-match", self.etag) != self.etag:
            await self.send(self.head("412 Precondition Failed", ETag=None, Content_Length="0"))
        else:
            await self.send(self.head(), self.body)

    async def close(self) -> None:
        """End the connection politely (FIN)."""
        self.writer.close()

    async def reset(self) -> None:
        """End it rudely (RST), once what was sent has arrived."""
        await asyncio.sleep(0.05)
        linger = struct.pack("ii", 1, 0)
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.writer.transport.abort()

    async def stall(self) -> None:
        await asyncio.sleep(3600)


Play = Callable[[Visit], Awaitable[None]]


async def honestly(visit: Visit) -> None:
    await visit.honest()


@dataclass(eq=False)
class FaultyBucket:
    """`faults` by key, and `fault` for every other key. `asked` and `sent` (body bytes) are the store's own word."""

    folder: Path
    host: str = "127.0.0.1"
    port: int = 0
    fault: Play = honestly
    faults: dict[str, Play] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    gets: Counter[str] = field(default_factory=Counter)
    sent: Counter[str] = field(default_factory=Counter)
    _listener: asyncio.Server | None = None
    _tasks: dict[asyncio.Task[None], asyncio.StreamWriter] = field(default_factory=dict)

    async def __aenter__(self) -> Self:
        await self.listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.leave()

    def origin(self, host: str = "") -> str:
        """What the gateway's settings say of it; it is soon out of patience."""
        endpoint = f"http://{host or self.host}:{self.port}"
        return (
            f"{{url: s3://{NAME}, endpoint: '{endpoint}', access_key: chaos, secret_key: chaos, region: eu-central-1, "
            "connect_timeout: 3s, read_timeout: 3s}"
        )

    async def listen(self) -> None:
        """Take connections, on the same port as before."""
        sock = socket.create_server((self.host, self.port), backlog=1024)
        # What waits in our own kernel is counted as sent, so let it be little.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, PIECE)
        self._listener = await asyncio.start_server(self._connected, sock=sock)
        self.port = sock.getsockname()[1]

    async def leave(self) -> None:
        """Refuse connections, and end those there are, as a store that was killed."""
        if self._listener is not None:
            self._listener.close()
        await self.drop()

    async def wait_for_gets(self, *keys: str, each: int = 1) -> None:
        """Raises AssertionError where they are not asked for within seconds."""
        for _ in range(500):
            if all(self.gets[key] >= each for key in keys):
                return
            await asyncio.sleep(0.02)
        raise AssertionError(f"the store was not asked for {keys}")

    async def drop(self) -> None:
        """End the connections there are."""
        tasks = dict(self._tasks)
        for task, writer in tasks.items():
            task.cancel()
            writer.transport.abort()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.set_write_buffer_limits(high=0)
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks[task] = writer
        task.add_done_callback(self._tasks.pop)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reused = False
        with suppress(OSError, asyncio.IncompleteReadError):
            while not writer.transport.is_closing():
                visit = self._visit(await reader.readuntil(b"\r\n\r\n"), writer, reused=reused)
                if visit is None:
                    writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
                else:
                    await self.faults.get(visit.key, self.fault)(visit)
                reused = True
        writer.close()

    def _visit(self, head: bytes, writer: asyncio.StreamWriter, *, reused: bool) -> Visit | None:
        first, *lines = head.decode().split("\r\n")
        method, target, _ = first.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        key = unquote(urlsplit(target).path).removeprefix(f"/{NAME}/")
        self.asked[key] += 1
        self.gets[key] += method == "GET"
        try:
            content, etag = self._object(key)
        except OSError:
            return None
        return Visit(self, writer, method, key, headers, content, etag, self.asked[key], self.gets[key], reused)

    def again(self, visit: Visit) -> Visit:
        """The same request, of the object as it is now."""
        content, etag = self._object(visit.key)
        return replace(visit, content=content, etag=etag)

    def _object(self, key: str) -> tuple[bytes, str]:
        with (self.folder / key).open("rb") as file:
            return file.read(), f'"{os.fstat(file.fileno()).st_mtime_ns:032x}"'


@asynccontextmanager
async def on_a_store(
    stage: Stage, name: str, *, host: str = "", command: Sequence[str] = ()
) -> AsyncIterator[tuple[Stage, FaultyBucket]]:
    """A stage beside this one whose gateway has such a store for its origin."""
    async with (
        FaultyBucket(stage.folder / name / "files") as bucket,
        stage.beside(name, workers=2, origin=bucket.origin(host), command=command) as own,
    ):
        try:
            yield own, bucket
        finally:
            stage.recoveries += own.recoveries
