"""What stores said of their objects, for a few seconds: bounded, one question at a time per key.

Failures are never kept, except for a short while that an object is missing.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from gateway.errors import FileMissing
from gateway.policy.model import StoredObject

Fetch = Callable[[str], Awaitable[StoredObject]]


class StatCache:
    """Answers of `fetch`, kept for `keep` seconds (`keep_missing` where it raised FileMissing), `entries` at most."""

    def __init__(self, fetch: Fetch, *, keep: float = 5.0, keep_missing: float = 1.0, entries: int = 10_000) -> None:
        self._fetch = fetch
        self._keep = keep
        self._keep_missing = keep_missing
        self._entries = entries
        self._known: OrderedDict[str, tuple[float, StoredObject | FileMissing]] = OrderedDict()
        self._asking: dict[str, asyncio.Task[StoredObject]] = {}

    async def get(self, key: str, *, fresh: bool = False) -> StoredObject:
        """The object as known, or as `fetch` says now if `fresh`. Raises what `fetch` raises."""
        if fresh:
            return await self._ask(key)
        entry = self._known.get(key)
        if entry is not None and time.monotonic() < entry[0]:
            self._known.move_to_end(key)
            if isinstance(entry[1], FileMissing):
                raise FileMissing(str(entry[1]))
            return entry[1]
        task = self._asking.get(key)
        if task is None:
            task = self._asking[key] = asyncio.create_task(self._ask(key))
            task.add_done_callback(lambda done: self._asked(key, done))
        # Not awaited directly: one caller that leaves must not cancel the question of the others.
        await asyncio.wait((task,))
        return task.result()

    def forget(self, key: str) -> None:
        """The next `get` of this key asks again."""
        self._known.pop(key, None)

    async def close(self) -> None:
        """Cancel the questions under way; their callers see asyncio.CancelledError."""
        tasks = tuple(self._asking.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask(self, key: str) -> StoredObject:
        try:
            stored = await self._fetch(key)
        except FileMissing as missing:
            self._put(key, self._keep_missing, FileMissing(str(missing)))
            raise
        self._put(key, self._keep, stored)
        return stored

    def _put(self, key: str, keep: float, answer: StoredObject | FileMissing) -> None:
        self._known[key] = (time.monotonic() + keep, answer)
        self._known.move_to_end(key)
        if len(self._known) > self._entries:
            self._known.popitem(last=False)

    def _asked(self, key: str, task: asyncio.Task[StoredObject]) -> None:
        del self._asking[key]
        if not task.cancelled():
            task.exception()  # retrieved: with every caller gone, asyncio would log it as forgotten
