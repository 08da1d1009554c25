"""All files of a link as one ZIP, on a real socket: what it holds, what it counts, and how it breaks and goes on."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import re
import shutil
import socket
import time
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import pytest
from aiohttp import web

from gateway.backends.files import FolderStore
from gateway.policy.model import ByteRange, FileEntry, Limits, StoredObject, Sums
from gateway.policy.standing import Command
from gateway.settings import load
from gateway.store_ports import FileBody
from gateway.web.app import build_app
from gateway.web.status import WorkerStatus

SECRET = "a secret of a shop, for tests only, 40 long"

SIZES = {"a/one.bin": 300_000, "b/Zażółć.txt": 50_000, "empty.txt": 0, "c/one.bin": 200_000}
NAMES = ["one.bin", "Zażółć.txt", "empty.txt", "one (2).bin"]
BIG = 24_000_000
"""More than the kernel takes of a body whose reader waits."""


@pytest.fixture
def files(gateway) -> dict[str, bytes]:
    return {name: gateway.file(name, size) for name, size in SIZES.items()}


@pytest.fixture
def without_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that knows no checksums, as many buckets do."""
    monkeypatch.setattr(FolderStore, "sums", lambda self, stored: Sums())


def zip_of(gateway, token: str) -> str:
    return f"{gateway.base}/z/{token}"


async def fetch(gateway, url: str, **headers: str) -> tuple[int, Mapping[str, str], bytes]:
    async with gateway.client.get(url, headers={name.replace("_", "-"): text for name, text in headers.items()}) as got:
        return got.status, got.headers, await got.read()


async def reason(gateway, url: str) -> tuple[int, str, str]:
    async with gateway.client.get(url) as got:
        told = await got.json()
        return got.status, told["reason"], told["request_id"]


def counted(events: list[dict[str, str]]) -> dict[str, int]:
    """Downloads charged, by file."""
    found: dict[str, int] = {}
    for event in events:
        if int(event.get("counted", 0)):
            found[event["file.key"]] = found.get(event["file.key"], 0) + int(event["counted"])
    return found


async def test_the_whole(gateway, files) -> None:
    token = gateway.token(*SIZES, downloads=1)
    status, headers, body = await fetch(gateway, f"{zip_of(gateway, token)}/Any%20name.zip")
    assert (status, headers["Content-Length"]) == (200, str(len(body)))
    assert headers["Content-Type"] == "application/zip"
    assert headers["Accept-Ranges"] == "bytes"
    assert headers["Cache-Control"] == "private, no-transform"
    assert headers["Content-Disposition"].startswith('attachment; filename="shop.example.com 10001.zip"')
    assert headers["ETag"].startswith('"')
    with zipfile.ZipFile(io.BytesIO(body)) as opened:
        assert opened.namelist() == NAMES
        assert opened.testzip() is None
        assert [opened.read(name) for name in NAMES] == list(files.values())
    events = await gateway.settled()
    assert counted(events) == {name: 1 for name, size in SIZES.items() if size}
    finished = [event for event in events if event["type"] == "download.finished"]
    assert [(event["file.key"], event["bytes.delivered"], event["outcome"]) for event in finished] == [
        (name, str(size), "complete") for name, size in SIZES.items() if size
    ]
    ids = [event["request.id"] for event in finished]
    assert len(set(ids)) == len(ids)
    assert headers["X-Request-Id"] == ids[0]


async def test_head_says_the_same_and_counts_nothing(gateway, files) -> None:
    token = gateway.token(*SIZES, downloads=1)
    async with gateway.client.head(zip_of(gateway, token)) as head:
        told = head.headers
        assert head.status == 200
    assert await gateway.events() == []
    _, headers, body = await fetch(gateway, zip_of(gateway, token))
    assert told["Content-Length"] == str(len(body))
    assert told["ETag"] == headers["ETag"]
    status, _, nothing = await fetch(gateway, zip_of(gateway, token), If_None_Match=headers["ETag"])
    assert (status, nothing) == (304, b"")


async def test_another_etag_where_a_file_is_another(gateway, files) -> None:
    token = gateway.token(*SIZES)
    _, before, _ = await fetch(gateway, zip_of(gateway, token))
    gateway.replace("b/Zażółć.txt", b"x" * SIZES["b/Zażółć.txt"])
    status, after, body = await fetch(gateway, zip_of(gateway, token), Range="bytes=9-", If_Range=before["ETag"])
    assert (status, len(body)) == (200, int(after["Content-Length"]))
    assert after["ETag"] != before["ETag"]
    assert zipfile.ZipFile(io.BytesIO(body)).read("Zażółć.txt") == b"x" * 50_000


