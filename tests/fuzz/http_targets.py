"""Range, conditions, forwarded addresses and file names, each against a naive second reading of its RFC."""

from __future__ import annotations

import calendar
import email.parser
import email.policy
import email.utils
from ipaddress import ip_address, ip_network
from itertools import pairwise
from urllib.parse import unquote

from aiohttp.multipart import content_disposition_filename, parse_content_disposition
from engine import Target

from gateway.http.disposition import content_disposition, file_name
from gateway.http.forwarded import Address, client_address
from gateway.http.preconditions import Verdict, evaluate, http_date, parse_http_date
from gateway.http.ranges import Parts, Span, Unsatisfiable, Whole, multipart, parse
from gateway.policy.networks import network_of

DIGITS = set("0123456789")
BODY_MAX = 4096

# --- Range (RFC 9110 §14) ---------------------------------------------------------------------------------------------


def naive_ranges(header: str, cap: int) -> list[tuple[str, str]] | None:
    """The ranges as they are written; None where the header is to be ignored."""
    if header.count("=") < 1:
        return None
    unit, listed = header.split("=", 1)
    if unit.strip(" \t").lower() != "bytes":
        return None
    specs = [spec.strip(" \t") for spec in listed.split(",")]
    specs = [spec for spec in specs if spec]
    pairs: list[tuple[str, str]] = []
    for spec in specs:
        if spec.count("-") != 1:
            return None
        first, last = (number.strip(" \t") for number in spec.split("-"))
        if not set(first + last) <= DIGITS or not first + last:
            return None
        if first and last and _number(last) < _number(first):
            return None
        pairs.append((first, last))
    return pairs if 0 < len(pairs) <= cap else None


def _number(digits: str) -> int:
    # int() refuses more than 4,300 digits, and all numbers past any file are one.
    digits = digits.lstrip("0") or "0"
    return int(digits) if len(digits) < 20 else 10**19


def _wants(pairs: list[tuple[str, str]], position: int, size: int) -> bool:
    for first, last in pairs:
        if first and _number(first) <= position and (not last or position <= _number(last)):
            return True
        if not first and position >= size - _number(last):
            return True
    return False


def check_range(value: tuple[str, int, int]) -> str:
    header, size, cap = value[0], abs(value[1]) % 2**60, abs(value[2]) % 40
    answer, pairs = parse(header, size, cap=cap), naive_ranges(header, cap)
    if pairs is None:
        assert answer == Whole(), "what is to be ignored was followed"
        return "ignored"
    edges = {0, size - 1, *(_number(digits) for pair in pairs for digits in pair if digits)}
    edges |= {size - edge for edge in edges}
    near = {edge + step for edge in edges for step in (-1, 0, 1)}
    wanted = {position for position in near if 0 <= position < size and _wants(pairs, position, size)}
    if not isinstance(answer, Parts):
        assert answer == Unsatisfiable()
        assert not wanted, "what lies in the file was refused"
        return "416"
    spans = answer.ranges
    assert 1 <= len(spans) <= cap
    assert all(0 <= span.start < span.stop <= size for span in spans), "bytes outside the object"
    assert all(one.stop < other.start for one, other in pairwise(spans)), "not merged, or not sorted"
    got = {position for position in near if any(span.start <= position < span.stop for span in spans)}
    assert got == wanted
    assert sum(span.length for span in spans) <= size
    if len(spans) > 1:
        _check_multipart(spans, size)
        return "several"
    return "one"


def _check_multipart(spans: tuple[Span, ...], size: int) -> None:
    frame = multipart(spans, size, "text/plain", "boundary=of_32+characters'()?/:,.")
    total = sum(span.length for span in spans)
    assert frame.content_length == sum(map(len, frame.heads)) + total + len(frame.trailer)
    if size > BODY_MAX:
        return
    file = bytes(ord("a") + position % 26 for position in range(size))
    pieces = zip(frame.heads, spans, strict=True)
    body = b"".join(head + file[span.start : span.stop] for head, span in pieces) + frame.trailer
    assert len(body) == frame.content_length
    head = f"Content-Type: {frame.content_type}\r\n".encode()
    read = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + b"\r\n" + body)
    parts = read.get_payload()
    assert [part["Content-Range"] for part in parts] == [span.content_range(size) for span in spans]
    assert [part.get_payload(decode=True) for part in parts] == [file[span.start : span.stop] for span in spans]


