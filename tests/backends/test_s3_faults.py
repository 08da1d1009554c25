"""S3Store against a fake origin: what is asked, how often, and what becomes of an answer that is cut or wrong."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from datetime import timedelta
from types import SimpleNamespace
from urllib.parse import quote

import botocore.auth
import pytest
from backends import fake_origin as fake

from gateway.backends import s3, s3_signing, s3_tries
from gateway.backends.s3_client import Wire
from gateway.errors import FileMissing, OriginChanged, OriginDown, OriginTimeout
from gateway.policy.model import ByteRange

HONEST = fake.HONEST

SMALL = bytes(range(256)) * 4
LARGE = os.urandom(1_500_000)


def on_get(play, *, times=10_000):
    async def fault(x):
        return await play(x) if x.get and x.number <= times else HONEST

    return fault


def later(monkeypatch, seconds):
    """The signer's clocks, set forward."""
    monotonic = time.monotonic
    monkeypatch.setattr(s3_signing, "time", SimpleNamespace(monotonic=lambda: monotonic() + seconds))
    wall = botocore.auth.get_current_datetime
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda: wall() + timedelta(seconds=seconds))


def impatient(origin):
    return fake.store_at(origin.url, read_timeout=0.1)


def status(line, *, times=10_000, method="HEAD"):
    async def fault(x):
        if x.method != method or x.number > times:
            return HONEST
        return await x.send(x.head(line, ETag=None, Content_Length="0"))

    return fault


def first(times, fault, origin):
    """The fault, on the next `times` requests from now on."""
    until = len(origin.asked) + times

    async def play(x):
        return await fault(x) if len(x.origin.asked) <= until else HONEST

    return play


def cut(at, then="close", *, times=10_000):
    async def play(x):
        await x.send(x.head(), x.body[:at])
        await getattr(x, then)()

    return on_get(play, times=times)


def changed(**fields):
    return on_get(lambda x: x.send(x.head(**fields), x.body))


async def test_each_get_names_its_range_its_version_and_no_coding():
    async with fake.running(SMALL) as origin, fake.store_at(origin.url) as store:
        assert await fake.download(store, 5, 9) == SMALL[5:9]
    head, get = origin.asked
    assert (head.method, get.method) == ("HEAD", "GET")
    assert get.headers["range"] == "bytes=5-8"
    assert get.headers["if-match"] == fake.ETAG
    assert get.headers["accept-encoding"] == head.headers["accept-encoding"] == "identity"
    assert "range" not in head.headers
    signature = [asked.target.partition("X-Amz-Signature=")[2] for asked in origin.asked]
    assert len(set(signature)) == 2, "signed per method"


@pytest.mark.parametrize(
    "key", ["quote'd (1) * ! ~.pdf", "a+b c%2Fd%27e.pdf", "zażółć/\N{FAMILY}.mp3", "a...b/.c;d=e,f@g:h"]
)
async def test_what_is_sent_is_what_was_signed_letter_for_letter(key):
    """Some stores (Ceph) sign what they decoded and so forgive a rewritten path; AWS need not."""
    async with fake.running(SMALL) as origin, fake.store_at(origin.url) as store:
        stored = await store.stat(key)
        await (await store.open(stored, ByteRange(0, 5))).aclose()
    assert {asked.target.partition("?")[0] for asked in origin.asked} == {"/shop/" + quote(key, safe="/")}


async def test_one_connection_serves_one_download_after_another():
    async with fake.running(SMALL) as origin, fake.store_at(origin.url) as store:
        for _ in range(5):
            assert await fake.download(store) == SMALL
    assert origin.connections == 1
    assert (origin.count("HEAD"), origin.count("GET")) == (1, 5)


async def test_a_body_closed_early_takes_its_connection_along():
    async with fake.running(LARGE) as origin, fake.store_at(origin.url) as store:
        stored = await store.stat("a.pdf")
        body = await store.open(stored, ByteRange(0, stored.size))
        assert await body.read()
        await body.aclose()
        assert await fake.download(store) == LARGE
    assert origin.connections == 2


async def test_many_stats_of_one_key_are_one_request():
    async with fake.running(SMALL) as origin, fake.store_at(origin.url) as store:
        await asyncio.gather(*(store.stat("a.pdf") for _ in range(50)))
    assert origin.count("HEAD") == 1


