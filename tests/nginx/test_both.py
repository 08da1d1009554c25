"""The two ways with the real nginx, with a folder and with a bucket: a buyer sees what our own door shows."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time

import aiohttp
import pytest
from aiohttp import ClientSession, TCPConnector, web
from nginx.proxy import ABSENT, PROGRAM, ROOT, SECRET
from nginx.stores import Bucket, Folder
from redis_server import RedisServer

from gateway.policy.model import FileEntry, Limits
from gateway.store_ports import Remote
from gateway.web.metrics import REFUSALS

DATA = bytes(range(256)) * 1200
SIZE = len(DATA)
KEY = "ebooks/a +%'()&=/Zażółć 🎵 %2F ?#.pdf"
OWN = {"date", "server", "connection", "x-request-id", "set-cookie"}
WAYS = pytest.mark.parametrize("way", ["x-accel", "auth-request"])
DAYS_AGO = time.time() - 5 * 86_400


def shown(response: aiohttp.ClientResponse) -> dict[str, list[str]]:
    """All headers but those that differ from answer to answer."""
    names = {name.lower() for name in response.headers} - OWN
    return {name: response.headers.getall(name) for name in sorted(names)}


@WAYS
async def test_ranges_and_headers_are_those_of_our_own_door(open_behind, store, way: str) -> None:
    store.put(KEY, DATA)
    if store.path is not None:
        os.utime(store.path / KEY, (DAYS_AGO, DAYS_AGO))
    async with open_behind(way, store) as gateway:
        url = f"/d/{gateway.token(KEY)}"
        async with gateway.client.head(gateway.direct + url) as response:
            etag, modified = response.headers["ETag"], response.headers["Last-Modified"]
        asked = [
            ("GET", {}),
            ("HEAD", {}),
            ("HEAD", {"Range": "bytes=0-4"}),
            ("GET", {"Range": "bytes=5-9"}),
            ("GET", {"Range": "bytes=-7"}),
            ("GET", {"Range": "bytes=100-"}),
            ("GET", {"Range": f"bytes=0-{SIZE + 9}"}),
            ("GET", {"Range": "bytes=" + "0-1," * 20}),
            ("GET", {"Range": "lines=1-2"}),
            ("GET", {"Range": f"bytes={SIZE}-"}),
            ("GET", {"Range": "bytes=100-", "If-Range": etag}),
            ("GET", {"Range": "bytes=100-", "If-Range": '"another"'}),
            ("GET", {"Range": "bytes=100-", "If-Range": f"W/{etag}"}),
            ("GET", {"Range": f"bytes={SIZE}-", "If-Range": '"another"'}),
            ("GET", {"If-Match": etag}),
        ]
        if store.path is not None:
            asked.append(("GET", {"Range": "bytes=100-", "If-Range": modified}))
        asked += [("GET", {"If-None-Match": etag}), ("GET", {"If-Match": '"another"'}), ("HEAD", {"If-Match": '"x"'})]
        for method, headers in asked:
            async with gateway.client.request(method, gateway.direct + url, headers=headers) as response:
                ours, body = (response.status, shown(response)), await response.read()
            async with gateway.client.request(method, gateway.base + url, headers=headers) as response:
                theirs, sent = (response.status, shown(response)), await response.read()
                assert len(response.headers.getall("X-Request-Id")) == 1, (method, headers, response.status)
                assert "gw_device=" in response.headers["Set-Cookie"]
            if (method, ours[0]) == ("GET", 206) and store.path is not None:
                theirs[1]["accept-ranges"] = ["bytes"]  # nginx says so of whole files alone
            assert theirs == ours, headers
            assert sent == body
        # Of several ranges the whole is sent, and what is no range is one to nginx: the differences.
        async with gateway.client.get(gateway.base + url, headers={"Range": "bytes=5-9,20-30"}) as response:
            assert (response.status, await response.read()) == (200, DATA)
        async with gateway.client.get(gateway.base + url, headers={"Range": "bytes=9-5"}) as response:
            assert response.status == (200 if store.path is None else 416)
            assert len(response.headers.getall("X-Request-Id")) == 1


@WAYS
async def test_no_log_holds_a_token_or_a_signed_address(open_behind, store, way: str) -> None:
    store.put("a.bin", DATA)
    async with open_behind(way, store) as gateway:
        token = gateway.token("a.bin")
        for path in (f"/d/{token}", f"/l/{token}", f"//d/{token}", f"/d/{token}/1/{token}", f"/{token}"):
            url = f"{gateway.base}{path}?utm_source={token}"
            async with gateway.client.get(url, headers={"Referer": f"{gateway.base}/l/{token}"}) as response:
                await response.read()
        gateway.store.put("a.bin", b"changed")  # an error of the bucket's or of none
        async with gateway.client.get(f"{gateway.base}/d/{token}") as response:
            await response.read()
        for _ in range(100):  # nginx writes its line when the buyer has everything
            said = gateway.nginx.access_log.read_text() + gateway.nginx.error_log.read_text()
            if said.count("\n") == 7:
                break
            await asyncio.sleep(0.01)
        assert said.count("\n") == 7  # one of them is the test's own, when it waited for nginx
        for secret in (token, token[-20:], "X-Amz-Signature", SECRET):
            assert secret not in said


@WAYS
async def test_refusals_are_passed_on_with_their_status_and_page(open_behind, store, way: str) -> None:
    store.put("a.bin", DATA)
    async with open_behind(way, store) as gateway:
        once, expired = gateway.token("a.bin", downloads=1), gateway.token("a.bin", expires_at=int(time.time()) - 9)
        async with gateway.client.get(f"{gateway.direct}/d/{once}") as response:
            assert await response.read() == DATA
        wanted = [
            (once, 410, "limit.downloads"),
            (expired, 410, "token.expired"),
            (gateway.token("none.bin"), 404, "file.missing"),
            ("abc", 403, "token.malformed"),
            (gateway.token("a.bin", limits=Limits(concurrent=1)), 403, "limit.unkept"),
            (gateway.token("a.bin", limits=Limits(rate=1000)), 403, "limit.unkept"),
        ]
        for token, status, reason in wanted:
            async with gateway.client.get(f"{gateway.base}/d/{token}") as response:
                told = await response.json(content_type="application/problem+json")
                assert (response.status, told["reason"]) == (status, reason)
                assert told["request_id"] == response.headers["X-Request-Id"]
                assert not [name for name in response.headers if name.lower().startswith(("x-gateway", "x-accel"))]
            async with gateway.client.get(f"{gateway.base}/d/{token}", headers={"Accept": "text/html"}) as response:
                assert response.status == status
                assert "<title>" in await response.text()
        refused = [event for event in await gateway.events() if event["type"] == "download.denied"]
        assert len(refused) == 2 * len(wanted)
        assert {event["front"] for event in refused} == {way.partition("-")[0].replace("x", "nginx")}
        async with gateway.client.post(f"{gateway.base}/d/{once}") as response:
            assert (response.status, response.headers["Allow"]) == (405, "GET, HEAD")


@WAYS
async def test_an_external_file_is_a_way_to_it(open_behind, store, way: str) -> None:
    async with open_behind(way, store) as gateway:
        url = "https://cdn.example.com/a%20b.zip?sig=1"
        token = gateway.token(files=(FileEntry(None, url),))
        async with gateway.client.get(f"{gateway.base}/d/{token}", allow_redirects=False) as response:
            assert (response.status, response.headers.getall("Location")) == (302, [url])
            assert response.headers.getall("Referrer-Policy") == ["no-referrer"]
            assert response.headers.getall("Cache-Control") == ["private, no-store"]
        async with gateway.client.head(f"{gateway.base}/d/{token}", allow_redirects=False) as response:
            assert "Location" not in response.headers
        assert await gateway.counted() == 1


@WAYS
async def test_each_download_has_one_closing_event_and_a_waived_limit_is_told(open_behind, store, way: str) -> None:
    store.put("a.bin", DATA)
    async with open_behind(way, store, waive="concurrent, rate") as gateway:
        token = gateway.token("a.bin", limits=Limits(downloads=1, concurrent=1, rate=1000))
        async with gateway.client.get(f"{gateway.base}/d/{token}") as response:
            assert await response.read() == DATA
        async with gateway.client.get(f"{gateway.base}/d/{token}", headers={"Range": "bytes=100-199"}) as response:
            assert (response.status, await response.read()) == (206, DATA[100:200])
        events = await gateway.events()
        first, second, *closings = sorted(events, key=lambda event: event["type"])
        assert [first["type"], second["type"]] == ["download.allowed"] * 2
        assert [first["counted"], second["counted"]] == ["1", "0"]
        assert [first["bytes.asked"], second["bytes.asked"]] == [str(SIZE), "100"]
        assert [first["http.response.status_code"], second["http.response.status_code"]] == ["200", "206"]
        assert "rate" in first["limits.waived"]
        assert [event["type"] for event in closings] == ["download.finished"] * 2
        assert {event["request.id"] for event in closings} == {first["request.id"], second["request.id"]}


HEADERS = {
    "X-Original-Uri": "/d/{other}",
    "X-Original-Url": "/d/{other}",
    "X-Original-Method": "HEAD",
    "X-Forwarded-Uri": "/d/{other}",
    "X-Forwarded-Method": "HEAD",
    "X-Forwarded-For": "198.51.100.66",
    "Forwarded": "for=198.51.100.66",
    "X-Gateway-Secret": "wrong",
    "X-Gateway-File": "other.bin",
    "X-Gateway-Path": "other.bin",
    "X-Gateway-Origin": "http://127.0.0.1:1/",
    "X-Gateway-Range": "bytes=0-0",
    "X-Accel-Redirect": "/_gateway/file/other.bin",
    "X-Accel-Limit-Rate": "1",
    "X-Http-Method-Override": "HEAD",
    "X-Real-Ip": "198.51.100.66",
    "Cookie": "a=b",
    "Authorization": "Basic eDp5",
}


@WAYS
async def test_what_a_client_says_of_itself_changes_nothing(open_behind, store, way: str) -> None:
    store.put("a.bin", DATA)
    store.put("other.bin", b"another")
    async with open_behind(way, store) as gateway:
        token, other = gateway.token("a.bin", downloads=1), gateway.token("other.bin")
        for name, value in HEADERS.items():
            headers = {name: value.format(other=other)}
            async with gateway.client.get(f"{gateway.base}/d/{token}", headers=headers) as response:
                assert (response.status, await response.read()) == (200, DATA), name
                assert not [each for each in response.headers if each.lower().startswith(("x-gateway", "x-accel"))]
        events = await gateway.events()
        assert {event["client.address"] for event in events if event["type"] == "download.allowed"} == {"127.0.0.1"}
        assert await gateway.counted() == 1


PATHS = [
    "/auth",
    "/auth?statuses=all",
    "/auth/",
    "/auth/refused",
    "/%61uth",
    "/d/../auth",
    "/d/%2e%2e/auth",
    "//auth",
    "/_gateway/auth",
    "/_gateway/file/a.bin",
    "/_gateway/bucket",
    "/d/../_gateway/file/a.bin",
    "/%5fgateway/file/a.bin",
    "//d/{token}",
    "/d//{token}",
    "/%64/{token}",
    "/d%2F{token}",
    "/D/{token}",
    "/x/../d/{token}",
    "/d/{token}/",
    "/d/{token}/1/../../a.bin",
    "/d/x/../{token}",
    "/d/./{token}",
]
ODD_NAMES = [
    "/d/{token}/1/",
    "/d/{token}/1/..",
    "/d/{token}/1/%2e%2e",
    "/d/{token}/1/..%2f..%2fother.bin",
    "/d/{token}?x=/../..",
]


@WAYS
async def test_no_path_leads_to_bytes_that_are_not_the_links_own_and_charged(open_behind, store, way: str) -> None:
    store.put("a.bin", DATA)
    async with open_behind(way, store) as gateway:
        token = gateway.token("a.bin")

        async def ask(target: str, method: str = "GET") -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", gateway.nginx.port)
            more = f"X-Original-Uri: /d/{token}\r\nX-Forwarded-Uri: /d/{token}\r\nX-Gateway-Reason: frozen\r\n"
            head = f"{method} {target.format(token=token)} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{more}\r\n"
            writer.write(head.encode())
            answer = await asyncio.wait_for(reader.read(), 10)
            writer.close()
            return answer

        for target in PATHS:
            answer = await ask(target)
            assert answer.split()[1] in (b"400", b"403", b"404"), target
            assert DATA[:300] not in answer
            assert b"x-gateway" not in answer.lower()
            assert b"x-amz" not in answer.lower()
        assert await gateway.counted() == 0
        for target in (*ODD_NAMES, "http://elsewhere.example/d/{token}"):
            counted = await gateway.counted()
            token = gateway.token("a.bin")
            answer = await ask(target)
            given = DATA in answer
            assert given or answer.split()[1] == b"404", (target, answer[:100])
            assert await gateway.counted() - counted == int(given), target
        head = await ask("/d/{token}", "HEAD")
        assert head.split()[1] == b"200"
        assert DATA[:300] not in head
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH", "get", "TRACE"):
            assert DATA[:300] not in await ask("/d/{token}", method), method


@WAYS
async def test_bytes_that_cannot_be_had_are_a_502_and_no_error_of_the_bucket(open_behind, store, way: str) -> None:
    for name in ("gone.bin", "new.bin"):
        store.put(name, DATA)
    async with open_behind(way, store) as gateway:
        for name, change in (("gone.bin", None), ("new.bin", b"another version")):
            if store.path is not None and change is not None:
                continue  # a folder has no If-Match: the new version is sent, under its own ETag
            url = f"{gateway.base}/d/{gateway.token(name)}"
            async with gateway.client.head(url) as response:
                assert response.status == 200  # known for some seconds now
            if store.path is not None:
                (store.path / name).unlink()
            elif change is None:
                store.s3.client.delete_object(Bucket=store.s3.bucket, Key=name)
            else:
                store.put(name, change)
            async with gateway.client.get(url) as response:
                told = await response.json(content_type="application/problem+json")
                assert (response.status, told["reason"]) == (
                    (404, "file.missing") if change is None else (502, "origin.down")
                )
                assert "x-amz-request-id" not in response.headers
                assert response.headers.getall("Content-Disposition") == ['inline; filename="refused.json"']
                assert response.headers.getall("Cache-Control") == ["private, no-store"]
                assert "Retry-After" not in response.headers
                (request_id,) = response.headers.getall("X-Request-Id")
            assert request_id in [event["request.id"] for event in await gateway.events()]


@WAYS
async def test_no_error_of_the_bucket_reaches_the_buyer(open_behind, moto_s3, monkeypatch, way: str) -> None:
    store = Bucket(moto_s3)
    store.put("a.bin", DATA)
    statuses = [301, 400, 402, 406, 422, 451, 505, 509, 520, 530]

    async def fail(_: web.Request) -> web.Response:
        return web.Response(status=statuses.pop(), text="<Error>words of the bucket</Error>")

    bucket = web.Application()
    bucket.router.add_route("*", "/{key}", fail)
    runner = web.AppRunner(bucket)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = "http://{}:{}/a.bin".format(*runner.addresses[0][:2])

    async def locate(*_: object) -> Remote:
        return Remote(url, check=print)

    monkeypatch.setattr("gateway.backends.s3.S3Store.locate", locate)
    try:
        async with open_behind(way, store) as gateway:
            while statuses:
                async with gateway.client.get(f"{gateway.base}/d/{gateway.token('a.bin')}") as response:
                    assert (response.status, (await response.json(content_type=None))["reason"]) == (502, "origin.down")
    finally:
        await runner.cleanup()


@WAYS
@pytest.mark.parametrize("key", ["a.bin ", " a.bin"])
async def test_a_blank_at_an_end_of_a_key_leads_to_no_other_file(open_behind, tmp_path, way: str, key: str) -> None:
    store = Folder(tmp_path / "files")
    store.put("a.bin", b"another buyer's")
    store.put(key, DATA)
    async with open_behind(way, store) as gateway:
        url = f"{gateway.base}/d/{gateway.token(key)}"
        async with gateway.client.get(url, allow_redirects=False) as response:
            body = await response.read()
            # A header cannot say such a path: the second way has no file then.
            assert (response.status, body == DATA) == ((200, True) if way == "x-accel" else (502, False))


@WAYS
async def test_a_folder_that_came_in_the_place_of_a_file_is_a_502(open_behind, tmp_path, way: str) -> None:
    store = Folder(tmp_path / "files")
    store.put("a.bin", DATA)
    async with open_behind(way, store) as gateway:
        url = f"{gateway.base}/d/{gateway.token('a.bin')}"
        async with gateway.client.head(url) as response:
            assert response.status == 200  # known for some seconds now
        (tmp_path / "files" / "a.bin").unlink()
        (tmp_path / "files" / "a.bin").mkdir()
        async with gateway.client.get(url, allow_redirects=False) as response:
            assert response.status == 502


@WAYS
async def test_without_redis_the_answer_is_503_within_a_second(open_behind, store, tmp_path, way: str) -> None:
    store.put("a.bin", DATA)
    redis = RedisServer(tmp_path / "redis")
    redis.start()
    async with open_behind(way, store, redis=redis.url) as gateway:
        token = gateway.token("a.bin")
        redis.kill()
        for _ in range(2):
            began = time.monotonic()
            async with gateway.client.get(f"{gateway.base}/d/{token}") as response:
                assert response.status == 503
                assert int(response.headers["Retry-After"]) > 0
                assert DATA[:300] not in await response.read()
            assert time.monotonic() - began < 1.5


@WAYS
def test_the_files_are_accepted_as_they_are(tmp_path, way: str) -> None:
    if PROGRAM is None:
        pytest.skip(ABSENT)
    asked = [PROGRAM, "-t", "-e", str(tmp_path / "log"), "-c", str(ROOT / "config" / "nginx" / f"{way}.conf")]
    if os.geteuid() != 0:
        pytest.skip("nginx -t makes the folders of the package, as root")
    said = subprocess.run(asked, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    assert "[warn]" not in said.stderr


async def test_who_is_not_nginx_gets_bytes_and_no_word_of_where_they_lie(open_behind, store) -> None:
    store.put("a.bin", DATA)
    async with open_behind("x-accel", store) as gateway:
        url = f"{gateway.direct}/d/{gateway.token('a.bin')}"
        stranger = TCPConnector(local_addr=("127.0.0.9", 0))
        async with ClientSession(connector=stranger) as buyer:
            for client, headers in (
                (buyer, {"X-Gateway-Secret": SECRET}),  # the secret, but from nowhere that is trusted
                (gateway.client, {}),  # a plain proxy
                (gateway.client, {"X-Gateway-Secret": "wrong"}),
                (gateway.client, {"X-Gateway-Secret": "zażółć"}),
            ):
                async with client.get(url, headers=headers) as response:
                    assert (response.status, await response.read()) == (200, DATA)
                    assert not [name for name in response.headers if name.lower().startswith(("x-gateway", "x-accel"))]
            for path in ("/auth", "/auth/refused"):
                asked = {"X-Gateway-Secret": SECRET, "X-Original-Uri": f"/d/{gateway.token('a.bin')}"}
                async with buyer.get(gateway.direct + path, headers=asked) as response:
                    assert response.status == 403
                    assert not [name for name in response.headers if name.lower().startswith(("x-gateway", "x-accel"))]
        assert {event["front"] for event in await gateway.events()} == {"http"}


async def test_a_resume_is_free_for_the_repeat_window_and_no_longer(open_behind, tmp_path) -> None:
    store = Folder(tmp_path / "files")
    store.put("a.bin", DATA)
    async with open_behind("x-accel", store, window="1s") as gateway:
        url = f"{gateway.base}/d/{gateway.token('a.bin', downloads=1)}"
        for headers in ({}, {"Range": "bytes=100-"}):
            async with gateway.client.get(url, headers=headers) as response:
                assert response.status in (200, 206)
        await asyncio.sleep(1.05)
        async with gateway.client.get(url, headers={"Range": "bytes=100-"}) as response:
            assert response.status == 410
        assert await gateway.counted() == 1


async def test_an_nginx_without_the_location_fails_and_is_named_in_the_log(open_behind, store, caplog) -> None:
    store.put("a.bin", DATA)
    changes = {
        "location /_gateway/file/ {": "location /nowhere/ {",
        "location = /_gateway/bucket {": "location = /no {",
    }
    changes |= {"        location /_gateway/ { internal; return 404; }": ""}
    async with (
        open_behind("x-accel", store, changes=changes) as gateway,
        gateway.client.get(f"{gateway.base}/d/{gateway.token('a.bin')}") as response,
    ):
        assert response.status == 502
        assert DATA[:300] not in await response.read()
    assert "lacks location /_gateway/" in caplog.text


async def test_a_slow_buyer_fills_no_disk(open_behind, moto_s3) -> None:
    store = Bucket(moto_s3)
    store.put("big.bin", os.urandom(1 << 20) * 24)
    async with (
        open_behind("x-accel", store) as gateway,
        gateway.client.get(f"{gateway.base}/d/{gateway.token('big.bin')}") as response,
    ):
        await response.content.readexactly(1 << 16)
        await asyncio.sleep(0.2)
        assert [path for path in gateway.nginx.temporary.rglob("*") if path.is_file()] == []


async def test_what_nginx_asks_of_the_gateway_is_counted_in_the_metrics(open_behind, store) -> None:
    async with open_behind("auth-request", store) as gateway:
        before = REFUSALS.labels("token.malformed")._value.get()
        async with gateway.client.get(f"{gateway.base}/d/abc") as response:
            assert response.status == 403
        assert REFUSALS.labels("token.malformed")._value.get() == before + 1


async def test_a_head_is_not_told_the_address_of_a_bucket(open_behind, moto_s3) -> None:
    store = Bucket(moto_s3)
    store.put("a.bin", DATA)
    async with open_behind("auth-request", store) as gateway:
        for method, told in (("HEAD", False), ("GET", True)):
            headers = {
                "X-Gateway-Secret": SECRET,
                "X-Original-Uri": f"/d/{gateway.token('a.bin')}",
                "X-Original-Method": method,
                "X-Forwarded-For": "198.51.100.7",
            }
            async with gateway.client.get(f"{gateway.direct}/auth", headers=headers) as response:
                assert ("X-Gateway-Origin" in response.headers) is told
