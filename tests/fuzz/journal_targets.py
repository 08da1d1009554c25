"""A journal's lines: whatever becomes of a file, only what was written is read from it, and reading never raises."""

from __future__ import annotations

import json
import tempfile
import zlib
from pathlib import Path

from engine import Target

from gateway.backends.journal_file import (
    Header,
    Line,
    Torn,
    Write,
    command_line,
    header_line,
    read,
    unasked_line,
    write_line,
)
from gateway.policy.model import Mark
from gateway.policy.standing import Command
from gateway.ports import Entry, Unasked

_FOLDER = tempfile.TemporaryDirectory(prefix="fuzz-")
FILE = Path(_FOLDER.name) / "journal"
LINES: tuple[Line, ...] = (
    Header({"worker": "w-1", "shards": 2}, {0: Mark(1, 7), 1: Mark(2, 1)}, 3),
    Write(0, Entry(Mark(1, 8), '["reserve", {"a": "ü"}]')),
    Write(1, Entry(Mark(2, 2), "")),
    Command("revoke", 1_700_000_000, token_key="0123456789abcdef" * 2),
    Command("extend", 1_700_000_000, order_id="10001", expires_at=1_800_000_000),
    Unasked("settle", "r1", {"delivered": 5}),
)


def written(line: Line) -> bytes:
    match line:
        case Header():
            return header_line(line)
        case Write(shard=shard, entry=entry):
            return write_line(shard, entry)
        case Command():
            return command_line(line)
        case Unasked():
            return unasked_line(line)


GENUINE = {written(line): line for line in LINES}
WHOLE = b"".join(GENUINE)


def check_file(text: str) -> str:
    raw = text.encode("latin-1", "replace")
    FILE.write_bytes(raw)
    found = list(read(FILE))
    lines = [line for line in found if not isinstance(line, Torn)]
    assert all(line in LINES for line in lines), "what nobody wrote was read"
    ended = [each + b"\n" for each in raw.split(b"\n")[:-1]]
    assert [written(line) for line in lines] == [each for each in ended if each in GENUINE]
    torn = sum(each.lines for each in found if isinstance(each, Torn))
    assert (torn == 0) == (len(lines) == raw.count(b"\n") + (not raw.endswith(b"\n") and raw != b""))
    return "torn" if torn else "whole"


def check_line(value: tuple[str, object]) -> str:
    """A line with a good checksum and anything in it, such as another version writes: read as what it says, or torn."""
    kind, content = value
    text = content if isinstance(content, str) else json.dumps(content)
    body = f"{kind} {text}".encode("utf-8", "replace").replace(b"\n", b"")
    FILE.write_bytes(b"%08x %s\n" % (zlib.crc32(body), body))
    (line,) = read(FILE)
    if isinstance(line, Torn):
        return "torn"
    FILE.write_bytes(written(line))
    assert list(read(FILE)) == [line], "what was read cannot be written"
    return "read"


TARGETS = (
    Target(
        "journal",
        check_file,
        (WHOLE.decode("latin-1"), *(line.decode("latin-1") for line in GENUINE)),
        ("\n", " ", "00000000", *(line.decode("latin-1") for line in GENUINE)),
        ("torn", "whole"),
    ),
    Target(
        "journal's contents",
        check_line,
        [
            ("J", {"worker": "w", "marks": {"0": [1, 7]}, "commands": 3}),
            ("W", "0 1 8 text"),
            ("U", ["settle", "r", {"a": 1}]),
            ("O", {"v": "1", "verb": "revoke", "time": "5", "order.id": "10001"}),
        ],
        ("J", "W", "O", "U", "marks", "commands", "0", "-1", "verb"),
        ("torn", "read"),
    ),
)
