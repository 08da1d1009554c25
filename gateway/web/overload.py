"""What one worker takes on: bodies while its memory is below its cap, and a few new requests a turn of its event loop.

Law: too much is refused before anything is charged, and what runs goes on.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from aiohttp import web

from gateway.errors import SettingsError
from gateway.settings import Settings

BODY = {"s3": 768 * 1024, "file": 256 * 1024}
"""Bytes that a body may come to take when its client stalls, by its origin: half again what was measured."""
GROWTH = 3.0
"""Seconds after which a body's memory is to be seen in the process's."""
WORKER = 160 * 1024 * 1024
"""Bytes that a worker with bodies takes at least."""
STARTS = 8
AT_ONCE = 16
DECIDED = 0.25
"""Seconds after which a request that is being decided waits for a store, or for its place, and costs nothing."""
PATIENCE = 10.0
"""Seconds for which a request waits to be begun, before it is told to come again."""
_BODIES_AT_LEAST = 16
_TRIM_EVERY = 1.0
_LOOK = 0.002
_PAGE = os.sysconf("SC_PAGE_SIZE")
_CGROUP_FILES = ("memory.max", "memory.limit_in_bytes")


class _Fresh:
    """Names of what began less than `age` seconds ago and has not ended."""

    def __init__(self, age: float) -> None:
        self._age = age
        self._began: dict[str, float] = {}

    def begin(self, name: str) -> None:
        self._began[name] = time.monotonic()

    def end(self, name: str) -> None:
        self._began.pop(name, None)

    def count(self) -> int:
        old = time.monotonic() - self._age
        while self._began:
            name = next(iter(self._began))
            if self._began[name] > old:
                break
            del self._began[name]
        return len(self._began)


class Memory:
    """A worker's memory (resident set) under a cap in bytes: new bodies are taken on up to 7/8 of it, connections up
    to 15/16. `body`: what one may come to take. Where a platform cannot tell what is taken, nothing is capped.
    """

    def __init__(self, cap: int, body: int) -> None:
        self.cap = cap
        self._body = body
        self._bodies = _Fresh(GROWTH)
        self._trimmed_at = float("-inf")

    def has_room(self) -> bool:
        """Whether one more body may begin. Those that began a moment ago count as what they may come to take."""
        return self._is_below(self.cap - self.cap // 8 - (self._bodies.count() + 1) * self._body)

    def is_spent(self) -> bool:
        """Whether not even a connection may be added."""
        return not self._is_below(self.cap - self.cap // 16)

    @contextmanager
    def body(self, name: str) -> Iterator[None]:
        """While a body is being sent."""
        self._bodies.begin(name)
        try:
            yield
        finally:
            self._bodies.end(name)

    def _is_below(self, most: int) -> bool:
        return resident() <= most or (self._trim() and resident() <= most)

    def _trim(self) -> bool:
        """Give freed memory back, which malloc keeps for later: else one crowd would leave the worker full for good."""
        now = time.monotonic()
        if now - self._trimmed_at < _TRIM_EVERY:
            return False
        self._trimmed_at = now
        return _malloc_trim(0) != 0


class Turns:
    """Lets requests begin in their order: STARTS in a turn of the event loop, and only while fewer than AT_ONCE are
    being decided. So Redis' replies come, and are read, before they count as late.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[str, asyncio.Future[None]]] = deque()
        self._deciding = _Fresh(DECIDED)
        self._begun = 0

    async def take(self, name: str) -> bool:
        """Wait for a turn, which `end` gives back; False where none came within PATIENCE seconds."""
        if not self._waiting and self._may_begin():
            self._begin(name)
            return True
        turn: asyncio.Future[None] = self._loop.create_future()
        if not self._waiting:
            self._loop.call_later(_LOOK, self._next)
        self._waiting.append((name, turn))
        try:
            async with asyncio.timeout(PATIENCE):
                await turn
        except TimeoutError:
            return False
        return True

    def end(self, name: str) -> None:
        """It is decided. Harmless when called again."""
        self._deciding.end(name)

    def _may_begin(self) -> bool:
        return self._begun < STARTS and self._deciding.count() < AT_ONCE

    def _begin(self, name: str) -> None:
        if not self._begun:
            self._loop.call_soon(self._new_turn)
        self._begun += 1
        self._deciding.begin(name)

    def _new_turn(self) -> None:
        self._begun = 0

    def _next(self) -> None:
        while self._waiting and self._may_begin():
            name, turn = self._waiting.popleft()
            if not turn.done():
                self._begin(name)
                turn.set_result(None)
        if self._waiting:
            self._loop.call_later(_LOOK, self._next)


MEMORY = web.AppKey("memory", Memory)


def resident() -> int:
    """Bytes of memory that this process holds now (proc(5), statm); 0 where there is no /proc."""
    try:
        # Asked for each connection: a file object would cost five times as much.
        file = os.open("/proc/self/statm", os.O_RDONLY)
    except OSError:
        return 0
    try:
        return int(os.read(file, 64).split()[1]) * _PAGE
    finally:
        os.close(file)


def memory_of_worker(settings: Settings, taken: int) -> Memory:
    """A worker's share of the setting `memory`, where it has `taken` that many bytes before its first request.

    Raises SettingsError where nothing could be sent with it.
    """
    body = BODY[settings.origin.kind]
    least = (taken + _BODIES_AT_LEAST * body) * 5 // 4
    if settings.memory is None:
        return Memory(max(memory_here() // 2 // settings.workers, WORKER, least), body)
    share = settings.memory // settings.workers
    if share < least:
        wanted = -(-least * settings.workers // 10_000_000) * 10
        raise SettingsError(
            f"memory: is {share // 1_000_000}MB for each of {settings.workers} workers, which take "
            f"{taken // 1_000_000}MB before their first download; write {wanted}MB or more, or fewer workers"
        )
    return Memory(share, body)


def memory_here(root: Path = Path("/")) -> int:
    """Bytes of memory that this machine, or this process's control group (cgroups(7)), has."""
    least = os.sysconf("SC_PHYS_PAGES") * _PAGE
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return least
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):
            group = root / "sys/fs/cgroup" / controllers
            # In a container the path may be the host's, and the group's own files lie at the top.
            groups = [group / path.strip("/"), *(group / path.strip("/")).parents]
            files = [folder / name for folder in groups if folder.is_relative_to(group) for name in _CGROUP_FILES]
            least = min([least, *filter(None, map(_limit, files))])
    return least


def _limit(file: Path) -> int:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return 0


# glibc's own; elsewhere malloc gives back by itself.
_malloc_trim: Callable[[int], int] = getattr(ctypes.CDLL(None), "malloc_trim", lambda _pad: 0)
