"""Every fault of the outside list, played: the exact bytes of one ETag come out, or an error that the caller sees."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import socket
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import aiohttp
import pytest
from backends import fake_origin as fake
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from gateway.errors import FileMissing, GatewayError, OriginChanged, OriginDown, OriginTimeout

MATERIAL = Path(__file__).parents[2] / ".." / "shared" / "material" / "http"
FAULT_LIST = MATERIAL / "upstream_faults.json"
LENGTH_CASES = MATERIAL / "content_length_cases.json"
pytestmark = pytest.mark.skipif(not FAULT_LIST.is_file(), reason="the outside material is not here")

HONEST, OTHER_ETAG, MIB = fake.HONEST, fake.OTHER_ETAG, fake.MIB

SMALL = bytes(range(256)) * 4
LARGE = os.urandom(MIB + MIB // 2)
EXACT = bytes
EITHER = (bytes, OriginDown)


class Row(NamedTuple):
    """A way to play a fault: what the caller is to see, of which data and part; GETs at most."""

    expected: type | tuple[type, ...]
    fault: object
    data: bytes = SMALL
    part: tuple[int, int | None] = (0, None)
    gets: int = 2
    seconds: float = 4


def on_get(play, *, times=10_000):
    """The fault, on the first `times` GETs only."""

    async def fault(x):
        return await play(x) if x.get and x.number <= times else HONEST

    return fault


def then_on_get(first, later):
    return on_get(lambda x: (first if x.number == 1 else later)(x))


def on_any(play, *, times=10_000):
    async def fault(x):
        return await play(x) if len(x.origin.asked) <= times else HONEST

    return fault


def sends(status=None, *, body=None, then=None, cut=None, extra=b"", version="HTTP/1.1", **changed):
    """A head with changed fields, a body (of a GET, with its length unless told), and an end to the connection."""
    if body is not None:
        changed = {"Content_Length": str(len(body)), **changed}

    async def play(x):
        content = (x.body if body is None else body) if x.get else b""
        await x.send(x.head(status, version, **changed), content[:cut], extra)
        if then is not None:
            await getattr(x, then)()

    return play


def chunked(*, end=b"0\r\n\r\n", cut=None, then=None, status=None):
    async def play(x):
        await x.send(x.head(status, Content_Length=None, Transfer_Encoding="chunked"))
        content = x.body[:cut]
        for at in range(0, len(content), 300):
            piece = content[at : at + 300]
            await x.send(b"%x\r\n%s\r\n" % (len(piece), piece))
        await x.send(end)
        if then is not None:
            await getattr(x, then)()

    return play


async def trickles(x):
    await x.send(x.head())
    for byte in x.body:
        await asyncio.sleep(0.1)  # a tenth of the list's second; the store's patience is cut likewise
        await x.send(bytes([byte]))


async def large_header(x):
    await x.send(x.head(X_Large="x" * 100_000), x.body if x.get else b"")


async def many_headers(x):
    await x.send(x.head(**{f"X_{n}": "x" * 1000 for n in range(100)}), x.body if x.get else b"")


async def invalid_line(x):
    await x.send(x.head().replace(b"\r\n", b"\r\nthis is no header\r\n", 1), x.body if x.get else b"")


async def informs(x):
    early = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    await x.send(early, x.head(), x.body if x.get else b"")


async def closes_reused(x):
    return await x.close() if x.reused else HONEST


async def changes_in_the_middle(x):
    if x.get and x.number == 1:
        await x.send(x.head(), x.body[: MIB // 2])
        x.origin.etag = OTHER_ETAG
        await x.close()
        return None
    return HONEST


async def changes_unheeded(x):
    """The same, by a store that does not know If-Match."""
    if x.get and x.number > 1:
        await x.send(x.head(), x.body)
        return None
    return await changes_in_the_middle(x)


XML = b"<?xml version='1.0'?><Error><Code>InternalError</Code></Error>"
LONG_XML = XML + b" " * 300_000

PLAYED: dict[str, dict[str, Row]] = {
    "200 Content-Length larger than the body then FIN": {
        "once, of a whole answer": Row(EXACT, on_get(sends("200 OK", cut=500, then="close"), times=1)),
        "always": Row(OriginDown, on_get(sends("200 OK", cut=0, then="close"))),
        "once, of a 206": Row(EXACT, on_get(sends(cut=500, then="close"), times=1)),
        "and than the object": Row(OriginDown, on_get(sends("200 OK", Content_Length="2000", then="close"))),
        "of a 206, and than the object": Row(OriginDown, on_get(sends(Content_Length="2000", then="close"))),
    },
    "200 Content-Length smaller than the body (extra bytes)": {
        # aiohttp refuses the answer outright where the extra bytes come in one read with its head.
        "right length": Row(EITHER, on_get(sends("200 OK", extra=b"x" * 5000))),
        "right length, more than one read": Row(EXACT, on_get(sends("200 OK", extra=b"x" * 5000)), LARGE),
        "wrong length": Row(OriginDown, on_get(sends("200 OK", Content_Length="1000"))),
        "right length of a 206": Row(EITHER, on_get(sends(extra=b"x" * 5000))),
        "another answer behind it": Row(EXACT, on_get(sends(extra=b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"))),
        "no length, too much": Row(EXACT, on_get(sends(Content_Length=None, extra=b"x" * 5000, then="close"))),
    },
    "200 no Content-Length, chunked, cut before last chunk": {
        "200": Row(OriginDown, on_get(chunked(status="200 OK", end=b"", then="close"))),
        "206, all data there": Row(EXACT, on_get(chunked(end=b"", then="close"))),
        "206, in mid-chunk, once": Row(
            EXACT, on_get(chunked(cut=600, end=b"100\r\n" + SMALL[600:700], then="close"), times=1)
        ),
        "206, between chunks, once": Row(EXACT, on_get(chunked(cut=600, end=b"", then="close"), times=1)),
        "206, always before the first": Row(OriginDown, on_get(chunked(cut=0, end=b"", then="close"))),
        "206, ended politely too early": Row(EXACT, on_get(chunked(cut=500), times=1)),
    },
    "206 for another range": {
        "later": Row(OriginDown, on_get(sends(Content_Range="bytes 1-1024/1025")), gets=1),
        "shorter": Row(
            OriginDown, on_get(sends(Content_Range="bytes 0-99/1024", Content_Length="100", cut=100)), gets=1
        ),
        "whole for a part": Row(OriginDown, on_get(sends(Content_Range="bytes 0-1023/1024")), part=(5, 9), gets=1),
        "after a cut": Row(
            OriginDown,
            then_on_get(sends(cut=500, then="close"), sends(Content_Range="bytes 0-523/1024")),
        ),
    },
    "200 to a Range request": {
        "for a part": Row(OriginDown, on_get(sends("200 OK", body=SMALL)), part=(5, 9), gets=1),
        "for the whole": Row(EXACT, on_get(sends("200 OK"))),
        "after a cut": Row(
            OriginDown,
            then_on_get(sends(cut=500, then="close"), sends("200 OK", body=SMALL)),
        ),
    },
    "206 without Content-Range": {
        "whole": Row(OriginDown, on_get(sends(Content_Range=None)), gets=1),
        "multipart": Row(
            OriginDown, on_get(sends(Content_Range=None, Content_Type="multipart/byteranges; boundary=x")), gets=1
        ),
    },
    "206 Content-Range */total": {"": Row(OriginDown, on_get(sends(Content_Range="bytes */1024")), gets=1)},
    "416 although size allows": {"": Row(OriginChanged, on_get(sends("416 Range Not Satisfiable", body=XML)), gets=1)},
    "ETag changes between HEAD and GET": {
        "unheeded": Row(OriginChanged, on_get(sends(ETag=OTHER_ETAG)), gets=1),
        "412": Row(OriginChanged, on_get(sends("412 Precondition Failed", body=b"")), gets=1),
    },
    "ETag changes between two Range GETs of one download": {
        "412": Row(OriginChanged, changes_in_the_middle, LARGE, gets=2),
        "unheeded": Row(OriginChanged, changes_unheeded, LARGE, gets=2),
    },
    "weak ETag / missing ETag": {
        "weak": Row(OriginDown, on_any(sends(ETag='W/"abc"')), gets=0),
        "missing": Row(OriginDown, on_any(sends(ETag=None)), gets=0),
        "unquoted": Row(OriginDown, on_any(sends(ETag="abc")), gets=0),
        "weak at GET only": Row(OriginDown, on_get(sends(ETag=f"W/{fake.ETAG}")), gets=1),
        "missing at GET only": Row(OriginDown, on_get(sends(ETag=None)), gets=1),
    },
    "304 to an unconditional GET": {
        "": Row(OriginDown, on_get(sends("304 Not Modified", body=b"", Content_Length=None)), gets=1)
    },
    "301/307 redirect to another host (S3 region)": {
        status: Row(
            OriginDown,
            on_any(
                sends(
                    status,
                    body=XML,
                    Location="http://127.0.0.1:1/x",
                    x_amz_bucket_region="eu-central-1",
                )
            ),
            gets=0,
        )
        for status in ("301 Moved Permanently", "307 Temporary Redirect")
    },
    "403 SignatureDoesNotMatch / RequestTimeTooSkewed": {
        "HEAD": Row(OriginDown, on_any(sends("403 Forbidden", body=b"")), gets=0),
        "GET": Row(OriginDown, on_get(sends("403 Forbidden", body=XML)), gets=1),
    },
    "404 NoSuchKey with 300 kB XML": {
        "HEAD": Row(FileMissing, on_any(sends("404 Not Found", Content_Length="300000")), gets=0),
        "GET": Row(FileMissing, on_get(sends("404 Not Found", body=LONG_XML)), gets=1),
    },
    "503 SlowDown xN then 200": {
        f"N = {n}": Row(expected, on_any(sends("503 Slow Down", body=XML), times=n), gets=gets)
        for n, expected, gets in ((1, EXACT, 1), (2, OriginDown, 0), (100, OriginDown, 0))
    },
    "500 InternalError xN": {
        f"N = {n}": Row(expected, on_get(sends("500 Internal Server Error", body=XML), times=n))
        for n, expected in ((1, EXACT), (2, OriginDown), (100, OriginDown))
    },
    "200 with XML error body in it": {
        "": Row(OriginDown, on_get(sends("200 OK", body=XML, ETag=None)), gets=1),
        "of the object's size": Row(OriginDown, on_get(sends("200 OK", body=XML.ljust(1024), ETag=None)), gets=1),
    },
    "RST at byte 0 / at 1 MiB / at last byte": {
        "before the head, once": Row(EXACT, on_get(lambda x: x.reset(), times=1)),
        "before the head, always": Row(OriginDown, on_get(lambda x: x.reset())),
        "before HEAD's, always": Row(OriginDown, on_any(lambda x: x.reset()), gets=0),
        "at 0, once": Row(EXACT, on_get(sends(cut=0, then="reset"), times=1)),
        "at 0, always": Row(OriginDown, on_get(sends(cut=0, then="reset"))),
        "at 1 MiB, once": Row(EXACT, on_get(sends(cut=MIB, then="reset"), times=1), LARGE),
        "after each 100 KiB": Row(OriginDown, on_get(sends(cut=100 * 1024, then="reset")), LARGE),
        "after each byte": Row(OriginDown, on_get(sends(cut=1, then="reset"))),
        "at the last byte": Row(EXACT, on_get(sends(cut=len(LARGE) - 1, then="reset"), times=1), LARGE),
    },
    "stall forever at byte 0 / at 1 MiB": {
        "before the head": Row(OriginTimeout, on_get(lambda x: x.stall()), gets=1),
        "before HEAD's": Row(OriginTimeout, on_any(lambda x: x.stall()), gets=0),
        "in the head": Row(OriginTimeout, on_get(lambda x: x.send(b"HTTP/1.1 206 Par")), gets=1),
        "at 0, once": Row(EXACT, on_get(sends(cut=0, then="stall"), times=1)),
        "at 0, always": Row(OriginTimeout, on_get(sends(cut=0, then="stall"))),
        "at 1 MiB, once": Row(EXACT, on_get(sends(cut=MIB, then="stall"), times=1), LARGE),
        "at 1 MiB, always": Row(EXACT, on_get(sends(cut=MIB, then="stall")), LARGE),
    },
    "1 byte per second": {"": Row(EXACT, on_get(trickles), SMALL[:10], gets=1)},
    "headers 100 kB": {
        "one": Row(OriginDown, on_get(large_header)),
        "many": Row(EITHER, on_get(many_headers)),
    },
    "invalid header line": {"": Row(OriginDown, on_get(invalid_line))},
    "HTTP/1.0 close-delimited": {
        "all": Row(EXACT, on_get(sends(version="HTTP/1.0", Content_Length=None, then="close"))),
        "cut": Row(EXACT, on_get(sends(version="HTTP/1.0", Content_Length=None, cut=500, then="close"), times=1)),
        "200": Row(OriginDown, on_get(sends("200 OK", version="HTTP/1.0", Content_Length=None, then="close")), gets=1),
    },
    "gzip Content-Encoding though identity asked": {
        "HEAD": Row(OriginDown, on_any(sends(Content_Encoding="gzip")), gets=0),
        "GET": Row(OriginDown, on_get(sends(Content_Encoding="gzip", body=gzip.compress(SMALL))), gets=1),
    },
    "Content-Type text/html for a .pdf": {"": Row(EXACT, on_any(sends(Content_Type="text/html")), gets=1)},
    "DNS NXDOMAIN / SERVFAIL / timeout / changes address": {
        "NXDOMAIN": Row(OriginDown, socket.EAI_NONAME),
        "SERVFAIL": Row(OriginDown, socket.EAI_AGAIN),
        "timeout": Row(OriginTimeout, "silence"),
        "changes address": Row(EXACT, "moves"),
    },
    "connect refused / connect timeout / TLS name mismatch": {
        "refused": Row(OriginDown, "refused"),
        "timeout": Row(OriginTimeout, "full"),
        "TLS name": Row(OriginDown, "other.example"),
    },
    "keep-alive connection closed as we reuse it": {"": Row(EXACT, closes_reused, gets=2)},
    "100 Continue and 103 before 200": {"": Row(EXACT, on_any(informs), gets=1)},
    "trailers after the body": {"": Row(EXACT, on_get(chunked(end=b"0\r\nX-Checksum: abc\r\n\r\n")), gets=1)},
}

# Played below by tests of their own: the fault is in the network, not in an answer, or has a file of its own.
NETWORK = {name for name, rows in PLAYED.items() if not all(callable(row.fault) for row in rows.values())}
BY_LENGTH_CASES = "duplicate/conflicting Content-Length (content_length_cases.json)"


def test_every_fault_of_the_list_is_played():
    listed = json.loads(FAULT_LIST.read_text())["faults"]
    assert set(listed) - set(PLAYED) - {BY_LENGTH_CASES} == set()


def check(expected: type | tuple[type, ...], data: bytes, result: bytes | GatewayError) -> None:
    assert isinstance(result, expected), repr(result)
    if isinstance(result, bytes):
        assert result == data, "wrong bytes"


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, id=f"{text}: {how}" if how else text)
        for text, rows in PLAYED.items()
        if text not in NETWORK
        for how, row in rows.items()
    ],
)
async def test_exact_bytes_or_a_visible_error(row: Row):
    start, stop = row.part
    async with fake.running(row.data, row.fault) as origin, fake.store_at(origin.url) as store:
        async with asyncio.timeout(row.seconds):
            result = await fake.download(store, start, stop)
    check(row.expected, row.data[start:stop], result)
    assert origin.count("GET") <= row.gets
    assert len(origin.asked) <= 3, "amplification"


@pytest.mark.parametrize("answer", [socket.EAI_NONAME, socket.EAI_AGAIN, "silence"])
async def test_names_that_do_not_resolve(answer, monkeypatch):
    async def getaddrinfo(*_args, **_kwargs):
        if answer == "silence":
            await asyncio.sleep(60)
        raise socket.gaierror(answer, "told so")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    async with fake.store_at("http://s3.example:80") as store, asyncio.timeout(4):
        result = await fake.download(store)
    check(OriginTimeout if answer == "silence" else OriginDown, b"", result)


async def test_a_name_that_changes_its_address_in_mid_download(monkeypatch):
    """The old address dies with half of the body sent; the rest comes from the new one, of which nobody told us."""
    hosts = ["127.0.0.1"]
    resolve = asyncio.get_running_loop().getaddrinfo

    async def getaddrinfo(host, port, **kwargs):
        return await resolve(hosts[0], port, **kwargs)

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)

    async def moves(x):
        if not x.get:
            return HONEST
        hosts[0] = "127.0.0.9"
        await x.send(x.head(), x.body[: MIB // 2])
        first.listener.close()
        return await x.close()

    async with fake.running(LARGE, moves) as first:
        port = int(first.url.rpartition(":")[2])
        async with (
            fake.running(LARGE, host="127.0.0.9", port=port) as second,
            fake.store_at(f"http://s3.example:{port}") as store,
            asyncio.timeout(4),
        ):
            assert await fake.download(store) == LARGE
            assert (len(first.asked), len(second.asked)) == (2, 1)


async def test_connect_refused():
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    async with fake.store_at(f"http://127.0.0.1:{port}") as store, asyncio.timeout(4):
        check(OriginDown, b"", await fake.download(store))


async def test_connect_timeout():
    # A full accept queue: the kernel drops further SYNs.
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        address = full.getsockname()
        crowd = []
        for _ in range(3):
            sock = socket.socket()
            sock.setblocking(False)
            sock.connect_ex(address)
            crowd.append(sock)
        try:
            async with fake.store_at(f"http://127.0.0.1:{address[1]}") as store, asyncio.timeout(4):
                check(OriginTimeout, b"", await fake.download(store))
        finally:
            for sock in crowd:
                sock.close()


async def test_tls_name_mismatch(tmp_path, monkeypatch):
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "other.example")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("other.example")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = tmp_path / "other.pem"
    pem.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    # Trusted, so that only the name is wrong.
    monkeypatch.setattr(aiohttp.connector, "_SSL_CONTEXT_VERIFIED", ssl.create_default_context(cafile=pem))
    async with fake.running(SMALL, context=context) as origin, fake.store_at(origin.url) as store:
        async with asyncio.timeout(4):
            result = await fake.download(store)
    check(OriginDown, SMALL, result)
    assert "certificate" in str(result)
    assert origin.asked == []


def _length_cases():
    if not LENGTH_CASES.is_file():
        return []
    return [pytest.param(case["header"], id=case["header"]) for case in json.loads(LENGTH_CASES.read_text())["cases"]]


@pytest.mark.parametrize("method", ["HEAD", "GET"])
@pytest.mark.parametrize("size", [30, 42])
@pytest.mark.parametrize("header", _length_cases())
async def test_an_unclear_length_is_an_error_and_a_clear_one_is_kept_to(header: str, size: int, method: str):
    """Each answer carries 42 bytes, of an object of 30 or of 42."""

    async def fault(x):
        if x.method != method:
            return HONEST
        head = x.head(Content_Length=None).replace(b"\r\n\r\n", f"\r\n{header}\r\n\r\n".encode())
        await x.send(head, SMALL[:42] if x.get else b"")
        return await x.close()

    async with fake.running(SMALL[:size], fault) as origin, fake.store_at(origin.url) as store:
        async with asyncio.timeout(4):
            result = await fake.download(store)
    clear = header.removeprefix("Content-Length: ")
    right = clear.isdecimal() and int(clear) == size
    # Extra bytes in one read with the head make aiohttp refuse the answer.
    check(OriginDown if not right else EITHER if method == "GET" and size < 42 else EXACT, SMALL[:size], result)
    assert origin.count("GET") <= 3
