"""Where TLS ends here: the same bytes through the transport, and acknowledged body bytes without record overhead."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import ssl
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gateway.transfer import tcp_info
from gateway.transfer.transport_channel import TransportChannel

Run = Callable[[Coroutine[Any, Any, None]], None]
linux = pytest.mark.skipif(sys.platform != "linux", reason="acknowledged bytes are Linux's")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(address, critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return path


def contexts(certificate: Path, version: ssl.TLSVersion, ciphers: str | None) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate)
    client = ssl.create_default_context(cafile=str(certificate))
    client.minimum_version = client.maximum_version = version
    if ciphers:
        client.set_ciphers(ciphers)
    return server, client


async def download(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ask: bytes) -> bytes:
    writer.write(ask)
    head = await reader.readuntil(b"\r\n\r\n")
    return await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))


@linux
@pytest.mark.parametrize(
    ("version", "ciphers"),
    [
        (ssl.TLSVersion.TLSv1_3, None),
        (ssl.TLSVersion.TLSv1_2, "ECDHE+AESGCM"),
        (ssl.TLSVersion.TLSv1_2, "ECDHE+CHACHA20"),
    ],
)
def test_the_whole_body_is_counted_on_a_reused_connection(
    run: Run, kit: Any, kind: str, certificate: Path, version: ssl.TLSVersion, ciphers: str | None
) -> None:
    server, trust = contexts(certificate, version, ciphers)

    async def scenario() -> None:
        async with kit.serve(kit.bodies(kind), tls=server) as site:
            reader, writer = await asyncio.open_connection("127.0.0.1", site.port, ssl=trust)
            for number in range(2):
                assert await download(reader, writer, kit.get("/")) == kit.content
                await site.ended(number + 1)
                channel = site.channels[-1]
                assert isinstance(channel, TransportChannel)
                await kit.until(lambda channel=channel: channel.acknowledged() == len(kit.content))
                wire = tcp_info.tcp_info(channel._dup).bytes_acked - channel._start
                assert wire == len(kit.content) + channel._records * channel._overhead
                assert channel._plain(wire - 1) < len(kit.content), "nothing is complete one byte early"
            writer.close()

    run(scenario())


@linux
def test_a_tls_client_that_reads_a_little_and_leaves(run: Run, kit: Any, kind: str, certificate: Path) -> None:
    server, trust = contexts(certificate, ssl.TLSVersion.TLSv1_3, None)

    async def scenario() -> None:
        async with kit.serve(kit.bodies(kind), tls=server) as site:
            sock = await site.connect(rcvbuf=16 * 1024)
            reader, writer = await asyncio.open_connection(
                sock=sock, ssl=trust, server_hostname="127.0.0.1", limit=1024
            )
            writer.write(kit.get("/"))
            await reader.readexactly(1024)
            await asyncio.sleep(0.1)
            writer.transport.abort()
            await site.ended()
            (channel,) = site.channels
            await kit.until(channel.peer_gone)
            delivered = channel.acknowledged()
            assert delivered is not None
            assert 0 < delivered < channel.sent < 2 * 1024 * 1024
            await asyncio.sleep(0.05)
            assert channel.acknowledged() == delivered

    run(scenario())


def test_an_incomplete_tls_body_ends_visibly(run: Run, kit: Any, certificate: Path) -> None:
    server, trust = contexts(certificate, ssl.TLSVersion.TLSv1_3, None)

    async def scenario() -> None:
        async with kit.serve(lambda _: (kit.chunks(kit.content[:500_000]), len(kit.content)), tls=server) as site:
            reader, writer = await asyncio.open_connection("127.0.0.1", site.port, ssl=trust)
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError, ssl.SSLError)):
                await download(reader, writer, kit.get("/"))
            writer.close()

    run(scenario())