@pytest.mark.parametrize(
    ("fault", "error", "heads"),
    [
        (status("404 Not Found"), FileMissing, 1),
        (status("403 Forbidden"), OriginDown, 1),
        (status("301 Moved Permanently"), OriginDown, 1),
        (status("503 Slow Down"), OriginDown, 2),  # the third is the GET's
        (status("500 Internal Server Error"), OriginDown, 2),
        (status("206 Partial Content"), OriginDown, 1),
        (status("200 OK"), OriginDown, 1),  # without an ETag
    ],
)
async def test_a_stat_that_fails(fault, error, heads):
    async with fake.running(SMALL, fault) as origin, fake.store_at(origin.url) as store:
        with pytest.raises(error):
            await store.stat("a.pdf")
        assert origin.count("HEAD") == heads
        with pytest.raises(error):
            await store.stat("a.pdf")
        assert origin.count("HEAD") == heads * (1 if error is FileMissing else 2), "only a missing key is remembered"


async def test_a_passing_fault_is_not_seen():
    async with fake.running(SMALL, status("503 Slow Down", times=1)) as origin, fake.store_at(origin.url) as store:
        assert await fake.download(store) == SMALL
        origin.fault = first(2, status("503 Slow Down", method="GET"), origin)
        assert await fake.download(store) == SMALL
    assert (origin.count("HEAD"), origin.count("GET")) == (2, 4)


@pytest.mark.parametrize("then", ["close", "reset"])
async def test_a_broken_connection_costs_three_requests_at_most(then):
    """Its HEAD included. aiohttp's own second request for each of ours would make it more."""
    async with fake.running(SMALL, on_get(lambda x: getattr(x, then)())) as origin, fake.store_at(origin.url) as store:
        assert isinstance(await fake.download(store), OriginDown)
        assert len(origin.asked) == 3
        assert isinstance(await fake.download(store), OriginDown)
    assert len(origin.asked) == 6


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (changed(ETag=fake.OTHER_ETAG), OriginChanged),
        (changed(ETag=None), OriginDown),
        (changed(ETag=f"W/{fake.ETAG}"), OriginDown),
        (changed(Content_Range=None), OriginDown),
        (changed(Content_Range="bytes 1-1024/1025"), OriginDown),
        (changed(Content_Range="bytes 0-1023/1025"), OriginDown),
        (changed(Content_Range="bytes */1024"), OriginDown),
        (changed(Content_Encoding="gzip"), OriginDown),
        (status("412 Precondition Failed", method="GET"), OriginChanged),
        (status("416 Range Not Satisfiable", method="GET"), OriginChanged),
        (status("404 Not Found", method="GET"), FileMissing),
        (status("200 OK", method="GET"), OriginDown),
        (status("304 Not Modified", method="GET"), OriginDown),
    ],
)
async def test_an_answer_that_is_not_surely_the_part_is_an_error_at_open(fault, error):
    async with fake.running(SMALL, fault) as origin, fake.store_at(origin.url) as store:
        stored = await store.stat("a.pdf")
        with pytest.raises(error):
            await store.open(stored, ByteRange(0, stored.size))
    assert origin.count("GET") == 1


async def test_after_a_change_the_next_stat_asks_again():
    async with fake.running(SMALL) as origin, fake.store_at(origin.url) as store:
        await store.stat("a.pdf")
        origin.etag = fake.OTHER_ETAG
        assert isinstance(await fake.download(store), OriginChanged)
        assert await fake.download(store) == SMALL


@pytest.mark.parametrize("then", ["close", "reset", "stall"])
@pytest.mark.parametrize("at", [0, 1, 700_000, len(LARGE) - 1])
async def test_a_cut_body_is_continued_at_the_next_byte(at, then):
    async with fake.running(LARGE, cut(at, then, times=1)) as origin, impatient(origin) as store:
        assert await fake.download(store) == LARGE
    ranges = [asked.headers["range"] for asked in origin.asked if asked.get]
    assert len(ranges) == 2
    # An RST discards what the reader had not taken yet, so it may begin before the cut, never behind it.
    assert int(ranges[1].removeprefix("bytes=").partition("-")[0]) <= at
    assert origin.asked[-1].headers["if-match"] == fake.ETAG


@pytest.mark.parametrize(("then", "error"), [("close", OriginDown), ("stall", OriginTimeout)])
async def test_without_progress_it_ends_after_three_requests(then, error):
    async with fake.running(LARGE, cut(10, then)) as origin, impatient(origin) as store:
        assert isinstance(await fake.download(store), error)
        assert len(origin.asked) == 3
        assert isinstance(await fake.download(store), error)
        assert origin.count("GET") == 5, "the second one needed no HEAD"


