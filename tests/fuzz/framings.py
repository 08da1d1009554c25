"""Requests that one reader ends where another reads on, and what a strict reader (RFC 9112) sees in them."""

from __future__ import annotations

import re
from collections.abc import Iterator

Framing = tuple[str, str]
"""The lines that say where the body ends, each with its line break, and what follows the head."""

CODINGS = (
    *(
        "chunked",
        " chunked",
        "chunked ",
        "Chunked",
        "\tchunked",
        "\x0bchunked",
        "\x0cchunked",
        "chunked\x00",
        '"chunked"',
    ),
    *(
        "xchunked",
        "chunkedx",
        "chunked, identity",
        "identity, chunked",
        "gzip, chunked",
        "chunked, chunked",
        "chunked;q=1",
    ),
    *("chunked,", ",chunked", "cow", "", "\xa0chunked", "chu\r\n nked", "\r\n chunked", "chunked\r\n X: y"),
)
NAMES = (
    *(
        "Transfer-Encoding: ",
        "transfer-encoding:",
        "Transfer-Encoding : ",
        "Transfer-Encoding\t: ",
        "Transfer_Encoding: ",
    ),
    *(" Transfer-Encoding: ", "X: a\nTransfer-Encoding: ", "X: a\rTransfer-Encoding: ", "X: a\r\n Transfer-Encoding: "),
    *("\x00Transfer-Encoding: ", "Transfer-Encoding\x00: ", "X:\r\r\nTransfer-Encoding: ", ":\r\nTransfer-Encoding: "),
)
LENGTHS = ("+{n}", "-{n}", "{n} ", " {n}", "0{n}", "0x{n}", "{n}\x0b", "{n},", "{n}e0", "{n}.0", "{n} 0", "",
           "18446744073709551616", "{n}\r\nContent-Length: 0", "0\r\nContent-Length: {n}", "0\nContent-Length: {n}",
           "0\r\n Content-Length: {n}", "0\rContent-Length: {n}", "{n}\r\nContent_Length: 0")  # fmt: skip
SIZES = ("0;a=b", "0;\n", "0;a=\r", "00000000000000000", "0x0", "+0", "-0", "0 ", " 0", "0\t", "0\n", "0\r", "g", "",
         "10000000000000000", "ffffffffffffffff0", "0;a=\"\r\n\"", "0 ;a")  # fmt: skip
ENDS = (
    "\r\n0\r\n\r\n",
    "\n0\n\n",
    "\r\n0\n\r\n",
    "0\r\n\r\n",
    "\r\n0\r\nContent-Length: 5\r\n\r\n",
    "\r\n0\r\nA : b\r\n\r\n",
)
FIRST_LINES = (
    *(
        "GET {path} HTTP/1.1",
        "POST {path} HTTP/1.1",
        "GET http://other{path} HTTP/1.1",
        "GET {path} HTTP/1.0",
        "GET {path}",
    ),
    *(
        "get {path} HTTP/1.1",
        "GET  {path} HTTP/1.1",
        "GET {path}  HTTP/1.1",
        "GET {path} HTTP/1.1 ",
        "GET\t{path} HTTP/1.1",
    ),
    *(
        "CONNECT h:80 HTTP/1.1",
        "OPTIONS * HTTP/1.1",
        "GET {path} HTTP/2.0",
        "GET {path} HTTP/1.10",
        "GET {path}\x00 HTTP/1.1",
    ),
    *(
        "GET //{path} HTTP/1.1",
        "GET {path}#f HTTP/1.1",
        "GET {path} x HTTP/1.1",
        "\r\nGET {path} HTTP/1.1",
        "GET h:80 HTTP/1.1",
    ),
)


