from __future__ import annotations

import pytest

from gateway.http.media import content_type, may_view


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