async def test_what_one_file_refuses_refuses_all(gateway, files) -> None:
    token = gateway.token(*SIZES, downloads=1)
    await fetch(gateway, f"{gateway.base}/d/{token}/2")
    assert await gateway.used() == 1
    await asyncio.sleep(2.1)  # counting.repeat_window, in which it may be had again
    status, why, request_id = await reason(gateway, zip_of(gateway, token))
    assert (status, why) == (410, "limit.downloads")
    events = await gateway.settled()
    assert counted(events) == {"b/Zażółć.txt": 1}
    assert [event["file.key"] for event in events if event["request.id"] == request_id] == ["b/Zażółć.txt"]


@pytest.mark.parametrize(
    ("files_of_token", "status", "why"),
    [
        ([FileEntry(key="a/one.bin"), FileEntry(key=None, url="https://cdn.example.com/x")], 404, "file.unknown"),
        ([FileEntry(key="a/one.bin"), FileEntry(key="not there")], 404, "file.missing"),
    ],
)
async def test_no_zip_of_what_is_not_ours(gateway, files, files_of_token, status: int, why: str) -> None:
    token = gateway.token(files=tuple(files_of_token))
    assert (await reason(gateway, zip_of(gateway, token)))[:2] == (status, why)
    assert (await reason(gateway, f"{gateway.base}/z/junk"))[:2] == (403, "token.malformed")
    assert "download.allowed" not in [event["type"] for event in await gateway.events()]


async def test_any_range_once_the_checksums_are_known(gateway, files) -> None:
    token = gateway.token(*SIZES)
    _, _, whole = await fetch(gateway, zip_of(gateway, token))
    total = len(whole)
    for start, stop in [(0, 1), (299_990, 300_200), (350_000, total), (total - 30, total), (10, total)]:
        status, told, body = await fetch(gateway, zip_of(gateway, token), Range=f"bytes={start}-{stop - 1}")
        assert (status, told.get("Content-Range")) == (206, f"bytes {start}-{stop - 1}/{total}")
        assert body == whole[start:stop]
    status, told, body = await fetch(gateway, zip_of(gateway, token), Range="bytes=5-", If_Range='"other"')
    assert (status, body) == (200, whole)
    status, told, _ = await fetch(gateway, zip_of(gateway, token), Range=f"bytes={total}-")
    assert (status, told["Content-Range"]) == (416, f"bytes */{total}")
    status, _, body = await fetch(gateway, zip_of(gateway, token), Range="bytes=0-1,5-6")
    assert (status, body) == (200, whole)


@pytest.mark.usefixtures("without_sums")
async def test_a_range_that_needs_an_unknown_checksum_is_not_followed(gateway, files) -> None:
    token = gateway.token(*SIZES)
    for asked, status in [("bytes=350000-", 200), ("bytes=0-299999", 206), ("bytes=0-400000", 206)]:
        if asked == "bytes=350000-":
            async with gateway.client.get(zip_of(gateway, token), headers={"Range": asked}) as got:
                assert got.status == status
                got.close()
            continue
        assert (await fetch(gateway, zip_of(gateway, token), Range=asked))[0] == status


class Reader:
    """A client that stops reading when it likes."""

    def __init__(self, gateway, path: str, **headers: str) -> None:
        host, port = gateway.base.removeprefix("http://").split(":")
        self._lines = [f"GET {path} HTTP/1.1", f"Host: {host}", *(f"{k}: {v}" for k, v in headers.items()), "", ""]
        self._where = host, int(port)
        self.body = b""
        self.head = b""

    async def __aenter__(self) -> Reader:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, self._where)
        self._reader, self._writer = await asyncio.open_connection(sock=sock, limit=64 * 1024)
        self._writer.write("\r\n".join(self._lines).encode())
        self.head = await self._reader.readuntil(b"\r\n\r\n")
        self.length = int(re.search(rb"Content-Length: (\d+)", self.head)[1])
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.transport.abort()
        await asyncio.sleep(0)

    async def read(self, size: int) -> None:
        """Read until there are so many bytes of the body, or it ends."""
        while len(self.body) < size and (data := await self._reader.read(64 * 1024)):
            self.body += data


async def until(true: Callable[[], bool], patience: float = 5.0) -> None:
    for _ in range(int(patience / 0.02)):
        if true():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it never came true")


