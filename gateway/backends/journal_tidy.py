"""What a journal's folder needs now and then, on a thread of its own: dead workers' journals are taken over, what is
finished is packed, what is over or too much goes. Nothing of it failing keeps the journal from being written.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from gateway.backends.journal_file import pack
from gateway.backends.journal_folder import JournalFolder, Known

log = logging.getLogger(__name__)

EVERY = 10.0
END_SECONDS = 5.0


class Tidier:
    """`worker`: whose own finished segments these are. `learnt` is called, on the thread, with what a dead one knew."""

    def __init__(
        self,
        folder: JournalFolder,
        worker: str,
        *,
        keep_seconds: float,
        bytes_max: int,
        learnt: Callable[[Known], None],
    ) -> None:
        self._folder = folder
        self._worker = worker
        self._keep_seconds = keep_seconds
        self._bytes_max = bytes_max
        self._learnt = learnt
        self._claimed: dict[str, int] = {}
        self._said = ""
        self._end = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def claimed(self) -> list[str]:
        """The dead workers whose journals are this one's to look after."""
        return list(self._claimed)

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="journal-tidy", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End, and let others take over what was claimed."""
        self._end.set()
        if self._thread is not None:
            self._thread.join(END_SECONDS)
        for lock in self._claimed.values():
            os.close(lock)
        self._claimed = {}

    def tidy(self) -> None:
        """Do what is due. Raises OSError."""
        self._claim()
        self._drop_what_is_over()
        with self._folder.whole() as mine:
            if mine:
                self._bound()
        for path in self._finished():
            if not self._end.is_set():
                with contextlib.suppress(FileNotFoundError):  # packed already, or gone
                    pack(path, self._end.is_set)

    def _run(self) -> None:
        while not self._end.is_set():
            try:
                self.tidy()
                self._said = ""
            except Exception as error:  # noqa: BLE001  this loop must outlive whatever goes wrong in it
                why = error.strerror if isinstance(error, OSError) else type(error).__name__
                said = f"the journal in {self._folder.path} cannot be tidied ({why})"
                if said != self._said:
                    self._said = said
                    log.error("%s: it grows until it can", said)
            self._end.wait(EVERY)

    def _claim(self) -> None:
        for worker in self._folder.by_worker():
            if worker != self._worker and worker not in self._claimed:
                lock = self._folder.lock(worker)
                if lock is None:
                    continue
                try:
                    self._learnt(self._folder.known_to(worker))
                except OSError:
                    os.close(lock)
                    raise
                self._claimed[worker] = lock

    def _drop_what_is_over(self) -> None:
        for path in self._finished():
            if time.time() - self._folder.written(path) > self._keep_seconds:
                self._folder.remove(path)
        left = self._folder.by_worker()
        for worker in self.claimed:
            if worker not in left:
                self._folder.forget(worker)
                os.close(self._claimed.pop(worker))

    def _bound(self) -> None:
        """Keep the folder within its size: the oldest segments of anybody go first, but never what is written to."""
        every = self._folder.by_worker()
        newest = {paths[-1] for worker, paths in every.items() if worker not in self._claimed}
        paths = sorted((path for own in every.values() for path in own), key=self._folder.written)
        excess = sum(map(self._folder.size, paths)) - self._bytes_max
        for path in paths:
            if excess <= 0:
                return
            if path not in newest:
                excess -= self._folder.size(path)
                hours = (time.time() - self._folder.written(path)) / 3600
                self._folder.remove(path)
                log.warning("journal.size is reached: what is older than %.1f h is not kept any more", hours)

    def _finished(self) -> list[Path]:
        """The segments of one's own and of the claimed that nobody writes to any more."""
        every = self._folder.by_worker()
        mine = every.get(self._worker, [])[:-1]
        return [path for worker in self._claimed for path in every.get(worker, [])] + mine
