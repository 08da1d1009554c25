"""What an HTTP client does by itself, and must not do here: give up, queue, follow, believe, hold on to, and talk."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

import botocore.auth
import pytest
from backends import fake_origin as fake

from gateway.backends.s3_client import Wire
from gateway.backends.s3_signing import Signer, bucket
from gateway.errors import FileMissing, OriginChanged, OriginDown, OriginTimeout
from gateway.policy.model import ByteRange

DATA = bytes(range(256)) * 1200
CHUNK = len(DATA) // 30


async def origin_sees_the_end(origin: fake.FakeOrigin) -> bool:
    """Whether the last connection is closed from our side within two seconds."""
    transport = origin.asked[-1].writer.transport
    until = time.monotonic() + 2
    while not transport.is_closing() and time.monotonic() < until:  # noqa: ASYNC110 - the other side tells nobody
        await asyncio.sleep(0.01)
    return bool(transport.is_closing())


async def test_nothing_bounds_a_download_that_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten minutes on the loop's clock: aiohttp's default would end them after five."""
    loop = asyncio.get_running_loop()
    real, ahead = loop.time, 0.0
    taken = asyncio.Semaphore(1)

    async def drip(x: fake.Exchange) -> object:
        if not x.get:
            return fake.HONEST
        if x.number > 1:
            return await x.close()
        await x.send(x.head())
        for start in range(0, len(DATA), CHUNK):
            await taken.acquire()
            await x.send(x.body[start : start + CHUNK])
        return None

    async with fake.running(DATA, drip) as origin, fake.store_at(origin.url, read_timeout=60) as store:
        monkeypatch.setattr(loop, "time", lambda: real() + ahead)
        stored = await store.stat("a.pdf")
        body = await store.open(stored, ByteRange(0, stored.size))
        got = b""
        with suppress(OriginDown, OriginTimeout):
            while chunk := await body.read():
                got += chunk
                if len(got) % CHUNK == 0:
                    ahead += 20
                    taken.release()
        await body.aclose()
    assert (len(got), ahead, origin.count("GET")) == (len(DATA), 600, 1)


async def test_no_download_waits_for_another() -> None:
    """aiohttp's default is a hundred connections; whoever comes next would wait for a slow reader to finish."""
    async with fake.running(DATA) as origin, fake.store_at(origin.url, connect_timeout=5, read_timeout=5) as store:
        stored = await store.stat("a.pdf")
        opening = [asyncio.create_task(store.open(stored, ByteRange(0, stored.size))) for _ in range(110)]
        _, waiting = await asyncio.wait(opening, timeout=4)
        assert not waiting
        for task in opening:
            await task.result().aclose()


async def test_a_head_that_drips_is_given_up() -> None:
    async def drip(x: fake.Exchange) -> None:
        for byte in x.head():
            await x.send(bytes([byte]))
            await asyncio.sleep(0.02)

    async with fake.running(DATA, drip) as origin, fake.store_at(origin.url) as store:
        began = time.monotonic()
        assert isinstance(await fake.download(store), OriginTimeout)
        assert time.monotonic() - began < 2


async def test_what_nobody_reads_is_not_fetched() -> None:
    async with fake.running(DATA * 100) as origin, fake.store_at(origin.url) as store:
        stored = await store.stat("a.pdf")
        body = await store.open(stored, ByteRange(0, stored.size))
        held = 0
        for _ in range(20):
            await asyncio.sleep(0.01)
            held = sum(len(piece) for piece in body._content._buffer)
        await body.aclose()
    assert 0 < held <= 2 * Wire().read_size + 256 * 1024


async def test_an_address_is_signed_for_its_method(monkeypatch: pytest.MonkeyPatch) -> None:
    now = botocore.auth.get_current_datetime()
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda: now)
    signer = Signer(bucket("s3://shop", "http://127.0.0.1:9", None, "auto"), "key", "secret", None)
    assert (await signer.address("GET", "a"))[0] != (await signer.address("HEAD", "a"))[0]
    # HEAD's differs by the header that it signs besides, too; this one by its method alone.
    assert (await signer.address("GET", "a"))[0] != (await signer.address("PUT", "a"))[0]


@pytest.mark.parametrize("key", ["", "/a", "a/../../other/b", "./a", "a/.", "a\0b", "\ud800", "a" * 1025])
async def test_no_key_leads_elsewhere(key: str) -> None:
    async with fake.running(DATA) as origin, fake.store_at(origin.url) as store:
        with pytest.raises(FileMissing):
            await store.stat(key)
    assert not origin.asked