@pytest.mark.usefixtures("without_sums")
async def test_a_broken_download_goes_on_where_it_broke(gateway) -> None:
    data = [gateway.file("small.bin", 200_000), gateway.file("big.bin", BIG), gateway.file("last.bin", 100_000)]
    token = gateway.token("small.bin", "big.bin", "last.bin", downloads=1)
    async with Reader(gateway, f"/z/{token}") as first:
        await first.read(9_000_000)
        etag = re.search(rb"(?i)etag: (\S+)", first.head)[1].decode()
        got = first.body
    assert len(got) < BIG
    events = await gateway.settled()
    closed = [event for event in events if event["type"] == "download.finished"]
    assert [(event["file.key"], event["outcome"]) for event in closed] == [
        ("small.bin", "complete"),
        ("big.bin", "client_left"),
    ]
    # What the second file was charged with is its own: not the first file's bytes before it on the connection.
    delivered = int(closed[1]["bytes.delivered"])
    assert len(got) - 250_000 <= delivered <= BIG
    status, headers, rest = await fetch(gateway, zip_of(gateway, token), Range=f"bytes={len(got)}-", If_Range=etag)
    assert (status, headers["ETag"]) == (206, etag)
    with zipfile.ZipFile(io.BytesIO(got + rest)) as opened:
        assert opened.testzip() is None
        assert [opened.read(name) for name in opened.namelist()] == data
    assert counted(await gateway.settled()) == {"small.bin": 1, "big.bin": 1, "last.bin": 1}


async def test_a_resume_asks_nothing_of_files_that_were_used_up_before_it(gateway) -> None:
    names = ["small.bin", "big.bin", "last.bin"]
    data = [gateway.file(name, size) for name, size in zip(names, (200_000, BIG, 100_000), strict=True)]
    token = gateway.token(*names, downloads=1)
    at_home = {"User-Agent": "a browser", "X-Forwarded-For": "203.0.113.5"}
    async with Reader(gateway, f"/z/{token}", **at_home) as first:
        await first.read(9_000_000)
        etag = re.search(rb"(?i)etag: (\S+)", first.head)[1].decode()
        got, total = first.body, first.length
    await gateway.settled()
    await asyncio.sleep(2.1)  # counting.repeat_window: the first file is complete and takes no more joins
    assert (await reason(gateway, f"{gateway.base}/d/{token}/1"))[:2] == (410, "limit.downloads")
    before = await gateway.settled()
    # From another network only what is asked of the middle of the second file tells that it is the one that was begun.
    resume = {"Range": f"bytes={len(got)}-", "If-Range": etag, **at_home, "X-Forwarded-For": "198.51.100.7"}
    status, headers, rest = await fetch(gateway, zip_of(gateway, token), **resume)
    assert (status, headers["Content-Range"]) == (206, f"bytes {len(got)}-{total - 1}/{total}")
    with zipfile.ZipFile(io.BytesIO(got + rest)) as opened:
        assert opened.testzip() is None
        assert [opened.read(name) for name in opened.namelist()] == data
    events = await gateway.settled()
    assert counted(events) == dict.fromkeys(names, 1)
    denied = [event for event in events[len(before) :] if event["type"] == "download.denied"]
    assert denied == [], "what was let pass is no refusal"


async def test_a_range_is_refused_where_a_file_that_it_touches_is_used_up(gateway, files) -> None:
    token = gateway.token(*SIZES, downloads=1)
    status, headers, whole = await fetch(gateway, zip_of(gateway, token))
    assert status == 200
    await gateway.settled()
    await asyncio.sleep(2.1)  # counting.repeat_window
    total, first_ends = len(whole), whole.index(files["a/one.bin"]) + SIZES["a/one.bin"]
    for asked, etag in [
        ("bytes=0-", headers["ETag"]),
        (f"bytes={first_ends - 1}-{first_ends}", headers["ETag"]),
        (f"bytes={first_ends}-", headers["ETag"]),
        (f"bytes={total - 1}-", '"other"'),  # answered with everything
        (f"bytes={total}-", headers["ETag"]),
    ]:
        before = len(await gateway.settled())
        status, _, told = await fetch(gateway, zip_of(gateway, token), Range=asked, If_Range=etag)
        assert (status, json.loads(told)["reason"]) == (410, "limit.downloads"), asked
        denied = (await gateway.settled())[before:]
        assert json.loads(told)["request_id"] in [event["request.id"] for event in denied]
    asked = f"bytes={total - 30}-"
    status, _, end = await fetch(gateway, zip_of(gateway, token), Range=asked, If_Range=headers["ETag"])
    assert (status, end) == (206, whole[-30:]), "nothing of any file"
    assert counted(await gateway.settled()) == {name: 1 for name, size in SIZES.items() if size}