def framings(hidden: str) -> Iterator[Framing]:
    """All that end before `hidden` for one reader and behind it for another, and some that no reader should take."""
    n = len(hidden)
    inside = f"{n:x}\r\n{hidden}"
    for coding in CODINGS:
        yield f"Content-Length: {n + 5}\r\nTransfer-Encoding: {coding}\r\n", f"0\r\n\r\n{hidden}"
        yield f"Transfer-Encoding: {coding}\r\nContent-Length: {len(f'{n:x}') + 2}\r\n", f"{inside}\r\n0\r\n\r\n"
        yield f"Transfer-Encoding: {coding}\r\nTransfer-Encoding: chunked\r\n", f"0\r\n\r\n{hidden}"
    for name in NAMES:
        yield f"Content-Length: {n + 5}\r\n{name}chunked\r\n", f"0\r\n\r\n{hidden}"
        yield f"{name}chunked\r\n", f"0\r\n\r\n{hidden}"
    for length in LENGTHS:
        yield f"Content-Length: {length.format(n=n)}\r\n", hidden
    for size in SIZES:
        yield "Transfer-Encoding: chunked\r\n", f"{size}\r\n\r\n{hidden}"
    for end in ENDS:
        yield "Transfer-Encoding: chunked\r\n", f"{inside}{end}"
    yield f"Connection: Content-Length\r\nContent-Length: {n}\r\n", hidden
    yield "Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n", f"0\r\n\r\n{hidden}"
    yield f"Expect: 100-continue\r\nContent-Length: {n}\r\n", hidden
    yield (
        f"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AA\r\nContent-Length: {n}\r\n",
        hidden,
    )
    yield f"X: a\x00b\r\nContent-Length: {n}\r\n", hidden


CHUNKED = -1
# Also words with more blanks between them, which RFC 9112 §3 lets a server take.
_LINE = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+[ \t]+[!-~]+[ \t]+HTTP/1\.([01])[ \t]*")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)")
_CHUNK = re.compile(rb"([0-9A-Fa-f]+)[ \t]*(?:;[^\x00-\x08\x0a-\x1f\x7f]*)?")


def strictly_read(raw: bytes) -> list[bytes]:
    """The User-Agent of each request whose head is beyond doubt; the first head or body in doubt ends the reading."""
    agents: list[bytes] = []
    while raw:
        raw = raw.lstrip(b"\r\n")
        head, blank, raw = raw.partition(b"\r\n\r\n")
        first, *lines = head.split(b"\r\n")
        fields = [_FIELD.fullmatch(line) for line in lines]
        line = _LINE.fullmatch(first)
        if not blank or line is None or None in fields:
            break
        named = [(field[1].lower(), field[2].strip(b" \t")) for field in fields if field is not None]
        length = _length(named, is_newer=line[1] == b"1")
        if length is None:
            break
        agents.append(b", ".join(value for name, value in named if name == b"user-agent"))
        body = _chunks(raw) if length == CHUNKED else length
        if body is None or body > len(raw):
            break
        raw = raw[body:]
    return agents


def _length(fields: list[tuple[bytes, bytes]], *, is_newer: bool) -> int | None:
    """How many bytes the body has, or CHUNKED; None where that is in doubt (RFC 9112 §6.3)."""
    lines = [value.lower() for name, value in fields if name == b"transfer-encoding"]
    codings = [coding.strip(b" \t") for line in lines for coding in line.split(b",")]
    lengths = [value for name, value in fields if name == b"content-length"]
    if codings:
        is_chunked = codings[-1] == b"chunked" and codings.count(b"chunked") == 1
        return CHUNKED if is_chunked and not lengths and is_newer else None
    if not lengths:
        return 0
    return int(lengths[0]) if len(lengths) == 1 and re.fullmatch(rb"[0-9]{1,30}", lengths[0]) else None


def _chunks(raw: bytes) -> int | None:
    at = 0
    while True:
        end = raw.find(b"\r\n", at)
        size = _CHUNK.fullmatch(raw[at:end]) if end >= 0 else None
        if size is None:
            return None
        at, length = end + 2, int(size[1], 16)
        if not length:
            break
        if raw[at + length : at + length + 2] != b"\r\n":
            return None
        at += length + 2
    while (end := raw.find(b"\r\n", at)) > at:
        if not _FIELD.fullmatch(raw[at:end]):
            return None
        at = end + 2
    return end + 2 if end == at else None
