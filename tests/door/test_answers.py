"""What a client gets: RFC 9110 answers for the file, refusals as docs/README promise, on a real socket."""

from __future__ import annotations

import asyncio
import json
import time
from ipaddress import ip_network

import pytest

from gateway.policy.model import FileEntry

SIZE = 300_000


async def test_the_whole_file(gateway) -> None:
    data = gateway.file("ebooks/Zażółć & co.pdf", SIZE)
    token = gateway.token("ebooks/Zażółć & co.pdf", downloads=1)
    async with gateway.client.get(f"{gateway.base}/d/{token}") as response:
        assert response.status == 200
        assert await response.read() == data
        headers = response.headers
    assert headers["Content-Length"] == str(SIZE)
    assert headers["Content-Type"] == "application/pdf"
    assert headers["Accept-Ranges"] == "bytes"
    assert headers["Cache-Control"] == "private, no-transform"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "noindex" in headers["X-Robots-Tag"]
    assert headers["ETag"].startswith('"')
    assert headers["Content-Disposition"].startswith('attachment; filename="')
    assert "filename*=UTF-8''Za%C5%BC%C3%B3%C5%82%C4%87%20&%20co.pdf" in headers["Content-Disposition"]
    events = await gateway.settled()
    assert [event["type"] for event in events] == ["download.allowed", "download.finished"]
    allowed, finished = events
    assert allowed["counted"] == "1"
    assert finished["request.id"] == allowed["request.id"] == headers["X-Request-Id"]
    assert finished["outcome"] == "complete"
    assert finished["bytes.delivered"] == str(SIZE)
    assert 0 <= int(finished["duration.ms"]) < 30_000
    assert finished["order.id"] == "10001"


@pytest.mark.parametrize(
    ("asked", "status", "content_range", "part"),
    [
        ("bytes=0-99", 206, f"bytes 0-99/{SIZE}", slice(0, 100)),
        ("bytes=-100", 206, f"bytes {SIZE - 100}-{SIZE - 1}/{SIZE}", slice(SIZE - 100, SIZE)),
        ("bytes=100-", 206, f"bytes 100-{SIZE - 1}/{SIZE}", slice(100, SIZE)),
        ("bytes=0-", 206, f"bytes 0-{SIZE - 1}/{SIZE}", slice(0, SIZE)),
        (f"bytes={SIZE}-", 416, f"bytes */{SIZE}", slice(0, 0)),
        ("bytes=9-5", 200, None, slice(0, SIZE)),
        ("lines=1-2", 200, None, slice(0, SIZE)),
    ],
)
async def test_one_range(gateway, asked: str, status: int, content_range: str | None, part: slice) -> None:
    data = gateway.file("a.bin", SIZE)
    token = gateway.token("a.bin")
    async with gateway.client.get(f"{gateway.base}/d/{token}", headers={"Range": asked}) as response:
        assert response.status == status
        assert response.headers.get("Content-Range") == content_range
        assert await response.read() == data[part]


async def test_several_ranges(gateway) -> None:
    data = gateway.file("a.bin", SIZE)
    url = f"{gateway.base}/d/{gateway.token('a.bin')}"
    async with gateway.client.get(url, headers={"Range": "bytes=0-9,1000-1999,-5"}) as response:
        assert response.status == 206
        kind = response.headers["Content-Type"]
        body = await response.read()
    assert len(body) == int(response.headers["Content-Length"])
    boundary = kind.partition("boundary=")[2].strip('"').encode()
    parts = body.split(b"--" + boundary)
    assert parts[-1] == b"--\r\n"
    assert [part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n") for part in parts[1:-1]] == [
        data[:10],
        data[1000:2000],
        data[-5:],
    ]