async def test_a_range_that_sends_no_file_is_refused_where_the_link_is_revoked(gateway, files) -> None:
    token = gateway.token(*SIZES)
    _, headers, whole = await fetch(gateway, zip_of(gateway, token))
    await gateway.command(Command("revoke", int(time.time()), order_id="10001"))
    for _ in range(100):
        asked = f"bytes={len(whole) - 30}-"
        status, _, told = await fetch(gateway, zip_of(gateway, token), Range=asked, If_Range=headers["ETag"])
        if status != 206:
            break
        await asyncio.sleep(0.02)
    assert (status, json.loads(told)["reason"]) == (410, "token.revoked")


async def test_revoked_in_the_middle_it_breaks_off(gateway) -> None:
    gateway.file("big.bin", BIG)
    gateway.file("last.bin", 100_000)
    token = gateway.token("big.bin", "last.bin", order_id="10002")
    async with Reader(gateway, f"/z/{token}") as reader:
        await reader.read(1_000_000)
        await gateway.command(Command("revoke", int(time.time()), order_id="10002"))
        with suppress(ConnectionError):
            await asyncio.wait_for(reader.read(reader.length), 10)
        assert len(reader.body) < reader.length
    closed = [event for event in await gateway.settled() if event["type"] == "download.finished"]
    assert [(event["file.key"], event["outcome"], event["reason"]) for event in closed] == [
        ("big.bin", "cut", "token.revoked")
    ]


async def test_a_file_that_changes_before_its_turn_breaks_it_off(gateway) -> None:
    gateway.file("big.bin", BIG)
    gateway.file("last.bin", 100_000)
    token = gateway.token("big.bin", "last.bin")
    async with Reader(gateway, f"/z/{token}") as reader:
        await reader.read(1_000_000)
        gateway.replace("last.bin", b"y" * 90_000)
        await asyncio.wait_for(reader.read(reader.length), 10)
        assert BIG < len(reader.body) < BIG + 1000, "only what stands between the files"
    closed = [event for event in await gateway.settled() if event["type"] == "download.finished"]
    assert "complete" in [event["outcome"] for event in closed if event["file.key"] == "big.bin"]
    assert "complete" not in [event["outcome"] for event in closed if event["file.key"] == "last.bin"]


async def test_one_place_is_enough_for_all_its_files_and_not_for_two_zips(gateway) -> None:
    data = [gateway.file(f"{number}.bin", 400_000) for number in range(4)]
    gateway.file("big.bin", BIG)
    token = gateway.token(*(f"{number}.bin" for number in range(4)), "big.bin", limits=Limits(concurrent=1))
    status, _, body = await fetch(gateway, zip_of(gateway, token))
    assert status == 200
    with zipfile.ZipFile(io.BytesIO(body)) as opened:
        assert [opened.read(f"{number}.bin") for number in range(4)] == data
    await gateway.settled()
    async with Reader(gateway, f"/z/{token}") as first:
        await first.read(4_000_000)
        assert (await reason(gateway, zip_of(gateway, token)))[:2] == (429, "limit.concurrent")
        await first.read(first.length)
        assert first.body == body


async def test_a_reader_that_is_slow_keeps_the_place_of_its_next_file(gateway) -> None:
    """The kernel still holds the end of the first file when the second one's turn comes."""
    for name in ("first.bin", "last.bin"):
        gateway.file(name, 400_000)
    token = gateway.token("first.bin", "last.bin", limits=Limits(concurrent=1))
    async with Reader(gateway, f"/z/{token}") as reader:
        await asyncio.sleep(0.8)
        await asyncio.wait_for(reader.read(reader.length), 10)
        assert len(reader.body) == reader.length
    assert zipfile.ZipFile(io.BytesIO(reader.body)).testzip() is None


@pytest.mark.usefixtures("without_sums")
async def test_no_checksum_is_made_of_the_middle_of_a_file(gateway) -> None:
    gateway.file("a.bin", 300_000)
    gateway.file("b.bin", 1000)
    token = gateway.token("a.bin", "b.bin")
    status, _, _ = await fetch(gateway, zip_of(gateway, token), Range="bytes=100000-200000")
    assert status == 206
    _, _, whole = await fetch(gateway, zip_of(gateway, token))
    assert zipfile.ZipFile(io.BytesIO(whole)).testzip() is None


