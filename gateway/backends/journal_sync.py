"""Fsyncs what was appended to a journal, a group at a time, on a thread of its own: the event loop does not wait."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable

from gateway.backends.journal_file import Segment
from gateway.errors import JournalDown

GROUP = 0.01
"""Seconds that a group of lines gathers before it is fsynced."""
END_SECONDS = 5.0
"""For the last fsync: a disk that hangs must not keep the process from ending."""


class Syncer:
    """`failed` is called on its thread, with what could not be done. Only the thread closes a segment, or its
    descriptor might be another file's by then.
    """

    def __init__(self, failed: Callable[[str, OSError], None]) -> None:
        self._failed = failed
        self._segments: list[Segment] = []
        """The last one is appended to; those before it have not been fsynced whole."""
        self._given_up: list[Segment] = []
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []
        self._wake = threading.Event()
        self._guard = threading.Lock()
        self._ended = False
        self._thread: threading.Thread | None = None

    def follow(self, segment: Segment) -> None:
        """Sync this one too from now on; those before it a last time."""
        with self._guard:
            self._segments.append(segment)
        self._wake.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
            self._thread.start()

    def at_risk(self) -> list[bytes]:
        """The lines that no fsync has covered."""
        with self._guard:
            return [line for segment in self._segments for line in list(segment.unsynced)]

    def give_up(self) -> None:
        """Expect nothing more of the segments so far: what was at risk in them stands elsewhere."""
        with self._guard:
            self._given_up += self._segments
            self._segments = []

    def is_dirty(self) -> None:
        """There is something to sync."""
        self._wake.set()

    async def synced(self) -> None:
        """Return when everything that was appended until now outlives the machine. Raises JournalDown."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        with self._guard:
            if self._ended or self._thread is None:
                raise JournalDown("the journal is not open")
            self._waiting.append((loop, future))
        self._wake.set()
        await future

    def close(self) -> None:
        """Sync a last time, and close everything."""
        with self._guard:
            self._ended = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(END_SECONDS)

    def _run(self) -> None:
        ended = False
        while not ended:
            self._wake.wait()
            if not self._ended:
                time.sleep(GROUP)
            self._wake.clear()
            with self._guard:
                ended = self._ended
                waiting, self._waiting = self._waiting, []
                segments = list(self._segments)
            error = self._sync(segments)
            self._close_what_is_done(segments, ended)
            for loop, future in waiting:
                with contextlib.suppress(RuntimeError):  # its loop has ended
                    loop.call_soon_threadsafe(_resolve, future, error)

    def _sync(self, segments: list[Segment]) -> OSError | None:
        """The first failure among them. One that failed is not tried again: a second fsync may lie about the first."""
        for segment in segments:
            if segment.failure is not None:
                continue
            try:
                segment.sync(is_newest=segment is segments[-1])
            except OSError as error:
                segment.failure = error
                with self._guard:
                    is_ours = segment in self._segments
                if is_ours:
                    self._failed("fsynced", error)
        return next((segment.failure for segment in segments if segment.failure is not None), None)

    def _close_what_is_done(self, synced: list[Segment], ended: bool) -> None:
        with self._guard:
            done, self._given_up = self._given_up, []
            done += [segment for segment in synced[:-1] if segment.failure is None and segment in self._segments]
            if ended:
                done += [segment for segment in self._segments if segment not in done]
            self._segments = [segment for segment in self._segments if segment not in done]
        for segment in done:
            segment.close()


def _resolve(future: asyncio.Future[None], error: OSError | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(JournalDown(f"the journal cannot be fsynced ({error.strerror})"))