async def test_preconditions_and_head_send_no_body_and_count_nothing(gateway) -> None:
    gateway.file("a.bin", SIZE)
    url = f"{gateway.base}/d/{gateway.token('a.bin', downloads=1)}"
    async with gateway.client.head(url, headers={"Range": "bytes=0-9"}) as response:
        assert response.status == 200
        assert response.headers["Content-Length"] == str(SIZE)
        etag = response.headers["ETag"]
        modified = response.headers["Last-Modified"]
    for headers, status in [
        ({"If-None-Match": etag}, 304),
        ({"If-Modified-Since": modified}, 304),
        ({"If-Match": '"other"'}, 412),
        ({"If-Unmodified-Since": "Mon, 01 Jan 2001 00:00:00 GMT"}, 412),
        ({"Range": f"bytes={SIZE}-"}, 416),
    ]:
        async with gateway.client.get(url, headers=headers) as response:
            assert (response.status, await response.read()) == (status, b"")
    assert await gateway.events() == []
    async with gateway.client.get(url, headers={"Range": "bytes=5-", "If-Range": etag}) as response:
        assert response.status == 206
    async with gateway.client.get(url, headers={"Range": "bytes=5-", "If-Range": '"other"'}) as response:
        assert response.status == 200


async def test_an_empty_file(gateway) -> None:
    gateway.file("empty.txt", 0)
    url = f"{gateway.base}/d/{gateway.token('empty.txt', downloads=1)}"
    async with gateway.client.get(url) as response:
        assert (response.status, response.headers["Content-Length"], await response.read()) == (200, "0", b"")
    async with gateway.client.get(url, headers={"Range": "bytes=0-"}) as response:
        assert response.status == 416


async def test_the_files_of_a_token_are_counted_apart(gateway) -> None:
    first, second = gateway.file("1.bin", SIZE), gateway.file("2.bin", SIZE)
    token = gateway.token("1.bin", "2.bin", downloads=1)
    for number, data in ((1, first), (2, second)):
        async with gateway.client.get(f"{gateway.base}/d/{token}/{number}/any%2Fname") as response:
            assert await response.read() == data
    assert await gateway.used() == 2


REFUSALS = [
    ("/d/junk", 403, "token.malformed"),
    ("/d/a.b.c", 403, "token.malformed"),
    ("/d/{token}/2", 404, "file.unknown"),
    ("/d/{token}/0", 404, "link.unknown"),
    ("/d/{token}%2F1", 403, "token.malformed"),
    ("/d//1", 404, "link.unknown"),
    ("/d/{token}/99999", 404, "link.unknown"),
    ("/d/{missing}", 404, "file.missing"),
    ("/d/{outside}", 404, "file.missing"),
    ("/d/{expired}", 410, "token.expired"),
    ("/l/{expired}", 410, "token.expired"),
    ("/d/{later}", 403, "token.not_yet"),
    ("/d/{elsewhere}", 403, "token.ip"),
    ("/d/{account}", 401, "account.required"),
    ("/d/{planned}", 403, "token.claims"),
    ("/d/{token}?view=1", 403, "view.not_allowed"),
    ("/", 404, "link.unknown"),
    ("/d/", 404, "link.unknown"),
    ("/x/{token}", 404, "link.unknown"),
    ("/D/{token}", 404, "link.unknown"),
    ("//d/{token}", 404, "link.unknown"),
]


@pytest.mark.parametrize(("path", "status", "reason"), REFUSALS, ids=[f"{p} {r}" for p, _, r in REFUSALS])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_refusals(gateway, method: str, path: str, status: int, reason: str) -> None:
    gateway.file("a.bin", SIZE)
    now = int(time.time())
    tokens = {
        "token": gateway.token("a.bin"),
        "missing": gateway.token("none.bin"),
        "outside": gateway.token("a.bin/deeper"),
        "expired": gateway.token("a.bin", expires_at=now - 1),
        "later": gateway.token("a.bin", not_before=now + 600),
        "elsewhere": gateway.token("a.bin", ip=(ip_network("203.0.113.0/24"),)),
        "account": gateway.token("a.bin", account=True),
        "planned": gateway.token("a.bin", plan="gold"),
    }
    async with gateway.client.request(method, gateway.base + path.format(**tokens)) as response:
        body = await response.read()
    assert response.status == status
    assert "Set-Cookie" not in response.headers
    if method == "HEAD":
        return
    assert response.content_type == "application/problem+json"
    problem = json.loads(body)
    assert problem["reason"] == reason
    assert problem["request_id"] == response.headers["X-Request-Id"]
    if path not in ("/", "/d/") and not path.startswith(("/x", "/D", "//", "/d//", "/d/{token}/0", "/d/{token}/9")):
        [event] = await gateway.events()
        assert event["type"] == "download.denied"
        assert event["reason"] == reason
        assert event["request.id"] == problem["request_id"]
        assert event["http.response.status_code"] == str(status)


