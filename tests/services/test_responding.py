"""What is planned for an object that exists; the full tables of ranges and preconditions are in tests/http."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from gateway.policy.model import ByteRange, DownloadRequest, StoredObject
from gateway.services.responding import ALWAYS, plan_response

STORED = StoredObject(key="a", size=1000, etag='"e"', last_modified=1_700_000_000, content_type="text/html\r\nX: y")
REQUEST = DownloadRequest(
    request_id="r",
    token="",
    file_number=1,
    method="GET",
    client_address=ip_address("203.0.113.9"),
    client_network="203.0.113.0/24",
)


def plan(name: str = "a.pdf", stored: StoredObject = STORED, **changes: object):
    return plan_response(replace(REQUEST, **changes), stored, name, now=1_800_000_000, boundary="b")


@pytest.mark.parametrize(
    ("changes", "status", "length", "segments", "start", "full"),
    [
        ({}, 200, 1000, (ByteRange(0, 1000),), 0, True),
        ({"method": "HEAD"}, 200, 1000, (), 0, True),
        ({"method": "HEAD", "range": "bytes=1-2"}, 200, 1000, (), 0, True),
        ({"range": "bytes=0-"}, 206, 1000, (ByteRange(0, 1000),), 0, True),
        ({"range": "bytes=10-19"}, 206, 10, (ByteRange(10, 20),), 10, False),
        ({"range": "bytes=1000-"}, 416, 0, (), 0, False),
        ({"if_none_match": '"e"'}, 304, 0, (), 0, False),
        ({"if_match": '"x"'}, 412, 0, (), 0, False),
    ],
)
def test_plans(changes, status, length, segments, start, full) -> None:
    made = plan(**changes)
    assert (made.status, made.length, made.segments, made.start, made.full) == (status, length, segments, start, full)
    assert made.sends_body == bool(segments)
    assert made.headers.items() >= ALWAYS.items()


def test_a_multipart_answer_adds_up() -> None:
    made = plan(range="bytes=0-9,100-109")
    assert (made.status, made.start, made.full) == (206, -1, False)
    sent = sum(len(part) if isinstance(part, bytes) else part.length for part in made.segments)
    assert sent == made.length
    assert made.headers["Content-Type"].startswith("multipart/byteranges")


def test_the_stores_content_type_never_reaches_a_header_unchecked() -> None:
    for value in plan().headers.values():
        assert "\r" not in value
        assert "\n" not in value


def test_an_empty_file_has_no_segment() -> None:
    made = plan(stored=replace(STORED, size=0))
    assert (made.status, made.length, made.segments) == (200, 0, ())
