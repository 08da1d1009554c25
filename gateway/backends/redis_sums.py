"""Checksums of what was sent, in Redis: so any worker of any gateway can go on with an archive that broke off.

They speed nothing up and decide nothing: where Redis has none, a broken archive is begun anew.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
from collections.abc import Sequence

from gateway.backends.redis_client import Wire
from gateway.errors import LedgerDown
from gateway.policy.model import StoredObject
from gateway.ports import Summed

log = logging.getLogger(__name__)

_TEXT = re.compile(r"([0-9]{1,19}):([0-9]{1,10})")


class RedisSums:
    """gateway.ports.SumMemory; each object's is kept for `keep` seconds after it was last written."""

    def __init__(self, wire: Wire, keep: int) -> None:
        self._wire = wire
        self._keep = keep
        self._tasks: set[asyncio.Task[None]] = set()

    async def recall(self, objects: Sequence[StoredObject]) -> list[Summed]:
        """See SumMemory.recall."""
        return list(await asyncio.gather(*map(self._recall, objects)))

    def remember(self, stored: StoredObject, summed: Summed) -> None:
        """See SumMemory.remember."""
        task = asyncio.create_task(self._remember(stored, summed))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def drain(self) -> None:
        """Wait until all is kept, or could not be."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _recall(self, stored: StoredObject) -> Summed:
        try:
            text = await self._wire.execute("GET", _key(stored))
        except LedgerDown as error:
            log.warning("a checksum cannot be looked up: %s", error)
            return Summed()
        found = _TEXT.fullmatch(text or "")
        summed = Summed(int(found[1]), int(found[2])) if found else Summed()
        return summed if summed.length <= stored.size else Summed()

    async def _remember(self, stored: StoredObject, summed: Summed) -> None:
        # Between the two somebody else may keep a longer one: then a broken archive is begun anew, no more.
        if (await self._recall(stored)).length >= summed.length:
            return
        try:
            await self._wire.execute("SET", _key(stored), f"{summed.length}:{summed.crc32}", "EX", self._keep)
        except LedgerDown as error:
            log.warning("a checksum cannot be kept: %s", error)


def _key(stored: StoredObject) -> str:
    digest = hashlib.sha256(f"{stored.key}\0{stored.etag}".encode()).hexdigest()[:32]
    return f"gw:crc32:{digest}"