async def test_two_at_once_are_two_downloads_of_each_file_at_most(gateway) -> None:
    for name in ("1.bin", "2.bin"):
        gateway.file(name, 3_000_000)
    token = gateway.token("1.bin", "2.bin", downloads=2)
    first, second = await asyncio.gather(*(fetch(gateway, zip_of(gateway, token)) for _ in range(2)))
    assert first[2] == second[2]
    assert zipfile.ZipFile(io.BytesIO(first[2])).testzip() is None
    assert all(1 <= number <= 2 for number in counted(await gateway.settled()).values())


async def test_curl_resumes_it(gateway, files, tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("there is no curl on this machine")
    token = gateway.token(*SIZES)
    _, _, whole = await fetch(gateway, zip_of(gateway, token))
    (tmp_path / "a.zip").write_bytes(whole[:320_000])
    curl = await asyncio.create_subprocess_exec(
        "curl", "-sSf", "-C", "-", "-o", tmp_path / "a.zip", zip_of(gateway, token), stderr=asyncio.subprocess.PIPE
    )
    _, wrong = await curl.communicate()
    assert (curl.returncode, wrong) == (0, b"")
    assert hashlib.sha256((tmp_path / "a.zip").read_bytes()).digest() == hashlib.sha256(whole).digest()


async def test_no_token_in_the_log(gateway, files, caplog) -> None:
    token = gateway.token(*SIZES)
    await fetch(gateway, zip_of(gateway, token))
    assert token.split(".")[2] not in caplog.text + str(await gateway.settled())


S3 = """
listen: 127.0.0.1:0
origin: {{url: "s3://{bucket}", endpoint: "{endpoint}", region: us-east-1, access_key: "{key}", secret_key: "{secret}"}}
redis: "{redis}"
keys: [{{kid: "2026-11", alg: HS256, secret: "{link_secret}", use: sign}}]
issuer: shop.example.com
"""


async def test_from_a_bucket(gateway, redis_db: str, moto_s3, tmp_path: Path) -> None:
    """Its files come as streams; the first ZIP's checksums are those of the second one's ranges."""
    data = {name: hashlib.shake_128(name.encode()).digest(2_500_000) for name in ("1.bin", "2.bin")}
    for name, body in data.items():
        moto_s3.client.put_object(Bucket=moto_s3.bucket, Key=name, Body=body)
    settings = tmp_path / "s3.yaml"
    text = S3.format(
        bucket=moto_s3.bucket,
        endpoint=moto_s3.endpoint,
        key=moto_s3.access_key,
        secret=moto_s3.secret_key,
        redis=redis_db,
        link_secret=SECRET,
    )
    settings.write_text(text, encoding="utf-8")
    runner = web.AppRunner(await build_app(load(settings, {}), WorkerStatus()), handler_cancellation=True)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        url = f"http://{host}:{port}/z/{gateway.token(*data)}"
        status, headers, whole = await fetch(gateway, url)
        assert status == 200
        with zipfile.ZipFile(io.BytesIO(whole)) as opened:
            assert {name: opened.read(name) for name in opened.namelist()} == data
        for _ in range(100):
            status, _, rest = await fetch(gateway, url, Range="bytes=3000000-", If_Range=headers["ETag"])
            if status == 206:
                break
            await asyncio.sleep(0.02)
        assert (status, rest) == (206, whole[3_000_000:])
        # The client had all of it already: most of a file once more is one more download of it, as without a ZIP.
        assert counted(await gateway.settled()) == {"1.bin": 1, "2.bin": 2}
    finally:
        await runner.cleanup()


async def test_a_file_that_changes_between_look_and_open_is_looked_up_again(
    gateway, files, monkeypatch: pytest.MonkeyPatch
) -> None:
    really, tries = FolderStore.open, 0

    async def once(self: FolderStore, stored: StoredObject, part: ByteRange) -> FileBody:
        nonlocal tries
        tries += 1
        if tries == 1:
            gateway.replace("a/one.bin", b"z" * 1234)
        return await really(self, stored, part)

    monkeypatch.setattr(FolderStore, "open", once)
    token = gateway.token(*SIZES, downloads=1)
    status, headers, body = await fetch(gateway, zip_of(gateway, token))
    assert status == 200
    assert zipfile.ZipFile(io.BytesIO(body)).read("one.bin") == b"z" * 1234
    events = await gateway.settled()
    assert counted(events)["b/Zażółć.txt"] == 1
    first = [event for event in events if event.get("file.key") == "a/one.bin"]
    assert sum(int(event.get("counted", 0)) for event in first) == 1, "what the change cost was given back"
    assert headers["X-Request-Id"] == first[-1]["request.id"]