async def test_a_browser_gets_a_page(gateway) -> None:
    async with gateway.client.get(f"{gateway.base}/d/junk", headers={"Accept": "text/html,*/*"}) as response:
        assert response.status == 403
        assert response.content_type == "text/html"
        page = await response.text()
    assert "token.malformed" in page
    assert response.headers["X-Request-Id"] in page
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]


async def test_other_methods_are_told_which_ones_work(gateway) -> None:
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PROPFIND"):
        async with gateway.client.request(method, f"{gateway.base}/d/{gateway.token('a.bin')}") as response:
            assert response.status == 405
            assert response.headers["Allow"] == "GET, HEAD"
    assert await gateway.events() == []


async def test_the_link_page_counts_nothing(gateway) -> None:
    data = gateway.file("songs/Ünder.flac", SIZE)
    token = gateway.token("songs/Ünder.flac", downloads=1)
    link = f"{gateway.base}/l/{token}"
    async with gateway.client.get(link, headers={"Accept": "text/html"}) as response:
        page = await response.text()
        assert response.status == 200
    assert f"/d/{token}/1/%C3%9Cnder.flac" in page
    assert "gw_device=" in response.headers["Set-Cookie"]
    async with gateway.client.get(link, allow_redirects=False) as response:
        assert response.status == 303
    async with gateway.client.get(link) as response:
        assert await response.read() == data
    events = await gateway.settled()
    assert [event["type"] for event in events] == ["link.opened"] * 3 + ["download.allowed", "download.finished"]
    async with gateway.client.get(link, allow_redirects=False) as response:
        assert response.status == 303, "a link that was used shows its page all the same"


async def test_the_link_page_offers_no_view_that_the_plan_does_not_give(gateway) -> None:
    gateway.file("a.pdf", SIZE)
    async with gateway.client.get(
        f"{gateway.base}/l/{gateway.token('a.pdf')}", headers={"Accept": "text/html"}
    ) as response:
        page = await response.text()
    assert "/1/a.pdf" in page
    assert "view=1" not in page


async def test_a_link_to_several_files_lists_them(gateway) -> None:
    token = gateway.token(files=(FileEntry(key="a/1.mp3"), FileEntry(key="b/2.mp3", name="Two.mp3")))
    async with gateway.client.get(f"{gateway.base}/l/{token}") as response:
        listed = await response.json()
    assert [(file["number"], file["name"]) for file in listed["files"]] == [(1, "1.mp3"), (2, "Two.mp3")]
    assert listed["files"][1]["href"] == f"/d/{token}/2/Two.mp3"


async def test_draining_refuses_new_requests(gateway) -> None:
    gateway.file("a.bin", SIZE)
    gateway.status.draining = True
    async with gateway.client.get(f"{gateway.base}/d/{gateway.token('a.bin')}") as response:
        assert response.status == 503
        assert int(response.headers["Retry-After"]) >= 1
        assert (await response.json())["reason"] == "draining"


async def test_no_token_in_any_event(gateway, caplog) -> None:
    gateway.file("a.bin", SIZE)
    token = gateway.token("a.bin", downloads=1)
    for path in (f"/l/{token}", f"/d/{token}", f"/d/{token}x", f"/d/{token}/7", f"/d/{token}?utm_source=mail"):
        async with gateway.client.get(gateway.base + path, headers={"Referer": "x"}) as response:
            await response.read()
    text = json.dumps(await gateway.settled()) + caplog.text
    for secret in token.split("."):
        assert secret not in text


