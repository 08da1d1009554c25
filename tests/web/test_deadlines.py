"""No peer holds a connection by being slow, silent, endless or dead; a paused reader may."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import socket
import ssl
import struct
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from gateway.web.connections import ConnectionLimits, Front, connections_within, unheard_for
from gateway.web.listener import open_sockets, tls_context

FAST = ConnectionLimits(head=0.4, keepalive=0.8, linger=0.3, dead_peer=0.7, unread=1.0, sweep=0.1)
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
SO_ATTACH_FILTER = 26
STALLED: list[str] = []
"""What the stalled handler met."""
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's tcp_info")


async def hello(_request: web.Request) -> web.Response:
    return web.Response(text="hello")


async def endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    response.content_length = 1 << 40
    await response.prepare(request)
    while True:
        await response.write(bytes(65536))


async def stalled(_request: web.Request) -> web.Response:
    STALLED.append("begun")
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        STALLED.append("cancelled")
        raise
    return web.Response()


async def breaks_off(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b"a part of it")
    raise ValueError("a fault in mid-body")


@asynccontextmanager
async def served(
    limits: ConnectionLimits = FAST, tls: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[Front, int]]:
    app = web.Application()
    app.router.add_get("/", hello)
    app.router.add_get("/endless", endless)
    app.router.add_get("/stalled", stalled)
    app.router.add_get("/breaks-off", breaks_off)
    sockets = open_sockets("127.0.0.1", 0)
    port = sockets[0].getsockname()[1]
    front = Front(app, limits)
    await front.start(sockets, tls)
    try:
        yield front, port
    finally:
        await front.finish(0.5)
        await front.cleanup()


async def gone_after(stream: Stream, patience: float = 10.0) -> float:
    """Seconds until the server ends the connection."""
    began = time.monotonic()
    try:
        async with asyncio.timeout(patience):
            while await stream[0].read(65536):
                pass
    except ConnectionError:
        pass
    finally:
        stream[1].close()
    return time.monotonic() - began


async def until(ask: Callable[[], bool], patience: float = 10.0) -> None:
    async with asyncio.timeout(patience):
        while not ask():  # noqa: ASYNC110  what is waited for is the server's inside
            await asyncio.sleep(0.02)


async def drip(stream: Stream, text: bytes, each: float = 0.05) -> None:
    try:
        for at in range(len(text)):
            stream[1].write(text[at : at + 1])
            await stream[1].drain()
            await asyncio.sleep(each)
    except ConnectionError:
        pass


async def nothing(_stream: Stream) -> None:
    return


async def half_a_head(stream: Stream) -> None:
    stream[1].write(GET[:-4])


async def head_by_the_byte(stream: Stream) -> None:
    await drip(stream, b"GET / HTTP/1.1\r\n" + b"X-A: b\r\n" * 100)


@pytest.mark.parametrize("sends", [nothing, half_a_head, head_by_the_byte])
async def test_first_head_has_its_deadline(sends: Callable[[Stream], Awaitable[None]]) -> None:
    async with served(replace(FAST, keepalive=30)) as (front, port):
        stream = await asyncio.open_connection("127.0.0.1", port)
        sending = asyncio.ensure_future(sends(stream))
        assert 0.3 < await gone_after(stream) < 4
        await sending
        await until(lambda: front.connections == 0)


async def test_next_head_has_its_deadline_from_its_first_byte() -> None:
    async with served(replace(FAST, keepalive=30)) as (_, port):
        reader, writer = stream = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(3):
            writer.write(GET)
            await reader.readuntil(b"hello")
            await asyncio.sleep(0.3)
        sending = asyncio.ensure_future(head_by_the_byte(stream))
        assert 0.3 < await gone_after(stream) < 4
        await sending


async def test_idle_connection_is_closed_after_keepalive() -> None:
    async with served() as (_, port):
        reader, writer = stream = await asyncio.open_connection("127.0.0.1", port)
        writer.write(GET)
        await reader.readuntil(b"hello")
        assert 0.6 < await gone_after(stream) < 8


async def test_running_response_outlives_every_deadline() -> None:
    async with served() as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /endless HTTP/1.1\r\nHost: a\r\n\r\n")
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            assert await reader.read(65536)
        writer.close()


async def test_a_client_that_leaves_ends_what_waits_for_an_origin() -> None:
    STALLED.clear()
    async with served() as (_, port):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /stalled HTTP/1.1\r\nHost: a\r\n\r\n")
        await until(lambda: STALLED == ["begun"])
        writer.close()
        for _ in range(100):
            await asyncio.sleep(0.02 * (len(STALLED) < 2))
        assert STALLED == ["begun", "cancelled"]


async def test_nothing_of_what_cannot_be_parsed_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for junk in (
        b"GET /d/s3cret HTTP/9.x\r\n\r\n",
        b"GET /d/" + b"s3cret" * 2000 + b" HTTP/1.1\r\n\r\n",
        b"s3cret\r\n\r\n",
        b"GET / HTTP/1.1\r\nAuthorization s3cret\r\n\r\n",
    ):
        async with served() as (_, port):
            stream = await asyncio.open_connection("127.0.0.1", port)
            stream[1].write(junk)
            assert await gone_after(stream) < 8
    assert "that is not HTTP" in caplog.text
    assert "s3cret" not in caplog.text


async def test_a_fault_in_mid_body_ends_the_connection_and_adds_no_second_answer() -> None:
    async with served() as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /breaks-off HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        rest = b""
        with suppress(ConnectionError):
            async with asyncio.timeout(5):
                rest = await reader.read()
        assert b"HTTP/" not in rest
        assert len(rest) < 1000
        writer.close()


@pytest.mark.parametrize("kind", [b"Content-Length: 1000000000", b"Transfer-Encoding: chunked"])
async def test_endless_body_to_a_get_is_cut(kind: bytes) -> None:
    async with served() as (front, port):
        reader, writer = stream = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n" + kind + b"\r\n\r\n")
        await reader.readuntil(b"hello")
        sending = asyncio.ensure_future(drip(stream, b"1\r\na\r\n" * 1000, each=0.01))
        assert await gone_after(stream) < 8
        await sending
        await until(lambda: front.connections == 0)


async def test_head_that_never_ends_is_cut_by_its_size() -> None:
    async with served(replace(FAST, head=30, keepalive=30)) as (_, port):
        stream = await asyncio.open_connection("127.0.0.1", port)
        stream[1].write(b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: %s\r\n" % (n, b"a" * 4000) for n in range(10)))
        assert await gone_after(stream) < 8


async def test_pipelining_is_bounded() -> None:
    async with served() as (_, port):
        stream = await asyncio.open_connection("127.0.0.1", port)
        stream[1].write(b"GET /endless HTTP/1.1\r\nHost: a\r\n\r\n" + GET * 20)
        assert await gone_after(stream) < 8


async def test_above_the_cap_the_oldest_idle_connection_makes_room() -> None:
    async with served(replace(FAST, head=30, keepalive=30, connections=3)) as (front, port):
        streams = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        await until(lambda: front.connections == 3)
        reader, writer = streams[0]
        writer.write(GET)  # heard of last, so the second is the oldest now
        await reader.readuntil(b"hello")
        newcomer = await asyncio.open_connection("127.0.0.1", port)
        assert await gone_after(streams[1]) < 8
        for reader, writer in (streams[0], streams[2], newcomer):
            writer.write(GET)
            await reader.readuntil(b"hello")
            writer.close()


async def test_above_the_cap_who_is_busy_stays_and_who_comes_is_closed() -> None:
    async with served(replace(FAST, head=30, keepalive=30, connections=3)) as (front, port):
        streams = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        for reader, writer in streams:
            writer.write(b"GET /endless HTTP/1.1\r\nHost: a\r\n\r\n")
            await reader.read(1)
        assert await gone_after(await asyncio.open_connection("127.0.0.1", port)) < 8
        assert front.connections == 3
        for reader, writer in streams:
            await reader.read(65536)
            writer.close()


async def pushed(writer: asyncio.StreamWriter) -> int:
    """Bytes that the other side takes until it has taken none for half a second."""
    count = 0
    with suppress(TimeoutError):
        while True:
            writer.write(bytes(16 * 1024))
            await asyncio.wait_for(writer.drain(), 0.5)
            count += 16 * 1024
    return count


async def test_a_body_that_nobody_reads_is_left_with_its_sender() -> None:
    async with served(replace(FAST, head=30, keepalive=30)) as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.transport.set_write_buffer_limits(high=0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 * 1024)
        writer.write(b"GET /endless HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n")
        await reader.read(1)
        # Its own buffer and ours; 180,000 where the kernel's defaults hold.
        assert await pushed(writer) < 140_000
        writer.transport.abort()


def go_deaf(sock: socket.socket) -> None:
    """Drop every packet that arrives for this socket, as a phone that lost its network does (BPF: `ret 0`)."""
    code = ctypes.create_string_buffer(struct.pack("=HBBI", 6, 0, 0, 0))
    program = struct.pack("@HP", 1, ctypes.addressof(code))
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)


async def reading_client(port: int) -> socket.socket:
    sock = socket.socket()
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, ("127.0.0.1", port))
    await loop.sock_sendall(sock, b"GET /endless HTTP/1.1\r\nHost: a\r\n\r\n")
    await loop.sock_recv(sock, 1000)
    return sock


@on_linux
async def test_peer_that_died_with_data_in_flight_is_cut() -> None:
    async with served() as (front, port):
        sock = await reading_client(port)
        go_deaf(sock)
        # Room in its window again, so that the server sends into the void.
        try:
            while await asyncio.wait_for(asyncio.get_running_loop().sock_recv(sock, 1 << 20), 0.1):
                pass
        except TimeoutError:
            pass
        await until(lambda: front.connections == 0)
        sock.close()


@on_linux
async def test_paused_reader_stays_and_may_go_on() -> None:
    async with served() as (front, port):
        sock = await reading_client(port)
        await asyncio.sleep(2.5)
        assert front.connections == 1
        for _ in range(100):
            assert await asyncio.get_running_loop().sock_recv(sock, 65536)
        sock.close()


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(1), now + timedelta(1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    paths = tmp_path / "certificate.pem", tmp_path / "key.pem"
    paths[0].write_bytes(signed.public_bytes(Encoding.PEM))
    paths[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return paths


async def test_tls_serves_and_bounds_the_handshake(certificate: tuple[Path, Path]) -> None:
    async with served(tls=tls_context(*certificate)) as (_, port):
        trusting = ssl.create_default_context(cafile=certificate[0])
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting, server_hostname="localhost")
        writer.write(GET)
        await reader.readuntil(b"hello")
        assert 0.6 < await gone_after((reader, writer)) < 8
        assert 0.3 < await gone_after(await asyncio.open_connection("127.0.0.1", port)) < 8


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_old_tls_is_refused(certificate: tuple[Path, Path]) -> None:
    async with served(tls=tls_context(*certificate)) as (_, port):
        old = ssl.create_default_context(cafile=certificate[0])
        old.set_ciphers("DEFAULT@SECLEVEL=0")
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.open_connection("127.0.0.1", port, ssl=old, server_hostname="localhost")


def test_idle_peer_is_not_unheard() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert unheard_for(ours) == 0.0


def test_cap_fits_the_descriptors() -> None:
    assert connections_within(1_000_000, 10_000) == 10_000
    assert connections_within(1_024, 10_000) == 204
