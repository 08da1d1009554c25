"""What a request or a stream brings into events, commands, addresses and globs: clean, bounded, and read as written."""

from __future__ import annotations

import itertools
import re
from functools import cache
from random import Random
from urllib.parse import unquote

from engine import Target

from gateway.front.addresses import FileAddress, HookAddress, LinkAddress, OrderAddress, ZipAddress, parse_path
from gateway.policy.events import FIELDS, LENGTH_MAX, LENGTHS, TYPES, new_event
from gateway.policy.globs import path_glob, word_glob
from gateway.policy.links import file_path, zip_path
from gateway.policy.model import Claims, FileEntry
from gateway.policy.standing import Command, Standing, read_command, write_command
from gateway.policy.units import (
    format_duration,
    format_rate,
    format_size,
    parse_duration,
    parse_rate,
    parse_size,
)

# --- Events -----------------------------------------------------------------------------------------------------------


def check_event(value: tuple[str, list[tuple[str, str]], int]) -> str:
    kind, pairs, time_ms = value[0], value[1], value[2]
    try:
        event = new_event(kind, "id", time_ms, dict(pairs))
    except ValueError:
        known = kind in ("", *TYPES) and all(name in FIELDS for name, _ in pairs)
        assert not known or not 0 <= time_ms < 253_402_300_800_000, "an event of known fields was refused"
        return "refused"
    for name, text in event.items():
        assert name in FIELDS
        assert 1 <= len(text) <= LENGTHS.get(name, LENGTH_MAX)
        assert not re.search("[\x00-\x1f\x7f-\x9f\u2028\u2029]", text)
        assert text.encode().decode() == text
    assert (event.get("type", ""), event["v"]) == (kind, "1"), "a field of the request took the place of our own"
    return "written"


# --- Orders of the control stream -------------------------------------------------------------------------------------

_KEY = "0123456789abcdef" * 2
_CLAIMS = tuple(
    Claims("shop", "t", 2_000_000_000, (FileEntry("a"),), order_id=order, issued_at=issued)
    for order in (None, "10001")
    for issued in (None, 0, 1_700_000_000)
)


def check_commands(value: tuple[list[tuple[dict[str, object]]], int]) -> str:
    """Each entry is a command or refused; what they say together does not hang on their sequence or their number."""
    read: list[Command] = []
    for (entry,) in value[0]:
        fields = {str(name): str(each) for name, each in entry.items()}
        if fields.get("token.key") == "own":
            fields["token.key"] = _CLAIMS[0].token_key
        try:
            command = read_command(fields)
        except ValueError as error:
            said = str(error)
            assert not any(len(text) > 12 and text in said for text in fields.values()), "a refusal quotes an entry"
            continue
        written = write_command(command)
        assert read_command(written) == command
        assert written.items() <= fields.items() | {
            (name, str(int(text))) for name, text in written.items() if _whole(text)
        }
        read.append(command)
    if not read:
        return "nothing"
    answers = {_said(read)}
    shuffled = [*read, *read]
    Random(value[1]).shuffle(shuffled)
    answers |= {_said(read[::-1]), _said(shuffled)}
    assert len(answers) == 1, "the sequence of commands matters"
    return "commands"