async def test_a_redirect_is_not_followed() -> None:
    """It may lead to another bucket, or to an address that the signature was never meant for."""

    async def elsewhere(x: fake.Exchange) -> object:
        if x.target == "/other":
            return fake.HONEST
        return await x.send(x.head("302 Found", Location="/other", Content_Length="0"))

    async with fake.running(DATA, elsewhere) as origin, fake.store_at(origin.url) as store:
        assert isinstance(await fake.download(store), OriginDown)
    assert all(asked.target != "/other" for asked in origin.asked)


async def test_no_error_quotes_a_signed_address() -> None:
    async def junk(x: fake.Exchange) -> object:
        return await x.send(b"HTTP/9.9 what? no\r\n\r\n") if x.get else fake.HONEST

    async with fake.running(DATA, junk) as origin, fake.store_at(origin.url) as store:
        assert isinstance(await fake.download(store), OriginDown)


async def test_bytes_go_on_as_they_arrive() -> None:
    asked_for_more = asyncio.Event()

    async def halves(x: fake.Exchange) -> object:
        if not x.get:
            return fake.HONEST
        await x.send(x.head(), x.body[:100_000])
        await asked_for_more.wait()
        return await x.send(x.body[100_000:])

    async with fake.running(DATA, halves) as origin, fake.store_at(origin.url, read_timeout=9) as store:
        stored = await store.stat("a.pdf")
        body = await store.open(stored, ByteRange(0, stored.size))
        first = asyncio.create_task(body.read())
        await asyncio.wait({first}, timeout=2)
        arrived = first.done()
        asked_for_more.set()
        got = await first
        while chunk := await body.read():
            got += chunk
        await body.aclose()
    assert arrived
    assert got == DATA


async def test_an_answer_that_is_refused_keeps_no_connection() -> None:
    async def another(x: fake.Exchange) -> object:
        return await x.send(x.head(ETag=fake.OTHER_ETAG), x.body[:-1]) if x.get else fake.HONEST

    async with fake.running(DATA, another) as origin, fake.store_at(origin.url) as store:
        stored = await store.stat("a.pdf")
        caught: list[BaseException] = []  # an error that is kept, as a log handler may, keeps what it came through
        try:
            await store.open(stored, ByteRange(0, stored.size))
        except OriginChanged as error:
            caught.append(error)
        assert caught
        assert await origin_sees_the_end(origin)


async def test_a_body_that_is_left_keeps_no_connection() -> None:
    async with fake.running(DATA * 30) as origin, fake.store_at(origin.url) as store:
        stored = await store.stat("a.pdf")
        body = await store.open(stored, ByteRange(0, stored.size))
        assert await body.read()
        await body.aclose()
        assert await origin_sees_the_end(origin)


async def test_a_body_of_unknown_length_that_ends_early_is_no_end() -> None:
    async def close_early(x: fake.Exchange) -> object:
        if not x.get or x.number > 1:
            return fake.HONEST
        await x.send(x.head(Content_Length=None), x.body[:1000])
        return await x.close()

    async with fake.running(DATA, close_early) as origin, fake.store_at(origin.url) as store:
        assert await fake.download(store) == DATA
    assert origin.asked[-1].headers["range"] == f"bytes=1000-{len(DATA) - 1}"


@pytest.mark.parametrize("part", [ByteRange(5, 9), ByteRange(0, 9), ByteRange(9, len(DATA))])
async def test_a_store_that_ignores_range_is_not_believed(part: ByteRange) -> None:
    async def ignore(x: fake.Exchange) -> object:
        if not x.get:
            return fake.HONEST
        return await x.send(x.head("200 OK", Content_Length=str(len(DATA))), DATA)

    async with fake.running(DATA, ignore) as origin, fake.store_at(origin.url) as store:
        assert isinstance(await fake.download(store, part.start, part.stop), OriginDown)
        assert await fake.download(store) == DATA, "all of it is what 200 means"


@pytest.mark.parametrize(
    "lacking",
    [
        {"ETag": None},
        {"ETag": f"W/{fake.ETAG}"},
        {"ETag": "unquoted"},
        {"Content_Length": None},
        {"Content_Length": "1e3"},
        {"Last_Modified": None},
        {"Last_Modified": "yesterday"},
        {"Content_Encoding": "gzip"},
    ],
    ids=str,
)
async def test_a_stat_without_what_a_resume_needs_is_refused(lacking: dict[str, str | None]) -> None:
    async def fault(x: fake.Exchange) -> object:
        await x.send(x.head(**lacking))
        return await x.close()

    async with fake.running(DATA, fault) as origin, fake.store_at(origin.url) as store:
        assert isinstance(await fake.download(store), OriginDown)
    assert origin.count("GET") == 0
