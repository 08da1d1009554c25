"""The folder that all workers of a machine keep their journals in: `<worker>.<number>.journal`, `<worker>.lock`.

Only regular files with such a name are looked at. A worker's lock is held while it lives.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import secrets
import threading
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from gateway.backends import journal_file
from gateway.backends.journal_file import Header, Line, Torn, Write
from gateway.policy.model import Mark
from gateway.policy.standing import Command
from gateway.ports import Entry, Unasked

log = logging.getLogger(__name__)

NOTHING = Mark(0, 0)
_NAME = re.compile(r"([0-9]{13}-[0-9a-f]{8})\.[0-9]{6}\.journal(\.gz)?")


def new_worker() -> str:
    """A name of which there is only one; later ones sort behind earlier ones."""
    return f"{time.time_ns() // 1_000_000:013d}-{secrets.token_hex(4)}"


@dataclass(slots=True)
class Known:
    """What journals know: what they were told to tell, the latest place of each shard, and every command."""

    header: dict[str, str | int] = field(default_factory=dict)
    marks: dict[int, Mark] = field(default_factory=dict)
    commands: dict[Command, None] = field(default_factory=dict)

    def reached(self, shard: int, mark: Mark) -> None:
        self.marks[shard] = max(mark, self.marks.get(shard, NOTHING))

    def add(self, other: Known) -> None:
        """Take in what a later journal knows."""
        self.header |= other.header
        for shard, mark in other.marks.items():
            self.reached(shard, mark)
        self.commands |= other.commands


class JournalFolder:
    """Raises OSError where the disk fails. May be used by several threads at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.writing: Path | None = None
        """The segment that this process appends to, whose end may be half a line at any moment."""
        self._torn: dict[Path, int] = {}
        self._guard = threading.Lock()

    @property
    def torn(self) -> int:
        """Lines that could not be read back, ends that were never finished for the most part."""
        with self._guard:
            return sum(self._torn.values())

    def make(self) -> None:
        """See to it that it is there."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def new_segment(self, worker: str, number: int) -> Path:
        return self.path / f"{worker}.{number:06d}.journal"

    def by_worker(self) -> dict[str, list[Path]]:
        """The segments of each worker, oldest first, by their plain names; workers in the order of their starts."""
        found: dict[str, set[Path]] = {}
        with os.scandir(self.path) as entries:
            for entry in entries:
                name = _NAME.fullmatch(entry.name)
                if name is not None and entry.is_file(follow_symlinks=False):
                    found.setdefault(name[1], set()).add(self.path / entry.name.removesuffix(".gz"))
        return {worker: sorted(found[worker]) for worker in sorted(found)}

    def segments(self, worker: str) -> list[Path]:
        """The worker's segments, oldest first, by their plain names."""
        return self.by_worker().get(worker, [])

    def lock(self, worker: str) -> int | None:
        """A descriptor that holds the worker's lock until it is closed; None where another process holds it."""
        return _locked(self.path / f"{worker}.lock")

    def is_lock_of(self, descriptor: int, worker: str) -> bool:
        """Whether others who ask for the worker's lock would meet this one."""
        try:
            found = (self.path / f"{worker}.lock").stat()
        except FileNotFoundError:
            return False
        return os.path.samestat(found, os.fstat(descriptor))

    @contextlib.contextmanager
    def whole(self, task: str = "folder") -> Iterator[bool]:
        """Be the only one of this machine that does a task for all; False where another one is."""
        try:
            descriptor = _locked(self.path / f"{task}.lock")
        except OSError:
            descriptor = None
        try:
            yield descriptor is not None
        finally:
            if descriptor is not None:
                os.close(descriptor)

    def written(self, path: Path) -> float:
        """When the last line was written to a segment, in Unix seconds; never where it is not there any more."""
        return max((stat.st_mtime for stat in _forms(path)), default=float("inf"))

    def size(self, path: Path) -> int:
        """The bytes that a segment takes, in whichever forms there are."""
        return sum(stat.st_size for stat in _forms(path))

    def remove(self, path: Path) -> None:
        """Remove a segment."""
        for form in (path, journal_file.packed(path)):
            form.unlink(missing_ok=True)

    def forget(self, worker: str) -> None:
        """Remove what is left of a worker of whom there is no segment any more."""
        for path in self.path.glob(f"{worker}.*.part"):
            path.unlink(missing_ok=True)
        (self.path / f"{worker}.lock").unlink(missing_ok=True)

    def known_to(self, worker: str) -> Known:
        """What a journal knows. Each of its segments begins with what all before it knew, so the newest is enough,
        unless a part of it cannot be read.
        """
        known = Known()
        for path in reversed(self.segments(worker)):
            own, commands_before = self._known_in(path)
            own.add(Known(marks=known.marks, commands=known.commands))
            known = Known({**own.header, **known.header}, own.marks, own.commands)
            if commands_before is not None and len(own.commands) >= commands_before:
                break
        return known

    def entries(self, worker: str, shard: int, since: Mark) -> Iterator[Entry]:
        """What the worker wrote to the shard later than `since`."""
        for path in self._later_than(worker, shard, since):
            for line in self.read(path):
                if isinstance(line, Write) and line.shard == shard and line.entry.mark > since:
                    yield line.entry

    def unasked(self, worker: str) -> Iterator[Unasked]:
        for path in self.segments(worker):
            for line in self.read(path):
                if isinstance(line, Unasked):
                    yield line

    def read(self, path: Path) -> Iterator[Line]:
        """A segment's lines; what cannot be read is skipped, told, and counted once, however often it is read."""
        torn = 0
        try:
            for line in journal_file.read(path):
                if isinstance(line, Torn):
                    torn += line.lines
                    if not (line.at_end and path == self.writing):
                        self._count_torn(path, torn, line.at_end)
                else:
                    yield line
        except FileNotFoundError:
            return  # its time was over
        except (OSError, EOFError, zlib.error) as error:
            log.critical("%s: the rest of it cannot be read: %s", path.name, error)

    def _known_in(self, path: Path) -> tuple[Known, int | None]:
        """What a segment says by itself, and how many commands it should have; None where it does not say all."""
        known, commands = Known(), None
        for line in self.read(path):
            if isinstance(line, Header):
                known.add(Known({**line.known}, {**line.marks}))
                commands = max(line.commands, commands or 0)
            elif isinstance(line, Write):
                known.reached(line.shard, line.entry.mark)
            elif isinstance(line, Command):
                known.commands[line] = None
        return known, commands

    def _later_than(self, worker: str, shard: int, since: Mark) -> list[Path]:
        """The segments that may have something later than `since`: each begins with what all before it had reached."""
        segments = self.segments(worker)
        for at in range(len(segments) - 1, 0, -1):
            first = next(self.read(segments[at]), None)
            if isinstance(first, Header) and first.marks.get(shard, NOTHING) <= since:
                return segments[at:]
        return segments

    def _count_torn(self, path: Path, lines: int, at_end: bool) -> None:
        with self._guard:
            if lines <= self._torn.get(path, 0):
                return
            self._torn[path] = lines
        what = "its end was never finished" if at_end else "a part of it is damaged"
        log.log(logging.WARNING if at_end else logging.ERROR, "%s: %s: %d lines skipped", path.name, what, lines)


def _forms(path: Path) -> list[os.stat_result]:
    found = []
    for form in (path, journal_file.packed(path)):
        with contextlib.suppress(FileNotFoundError):
            found.append(form.stat())
    return found


def _locked(path: Path) -> int | None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            return None
        raise
    return descriptor
