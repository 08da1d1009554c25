"""Downloads through mitmproxy: the same answers, counts and events as at our own door."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from urllib.parse import urlsplit

import aiohttp
import pytest
from backends import fake_origin as fake

from gateway.backends.redis_client import Wire, connect
from gateway.backends.redis_control import RedisControl
from gateway.policy.model import FileEntry
from gateway.policy.standing import Command

KIB = 1024
MIB = 1024 * KIB


def url(mitm, token: str) -> str:
    return f"{mitm.base}/d/{token}"


@pytest.fixture
async def client():
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False) as session:
        yield session


async def raw(mitm, *sent: bytes, pause: float = 0) -> bytes:
    """All that comes back for these bytes."""
    where = urlsplit(mitm.base)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    for piece in sent:
        writer.write(piece)
        await asyncio.sleep(pause)
    came = b""
    try:
        async with asyncio.timeout(5):
            while chunk := await reader.read(65536):
                came += chunk
    except ConnectionResetError:
        pass
    finally:
        writer.close()
    return came


def counted(events) -> int:
    return sum(int(event.get("counted", 0)) for event in events)


async def test_a_whole_file_comes_counted_and_settled(mitm, client) -> None:
    data = mitm.bucket.put("a.pdf", 3 * MIB)
    token = mitm.token("a.pdf", downloads=1)
    async with client.get(url(mitm, token)) as answer:
        assert answer.status == 200
        assert await answer.read() == data
        assert answer.headers["Content-Disposition"].startswith("attachment")
        assert answer.headers["Server"] == "download-gateway"
        assert "gw_device=" in answer.headers["Set-Cookie"]
    (closed,) = await mitm.settled(token)
    assert (closed["outcome"], closed["bytes.delivered"], closed["front"]) == ("complete", str(3 * MIB), "mitm")
    assert counted(mitm.events(token)) == 1


async def test_the_store_is_asked_for_the_part_and_the_version_and_told_nothing_of_the_client(mitm, client) -> None:
    mitm.bucket.put("asked.pdf", 1000)
    headers = {"Range": "bytes=10-19", "Cookie": "a=b", "Authorization": "Bearer x", "X-Mine": "y"}
    async with client.get(url(mitm, mitm.token("asked.pdf")) + "/1/%2e%2e%2fx?y=z", headers=headers) as answer:
        assert (answer.status, answer.headers["Content-Range"]) == (206, "bytes 10-19/1000")
        assert len(await answer.read()) == 10
    asked = mitm.bucket.asked_for("asked.pdf")[-1]
    assert set(asked.headers) - {""} == {"host", "range", "if-match", "accept-encoding"}
    assert (asked.headers["range"], asked.headers["accept-encoding"]) == ("bytes=10-19", "identity")


async def test_a_resume_in_pieces_is_one_download(mitm, client) -> None:
    data = mitm.bucket.put("pieces.pdf", 400 * KIB)
    token = mitm.token("pieces.pdf", downloads=1)
    cookie, got = {}, b""
    for start in range(0, 400 * KIB, 200 * KIB):  # more than what a range is granted at once
        part = {"Range": f"bytes={start}-{start + 200 * KIB - 1}", **cookie}
        async with client.get(url(mitm, token), headers=part) as answer:
            assert answer.status == 206
            got += await answer.read()
            cookie = cookie or {"Cookie": answer.headers["Set-Cookie"].partition(";")[0]}
        closed = await mitm.settled(token)
        assert (closed[-1]["outcome"], closed[-1]["bytes.delivered"]) == ("complete", str(200 * KIB))
    assert got == data
    assert counted(mitm.events(token)) == 1


async def test_several_ranges_are_answered_by_the_whole(mitm, client) -> None:
    data = mitm.bucket.put("several.pdf", 5000)
    headers = {"Range": "bytes=0-1,10-11"}
    async with client.get(url(mitm, mitm.token("several.pdf")), headers=headers) as answer:
        assert (answer.status, await answer.read()) == (200, data)


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("HEAD", {}, 200),
        ("GET", {"If-None-Match": '"0123456789abcdef0123456789abcdef"'}, 304),
        ("GET", {"Range": "bytes=9000-"}, 416),
        ("GET", {"If-Match": '"another"'}, 412),
    ],
)
async def test_what_has_no_body_is_free(mitm, client, method: str, headers: dict[str, str], status: int) -> None:
    mitm.bucket.put("free.pdf", 5000)
    token = mitm.token("free.pdf", downloads=1)
    async with client.request(method, url(mitm, token), headers=headers) as answer:
        assert answer.status == status
        assert await answer.read() == b""
        assert answer.headers.get("Content-Length") == {"HEAD": "5000"}.get(method, None if status == 304 else "0")
    assert counted(mitm.events(token)) == 0


@pytest.mark.parametrize(
    ("path", "status", "reason"),
    [
        ("/d/{used}", 410, "limit.downloads"),
        ("/d/{late}", 410, "token.expired"),
        ("/d/{token}x", 403, "token.signature"),
        ("/d/{token}/7", 404, "file.unknown"),
        ("/d/{gone}", 404, "file.missing"),
        ("/z/{token}", 404, "link.unknown"),
        ("/hooks/shop", 404, "link.unknown"),
        ("/auth", 404, "link.unknown"),
        ("/", 404, "link.unknown"),
    ],
)
async def test_a_refusal_looks_as_everywhere(mitm, client, path: str, status: int, reason: str) -> None:
    mitm.bucket.put("refused.pdf", 300 * KIB)
    used = mitm.token("refused.pdf", downloads=1)
    if "used" in path:
        for _ in range(2):
            async with client.get(url(mitm, used)) as answer:
                await answer.read()
            await mitm.settled(used)
            await asyncio.sleep(1.1)  # the repeat window
    tokens = {
        "used": used,
        "late": mitm.token("refused.pdf", expires_at=int(time.time()) - 60),
        "token": mitm.token("refused.pdf"),
        "gone": mitm.token("gone.pdf"),
    }
    async with client.get(mitm.base + path.format(**tokens), headers={"Accept": "application/json"}) as answer:
        told = json.loads(await answer.read())
        assert (answer.status, answer.content_type) == (status, "application/problem+json")
        assert (told["reason"], told["status"]) == (reason, status)
        assert told["request_id"] == answer.headers["X-Request-Id"]
    async with client.get(mitm.base + path.format(**tokens), headers={"Accept": "text/html"}) as answer:
        assert (answer.status, answer.content_type) == (status, "text/html")


async def test_a_link_page_leads_to_the_file_and_offers_no_archive(mitm, client) -> None:
    mitm.bucket.put("one.pdf", 100)
    mitm.bucket.put("two.pdf", 100)
    token = mitm.token("one.pdf", "two.pdf")
    async with client.get(f"{mitm.base}/l/{token}", headers={"Accept": "text/html"}) as answer:
        page = await answer.text()
        assert answer.status == 200
        assert f"/d/{token}/2" in page
        assert "/z/" not in page


async def test_an_external_file_is_a_redirect_that_counts(mitm, client) -> None:
    token = mitm.token("x", files=(FileEntry(key=None, url="https://cdn.example.com/x.zip"),), downloads=1)
    async with client.get(url(mitm, token), allow_redirects=False) as answer:
        assert (answer.status, answer.headers["Location"]) == (302, "https://cdn.example.com/x.zip")
    assert counted(await mitm.settled(token) + mitm.events(token)) == 1


async def test_a_limit_that_this_door_cannot_keep_is_refused(mitm, client) -> None:
    mitm.bucket.put("rate.pdf", 5000)
    async with client.get(url(mitm, mitm.token("rate.pdf", rate=1000))) as answer:
        assert (answer.status, json.loads(await answer.read())["reason"]) == (403, "limit.unkept")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"POST /d/{} HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc", b"405"),
        (b"GET /d/{} HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc", b"400"),
        (b"GET /d/{} HTTP/1.1\r\nHost: a\r\nContent-Length: 90000000\r\n\r\nabc", b"400"),
        (b"PUT /d/{} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", b"405"),
        (b"GET /d/{} HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n", b"400"),
        (b"get /d/{} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", b"405"),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", b"400"),
        (b"GET http://elsewhere.example/d/x HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n", b"403"),
    ],
)
async def test_a_body_or_a_strange_target_is_refused_at_once(mitm, sent: bytes, status: bytes) -> None:
    token = mitm.token("never-asked.pdf")
    came = await raw(mitm, sent.replace(b"{}", token.encode()))
    assert came.startswith(b"HTTP/1.1 " + status), came
    assert came.count(b"HTTP/1.1 ") == 1
    assert not mitm.bucket.asked_for("never-asked.pdf")


async def test_the_client_is_whom_a_trusted_proxy_names_and_nobody_else(mitm, client) -> None:
    mitm.bucket.put("who.pdf", 100)
    for named, seen in (("198.51.100.7", "198.51.100.7"), ("203.0.113.1, 198.51.100.8", "198.51.100.8")):
        token = mitm.token("who.pdf")
        async with client.get(url(mitm, token), headers={"X-Forwarded-For": named}) as answer:
            assert answer.status == 200
            await answer.read()
        assert mitm.events(token)[0]["client.address"] == seen
    async with client.get(url(mitm, token), headers={"X-Forwarded-For": "unknown"}) as answer:
        assert (answer.status, json.loads(await answer.read())["reason"]) == (400, "request.address")


async def test_thirty_at_once_have_their_own_bytes(mitm, client) -> None:
    data = {f"many-{n}.pdf": mitm.bucket.put(f"many-{n}.pdf", 200 * KIB + n) for n in range(30)}

    async def one(name: str) -> bool:
        async with client.get(url(mitm, mitm.token(name, downloads=1))) as answer:
            return await answer.read() == data[name]

    assert all(await asyncio.gather(*(one(name) for name in data)))


async def test_a_connection_serves_one_after_the_other(mitm) -> None:
    first, second = mitm.bucket.put("first.pdf", 1000), mitm.bucket.put("second.pdf", 1000)
    lines = b"".join(
        b"GET /d/%s HTTP/1.1\r\nHost: a\r\n%s\r\n" % (mitm.token(name).encode(), last)
        for name, last in (("first.pdf", b""), ("nothing.pdf", b""), ("second.pdf", b"Connection: close\r\n"))
    )
    came = await raw(mitm, lines)
    assert came.index(first) < came.index(b"file.missing") < came.index(second)


async def test_ranges_that_outrun_the_ledger_follow_each_other_on_one_connection(mitm) -> None:
    data = mitm.bucket.put("ranges.pdf", 600 * KIB)
    asked = b"".join(
        b"GET /d/%s HTTP/1.1\r\nHost: a\r\nRange: bytes=%d-%d\r\n%s\r\n"
        % (mitm.token("ranges.pdf").encode(), start, start + 150 * KIB - 1, last)
        for start, last in ((150 * KIB, b""), (300 * KIB, b""), (450 * KIB, b"Connection: close\r\n"))
    )
    came = await raw(mitm, asked)
    assert came.count(b"HTTP/1.1 206 ") == 3
    assert came.endswith(data[450 * KIB :])


async def test_who_asks_often_at_once_gets_no_more_than_was_granted(mitm, client) -> None:
    mitm.bucket.put("greedy.pdf", 300 * KIB)
    token = mitm.token("greedy.pdf", downloads=1)

    async def got() -> int:
        count = 0
        with contextlib.suppress(aiohttp.ClientError):
            async with client.get(url(mitm, token), headers={"Range": "bytes=1-"}) as answer:
                while answer.status == 206 and (piece := await answer.content.read(MIB)):
                    count += len(piece)
        return count

    parts = await asyncio.gather(*(got() for _ in range(8)))
    closed = await mitm.settled(token)
    delivered = sum(int(event["bytes.delivered"]) for event in closed)
    assert delivered <= 405 * KIB  # the file and its slack
    assert sum(parts) <= delivered + 16 * KIB
    assert not [event for event in closed if event["outcome"] == "complete" and int(event["bytes.delivered"]) < 307199]


async def leave(mitm, token: str) -> None:
    """Begin, take a little, and be gone."""
    where = urlsplit(mitm.base)
    _, writer = await asyncio.open_connection(where.hostname, where.port)
    writer.write(f"GET /d/{token} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    await asyncio.sleep(0.5)
    writer.transport.abort()


async def test_a_client_that_leaves_is_settled_as_gone(mitm) -> None:
    mitm.bucket.put("left.pdf", 40 * MIB)
    token = mitm.token("left.pdf")
    await leave(mitm, token)
    (closed,) = await mitm.settled(token)
    assert closed["outcome"] == "client_left"
    assert 0 < int(closed["bytes.delivered"]) < 40 * MIB


async def test_a_client_that_leaves_before_the_store_answers_is_settled_too(mitm) -> None:
    async def late(x):
        if x.get:
            await asyncio.sleep(0.8)
        return fake.HONEST

    mitm.bucket.put("late.pdf", 5000, late)
    token = mitm.token("late.pdf", downloads=1)
    await leave(mitm, token)
    (closed,) = await mitm.settled(token)
    assert (closed["outcome"], closed["bytes.delivered"]) == ("client_left", "0")


def on_get(*pieces, **changed):
    async def fault(x):
        if not x.get:
            return fake.HONEST
        status = changed.get("status")
        body = changed.get("body", b"THE STORE'S OWN WORDS")
        head = {name: value for name, value in changed.items() if name not in ("status", "body")}
        await x.send(x.head(status, **({"Content_Length": str(len(body))} | head)), body)
        return await x.close()

    return fault


async def closes(x):
    return fake.HONEST if not x.get else await x.reset()


async def babbles(x):
    return fake.HONEST if not x.get else await x.send(b"no http\r\n\r\n")


async def is_silent(x):
    return fake.HONEST if not x.get else await x.stall()


@pytest.mark.parametrize(
    ("fault", "status", "reason"),
    [
        (on_get(status="403 Forbidden"), 502, "origin.down"),
        (on_get(status="404 Not Found"), 404, "file.missing"),
        (on_get(status="412 Precondition Failed"), 502, "origin.changed"),
        (on_get(status="503 Slow Down"), 502, "origin.down"),
        (on_get(status="307 Temporary Redirect", Location="http://127.0.0.1/"), 502, "origin.down"),
        (on_get(status="206 Partial Content", Content_Range="bytes 1-21/5000"), 502, "origin.down"),
        (on_get(status="200 OK", Content_Type="text/html"), 502, "origin.down"),
        (on_get(status="206 Partial Content", ETag='"another"'), 502, "origin.changed"),
        (on_get(status="206 Partial Content", Content_Encoding="gzip"), 502, "origin.down"),
        (on_get(status="101 Switching Protocols", Upgrade="websocket"), 502, "origin.down"),
        (closes, 502, "origin.down"),
        (babbles, 502, "origin.down"),
        (is_silent, 504, "origin.timeout"),
    ],
)
async def test_what_the_store_says_instead_of_the_file_goes_to_nobody(mitm, fault, status: int, reason: str) -> None:
    mitm.bucket.put("fault.pdf", 5000, fault)
    token = mitm.token("fault.pdf", downloads=1)
    came = await raw(mitm, f"GET /d/{token} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    head, _, body = came.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), came
    assert json.loads(body)["reason"] == reason
    assert b"STORE" not in came
    assert b"mitmproxy" not in came
    (closed,) = await mitm.settled(token)
    assert (closed["outcome"], closed["reason"]) == ("origin_failed", reason)
    assert (closed["bytes.delivered"], closed["http.response.status_code"]) == ("0", str(status))
    assert counted(mitm.events(token)) == 0


async def dies(x):
    if not x.get:
        return fake.HONEST
    await x.send(x.head(), x.body[:100_000])
    return await x.reset()


async def stalls(x):
    if not x.get:
        return fake.HONEST
    await x.send(x.head(), x.body[:100_000])
    return await x.stall()


async def short_and_chunked(x):
    if not x.get:
        return fake.HONEST
    await x.send(
        x.head(Content_Length=None, Transfer_Encoding="chunked"), b"186a0\r\n", x.body[:100_000], b"\r\n0\r\n\r\n"
    )
    return await x.stall()


async def long_and_chunked(x):
    if not x.get:
        return fake.HONEST
    head = x.head(Content_Length=None, Transfer_Encoding="chunked")
    return await x.send(head, b"%x\r\n" % (len(x.body) + 9), x.body, b"TOO MUCH!", b"\r\n0\r\n\r\n")


@pytest.mark.parametrize(
    ("fault", "outcome", "reason"),
    [
        (dies, "origin_failed", "origin.down"),
        (stalls, "origin_failed", "origin.timeout"),
        (short_and_chunked, "origin_failed", "origin.down"),
        (long_and_chunked, "complete", ""),
    ],
)
async def test_a_store_that_fails_in_mid_body_is_never_a_whole_file(mitm, fault, outcome: str, reason: str) -> None:
    data = mitm.bucket.put("broken.pdf", 300_000, fault)
    token = mitm.token("broken.pdf")
    came = await raw(mitm, f"GET /d/{token} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
    body = came.partition(b"\r\n\r\n")[2]
    assert data.startswith(body)
    (closed,) = await mitm.settled(token)
    assert (closed["outcome"], closed.get("reason", "")) == (outcome, reason)
    assert len(body) <= int(closed["bytes.delivered"]) == (300_000 if outcome == "complete" else 100_000)


async def test_a_revoked_link_is_cut_within_five_seconds(mitm, redis_url: str) -> None:
    mitm.bucket.put("revoked.pdf", 60 * MIB)
    token = mitm.token("revoked.pdf")
    where = urlsplit(mitm.base)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    writer.write(f"GET /d/{token} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    assert (await reader.read(1000)).startswith(b"HTTP/1.1 200")
    began = time.monotonic()
    wire = Wire(connect(redis_url))
    await RedisControl(wire).append(Command("revoke", int(time.time()), token_key=mitm.key(token)))
    await wire.close()
    (closed,) = await mitm.settled(token)
    writer.transport.abort()
    assert time.monotonic() - began < 5
    assert (closed["outcome"], closed["reason"]) == ("cut", "token.revoked")


async def test_nothing_of_it_is_in_the_log(mitm, client) -> None:
    await raw(mitm, f"GET /d/{mitm.token('x.pdf')}".encode(), b" HTTP/1.1 nonsense\r\n\r\n")
    log = mitm.log.read_text()
    secrets = [
        *mitm.tokens,
        *(token.rpartition(".")[2] for token in mitm.tokens),
        "X-Amz-Signature",
        "the-bucket-secret",
    ]
    assert not [secret for secret in secrets if secret in log]
    assert "Traceback" not in log