# --- Conditions (RFC 9110 §13) ----------------------------------------------------------------------------------------


def naive_tags(header: str) -> list[str] | None:
    """The entity tags of a list, or None where it cannot be read; read letter by letter."""
    tags, at = [], 0
    while at < len(header):
        if header[at] in " \t,":
            at += 1
            continue
        begin = at
        at += 2 if header.startswith("W/", at) else 0
        if not header.startswith('"', at):
            return None
        end = header.find('"', at + 1)
        if end < 0 or any(ord(letter) <= 32 or ord(letter) == 127 for letter in header[at + 1 : end]):
            return None
        at = end + 1
        tags.append(header[begin:at])
    return tags


def _listed(header: str, etag: str, *, strong: bool) -> bool:
    if header.strip(" \t") == "*":
        return True
    tags = naive_tags(header)
    if tags is None:
        return False
    if strong:
        return etag in tags and not etag.startswith("W/")
    return etag.removeprefix("W/") in {tag.removeprefix("W/") for tag in tags}


def check_conditions(value: tuple[str, str, int, int, list[str], list[str]]) -> str:
    method, etag = value[0], value[1]
    modified, now = abs(value[2]) % 4_000_000_000, abs(value[3]) % 4_000_000_000
    given = dict(zip(value[4], value[5], strict=False))
    names = ("if_match", "if_none_match", "if_modified_since", "if_unmodified_since", "if_range")
    headers = {name: text for name, text in given.items() if name in names and isinstance(text, str)}
    answer = evaluate(method, etag, modified, now=now, **headers)
    assert answer.verdict is not Verdict.NOT_MODIFIED or method in ("GET", "HEAD")
    assert not answer.range_allowed or (method == "GET" and answer.verdict is Verdict.PROCEED)
    match, none_match = headers.get("if_match"), headers.get("if_none_match")
    if match is not None:
        assert _listed(match, etag, strong=True) or answer.verdict is Verdict.FAILED
    if none_match is not None and answer.verdict is Verdict.PROCEED:
        assert not _listed(none_match, etag, strong=False)
    if answer.verdict is Verdict.NOT_MODIFIED and none_match is not None:
        assert _listed(none_match, etag, strong=False)
    if answer.range_allowed and (validator := headers.get("if_range")) is not None:
        validator = validator.strip(" \t")
        is_tag = validator == etag and not etag.startswith("W/")
        assert is_tag or (_naive_date(validator) == modified and modified + 60 <= now), "a Range of another version"
        return "a range"
    for text in headers.values():
        read = parse_http_date(text, now)
        assert read is None or parse_http_date(http_date(read), now) == read
    return answer.verdict.name.lower()


def _naive_date(text: str) -> int | None:
    parsed = email.utils.parsedate(text)
    return None if parsed is None else calendar.timegm(parsed)


# --- Who the client is (decision 007) ---------------------------------------------------------------------------------

TRUSTED = [ip_network("10.0.0.0/8"), ip_network("2001:db8:aaaa::/48")]
INSIDE = ("10.1.2.3", "2001:db8:aaaa::1", "::ffff:10.9.9.9")
CLIENTS = ("203.0.113.9", "2001:db8:42::7", "::ffff:198.51.100.4")
Lines = list[tuple[str, str]]


