"""What is planned for an object that exists; the full tables of ranges and preconditions are in tests/http."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from gateway.policy.model import ByteRange, DownloadRequest, StoredObject
from gateway.services.responding import ALWAYS, plan_redirect, plan_response

STORED = StoredObject(key="a", size=1000, etag='"e"', last_modified=1_700_000_000, content_type="text/html\r\nX: y")
REQUEST = DownloadRequest(
    request_id="r",
    token="",
    file_number=1,
    method="GET",
    client_address=ip_address("203.0.113.9"),
    client_network="203.0.113.0/24",
)


def plan(name: str = "a.pdf", stored: StoredObject = STORED, *, handed: bool = False, **changes: object):
    request = replace(REQUEST, **changes)
    return plan_response(request, stored, name, now=1_800_000_000, boundary="" if handed else "b", handed=handed)


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


PDF = replace(STORED, content_type="application/pdf")


def test_a_view_differs_from_the_download_in_two_headers_alone() -> None:
    download, view = plan(stored=PDF), plan(stored=PDF, view=True)
    assert download.headers["Content-Disposition"].startswith("attachment;")
    assert view.headers["Content-Disposition"].startswith("inline;")
    assert {name for name in view.headers if view.headers[name] != download.headers[name]} == {
        "Content-Disposition",
        "Content-Security-Policy",
    }
    assert view.headers.keys() == download.headers.keys()
    assert (view.segments, view.length, view.status) == (download.segments, download.length, download.status)


@pytest.mark.parametrize("changes", [{"range": "bytes=5-"}, {"method": "HEAD"}, {"if_none_match": '"e"'}])
def test_every_answer_to_a_view_has_its_policy(changes: dict[str, str]) -> None:
    """A 304 that said otherwise would change what the browser has stored, and a reload would show nothing."""
    assert (
        plan(stored=PDF, view=True, **changes).headers["Content-Security-Policy"]
        == plan(stored=PDF, view=True).headers["Content-Security-Policy"]
    )


@pytest.mark.parametrize("active", ["text/html", "image/svg+xml", "application/epub+zip", "application/zip"])
def test_what_may_not_be_shown_is_downloaded(active: str) -> None:
    stored = replace(STORED, content_type=active)
    assert plan(stored=stored, view=True) == plan(stored=stored)


def test_a_redirect_leads_away_and_is_never_stored() -> None:
    made = plan_redirect("GET", "https://cdn.example.com/a%20b?x=1&y=%C5%82#z")
    assert made.headers["Location"] == "https://cdn.example.com/a%20b?x=1&y=%C5%82#z"
    assert (made.status, made.elsewhere, made.sends_body, made.length, made.start) == (302, True, False, 0, 0)
    assert made.headers["Cache-Control"] == "private, no-store"
    assert made.headers["Referrer-Policy"] == "no-referrer"
    assert "Accept-Ranges" not in made.headers


@pytest.mark.parametrize(
    "url", ["https://c.example/a\r\nSet-Cookie: x=1", "https://c.example/ł b", 'https://c.example/"<>']
)
def test_a_redirects_address_fits_a_header(url: str) -> None:
    location = plan_redirect("GET", url).headers["Location"]
    assert location.isascii()
    assert location.isprintable()
    assert not set(location) & set(' "<>')


WHOLE = (ByteRange(0, 1000),)


@pytest.mark.parametrize(
    ("changes", "status", "length", "segments", "start", "full"),
    [
        ({}, 200, 1000, WHOLE, 0, True),
        ({"range": "bytes=0-"}, 206, 1000, WHOLE, 0, True),
        ({"range": "bytes=10-19"}, 206, 10, (ByteRange(10, 20),), 10, False),
        ({"range": "bytes=-5"}, 206, 5, (ByteRange(995, 1000),), 995, False),
        ({"range": "bytes=0-9,100-109"}, 200, 1000, WHOLE, 0, True),
        ({"range": "bytes=10-19", "if_range": '"e"'}, 206, 10, (ByteRange(10, 20),), 10, False),
        ({"range": "bytes=10-19", "if_range": '"x"'}, 200, 1000, WHOLE, 0, True),
        # What has no body is ours to answer: nobody may be told where the file is.
        ({"method": "HEAD"}, 200, 1000, (), 0, True),
        ({"method": "HEAD", "range": "bytes=1-2"}, 200, 1000, (), 0, True),
        ({"range": "bytes=1000-"}, 416, 0, (), 0, False),
        ({"if_none_match": '"e"'}, 304, 0, (), 0, False),
        ({"if_match": '"x"'}, 412, 0, (), 0, False),
        ({"range": "bytes=0-9,100-109", "if_none_match": '"e"'}, 304, 0, (), 0, False),
    ],
)
def test_plans_for_a_body_that_another_program_sends(changes, status, length, segments, start, full) -> None:
    made = plan(**changes, handed=True)
    assert (made.status, made.length, made.segments, made.start, made.full) == (status, length, segments, start, full)
    assert made.elsewhere == made.sends_body == bool(segments)
    own = plan(**changes)
    assert (own.elsewhere, own.sends_body) == (False, made.sends_body)
    assert made == replace(own, elsewhere=made.elsewhere) or "," in str(changes.get("range"))


def test_an_empty_file_is_handed_to_nobody() -> None:
    made = plan(stored=replace(STORED, size=0), handed=True)
    assert (made.status, made.length, made.sends_body, made.elsewhere) == (200, 0, False, False)


def test_a_door_that_cannot_send_several_ranges_sends_the_whole() -> None:
    asked = replace(REQUEST, range="bytes=0-1,5-6")
    made = plan_response(asked, STORED, "a.pdf", now=1_800_000_000, boundary="")
    assert (made.status, made.length, made.full, made.elsewhere) == (200, STORED.size, True, False)
