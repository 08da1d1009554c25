from __future__ import annotations

from email import message_from_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http.ranges import Multipart, Parts, Span, Unsatisfiable, Whole, multipart, parse


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "bytes",
        "bytes=",
        "bytes=,",
        "bytes=-",
        "bytes=5",
        "bytes=5-4",
        "bytes=0-1,5-4",
        "bytes=0-1,x",
        "bytes=--1",
        "bytes=+1-2",
        "bytes=1_0-20",
        "bytes=1 2-3",
        "bytes=\u0661-\u0662",
        "bytes=²-³",
        "items=0-5",
        "0-5",
        "bytes=0-1;q=1",
        "bytes=0-1 bytes=2-3",
    ],
)
def test_what_is_not_a_range_is_ignored(header: str | None) -> None:
    assert parse(header, 10) == Whole()
    assert parse(header, 0) == Whole()


@pytest.mark.parametrize("header", ["bytes=-0", "bytes=10-", "bytes=10-20", "bytes=10-,-0", f"bytes={'9' * 5000}-"])
def test_nothing_inside_the_file_is_unsatisfiable(header: str) -> None:
    assert parse(header, 10) == Unsatisfiable()


@pytest.mark.parametrize("header", ["bytes=0-", "bytes=0-0", "bytes=-1", "bytes=0-9,-3"])
def test_every_range_of_an_empty_file_is_unsatisfiable(header: str) -> None:
    assert parse(header, 0) == Unsatisfiable()


@pytest.mark.parametrize(
    ("header", "spans"),
    [
        ("bytes=0-", [(0, 10)]),
        ("bytes=0-9", [(0, 10)]),
        ("BYTES=3-3", [(3, 4)]),
        ("bytes=-4", [(6, 10)]),
        ("bytes=-40", [(0, 10)]),
        ("bytes=8-99", [(8, 10)]),
        (f"bytes=2-{'9' * 5000}", [(2, 10)]),
        (f"bytes={'0' * 5000}2-3", [(2, 4)]),
        ("bytes=7-8,0-1", [(0, 2), (7, 9)]),
        ("bytes=0-1,2-3", [(0, 4)]),
        ("bytes=5-6,0-9,1-2", [(0, 10)]),
        ("bytes=50-60,0-1,-0", [(0, 2)]),
        ("bytes=\t0-1 , ,4 - 5,", [(0, 2), (4, 6)]),
    ],
)
def test_ranges(header: str, spans: list[tuple[int, int]]) -> None:
    assert parse(header, 10) == Parts(tuple(Span(start, stop) for start, stop in spans))


def test_past_the_cap_the_whole_file_is_sent() -> None:
    asked = ",".join(f"{2 * n}-{2 * n}" for n in range(17))
    assert parse(f"bytes={asked}", 100) == Whole()
    assert parse(f"bytes={asked}", 100, cap=17) != Whole()


def test_content_range() -> None:
    assert Span(5, 10).content_range(20) == "bytes 5-9/20"
    assert Unsatisfiable().content_range(20) == "bytes */20"


@given(st.text(alphabet="bytes=0123456789-, \t\x00é²", max_size=60), st.integers(0, 30))
def test_any_text_gives_spans_inside_the_file(text: str, size: int) -> None:
    for header in (text, f"bytes={text}"):
        answer = parse(header, size)
        if isinstance(answer, Parts):
            edges = [edge for span in answer.ranges for edge in (span.start, span.stop)]
            assert edges == sorted(set(edges))
            assert edges[0] >= 0
            assert edges[-1] <= size


ranges = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)).map(sorted), min_size=1, max_size=16)


@given(ranges, st.integers(1, 60))
def test_exactly_the_bytes_asked_for_are_sent_once(asked: list[list[int]], size: int) -> None:
    answer = parse("bytes=" + ",".join(f"{first}-{last}" for first, last in asked), size)
    wanted = {byte for first, last in asked for byte in range(first, last + 1) if byte < size}
    spans = answer.ranges if isinstance(answer, Parts) else ()
    sent = [byte for span in spans for byte in range(span.start, span.stop)]
    assert sent == sorted(wanted)


def body(frame: Multipart, spans: tuple[Span, ...], content: bytes) -> bytes:
    parts = zip(frame.heads, spans, strict=True)
    return b"".join(head + content[span.start : span.stop] for head, span in parts) + frame.trailer


def test_multipart_is_read_back_by_a_mime_parser() -> None:
    content = bytes(range(48, 80))
    spans = (Span(0, 2), Span(5, 9))
    frame = multipart(spans, len(content), "text/plain", "b0und")
    sent = body(frame, spans, content)
    assert len(sent) == frame.content_length
    message = message_from_bytes(b"Content-Type: " + frame.content_type.encode() + b"\r\n\r\n" + sent)
    parts = list(message.walk())[1:]
    assert [(part["Content-Range"], part.get_payload(decode=True)) for part in parts] == [
        ("bytes 0-1/32", b"01"),
        ("bytes 5-8/32", b"5678"),
    ]


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [("text/plain\r\nX: y", "b"), ("text/é", "b"), ("text/plain", ""), ("text/plain", 'b"'), ("text/plain", "b" * 71)],
)
def test_multipart_takes_nothing_that_could_break_out_of_a_line(content_type: str, boundary: str) -> None:
    with pytest.raises(ValueError, match="characters that"):
        multipart((Span(0, 1), Span(2, 3)), 9, content_type, boundary)