def check_prepended(value: tuple[Lines, int, int, str]) -> str:
    """Whatever a client sends, behind our proxies its address stays the one that the first of them saw."""
    sent, number, how, inner = value
    client = CLIENTS[number % len(CLIENTS)]
    seen = _plain(client)
    peer = INSIDE[how % len(INSIDE)]
    own = [(name, text) for name, text in sent if name.lower() not in ("x-forwarded-for", "forwarded")]
    ours = [text for name, text in sent if name.lower() == "x-forwarded-for"]
    theirs = [text for name, text in sent if name.lower() == "forwarded"]
    shown = (client, f"{client}:4711" if "." in client and ":" not in client else f"[{client}]:4711")[how % 2]
    hops = [shown, *([_inside(inner)] if inner else [])]
    for written in _appended("X-Forwarded-For", ours, hops, how):
        assert client_address(peer, [*own, *written, *(("Forwarded", text) for text in theirs)], TRUSTED) == seen
    # A proxy that writes only Forwarded removes the other one. A quote that the client left open hides the client.
    nodes = [f'for="[{hop}]"' if ":" in hop and "." not in hop else f'for="{hop}"' for hop in [client, *hops[1:]]]
    for written in _appended("Forwarded", theirs, nodes, how):
        found = client_address(peer, [*own, *written], TRUSTED)
        assert found == seen or (found is None and '"' in "".join(theirs)), "the client chose its address"
    outside = client_address(client, sent, TRUSTED)
    assert outside == seen, "an untrusted client was believed"
    return "with lines of its own" if ours or theirs else "plain"


def _inside(text: str) -> str:
    return INSIDE[len(text) % 2]


def _plain(text: str) -> Address:
    address = ip_address(text)
    return getattr(address, "ipv4_mapped", None) or address


def _appended(name: str, lines: list[str], hops: list[str], how: int) -> list[Lines]:
    """The client's lines and then the hops: as further lines, or behind the last line as proxies join them."""
    apart = [(name, text) for text in (*lines, *hops)]
    joined = (", ", ",", " ,\t")[how % 3].join([*lines[-1:], *hops])
    return [apart, [*((name.lower(), text) for text in lines[:-1]), (name, joined)]]


def check_forwarded(value: tuple[str, Lines]) -> str:
    peer, sent = value
    found = client_address(peer, sent, TRUSTED)
    if found is None:
        return "refused"
    network_of(found)
    assert getattr(found, "ipv4_mapped", None) is None
    assert getattr(found, "scope_id", None) is None
    words = "\n".join([peer, *(text for _, text in sent)]).replace("\\", "")
    assert _is_written(found, words), "an address that nobody wrote"
    return "the peer" if found == _peer(peer) else "a hop"


def _peer(text: str) -> Address | None:
    try:
        return _plain(text.partition("%")[0])
    except ValueError:
        return None


def _is_written(address: Address, words: str) -> bool:
    if str(address) in words:
        return True
    kept = "".join(letter if letter in "0123456789abcdefABCDEF.:" else " " for letter in words)
    texts = {text for word in kept.split() for text in (word, word.rpartition(":")[0], word.strip(":"))}
    return any(_peer(text) == address for text in texts if text)


# --- Names of files (RFC 6266, 8187) ----------------------------------------------------------------------------------


def check_name(value: tuple[str, int]) -> str:
    name, inline = value[0], bool(value[1] % 2)
    line, kept = content_disposition(name, inline=inline), file_name(name)
    assert line.isascii()
    assert line.isprintable()
    assert len(line) <= 1000
    kind, params = parse_content_disposition(line)
    assert kind == ("inline" if inline else "attachment")
    assert content_disposition_filename(params) == kept
    fallback = params["filename"]
    assert unquote(line.rpartition("''")[2]) == kept
    for each in (kept, fallback):
        assert file_name(each) == each or each.startswith("_"), "it would be stored under another name"
        assert 1 <= len(each.encode()) <= 255
        assert not {"/", "\\", "\r", "\n", "\x00"} & set(each)
        assert each not in (".", "..")
    return "kept" if kept == name else "changed"


