"""The journal: what this gateway wrote to Redis, kept on its own disk for when Redis loses it. See docs/reliability.md.

A folder for all workers of a machine; each appends to files of its own, and holds a lock on them while it lives. A line
is in the page cache when `keep` returns, and fsynced with its group soon after.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path

from gateway.backends import journal_file
from gateway.backends.journal_file import Header, Segment
from gateway.backends.journal_folder import NOTHING, JournalFolder, Known, new_worker
from gateway.backends.journal_sync import Syncer
from gateway.backends.journal_tidy import Tidier
from gateway.errors import JournalDown
from gateway.policy.model import Mark
from gateway.policy.standing import Command
from gateway.ports import Entry, Unasked

log = logging.getLogger(__name__)

SEGMENT_BYTES = 16 << 20
SYNC_SECONDS = 0.8
SEGMENT_BYTES_LEAST = 1 << 16
SEGMENTS_PER_SIZE = 64
SEGMENTS_PER_KEEP = 24


class FileJournal:
    """gateway.ports.Journal in a folder.

    `keep_seconds`: how long lines are kept. `bytes_max`: how large the folder may be; the oldest lines go when it is
    larger. `header` is told to those who come after. Never raises for a disk that fails: that is `trouble`.
    """

    def __init__(
        self, folder: Path, *, keep_seconds: float, bytes_max: int, header: Mapping[str, str | int] | None = None
    ) -> None:
        self.worker = new_worker()
        self.trouble = ""
        self.folder = JournalFolder(folder)
        self._segment_seconds = keep_seconds / SEGMENTS_PER_KEEP
        self._segment_bytes = max(SEGMENT_BYTES_LEAST, min(SEGMENT_BYTES, bytes_max // SEGMENTS_PER_SIZE))
        self._given = dict(header or {})
        self._known = Known()
        self._has_learnt = False
        self._learnt: deque[Known] = deque()
        self._taken_over: set[str] = set()
        self._segment: Segment | None = None
        self._number = 0
        self._first_bytes = 0
        self._lock: int | None = None
        self._owed: list[bytes] = []
        """Lines that could not be written, for the next segment that can."""
        self._syncer = Syncer(self._failed)
        self._tidier = Tidier(
            self.folder, self.worker, keep_seconds=keep_seconds, bytes_max=bytes_max, learnt=self._learnt.append
        )

    def open(self) -> None:
        """Learn from the journals that are there, and begin one's own. A disk that fails is `trouble`, not an error."""
        self._begin("opened")
        self._tidier.start()

    def close(self) -> None:
        """Sync what is there and give the lock up, so that another may take it over."""
        self._tidier.close()
        self._syncer.close()
        self._segment = None
        if self._lock is not None:
            with contextlib.suppress(OSError):
                if not self.folder.segments(self.worker):
                    self.folder.forget(self.worker)
            os.close(self._lock)
            self._lock = None

    @property
    def torn(self) -> int:
        """Lines that could not be read back, ends that were never finished for the most part."""
        return self.folder.torn

    @property
    def header(self) -> Mapping[str, str | int]:
        """What this journal or one before it was told to tell."""
        return self._known.header

    def tell(self, **header: str | int) -> None:
        """Add to the header, from the next segment on and in this one."""
        if any(self._known.header.get(name) != value for name, value in header.items()):
            self._known.header.update(header)
            self._append(self._header_line())

    def keep(self, shard: int, entry: Entry) -> None:
        """See Journal.keep."""
        self._known.reached(shard, entry.mark)
        self._append(journal_file.write_line(shard, entry))

    def keep_command(self, command: Command) -> None:
        """See Journal.keep_command."""
        if command not in self._known.commands:
            self._known.commands[command] = None
            self._append(journal_file.command_line(command))

    def keep_unasked(self, step: Unasked) -> None:
        """See Journal.keep_unasked."""
        self._append(journal_file.unasked_line(step))

    async def synced(self) -> None:
        """See Journal.synced."""
        if self.trouble:
            raise JournalDown(self.trouble)
        try:
            async with asyncio.timeout(SYNC_SECONDS):
                await self._syncer.synced()
        except TimeoutError:
            raise JournalDown(f"the journal in {self.folder.path} cannot be fsynced in time") from None

    def revive(self) -> None:
        """See Journal.revive."""
        while self._learnt:
            known = self._learnt.popleft()
            for command in known.commands:
                self.keep_command(command)
            known.add(self._known)
            self._known = known
        segment = self._segment
        if self.trouble:
            self._begin("written")
        elif segment is not None and self._is_due(segment):
            try:
                self._follow(self._new_segment())
            except OSError as error:
                self._failed("continued", error)

    def note(self, shard: int, mark: Mark) -> None:
        """See Journal.note."""
        self._known.reached(shard, mark)
        self._append(self._header_line())

    def known(self, shard: int) -> Mark:
        """See Journal.known."""
        return self._known.marks.get(shard, NOTHING)

    def entries(self, shard: int, since: Mark, worker: str) -> Iterator[Entry]:
        """See Journal.entries."""
        return self.folder.entries(worker, shard, since)

    def workers(self) -> list[str]:
        """See Journal.workers."""
        return list(self.folder.by_worker())

    def commands(self) -> Iterator[Command]:
        """See Journal.commands."""
        yield from list(self._known.commands)

    def unasked(self) -> Iterator[Unasked]:
        """See Journal.unasked."""
        fresh = [worker for worker in self._tidier.claimed if worker not in self._taken_over]
        if not fresh:
            return
        steps = [step for worker in self.folder.by_worker() for step in self.folder.unasked(worker)]
        # Who told of a step may be another one, dead by now too.
        done = {step.request_id for step in steps if step.verb == "done"}
        for worker in fresh:
            yield from (step for step in self.folder.unasked(worker) if step.request_id not in done)
            self._taken_over.add(worker)

    def whole_folder(self, shard: int) -> contextlib.AbstractContextManager[bool]:
        """See Journal.whole_folder."""
        return self.folder.whole(f"shard-{shard}")

    def _append(self, line: bytes) -> None:
        if self.trouble:
            self._owed.append(line)
        elif self._segment is not None:
            try:
                self._segment.append(line)
            except OSError as error:
                self._owed.append(line)
                self._failed("written", error)
            self._syncer.is_dirty()

    def _is_due(self, segment: Segment) -> bool:
        """Whether it is time for the next segment. One without a line of its own can wait."""
        is_old = segment.age > self._segment_seconds and segment.size > self._first_bytes
        return is_old or segment.size > self._first_bytes + self._segment_bytes

    def _begin(self, what: str) -> None:
        """Begin where there was nothing or where that failed: with what may not be on the disk, and fsynced at once."""
        had = self._syncer.at_risk()
        try:
            self._take_place()
            segment = self._new_segment(b"".join([*had, *self._owed]))
            try:
                segment.sync(is_newest=True)
            except OSError:
                segment.close()
                segment.path.unlink(missing_ok=True)
                raise
        except OSError as error:
            self._failed(what, error)
            return
        self._syncer.give_up()
        self._follow(segment)
        self._owed = []
        if self.trouble:
            self.trouble = ""
            log.info("the journal in %s can be written again", self.folder.path)

    def _take_place(self) -> None:
        self.folder.make()
        if not self._has_learnt:
            for worker in self.folder.by_worker():
                self._known.add(self.folder.known_to(worker))
            self._known.header.update(self._given)
            self._has_learnt = True
        if self._lock is not None and not self.folder.is_lock_of(self._lock, self.worker):
            os.close(self._lock)
            self._lock = None
        if self._lock is None:
            self._lock = self.folder.lock(self.worker)
        if self._lock is None:
            raise BlockingIOError(0, "another process has taken this worker for dead")

    def _new_segment(self, more: bytes = b"") -> Segment:
        first = b"".join([self._header_line(), *map(journal_file.command_line, self._known.commands)])
        self._number += 1
        segment = Segment.create(self.folder.new_segment(self.worker, self._number), first + more)
        self._first_bytes = len(first)
        return segment

    def _follow(self, segment: Segment) -> None:
        self._segment = segment
        self.folder.writing = segment.path
        self._syncer.follow(segment)

    def _header_line(self) -> bytes:
        return journal_file.header_line(Header(self._known.header, self._known.marks, len(self._known.commands)))

    def _failed(self, what: str, error: OSError) -> None:
        where = f" at {error.filename}" if error.filename else ""
        said = f"the journal in {self.folder.path} cannot be {what} ({error.strerror}{where})"
        trouble = f"{said}; nothing is given until it can"
        if trouble != self.trouble:
            log.error("%s", trouble)
        self.trouble = trouble
