"""A fake S3 origin: one object over a raw socket, honest but for its fault. No real store misbehaves on demand.

Loaded by path (see test_s3_faults.py): tests are no package.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from gateway.backends import s3_client
from gateway.backends.s3 import S3Store
from gateway.backends.s3_client import Wire
from gateway.errors import GatewayError
from gateway.policy.model import ByteRange, StoredObject

ETAG = '"0123456789abcdef0123456789abcdef"'
OTHER_ETAG = '"fedcba9876543210fedcba9876543210"'
MIB = 1024 * 1024


@dataclass
class Exchange:
    """One request, and the means to answer it badly. `number` counts this method's requests from 1."""

    origin: FakeOrigin
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    method: str
    target: str
    headers: dict[str, str]
    number: int
    reused: bool

    @property
    def get(self) -> bool:
        return self.method == "GET"

    @property
    def part(self) -> tuple[int, int]:
        if "range" not in self.headers:
            return 0, len(self.origin.data)
        first, last = self.headers["range"].removeprefix("bytes=").split("-")
        return int(first), int(last) + 1

    @property
    def body(self) -> bytes:
        """What an honest answer to a GET carries."""
        start, stop = self.part
        return self.origin.data[start:stop]

    def head(self, status: str | None = None, version: str = "HTTP/1.1", **changed: str | None) -> bytes:
        """An honest head, but for `changed` (None takes a field away; `_` stands for `-`)."""
        start, stop = self.part
        size = len(self.origin.data)
        fields: dict[str, str | None] = {
            "ETag": self.origin.etag,
            "Last-Modified": "Wed, 21 Oct 2026 07:28:00 GMT",
            "Content-Type": "application/pdf",
            "Content-Length": str(stop - start),
        }
        if self.get:
            status = status or "206 Partial Content"
            fields["Content-Range"] = f"bytes {start}-{stop - 1}/{size}" if status.startswith("206") else None
        for name, value in changed.items():
            fields[name.replace("_", "-")] = value
        lines = [f"{version} {status or '200 OK'}", *(f"{n}: {v}" for n, v in fields.items() if v is not None)]
        return "\r\n".join([*lines, "", ""]).encode()

    async def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()

    async def close(self) -> None:
        """End the connection politely (FIN)."""
        self.writer.close()

    async def reset(self) -> None:
        """End it rudely (RST), once what was sent has arrived."""
        await asyncio.sleep(0.02)
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def stall(self) -> None:
        await asyncio.sleep(60)


Fault = Callable[[Exchange], Awaitable[object]]
"""Plays a fault; returns HONEST where this request is to be answered as if nothing were wrong."""
HONEST = object()


async def honest(_: Exchange) -> object:
    return HONEST


@dataclass
class FakeOrigin:
    data: bytes
    fault: Fault = honest
    etag: str = ETAG
    asked: list[Exchange] = field(default_factory=list)
    connections: int = 0
    url: str = ""
    listener: asyncio.Server | None = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        reused = False
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while not writer.transport.is_closing():
                lines = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
                method, target, _ = lines[0].split(" ")
                headers = {
                    name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])
                }
                number = 1 + sum(before.method == method for before in self.asked)
                exchange = Exchange(self, reader, writer, method, target, headers, number, reused)
                self.asked.append(exchange)
                if await self.fault(exchange) is HONEST:
                    await self.answer(exchange)
                reused = True
        writer.close()

    async def answer(self, exchange: Exchange) -> None:
        if exchange.get and exchange.headers.get("if-match", self.etag) != self.etag:
            await exchange.send(exchange.head("412 Precondition Failed", ETag=None, Content_Length="0"))
            return
        await exchange.send(exchange.head(), exchange.body if exchange.get else b"")

    def count(self, method: str) -> int:
        return sum(exchange.method == method for exchange in self.asked)


@contextlib.asynccontextmanager
async def running(
    data: bytes,
    fault: Fault = honest,
    *,
    context: ssl.SSLContext | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
) -> AsyncIterator[FakeOrigin]:
    origin = FakeOrigin(data, fault)
    tasks: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(origin.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(lambda _: writer.transport.abort())

    origin.listener = server = await asyncio.start_server(connected, host, port, ssl=context)
    origin.url = f"http{'s' if context else ''}://{host}:{server.sockets[0].getsockname()[1]}"
    try:
        yield origin
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def store_at(url: str, **wire: float) -> AsyncIterator[S3Store]:
    """A store that loses patience within a third of a second."""
    settings = {"connect_timeout": 0.3, "read_timeout": 0.3, "slow_after": 60.0, **wire}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(s3_client, "_BACK_OFF_S", 0.001)
        store = S3Store("s3://shop", endpoint=url, access_key="key", secret_key="secret", wire=Wire(**settings))
        try:
            yield store
        finally:
            await store.close()


async def download(store: S3Store, start: int = 0, stop: int | None = None) -> bytes | GatewayError:
    """The bytes of the part, or the error that the caller sees; the contract's law is checked on the way."""
    taken = bytearray()
    try:
        stored = await store.stat("a.pdf")
        return await take(store, stored, ByteRange(start, stored.size if stop is None else stop), taken)
    except GatewayError as error:
        shown = "".join(traceback.format_exception(error)) + repr(error.__context__) + repr(error.__cause__)
        assert "X-Amz" not in shown, "an error must not hold a signed address"
        return error


async def take(store: S3Store, stored: StoredObject, part: ByteRange, taken: bytearray) -> bytes:
    body = await store.open(stored, part)
    try:
        while chunk := await body.read():
            assert len(chunk) <= 256 * 1024
            taken += chunk
        return bytes(taken)
    finally:
        await body.aclose()