_TAGS = ('"a"', 'W/"a"', '"b", "a"', "*", '"', '"a', 'W/"', ' , "a" ,', '"a""a"', 'w/"a"')
_DATES = (
    *("Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"),
    *("Mon, 29 Feb 2100 00:00:00 GMT", "Fri, 31 Dec 9999 23:59:60 GMT", "Thu, 01 Jan 0000 00:00:00 GMT"),
)
_CONDITIONS = ("if_match", "if_none_match", "if_modified_since", "if_unmodified_since", "if_range")
_RANGES = (
    "bytes=0-0,2-3",
    "bytes=-5",
    "bytes=7-",
    "bytes=0-",
    "bytes=-0",
    "bytes=1-2, 4-6,\t9-,",
    "Bytes = 0 - 1",
    "items=0-1",
)
_FORWARDED = (
    "for=192.0.2.1;by=1",
    'For="[2001:db8::1]:80"',
    'for="\\1.2.3.4"',
    'for=a, for="',
    "for=_hidden",
    "for=unknown",
)
_SENT = [
    [],
    [("X-Forwarded-For", "198.51.100.66, 10.0.0.5"), ("X-Forwarded-For", "unknown")],
    [("Forwarded", 'for=198.51.100.66;proto=http, for="[2001:db8::66]:1"'), ("X-Real-IP", "10.0.0.1")],
    [("x-forwarded-for", ","), ("X_Forwarded_For", "10.0.0.1"), ("forwarded", 'for="x')],
    [("X-Forwarded-For", ",".join(["10.0.0.1"] * 40))],
]  # fmt: skip
TARGETS = (
    Target(
        "range",
        check_range,
        [(text, size, 16) for text in _RANGES for size in (0, 1, 10, 1000, 10**13)],
        ("bytes=", "-", ",", "0-0", "-1", "999-", "\t", " "),
        ("ignored", "416", "one", "several"),
    ),
    Target(
        "conditions",
        check_conditions,
        [
            (method, etag, 784_111_777, 784_200_000, [name, "if_range"], [text, other])
            for method in ("GET", "HEAD", "PUT")
            for etag in ('"a"', 'W/"a"')
            for name in _CONDITIONS
            for text in (*_TAGS, *_DATES)
            for other in ('"a"', _DATES[0])
        ],
        (*_TAGS, *_DATES, *_CONDITIONS),
        ("proceed", "not_modified", "failed", "a range"),
    ),
    Target(
        "forwarded",
        check_prepended,
        [(sent, number, how, "x" * (how % 3)) for sent in _SENT for number in range(3) for how in range(6)],
        (*CLIENTS, *INSIDE, *_FORWARDED, "X-Forwarded-For", "Forwarded", "x-forwarded-for"),
        ("plain", "with lines of its own"),
    ),
    Target(
        "forwarded, free",
        check_forwarded,
        [
            (peer, sent)
            for peer in (*INSIDE, *CLIENTS, "fe80::1%eth0", "")
            for sent in (*_SENT, [("Forwarded", text) for text in _FORWARDED])
        ],
        (*CLIENTS, *INSIDE, *_FORWARDED),
        ("refused", "the peer", "a hop"),
    ),
    Target(
        "file name",
        check_name,
        [
            (name, n)
            for n, name in enumerate(
                (
                    *(
                        "Sea.pdf",
                        "../../etc/passwd",
                        "C:\\CON.txt",
                        "a\r\nSet-Cookie: b=c",
                        'Łódź 100% "x".pdf',
                        "😀" * 90 + ".epub",
                    ),
                    *(
                        "",
                        ".",
                        "...",
                        " . ",
                        "nul",
                        "com¹.x",
                        "\u202efdp.exe",
                        "a;b=c",
                        "%41",
                        "e\u0301.pdf",
                        "x" * 300 + ".tar.gz",
                    ),
                )
            )
        ],
        ("UTF-8''", "filename*=", "LPT1", "AUX.", "~", "\u0301", "\uff0f", "\u2215"),
        ("kept", "changed"),
    ),
)
