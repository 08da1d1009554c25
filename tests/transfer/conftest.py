"""A small aiohttp server on each event loop whose downloads go through the byte plane, and clients on raw sockets."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvloop
from aiohttp import web

from gateway.errors import GatewayError
from gateway.store_ports import Body, FileBody
from gateway.transfer.channel import Channel
from gateway.transfer.choose import mover_for, open_channel

MIB = 1024 * 1024
TIMEOUT = 15.0

Run = Callable[[Coroutine[Any, Any, None]], None]


@dataclass
class Chunks:
    """A StreamBody from memory, in chunks of a size that divides nothing; may say less than promised, or stall."""

    data: bytes
    size: int = 100_003
    stall_at: int | None = None
    closed: bool = False
    at: int = 0

    async def read(self) -> bytes:
        if self.stall_at is not None and self.at >= self.stall_at:
            await asyncio.sleep(3600)
        chunk = self.data[self.at : self.at + self.size]
        self.at += len(chunk)
        return chunk

    async def aclose(self) -> None:
        self.closed = True


@dataclass
class Site:
    """A running server; `channels` and `ends` (None, or what the handler met) in the order of the requests."""

    port: int
    channels: list[Channel] = field(default_factory=list)
    ends: list[BaseException | None] = field(default_factory=list)

    async def connect(self, rcvbuf: int | None = None) -> socket.socket:
        client = socket.socket()
        client.setblocking(False)
        if rcvbuf:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", self.port))
        return client

    async def ended(self, count: int = 1) -> None:
        await until(lambda: len(self.ends) >= count)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(TIMEOUT):
        while not true():  # noqa: ASYNC110 - the kernel tells of no acknowledgement
            await asyncio.sleep(0.005)


async def read_response(client: socket.socket, pause: float = 0.0) -> tuple[bytes, bytes]:
    """Head and body of the next response, as long as Content-Length says (or as the connection lasts)."""
    loop = asyncio.get_running_loop()
    data = b""
    while b"\r\n\r\n" not in data and (more := await loop.sock_recv(client, 1)):
        data += more
    length = int(data.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    body = bytearray()
    while len(body) < length and (more := await loop.sock_recv(client, min(65536, length - len(body)))):
        body += more
        if pause:
            await asyncio.sleep(pause)
    return data, bytes(body)


def get(path: str, *headers: str, version: str = "1.1") -> bytes:
    return "\r\n".join((f"GET {path} HTTP/{version}", "Host: x", *headers, "", "")).encode()


@asynccontextmanager
async def serve(
    make_body: Callable[[web.Request], tuple[Body, int]], *, window: int = MIB, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Site]:
    """Serves `make_body(request)`'s body, promised as that many bytes."""

    async def handler(request: web.Request) -> web.StreamResponse:
        body, left = make_body(request)
        response = web.StreamResponse()
        response.content_length = left
        channel = await open_channel(request, response)
        site.channels.append(channel)
        mover = mover_for(body, channel)
        end: BaseException | None = None
        try:
            while left:
                await mover.move(step := min(left, window))
                left -= step
            channel.finish()
        except (GatewayError, asyncio.CancelledError) as error:
            end = error
            channel.abort()
            if isinstance(error, asyncio.CancelledError):
                raise
        finally:
            site.ends.append(end)
            await body.aclose()
        return response

    app = web.Application()
    app.router.add_get("/{tail:.*}", handler)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    listener = socket.create_server(("127.0.0.1", 0))
    site = Site(listener.getsockname()[1])
    await web.SockSite(runner, listener, ssl_context=tls).start()
    try:
        yield site
    finally:
        for channel in site.channels:
            channel.release()
        await runner.cleanup()


@dataclass(frozen=True)
class Kit:
    """What the tests of this folder share; modules cannot import from each other."""

    chunks: type[Chunks]
    serve: Callable[..., Any]
    until: Callable[[Callable[[], bool]], Awaitable[None]]
    read_response: Callable[..., Awaitable[tuple[bytes, bytes]]]
    get: Callable[..., bytes]
    content: bytes
    path: Path

    def file_body(self, offset: int = 0, length: int | None = None) -> FileBody:
        return FileBody(os.open(self.path, os.O_RDONLY), offset, len(self.content) if length is None else length)

    def bodies(self, kind: str) -> Callable[[web.Request], tuple[Body, int]]:
        def make(_request: web.Request) -> tuple[Body, int]:
            return (self.file_body() if kind == "file" else self.chunks(self.content)), len(self.content)

        return make


@pytest.fixture(scope="session")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Kit:
    content = random.Random(7).randbytes(3 * MIB + 17)
    path = tmp_path_factory.mktemp("transfer") / "content"
    path.write_bytes(content)
    return Kit(Chunks, serve, until, read_response, get, content, path)


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a coroutine on each of the two event loops, bounded in time."""

    def run_on_loop(coroutine: Coroutine[Any, Any, None]) -> None:
        factory = uvloop.new_event_loop if request.param == "uvloop" else None
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(asyncio.wait_for(coroutine, TIMEOUT))

    return run_on_loop


@pytest.fixture(params=["file", "stream"])
def kind(request: pytest.FixtureRequest) -> str:
    """The body: a local file (sendfile) or chunks from elsewhere (copy)."""
    return str(request.param)
