"""The lines of a journal's files: `<CRC-32, 8 hex digits> <kind> <text>`; what cannot be read as one is Torn.

A file is only appended to. A finished one is packed (gzip) beside itself, and only then removed.
"""

from __future__ import annotations

import errno
import gzip
import json
import os
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from gateway.policy.model import Mark
from gateway.policy.standing import Command, read_command, write_command
from gateway.ports import Entry, Unasked

LINE_MAX = 16 << 20
CHUNK = 1 << 18
_HEADER, _ENTRY, _COMMAND, _UNASKED = b"J", b"W", b"O", b"U"


@dataclass(frozen=True, slots=True)
class Header:
    """What the lines after it rest on: what is known at all, the latest write of each shard, how many commands."""

    known: Mapping[str, str | int]
    marks: Mapping[int, Mark]
    commands: int = 0


@dataclass(frozen=True, slots=True)
class Write:
    shard: int
    entry: Entry


@dataclass(frozen=True, slots=True)
class Torn:
    """Lines that cannot be read: `at_end` where nothing follows them, as when a writer was killed."""

    lines: int
    at_end: bool


Line = Header | Write | Command | Unasked


@dataclass(slots=True, eq=False)
class Segment:
    """A file that is being written. `unsynced` holds the lines that a crash of the machine could still take."""

    path: Path
    descriptor: int
    size: int = 0
    began: float = field(default_factory=time.monotonic)
    unsynced: list[bytes] = field(default_factory=list)
    failure: OSError | None = None
    is_listed: bool = False

    @classmethod
    def create(cls, path: Path, first: bytes) -> Segment:
        """A new file that begins with these lines; none is left where they cannot be written. Raises OSError."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        segment = cls(path, os.open(path, flags, 0o600))
        try:
            segment.append(first)
        except OSError:
            segment.close()
            path.unlink(missing_ok=True)
            raise
        return segment

    @property
    def age(self) -> float:
        """Seconds since it was begun."""
        return time.monotonic() - self.began

    def append(self, line: bytes) -> None:
        """Raises OSError; half of the line may then be there."""
        rest = memoryview(line)
        while rest:
            rest = rest[os.write(self.descriptor, rest) :]
        self.unsynced.append(line)
        self.size += len(line)

    def sync(self, *, is_newest: bool = False) -> None:
        """Return when all that was appended outlives the machine; the newest must be found there. Raises OSError."""
        count = len(self.unsynced)
        os.fdatasync(self.descriptor)
        if not self.is_listed:
            sync_folder(self.path.parent)
            self.is_listed = True
        if is_newest and not os.path.samestat(self.path.stat(), os.fstat(self.descriptor)):
            raise FileNotFoundError(errno.ENOENT, "it was replaced", str(self.path))
        del self.unsynced[:count]

    def close(self) -> None:
        os.close(self.descriptor)


def header_line(header: Header) -> bytes:
    marks = {str(shard): [mark.epoch, mark.seq] for shard, mark in header.marks.items()}
    return _line(_HEADER, json.dumps({**header.known, "marks": marks, "commands": header.commands}))


def write_line(shard: int, entry: Entry) -> bytes:
    return _line(_ENTRY, f"{shard} {entry.mark.epoch} {entry.mark.seq} {entry.text}")


def command_line(command: Command) -> bytes:
    return _line(_COMMAND, json.dumps(write_command(command)))


def unasked_line(step: Unasked) -> bytes:
    return _line(_UNASKED, json.dumps([step.verb, step.request_id, step.document]))


def packed(path: Path) -> Path:
    """The name of the file's packed form."""
    return path.with_name(f"{path.name}.gz")


def read(path: Path) -> Iterator[Line | Torn]:
    """The file's lines in their order, from whichever form there is. Raises OSError."""
    torn = 0
    with _opened(path) as file:
        # What is appended from now on may be half there: it is for those who read later.
        left = sys.maxsize if isinstance(file, gzip.GzipFile) else os.fstat(file.fileno()).st_size
        while True:
            try:
                raw = file.readline(min(LINE_MAX, left))
            except (EOFError, zlib.error, gzip.BadGzipFile):
                yield Torn(torn + 1, at_end=False)  # it was whole when it was packed
                return
            if not raw:
                break
            left -= len(raw)
            line = _parsed(raw)
            if line is None:
                torn += 1
                continue
            if torn:
                yield Torn(torn, at_end=False)
                torn = 0
            yield line
    if torn:
        yield Torn(torn, at_end=True)


def pack(path: Path, is_unwanted: Callable[[], bool] = lambda: False) -> None:
    """Put the packed form in the file's place. At any moment one of the two is whole. Raises OSError.

    Left as it is where that `is_unwanted` meanwhile.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        with path.open("rb") as plain, os.fdopen(_private(part), "wb") as file:
            stat = os.fstat(plain.fileno())
            with gzip.GzipFile(fileobj=file, mode="wb", compresslevel=1, mtime=0) as packing:
                while chunk := plain.read(CHUNK):
                    if is_unwanted():
                        return
                    packing.write(chunk)
            file.flush()
            os.utime(file.fileno(), ns=(stat.st_atime_ns, stat.st_mtime_ns))  # its age is that of its last line
            os.fsync(file.fileno())
        part.rename(packed(path))
        sync_folder(path.parent)
        path.unlink()
    finally:
        part.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Return when the folder's names outlive the machine. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _opened(path: Path) -> IO[bytes] | gzip.GzipFile:
    try:
        return path.open("rb")
    except FileNotFoundError:
        return gzip.open(packed(path), "rb")


def _private(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)


def _line(kind: bytes, text: str) -> bytes:
    body = kind + b" " + text.encode()
    return b"%08x %s\n" % (zlib.crc32(body), body)


def _parsed(raw: bytes) -> Line | None:
    checksum, _, body = raw.partition(b" ")
    if not body.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(body[:-1]):
        return None
    kind, _, text = body[:-1].partition(b" ")
    try:
        return _READERS[kind](text)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None  # another program's, or another version's


def _read_header(text: bytes) -> Header:
    known = json.loads(text)
    marks = {int(shard): Mark(int(epoch), int(seq)) for shard, (epoch, seq) in known.pop("marks").items()}
    return Header(known, marks, int(known.pop("commands", 0)))


def _read_write(text: bytes) -> Write:
    shard, epoch, seq, written = text.split(b" ", 3)
    return Write(int(shard), Entry(Mark(int(epoch), int(seq)), written.decode()))


def _read_order(text: bytes) -> Command:
    return read_command(json.loads(text))


def _read_unasked(text: bytes) -> Unasked:
    verb, request_id, document = json.loads(text)
    return Unasked(str(verb), str(request_id), dict(document))


_READERS: Mapping[bytes, Callable[[bytes], Line]] = {
    _HEADER: _read_header,
    _ENTRY: _read_write,
    _COMMAND: _read_order,
    _UNASKED: _read_unasked,
}
