"""Which bytes a Range header asks for (RFC 9110 §14): computed here, never by the store.

What is not a valid `bytes` range is ignored (200); what is valid but lies outside the file is 416.
Several ranges are sorted and merged, so a byte is never sent twice; past the cap all are ignored.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_DIGITS_MAX = 19
_BEYOND: int = 10**_DIGITS_MAX
_RANGE = re.compile(r"([0-9]*)[ \t]*-[ \t]*([0-9]*)")
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=?-]{1,70}")


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes from `start` up to, but without, `stop`; never empty."""

    start: int
    stop: int

    @property
    def length(self) -> int:
        return self.stop - self.start

    def content_range(self, size: int) -> str:
        """The Content-Range value of a 206 for this span of a file of `size` bytes (RFC 9110 §14.4)."""
        return f"bytes {self.start}-{self.stop - 1}/{size}"


@dataclass(frozen=True, slots=True)
class Whole:
    """No Range, or one to be ignored: answer 200 with every byte."""


@dataclass(frozen=True, slots=True)
class Unsatisfiable:
    """A valid Range of which nothing lies in the file: answer 416."""

    @staticmethod
    def content_range(size: int) -> str:
        """The Content-Range value of the 416 (RFC 9110 §15.5.17)."""
        return f"bytes */{size}"


@dataclass(frozen=True, slots=True)
class Parts:
    """Answer 206: ascending, with a gap between any two; one span is a plain 206, several are multipart."""

    ranges: tuple[Span, ...]


def parse(header: str | None, size: int, *, cap: int = 16) -> Whole | Unsatisfiable | Parts:
    """What a GET with this Range header gets of a file of `size` bytes. Call it for GET only (RFC 9110 §14.2)."""
    asked = _asked(header, cap) if header is not None else None
    if not asked:
        return Whole()
    spans = [span for first, last in asked if (span := _within(first, last, size)) is not None]
    return Parts(_merged(spans)) if spans else Unsatisfiable()


def _asked(header: str, cap: int) -> list[tuple[int | None, int | None]] | None:
    """The ranges as (first, last), inclusive, None for an end left out; None for a header to be ignored."""
    unit, _, listed = header.partition("=")
    if unit.strip(" \t").lower() != "bytes":
        return None
    # RFC 9110 §5.6.1.2: empty list elements are skipped. Blanks around the numbers are not in the grammar,
    # but Go, nginx and Werkzeug take them, and no known client means anything else by them.
    elements = [element for element in listed.split(",") if element.strip(" \t")]
    if len(elements) > cap:
        return None
    asked: list[tuple[int | None, int | None]] = []
    for element in elements:
        match = _RANGE.fullmatch(element.strip(" \t"))
        if match is None or not (match[1] or match[2]):
            return None
        first, last = (_number(digits) for digits in match.groups())
        if first is not None and last is not None and last < first:
            return None
        asked.append((first, last))
    return asked


def _number(digits: str) -> int | None:
    """The number, None for no digits; int() raises for thousands of them, so numbers past any file are all one."""
    if len(digits.lstrip("0")) > _DIGITS_MAX:
        return _BEYOND
    return int(digits[-_DIGITS_MAX:]) if digits else None


def _within(first: int | None, last: int | None, size: int) -> Span | None:
    if first is None:
        suffix = min(last or 0, size)
        return Span(size - suffix, size) if suffix else None
    if first >= size:
        return None
    return Span(first, size if last is None else min(last + 1, size))


def _merged(spans: Sequence[Span]) -> tuple[Span, ...]:
    merged: list[Span] = []
    for span in sorted(spans, key=lambda span: span.start):
        if merged and span.start <= merged[-1].stop:
            merged[-1] = Span(merged[-1].start, max(merged[-1].stop, span.stop))
        else:
            merged.append(span)
    return tuple(merged)


@dataclass(frozen=True, slots=True)
class Multipart:
    """A multipart/byteranges body (RFC 9110 §14.6): each of `heads`, then its span's bytes; `trailer` at the end."""

    content_type: str
    heads: tuple[bytes, ...]
    trailer: bytes
    content_length: int


def multipart(spans: Sequence[Span], size: int, content_type: str, boundary: str) -> Multipart:
    """The frame for `spans` of a file of `size` bytes; `boundary` is random, so that no file can contain it.

    Raises ValueError for a boundary outside RFC 2046 §5.1.1 or a content type that is not printable ASCII.
    """
    if not _BOUNDARY.fullmatch(boundary):
        raise ValueError("the boundary has characters that RFC 2046 does not allow")
    if not (content_type.isascii() and content_type.isprintable()):
        raise ValueError("the content type has characters that a header line does not allow")
    # Each part begins with the line break that ends the one before; the first may have it too (RFC 9110 §14.6).
    opening = f"\r\n--{boundary}\r\nContent-Type: {content_type}\r\nContent-Range: "
    heads = tuple(f"{opening}{span.content_range(size)}\r\n\r\n".encode() for span in spans)
    trailer = f"\r\n--{boundary}--\r\n".encode()
    return Multipart(
        content_type=f'multipart/byteranges; boundary="{boundary}"',
        heads=heads,
        trailer=trailer,
        content_length=sum(map(len, heads)) + sum(span.length for span in spans) + len(trailer),
    )
