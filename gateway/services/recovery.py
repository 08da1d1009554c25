"""Looks after the shards: a shard whose Redis may have lost writes is not used until all is back in its place.

It hands in what this machine's journals keep, and puts back what all gateways handed in.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from gateway.errors import LedgerDown
from gateway.policy.model import Mark
from gateway.ports import ControlLog, Entry, Journal, Meeting, Shards
from gateway.services.faults import describe

log = logging.getLogger(__name__)

EVERY = 0.5
FOR_THE_DEAD = 1.0
"""Seconds after which a worker that did not come is held to be dead, and its journal is handed in by another."""
CHUNK = 500
_EVERYTHING = Mark(0, 0)


@dataclass(slots=True)
class _Seen:
    """What this worker has seen of a shard, and done about it: epochs as numbers, closings by name, times monotonic."""

    closing: str = ""
    closed_at: float = 0.0
    has_own: bool = False
    """Whether its own journal has been handed in for that closing."""
    handed_in: str = ""
    """The closing for which everything has been, the dead workers' too."""
    opened: int = 0
    opened_at: float = 0.0
    entered: int = 0


class Recovery:
    """`complete_at`: when all commands of the ops had been read last (monotonic s), since who enters shard 0 must know
    those that were put back.
    """

    def __init__(
        self, shards: Shards, journal: Journal, commands: ControlLog, *, complete_at: Callable[[], float]
    ) -> None:
        self._shards = shards
        self._journal = journal
        self._commands = commands
        self._complete_at = complete_at
        self._seen = [_Seen() for _ in range(shards.count)]
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Look once, then go on in the background. Never raises for a Redis that is away."""
        await self.look()
        # A loop each, since one shard's journal may take long to read.
        self._tasks = [asyncio.create_task(self._follow(shard)) for shard in range(self._shards.count)]
        self._tasks.append(asyncio.create_task(self._revive()))

    async def stop(self) -> None:
        """End the loops. May be called twice."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def trouble(self) -> str:
        """What keeps requests from being served, in words for ops, or ''."""
        if self._journal.trouble:
            return self._journal.trouble
        closed = [shard for shard in range(self._shards.count) if not self._shards.is_entered(shard)]
        return f"{len(closed)} of {self._shards.count} shards are closed until all is put back" if closed else ""

    async def look(self) -> None:
        """Look at every shard, and do what is to be done now."""
        await asyncio.gather(*(self._look_safely(shard) for shard in range(self._shards.count)))

    async def _follow(self, shard: int) -> None:
        while True:
            await asyncio.sleep(EVERY)
            await self._look_safely(shard)

    async def _revive(self) -> None:
        while True:
            await asyncio.sleep(EVERY)
            self._journal.revive()

    async def _look_safely(self, shard: int) -> None:
        try:
            await self._look(shard)
        except LedgerDown:
            return  # who asks next says so
        except Exception as error:  # noqa: BLE001  its loop must outlive whatever goes wrong in it
            log.error("shard %d could not be looked after: %s", shard, describe(error))

    async def _look(self, shard: int) -> None:
        seen = self._seen[shard]
        known = max(self._journal.known(shard), Mark(seen.entered, 0))
        meeting = await self._shards.meet(shard, known, seen.handed_in)
        if meeting.state == "open":
            self._enter(shard, meeting)
            return
        if seen.closing != meeting.closing:
            seen.closing, seen.closed_at, seen.has_own = meeting.closing, time.monotonic(), False
            log.warning("shard %d is closed: Redis was restarted, has failed over, or lost what it had", shard)
        if seen.handed_in != meeting.closing:
            await self._hand_in(shard, meeting)
        elif meeting.state == "apply":
            count = await self._shards.put_back(shard, meeting.closing)
            log.warning("put %d writes back that Redis had lost, in shard %d", count, shard)

    def _enter(self, shard: int, meeting: Meeting) -> None:
        if self._shards.is_entered(shard):
            return
        seen, epoch = self._seen[shard], meeting.mark.epoch
        if seen.opened != epoch:
            seen.opened, seen.opened_at = epoch, time.monotonic()
        if shard == 0 and self._complete_at() < seen.opened_at:
            return
        if seen.entered not in (0, epoch) and seen.handed_in != meeting.closing:
            log.critical(
                "this gateway did not come back in time after Redis lost what it had: what it gave since then may be "
                "given again (shard %d)",
                shard,
            )
        seen.entered = epoch
        self._journal.note(shard, Mark(epoch, 0))
        self._shards.enter(shard, epoch)

    async def _hand_in(self, shard: int, meeting: Meeting) -> None:
        seen = self._seen[shard]
        if not seen.has_own:
            await self._hand_in_of(self._journal.worker, shard, meeting.base)
            if shard == 0:
                await self._shards.hand_in(shard, await self._commands.missing(self._journal.commands()))
            seen.has_own = True
        if time.monotonic() - seen.closed_at < FOR_THE_DEAD:
            return
        with self._journal.whole_folder(shard) as mine:
            if not mine:
                return  # until who does it for this machine has done it
            for worker in await asyncio.to_thread(self._journal.workers):
                # Who came has handed in its own; the others of this machine are dead, or as good as that.
                if worker != self._journal.worker and worker not in meeting.complete:
                    await self._hand_in_of(worker, shard, meeting.base)
                    await self._shards.vouch(shard, worker, meeting.closing)
            seen.handed_in = meeting.closing
            await self._shards.meet(shard, _EVERYTHING, meeting.closing)

    async def _hand_in_of(self, worker: str, shard: int, base: Mark) -> None:
        entries = self._journal.entries(shard, base, worker)
        beating = asyncio.create_task(self._beat(shard))
        try:
            while chunk := await asyncio.to_thread(_next, entries):
                await self._shards.hand_in(shard, chunk)
        finally:
            beating.cancel()
            await asyncio.wait([beating])

    async def _beat(self, shard: int) -> None:
        """Who says nothing for long is not waited for."""
        while True:
            await asyncio.sleep(EVERY)
            with contextlib.suppress(LedgerDown):
                await self._shards.meet(shard, _EVERYTHING, "")


def _next(entries: Iterator[Entry]) -> Sequence[Entry]:
    return list(itertools.islice(entries, CHUNK))