async def test_a_little_progress_earns_nothing():
    async with fake.running(LARGE, cut(100_000)) as origin, fake.store_at(origin.url) as store:
        assert isinstance(await fake.download(store), OriginDown)
    assert len(origin.asked) == 3


@pytest.mark.parametrize("much", ["MUCH", "A_WHILE_S"])
async def test_with_progress_it_goes_on(much, monkeypatch):
    """By bytes, or by time."""
    monkeypatch.setattr(s3_tries, "SOME", 40_000)
    monkeypatch.setattr(s3_tries, much, 0)
    async with fake.running(LARGE, cut(100_000)) as origin, fake.store_at(origin.url) as store:
        assert await fake.download(store) == LARGE
    assert origin.count("GET") == 15


async def test_a_store_that_sends_next_to_nothing_is_asked_anew_and_then_given_up():
    async def drips(x):
        await x.send(x.head())
        for at in range(len(x.body)):
            await asyncio.sleep(0.02)
            await x.send(x.body[at : at + 1])

    async with fake.running(SMALL, on_get(drips)) as origin, fake.store_at(origin.url, slow_after=0.2) as store:
        assert isinstance(await fake.download(store), OriginTimeout)
    assert len(origin.asked) == 3


async def test_a_slow_reader_is_no_slow_store(monkeypatch):
    """Any store would be too slow for this one, if the time were counted in which nobody waits for it."""
    monkeypatch.setattr(s3, "SLOW", 10**12)
    async with fake.running(LARGE) as origin, fake.store_at(origin.url, slow_after=0.2) as store:
        stored = await store.stat("a.pdf")
        body = await store.open(stored, ByteRange(0, stored.size))
        taken = b""
        while chunk := await body.read():
            taken += chunk
            await asyncio.sleep(0.1)
        await body.aclose()
    assert taken == LARGE
    assert origin.count("GET") == 1


async def test_a_store_that_asks_for_quiet_gets_it():
    slow = status("503 Slow Down", times=1)

    async def fault(x):
        if x.method == "HEAD" and x.number == 1:
            return await x.send(x.head("503 Slow Down", ETag=None, Content_Length="0", Retry_After="1"))
        return await slow(x) if x.method == "GET" else HONEST

    async with fake.running(SMALL, fault) as origin, fake.store_at(origin.url) as store:
        began = time.monotonic()
        assert await fake.download(store) == SMALL
        assert time.monotonic() - began >= 1
        origin.fault = on_get(
            lambda x: x.send(x.head("503 Slow Down", ETag=None, Content_Length="0", Retry_After="120"))
        )
        before = len(origin.asked)
        assert isinstance(await fake.download(store), OriginDown)
        assert len(origin.asked) == before + 1, "nobody waits for minutes: the client is told at once"


async def test_a_store_of_two_minds_about_the_version_is_not_asked_for_ever():
    """Two replicas, of which the one that answers HEAD has another version than the one that answers GET."""
    async with fake.running(SMALL, changed(ETag=fake.OTHER_ETAG)) as origin, fake.store_at(origin.url) as store:
        for _ in range(3):
            before = len(origin.asked)
            assert isinstance(await fake.download(store), OriginChanged)
            # As the door does: once more, from a fresh stat on.
            with pytest.raises(OriginChanged):
                await store.open(await store.stat("a.pdf", fresh=True), ByteRange(0, len(SMALL)))
            assert len(origin.asked) - before <= 3


async def test_after_a_dead_connection_the_next_one_is_new():
    """A store, or what stands before it, that was restarted has forgotten every connection we kept."""
    async with fake.running(SMALL) as origin, fake.store_at(origin.url) as store:
        await asyncio.gather(*(fake.download(store) for _ in range(8)))
        kept = origin.connections
        assert kept > 3

        async def forgotten(x):
            return await x.close() if x.reused else HONEST

        origin.fault = forgotten
        assert await fake.download(store) == SMALL


