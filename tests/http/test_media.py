from __future__ import annotations

import pytest

from gateway.http.media import SEALED, as_viewed, content_type, may_view, viewing_policy


@pytest.mark.parametrize(
    ("name", "stored", "expected"),
    [
        ("Sea.PDF", None, "application/pdf"),
        ("Sea.epub", "binary/octet-stream", "application/epub+zip"),
        ("a.tar.gz", "application/octet-stream", "application/gzip"),
        ("a.m4b", "", "audio/mp4"),
        ("a.pdf", "text/plain; charset=utf-8", "text/plain; charset=utf-8"),
        ("a.pdf", 'text/plain;charset="utf-8"', 'text/plain;charset="utf-8"'),
        ("a.pdf", "text/html\r\nSet-Cookie: x=1", "application/pdf"),
        ("a.pdf", "nonsense", "application/pdf"),
        ("a.pdf", "text/" + "x" * 500, "application/pdf"),
        ("pdf", None, "application/pdf"),
        ("unknown.xyz", None, "application/octet-stream"),
        ("", None, "application/octet-stream"),
    ],
)
def test_content_type(name: str, stored: str | None, expected: str) -> None:
    assert content_type(name, stored) == expected


@pytest.mark.parametrize("shown", ["application/pdf", "audio/flac", "video/mp4", "image/png", "text/plain; charset=x"])
def test_may_view(shown: str) -> None:
    assert may_view(shown)


@pytest.mark.parametrize("active", ["text/html", "IMAGE/SVG+XML", "application/xml", "application/zip", "text/xml;a=b"])
def test_active_types_are_never_shown_inline(active: str) -> None:
    assert not may_view(active)


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("text/plain", "text/plain; charset=utf-8"),
        ("TEXT/plain ", "text/plain; charset=utf-8"),
        ("text/plain;charset=iso-8859-2", "text/plain;charset=iso-8859-2"),
        ("image/png", "image/png"),
    ],
)
def test_as_viewed(said: str, shown: str) -> None:
    assert as_viewed(said) == shown


@pytest.mark.parametrize(
    ("shown", "allowed"),
    [
        ("image/png", "style-src 'unsafe-inline'; sandbox"),
        ("text/plain; charset=utf-8", "style-src 'unsafe-inline'; sandbox"),
        ("application/pdf", "style-src 'unsafe-inline'; object-src 'self'"),
        ("audio/wav", "style-src 'unsafe-inline'; media-src 'self'"),
        ("VIDEO/mp4", "style-src 'unsafe-inline'; media-src 'self'"),
    ],
)
def test_what_is_shown_is_allowed_no_more_than_it_needs(shown: str, allowed: str) -> None:
    assert viewing_policy(shown) == f"default-src 'none'; {allowed}"


@pytest.mark.parametrize("active", ["text/html", "image/svg+xml", "application/epub+zip", ""])
def test_what_is_not_shown_stays_sealed(active: str) -> None:
    assert viewing_policy(active) == SEALED