@pytest.mark.parametrize(
    "head",
    [
        "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
        "CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nExpect: nonsense\r\n\r\n",
    ],
)
async def test_what_the_router_has_no_place_for_is_answered_by_the_door(gateway, head: str) -> None:
    host, port = gateway.base.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(head.encode())
    answer = (await reader.readuntil(b"\r\n\r\n")).decode()
    writer.close()
    assert "X-Request-Id: " in answer
    assert "Server: download-gateway" in answer
    assert "aiohttp" not in answer


async def test_a_page_shows_no_inner_words_as_the_shops(gateway) -> None:
    async with gateway.client.get(
        f"{gateway.base}/d/{gateway.token('a.bin')}x", headers={"Accept": "text/html"}
    ) as response:
        assert "signature does not verify" not in await response.text()


async def test_a_flood_of_refusals_of_one_token_is_not_all_stored(gateway) -> None:
    url = f"{gateway.base}/d/{gateway.token('a.bin')}/9"

    async def ask() -> int:
        async with gateway.client.get(url) as response:
            return response.status

    assert set(await asyncio.gather(*(ask() for _ in range(300)))) == {404}
    assert 50 <= len(await gateway.events()) < 300


async def test_a_failing_origin_costs_nothing_and_its_events_say_so(gateway) -> None:
    gateway.file("a.bin", SIZE)
    token = gateway.token("a.bin", downloads=1)
    url = f"{gateway.base}/d/{token}"
    async with gateway.client.head(url) as response:
        assert response.status == 200
    (gateway.folder / "a.bin").unlink()
    for _ in range(10):
        async with gateway.client.get(url) as response:
            assert response.status == 404
    events = await gateway.settled()
    assert events[-1]["http.response.status_code"] == "404"
    gateway.file("a.bin", SIZE)
    await asyncio.sleep(1.2)
    async with gateway.client.get(url) as response:
        assert response.status == 200
    assert await gateway.used() == 1


async def test_the_status_tells_how_the_origin_answered_last(gateway) -> None:
    gateway.file("a.bin", SIZE)
    url = f"{gateway.base}/d/{gateway.token('a.bin')}"
    moved = gateway.folder.with_name("moved")
    async with gateway.client.get(url) as response:
        assert (response.status, gateway.status.origin_ok) == (200, True)
    gateway.folder.rename(moved)
    async with gateway.client.get(url) as response:
        assert (response.status, gateway.status.origin_ok) == (502, False)
    moved.rename(gateway.folder)
    async with gateway.client.get(url) as response:
        assert (response.status, gateway.status.origin_ok) == (200, True)


async def test_a_worker_that_is_full_takes_no_new_download_and_charges_nothing(
    gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = gateway.file("a.bin", 8 << 20)
    token = gateway.token("a.bin", downloads=1)
    address = f"{gateway.base}/d/{token}"
    async with gateway.client.get(f"{gateway.base}/d/{gateway.token('a.bin')}") as running:
        first = await running.content.readexactly(1000)
        with monkeypatch.context() as full:
            full.setattr("gateway.web.overload.resident", lambda: 1 << 60)
            async with gateway.client.get(address) as response:
                assert (response.status, response.headers["Retry-After"]) == (503, "5")
                assert (await response.json())["reason"] == "overload"
            async with gateway.client.head(address) as response:
                assert response.status == 200
            async with gateway.client.get(f"{gateway.base}/l/{token}", allow_redirects=False) as response:
                assert response.status == 303
            assert first + await running.read() == data
    async with gateway.client.get(address) as response:
        assert await response.read() == data
    events = await gateway.settled()
    denied = [event for event in events if event["type"] == "download.denied"]
    assert [(event["reason"], event["http.response.status_code"]) for event in denied] == [("overload", "503")]
    assert await gateway.used() == 2
