"""The sender of webhooks against real servers that answer, hang, redirect, lie about who they are, or are not there."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gateway.backends.webhook_sender import HttpSender, host_of
from gateway.policy.webhooks import Answer, webhook
from gateway.settings_sections import WebhookSettings

SENT = webhook({"id": "e1", "type": "link.revoked", "time": "2026-11-21T09:30:00.125Z"}, b"k" * 24, 1_795_228_200)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[TestServer]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    async with TestServer(app) as server:
        yield server


async def sent(url: str, limit: float = 5) -> Answer:
    async with HttpSender(url, timeout=limit) as sender:
        return await sender.send(SENT)


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        *((status, "taken") for status in (200, 201, 202, 204, 299)),
        *((status, "failed") for status in (300, 301, 302, 307, 308, 400, 401, 404, 429, 500, 503)),
        (410, "gone"),
    ],
)
async def test_only_2xx_has_it(status: int, outcome: str) -> None:
    asked: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.Response(status=status, headers={"Location": "/elsewhere"})

    async with serving(handler) as server:
        assert await sent(str(server.make_url("/hook"))) == Answer(outcome, str(status))  # type: ignore[arg-type]  a row
    assert asked == ["/hook"], "no redirect is followed"


async def test_what_is_sent_arrives_as_it_is() -> None:
    came: list[tuple[str, str, bytes, dict[str, str]]] = []

    async def handler(request: web.Request) -> web.Response:
        came.append((request.method, request.raw_path, await request.read(), dict(request.headers)))
        return web.Response(headers={"Set-Cookie": "a=b"})

    async with serving(handler) as server, HttpSender(f"{server.make_url('/')}hook%27s/%7E?sig=a%2Bb%2F") as sender:
        for _ in range(2):
            await sender.send(SENT)
    method, path, body, headers = came[1]
    assert (method, path, body) == ("POST", "/hook%27s/%7E?sig=a%2Bb%2F", SENT.body)
    assert headers.items() >= SENT.headers.items()
    assert headers["User-Agent"] == "download-gateway"
    assert "Cookie" not in headers


async def test_the_connection_is_used_again_and_a_body_without_end_is_not_read() -> None:
    peers: list[object] = []
    left = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        peers.append(request.transport and request.transport.get_extra_info("peername"))
        if request.path == "/short":
            return web.Response(text="thank you")
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b"x" * 65536)
        finally:
            left.set()

    async with serving(handler) as server:
        async with HttpSender(str(server.make_url("/short"))) as sender:
            for _ in range(3):
                assert (await sender.send(SENT)).outcome == "taken"
        assert len(set(peers)) == 1
        async with asyncio.timeout(5):
            assert (await sent(str(server.make_url("/endless")))).outcome == "taken"
            await left.wait()


async def test_a_server_that_hangs_has_its_time_and_no_more() -> None:
    release = asyncio.Event()

    async def handler(_request: web.Request) -> web.Response:
        await release.wait()
        return web.Response()

    async with serving(handler) as server:
        began = asyncio.get_running_loop().time()
        assert await sent(str(server.make_url("/")), limit=0.2) == Answer("failed", "no answer in time")
        assert asyncio.get_running_loop().time() - began < 1
        release.set()


async def test_a_server_that_is_not_there_or_talks_no_http(unused_tcp_port: int) -> None:
    assert await sent(f"http://127.0.0.1:{unused_tcp_port}/?key=hidden") == Answer("failed", "no connection")

    async def rubbish(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello?key=hidden\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(rubbish, "127.0.0.1", 0)
    async with server:
        answer = await sent(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/?key=hidden")
    assert answer.outcome == "failed"
    assert "hidden" not in answer.said


def certificate(folder: Path) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    plain = serialization.NoEncryption()
    (folder / "cert.pem").write_bytes(made.public_bytes(pem))
    (folder / "key.pem").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context


async def test_a_certificate_that_nobody_vouches_for_gets_nothing(tmp_path: Path) -> None:
    asked: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.Response()

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=certificate(tmp_path))
    await site.start()
    port = runner.addresses[0][1]
    assert await sent(f"https://localhost:{port}/") == Answer("failed", "its TLS certificate is not good")
    await runner.cleanup()
    assert asked == []


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://shop.example.com/downloads?key=hidden", "shop.example.com"),
        ("https://shop.example.com:8443/x", "shop.example.com:8443"),
        ("http://[::1]:9000/", "[::1]:9000"),
    ],
)
def test_of_an_address_the_host_is_shown(url: str, host: str) -> None:
    assert host_of(url) == host


SECRET = "a secret of the shop, long enough"


@pytest.mark.parametrize(
    "url",
    [
        "https://shop.example.com/downloads",
        "https://shop.example.com:8443/a%20b?sig=x%2By&to=[1]",
        "http://127.0.0.1:9000/",
        "http://[::1]/x",
        "http://localhost:1/x",
    ],
)
def test_addresses_that_may_be_told(url: str) -> None:
    made = WebhookSettings.model_validate({"url": url, "secret": SECRET})
    assert made.url.get_secret_value() == url
    assert "sig=x" not in repr(made)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://shop.example.com/", "in the clear"),
        ("http://10.0.0.1/", "in the clear"),
        ("http://127.0.0.1.example.com/", "in the clear"),
        ("https://user:hidden@shop.example.com/", "user name"),
        ("https://shop.example.com/#hidden", "user name or a #"),
        ("https://shop.example.com/ł", "percent-encoded"),
        ("https://shop.example.com/a b", "percent-encoded"),
        ("https://shop.example.com/%zz", "percent-encoded"),
        ("https://shop.example.com/\n", "percent-encoded"),
        ("ftp://shop.example.com/", "no https://"),
        ("https:///x", "no https://"),
        ("https://shop.example.com:0/", "no https://"),
        ("https://shop.example.com:99999/", "no address"),
        ("shop.example.com", "no https://"),
    ],
)
def test_addresses_that_are_refused(url: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as refused:
        WebhookSettings.model_validate({"url": url, "secret": SECRET})
    assert "hidden" not in str(refused.value)


@pytest.mark.parametrize("change", [{"secret": "tiny"}, {"secret": "whsec_***"}, {"events": []}, {"events": ["x"]}])
def test_what_is_wrong_with_an_endpoint_is_said_at_the_start(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"24 bytes|base64|at least 1|no type of event"):
        WebhookSettings.model_validate({"url": "https://shop.example.com/", "secret": SECRET, **change})
