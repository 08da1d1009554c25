"""A ZIP of stored files as arithmetic (APPNOTE.TXT 6.3): where each byte lies is known before any content is read.

Checksums stand behind the files and in the directory, known or not: so the layout never changes and can be resumed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from gateway.http.disposition import file_name

Kind = Literal["header", "content", "descriptor", "directory"]

_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_DESCRIPTOR = struct.Struct("<4s3L")
_DESCRIPTOR_64 = struct.Struct("<4sL2Q")
_END = struct.Struct("<4s4H2LH")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR_64 = struct.Struct("<4sLQL")
_EXTRA_64 = struct.Struct("<2H2Q")

_FLAGS = 1 << 3 | 1 << 11
"""A data descriptor follows the content (§4.4.4 bit 3), and names are UTF-8 (bit 11)."""
_PLAIN, _ZIP64 = 20, 45
_MADE_ON_UNIX = 3 << 8 | _ZIP64
_A_FILE = 0o100644 << 16
_LONG = 0xFFFFFFFF
_MANY = 0xFFFF
_FIRST_YEAR, _LAST_YEAR = 1980, 2107


@dataclass(frozen=True, slots=True)
class Member:
    """One file of the archive: its name in it, its size in bytes, and when it was changed (Unix seconds)."""

    name: str
    size: int
    modified: int


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes `start` … `stop` − 1 of one section: of a member's header, content or descriptor, or of the directory."""

    kind: Kind
    number: int
    """The member's place, from 0; −1 for the directory."""
    start: int
    stop: int

    @property
    def length(self) -> int:
        return self.stop - self.start


class Archive:
    """The layout of a ZIP of these members, in this order."""

    def __init__(self, members: Sequence[Member]) -> None:
        self._members = tuple(members)
        self._names = tuple(member.name.encode() for member in members)
        self._sections: list[tuple[int, Piece]] = []
        self._offsets: list[int] = []
        at = 0
        for number, member in enumerate(members):
            self._offsets.append(at)
            lengths: tuple[tuple[Kind, int], ...] = (
                ("header", len(self._header(number))),
                ("content", member.size),
                ("descriptor", (_DESCRIPTOR_64 if _is_long(member.size) else _DESCRIPTOR).size),
            )
            for kind, length in lengths:
                self._sections.append((at, Piece(kind, number, 0, length)))
                at += length
        self._directory_at = at
        directory = Piece("directory", -1, 0, len(self._directory(dict.fromkeys(range(len(members)), 0))))
        self._sections.append((at, directory))
        self.size = at + directory.length
        """Bytes of the whole archive."""

    def pieces(self, start: int, stop: int) -> list[Piece]:
        """What lies in bytes `start` … `stop` − 1 of the archive, in order; none is empty."""
        found = []
        for at, section in self._sections:
            first, last = max(start - at, 0), min(stop - at, section.stop)
            if first < last:
                found.append(Piece(section.kind, section.number, first, last))
        return found

    def summed(self, piece: Piece) -> Iterable[int]:
        """The members whose checksums stand in this piece."""
        if piece.kind == "directory":
            return range(len(self._members))
        return (piece.number,) if piece.kind == "descriptor" else ()

    def frame(self, piece: Piece, sums: Mapping[int, int]) -> bytes:
        """The bytes of a piece that is no content; `sums` has the CRC-32 of each member that `summed` names."""
        if piece.kind == "header":
            whole = self._header(piece.number)
        elif piece.kind == "descriptor":
            whole = self._descriptor(piece.number, sums[piece.number])
        else:
            whole = self._directory(sums)
        return whole[piece.start : piece.stop]

    def _header(self, number: int) -> bytes:
        member, name = self._members[number], self._names[number]
        # §4.4.4 bit 3: sum and sizes are 0 here; §4.3.9.2: the extra field says that the descriptor has long ones.
        long = _is_long(member.size)
        extra = _EXTRA_64.pack(1, 16, 0, 0) if long else b""
        size = _LONG if long else 0
        version = _ZIP64 if long else _PLAIN
        time, day = _dos(member.modified)
        head = _LOCAL.pack(b"PK\x03\x04", version, _FLAGS, 0, time, day, 0, size, size, len(name), len(extra))
        return head + name + extra

    def _descriptor(self, number: int, crc: int) -> bytes:
        size = self._members[number].size
        return (_DESCRIPTOR_64 if _is_long(size) else _DESCRIPTOR).pack(b"PK\x07\x08", crc, size, size)

    def _directory(self, sums: Mapping[int, int]) -> bytes:
        entries = b"".join(self._entry(number, sums[number]) for number in range(len(self._members)))
        count, size, at = len(self._members), len(entries), self._directory_at
        tail = b""
        if count >= _MANY or size >= _LONG or at >= _LONG:
            tail = _END_64.pack(b"PK\x06\x06", 44, _MADE_ON_UNIX, _ZIP64, 0, 0, count, count, size, at)
            tail += _LOCATOR_64.pack(b"PK\x06\x07", 0, at + size, 1)
        few = min(count, _MANY)
        return entries + tail + _END.pack(b"PK\x05\x06", 0, 0, few, few, min(size, _LONG), min(at, _LONG), 0)

    def _entry(self, number: int, crc: int) -> bytes:
        member, name, at = self._members[number], self._names[number], self._offsets[number]
        longs = [member.size, member.size] if _is_long(member.size) else []
        if _is_long(at):
            longs.append(at)
        extra = struct.pack(f"<2H{len(longs)}Q", 1, 8 * len(longs), *longs) if longs else b""
        size = min(member.size, _LONG)
        version = _ZIP64 if longs else _PLAIN
        time, day = _dos(member.modified)
        head = _CENTRAL.pack(
            b"PK\x01\x02",
            _MADE_ON_UNIX,
            version,
            _FLAGS,
            0,
            time,
            day,
            crc,
            size,
            size,
            len(name),
            len(extra),
            0,
            0,
            0,
            _A_FILE,
            min(at, _LONG),
        )
        return head + name + extra


def unique_names(names: Iterable[str]) -> list[str]:
    """The names in an archive: bare file names that every system can store, no two alike where case plays no part."""
    taken: set[str] = set()
    found = []
    for name in map(file_name, names):
        stem, dot, suffix = name.rpartition(".") if "." in name[1:] else (name, "", "")
        chosen, number = name, 1
        while chosen.casefold() in taken:
            number += 1
            chosen = f"{stem} ({number}){dot}{suffix}"
        taken.add(chosen.casefold())
        found.append(chosen)
    return found


def _is_long(number: int) -> bool:
    """Whether it needs ZIP64 (§4.3.9.2, §4.5.3): the greatest short number stands for "look there"."""
    return number >= _LONG


def _dos(seconds: int) -> tuple[int, int]:
    """Time and date of an MS-DOS file (§4.4.6), which knows no time zone: in UTC."""
    moment = datetime.fromtimestamp(min(max(seconds, 0), 2**32), UTC)
    if moment.year < _FIRST_YEAR:
        return 0, 1 << 5 | 1
    day = (min(moment.year, _LAST_YEAR) - _FIRST_YEAR) << 9 | moment.month << 5 | moment.day
    return moment.hour << 11 | moment.minute << 5 | moment.second // 2, day