def _whole(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _said(commands: list[Command]) -> tuple[object, ...]:
    standing = Standing()
    for command in commands:
        standing.apply(command)
    return tuple((standing.is_revoked(claims), standing.extended_to(claims)) for claims in _CLAIMS)


# --- Addresses --------------------------------------------------------------------------------------------------------


FIXED = (
    "/help",
    "/auth",
    "/auth/refused",
    "/account",
    "/account/sign-in",
    "/account/return",
    "/account/enter",
    "/account/sign-out",
)


def check_path(raw: str) -> str:
    address = parse_path(raw)
    match address:
        case None:
            return "none"
        case LinkAddress(token=token):
            assert raw == f"/l/{token}"
            assert token
            assert "/" not in token
            return "a page"
        case ZipAddress(token=token):
            assert token
            assert "/" not in token
            assert raw == f"/z/{token}" or raw.startswith(f"/z/{token}/")
            assert parse_path(zip_path("", token, raw)) == address, "what we write we cannot read"
            return "a ZIP"
        case HookAddress(shop=shop):
            assert raw == f"/hooks/{shop}"
            assert shop
            assert "/" not in shop
            return "a shop"
        case FileAddress(token=token, number=number):
            assert token
            assert "/" not in token
            assert 1 <= number <= 9999
            assert raw == f"/d/{token}" or raw.startswith(f"/d/{token}/{number}")
            made = file_path("", token, number, raw)
            assert parse_path(made) == address, "what we write we cannot read"
            assert made.isascii() or not token.isascii()
            assert not {"\r", "\n", " ", "?", "#"} & set(made.removeprefix(f"/d/{token}"))
            return "a file"
        case OrderAddress(name=name):
            written = raw.removeprefix("/o/")
            assert raw == f"/o/{written}"
            assert written
            assert "/" not in written
            assert name == unquote(written, errors="replace")
            return "an order"
        case _:
            assert raw in FIXED
            return "a fixed one"


# --- Globs ------------------------------------------------------------------------------------------------------------


def check_glob(value: tuple[str, str]) -> str:
    """Against the grammar tried out recursively, on texts short enough for that; in linear time on all."""
    pattern, text = value
    folders, words = path_glob(pattern).matches(text), word_glob(pattern).matches(text)
    if len(pattern) > 24 or len(text) > 24:
        return "long"
    assert folders == _path_means(pattern, text)
    assert words == _word_means(pattern, text)
    return "matches" if folders or words else "does not"


def _word_means(pattern: str, text: str) -> bool:
    letters = (".*" if letter == "*" else "." if letter == "?" else re.escape(letter) for letter in pattern)
    return re.fullmatch(re.sub(r"(\.\*)+", ".*", "".join(letters)), text, re.DOTALL) is not None


def _path_means(pattern: str, text: str) -> bool:
    """`**/` at the pattern's start or behind a slash: no folder or any; `**`: any text; `*`, `?`: all but a slash."""

    @cache
    def rest(at: int, start: int) -> bool:
        if at == len(pattern):
            return start == len(text)
        begins = at == 0 or pattern[at - 1] == "/"
        if begins and pattern.startswith("**/", at):
            ends = (place + 1 for place in range(start, len(text)) if text[place] == "/")
            return rest(at + 3, start) or any(rest(at + 3, end) for end in ends)
        letter = pattern[at]
        if letter == "*":
            run = len(pattern[at:]) - len(pattern[at:].lstrip("*"))
            ends = itertools.takewhile(lambda end: run > 1 or "/" not in text[start:end], range(start, len(text) + 1))
            return any(rest(at + run, end) for end in ends)
        if start == len(text):
            return False
        return (text[start] != "/" if letter == "?" else text[start] == letter) and rest(at + 1, start + 1)

    return rest(0, 0)


# --- Units ------------------------------------------------------------------------------------------------------------


def check_unit(text: str) -> str:
    taken = "refused"
    for read, write in ((parse_duration, format_duration), (parse_size, format_size), (parse_rate, format_rate)):
        try:
            number = read(text)
        except ValueError:
            continue
        taken = "read"
        assert number >= 0
        assert read(write(number)) == number
        digits = re.match(r"[0-9]+", text, re.ASCII)
        assert digits is not None
        assert number % int(digits[0] or 1) == 0 if int(digits[0]) else number == 0
    return taken


_NAMES = ("user_agent.original", "http.request.range", "campaign", "order.id", "type", "v", "time", "id", "file.key")
_PATTERNS = ("**/*.wav", "masters/**", "a/?/**/b", "*bot*", "**", "***/", "**/**/", "a**/b", "?*", "")
_TEXTS = ("masters/a.wav", "a/b/c/b", "a/x/b", "bot", "/", "", "a//b", "x\n")
_COMMAND = {"v": "1", "verb": "revoke", "time": "1700000000", "token.key": _KEY}
_EXTENSION = {"v": "1", "verb": "extend", "time": "1700000000", "order.id": "10001", "expires_at": "1800000000"}
_MORE = [
    ({**_EXTENSION, "time": "1700000000", "expires_at": "1900000000"},),
    ({**_EXTENSION, "time": "1600000000"},),
    ({"v": "1", "verb": "revoke", "time": "5", "order.id": "10001"},),
    ({"v": "1", "verb": "extend", "time": "7", "token.key": "own", "expires_at": "9"},),
]
TARGETS = (
    Target(
        "event",
        check_event,
        [
            (kind, [(name, f"a {name} \x1b\u2028")], 1_700_000_000_000)
            for kind in ("", "download.allowed")
            for name in _NAMES
        ],
        (*_NAMES, *TYPES),
        ("written", "refused"),
    ),
    Target(
        "commands",
        check_commands,
        [([(_COMMAND,), (_EXTENSION,), *_MORE], 1), ([(_EXTENSION,), *_MORE], 2), (_MORE, 3)],
        (*_COMMAND, *_EXTENSION, "revoke", "extend", "own", "10001", _KEY),
        ("nothing", "commands"),
    ),
    Target(
        "address",
        check_path,
        (
            "/d/a.b.c",
            "/d/a.b.c/2",
            "/d/a.b.c/2/Sea.pdf",
            "/l/a.b.c",
            "/z/a.b.c/All.zip",
            "/hooks/main",
            "/o/main-1%2F",
            "/account/sign-in",
            "/help",
            "/d//1",
            "/d/x/0",
            "/d/%2F/1/",
        ),
        ("/d/", "/l/", "/o/", "/hooks/", "/account", "/", "%2f", "..", "//", "9999", "10000", "٣"),
        ("none", "a page", "a file", "a ZIP", "a shop"),
    ),
    Target(
        "globs",
        check_glob,
        [(pattern, text) for pattern in _PATTERNS for text in _TEXTS],
        ("*", "**", "**/", "?", "/", "a", "b"),
        ("long", "matches", "does not"),
    ),
    Target(
        "units",
        check_unit,
        ("30d", "72h", "20MB", "64KiB", "2MB/s", "1234", "0s", "1y"),
        ("s", "m", "h", "d", "y", "B", "KB", "MiB", "TiB", "/s", "k", "\u212a"),
        ("read", "refused"),
    ),
)