async def test_an_object_replaced_since_its_stat_is_served_within_three_requests():
    async with fake.running(SMALL) as origin, fake.store_at(origin.url) as store:
        assert await fake.download(store) == SMALL
        origin.etag = fake.OTHER_ETAG
        before = len(origin.asked)
        assert isinstance(await fake.download(store), OriginChanged)
        stored = await store.stat("a.pdf", fresh=True)
        assert await fake.take(store, stored, ByteRange(0, stored.size), bytearray()) == SMALL
        assert len(origin.asked) - before == 3


async def test_each_of_many_clients_pays_for_its_own_requests():
    """One HEAD for all of them; and none of them is short of tries for what another one used."""
    async with fake.running(SMALL) as origin, fake.store_at(origin.url) as store:
        origin.fault = first(21, on_get(lambda x: x.close()), origin)
        assert await asyncio.gather(*(fake.download(store) for _ in range(20))) == [SMALL] * 20
    assert origin.count("HEAD") == 1
    assert origin.count("GET") == 40


@pytest.mark.parametrize("then", ["404 Not Found", "412 Precondition Failed"])
async def test_an_object_replaced_or_removed_in_mid_body_is_changed(then):
    async def fault(x):
        if x.get and x.number > 1:
            return await x.send(x.head(then, ETag=None, Content_Length="0"))
        return await cut(100_000)(x)

    async with fake.running(LARGE, fault) as origin, fake.store_at(origin.url) as store:
        assert isinstance(await fake.download(store), OriginChanged)
    assert origin.count("GET") == 2


async def test_bytes_beyond_the_part_are_never_handed_on():
    async def play(x):
        await x.send(x.head(Content_Length=None), x.body, b"x" * 100_000)
        await x.close()

    async with fake.running(LARGE, on_get(play)) as origin, fake.store_at(origin.url) as store:
        assert await fake.download(store) == LARGE
        assert await fake.download(store) == LARGE


async def test_an_answer_behind_the_answer_is_not_taken_for_the_next_one():
    smuggled = b'HTTP/1.1 200 OK\r\nETag: "evil"\r\nContent-Length: 4\r\n\r\nevil'

    async def play(x):
        await x.send(x.head(), x.body)
        await asyncio.sleep(0.01)
        await x.send(smuggled)

    async with fake.running(SMALL, on_get(play)) as origin, fake.store_at(origin.url) as store:
        for _ in range(3):
            result = await fake.download(store)
            assert result == SMALL or isinstance(result, OriginDown | OriginChanged)
            await asyncio.sleep(0.02)


async def test_a_refused_address_that_was_signed_a_while_ago_is_signed_anew(monkeypatch):
    refused = []

    async def fault(x):
        signature = x.target.partition("X-Amz-Signature=")[2]
        if signature in refused:
            return await x.send(x.head("403 Forbidden", ETag=None, Content_Length="0"))
        return HONEST

    async with fake.running(SMALL, fault) as origin, fake.store_at(origin.url) as store:
        assert await fake.download(store) == SMALL
        refused.extend(asked.target.partition("X-Amz-Signature=")[2] for asked in origin.asked)
        later(monkeypatch, 1)
        assert await fake.download(store) == SMALL
    assert origin.count("GET") == 3


async def test_addresses_are_signed_again_before_they_expire(monkeypatch):
    async with fake.running(LARGE, cut(100_000, times=1)) as origin, fake.store_at(origin.url) as store:
        stored = await store.stat("a.pdf")
        body = await store.open(stored, ByteRange(0, stored.size))
        later(monkeypatch, s3_signing._USED_S)
        taken = b""
        while chunk := await body.read():
            taken += chunk
        await body.aclose()
    assert taken == LARGE
    assert len({asked.target for asked in origin.asked if asked.get}) == 2


async def test_no_log_line_holds_a_signature(caplog):
    caplog.set_level(logging.DEBUG)
    async with fake.running(LARGE, cut(100_000, "reset", times=1)) as origin, fake.store_at(origin.url) as store:
        assert await fake.download(store) == LARGE
    assert "Signature" not in caplog.text
    assert "X-Amz" not in caplog.text


async def test_a_slow_reader_holds_little_of_a_large_body():
    async with fake.running(LARGE * 20) as origin, fake.store_at(origin.url) as store:
        stored = await store.stat("a.pdf")
        body = await store.open(stored, ByteRange(0, stored.size))
        await asyncio.sleep(0.1)
        assert len(await body.read()) <= 256 * 1024
        held = sum(len(piece) for piece in body._content._buffer)
        await body.aclose()
    assert held <= 2 * Wire().read_size + 256 * 1024
