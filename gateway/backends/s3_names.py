"""The store's addresses: asked for in time, kept for seconds, and kept on with while no name server can be asked.

An answer that the name does not exist is an answer: nothing is kept on with then (RFC 8767 §4).
"""

from __future__ import annotations

import asyncio
import socket
import time
from dataclasses import dataclass, replace

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

KEEP_S = 5.0
KEEP_WHILE_SILENT_S = 600.0
# An old address is better than a slow answer (RFC 8767 §5 has 1.8 s).
_HURRY_S = 1.0


@dataclass(frozen=True, slots=True)
class _Known:
    fresh_until: float
    kept_until: float
    found: list[ResolveResult]


@dataclass(frozen=True, slots=True)
class _Place:
    host: str
    port: int
    family: socket.AddressFamily


class Names(AbstractResolver):
    """Looks a name up once for all who ask at a time, `patience` seconds at most."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._resolver = ThreadedResolver()
        self._known: dict[_Place, _Known] = {}
        self._asking: dict[_Place, asyncio.Task[list[ResolveResult]]] = {}

    def doubt(self) -> None:
        """Nobody answered at an address: who asks from now on looks anew."""
        for place, known in self._known.items():
            self._known[place] = replace(known, fresh_until=0.0)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Raises OSError where there is no such name, TimeoutError; and gaierror where nothing at all is known."""
        place, now = _Place(host, port, family), time.monotonic()
        known = self._known.get(place)
        if known is not None and now < known.fresh_until:
            return known.found
        old = known if known is not None and now < known.kept_until else None
        asking = self._asking.get(place)
        if asking is None:
            asking = self._asking[place] = asyncio.create_task(self._look_up(place))
            asking.add_done_callback(lambda done: self._asked(place, done))
        # Not awaited directly: one caller that leaves must not cancel the question of the others.
        done, _ = await asyncio.wait(
            (asking,), timeout=self._patience if old is None else min(_HURRY_S, self._patience)
        )
        try:
            if not done:
                raise TimeoutError
            return asking.result()
        except OSError as error:
            if old is None or (isinstance(error, socket.gaierror) and error.errno != socket.EAI_AGAIN):
                raise
            self._known[place] = replace(old, fresh_until=time.monotonic() + KEEP_S)
            return old.found

    async def close(self) -> None:
        """Forget the questions under way; a thread that is stuck in one ends by itself."""
        tasks = tuple(self._asking.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _look_up(self, place: _Place) -> list[ResolveResult]:
        began = time.monotonic()
        found = await self._resolver.resolve(place.host, place.port, place.family)
        self._known[place] = _Known(began + KEEP_S, began + KEEP_WHILE_SILENT_S, found)
        return found

    def _asked(self, place: _Place, task: asyncio.Task[list[ResolveResult]]) -> None:
        del self._asking[place]
        if not task.cancelled():
            task.exception()  # retrieved: with every caller gone, asyncio would log it as forgotten
