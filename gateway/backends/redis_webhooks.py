"""What is still to be sent to one endpoint: a consumer group on every shard's stream. See EventQueue for the contract.

Law: an event leaves the group when the endpoint has it, or when it is told that it was given up, and not before.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Collection, Mapping, Sequence

from gateway.backends.redis_client import Reply, Script, Wire
from gateway.backends.redis_events import WEBHOOK_GROUP, stream
from gateway.policy.webhooks import Taken

log = logging.getLogger(__name__)

FULL_MS = 7 * 86_400_000
"""How long an entry is idle that is due: longer than any pause between two tries."""
HURRIED = 1000


class RedisEventQueue:
    """services.webhooks.EventQueue for one endpoint."""

    def __init__(self, wire: Wire, shards: int, *, group: str, host: str, events: Collection[str]) -> None:
        """`group`: see group_of; `host`: the endpoint as events name it; `events`: the types that it is told of."""
        self._wire = wire
        self._shards = shards
        self._group = group
        self._host = host
        self._events = sorted(events)
        self._take = Script("webhooks.lua")
        self._end = Script("webhook_end.lua")
        self._hurry = Script("webhook_hurry.lua")

    async def open(self) -> None:
        """See EventQueue.open."""
        for shard in range(self._shards):
            name = (stream(shard), self._group)
            made = self._wire.execute("XGROUP CREATE", *name, "$", "MKSTREAM")
            # With it in one write: a group that nobody has asked yet looks like one that nobody wants (see trim).
            asked = self._wire.execute("XGROUP CREATECONSUMER", *name, "sending")
            for reply in await asyncio.gather(made, asked, return_exceptions=True):
                if isinstance(reply, BaseException) and "BUSYGROUP" not in str(reply):
                    raise reply

    async def take(
        self, shard: int, most: int, fresh: int, *, oldest: int, patience: float
    ) -> tuple[list[Taken], bool]:
        """See EventQueue.take."""
        args: list[str | int] = [
            self._group,
            FULL_MS,
            round(patience * 1000),
            most,
            fresh,
            oldest * 1000,
            self._host,
            *self._events,
        ]
        lost, more, entries = await self._wire.run(self._take, [stream(shard)], args)
        if lost:
            log.error(
                "Redis has lost how far %s was told of the events of shard %d: it is told again from an hour ago on",
                self._host,
                shard,
            )
        return [_taken(shard, entry) for entry in entries], bool(more)

    async def done(self, taken: Taken) -> None:
        """See EventQueue.done."""
        await self._wire.execute("XACK", stream(taken.shard), self._group, taken.entry_id)

    async def postpone(self, taken: Taken, seconds: float) -> None:
        """See EventQueue.postpone."""
        idle = FULL_MS - round(seconds * 1000)
        claim = ("XCLAIM", stream(taken.shard), self._group, "waiting", 0, taken.entry_id)
        await self._wire.execute(*claim, "IDLE", idle, "RETRYCOUNT", taken.tries + 1, "JUSTID")

    async def give_up(self, taken: Taken, event: Mapping[str, str]) -> None:
        """See EventQueue.give_up."""
        flat = [text for pair in event.items() for text in pair]
        await self._wire.run(self._end, [stream(taken.shard)], [self._group, taken.entry_id, *flat])

    async def hurry(self) -> None:
        """See EventQueue.hurry."""
        args: list[str | int] = [self._group, FULL_MS, HURRIED]
        await asyncio.gather(*(self._wire.run(self._hurry, [stream(n)], args) for n in range(self._shards)))


def groups_of(urls: Sequence[str]) -> list[str]:
    """A name for each endpoint's group, by its address alone: with a new secret it goes on where it was."""
    names: list[str] = []
    for url in urls:
        name = WEBHOOK_GROUP + hashlib.sha256(url.encode()).hexdigest()[:16]
        count = sum(each.partition(".")[0] == name for each in names)
        names.append(f"{name}.{count + 1}" if count else name)
    return names


def _taken(shard: int, entry: Reply) -> Taken:
    entry_id, tries, flat, stale = entry
    return Taken(shard, str(entry_id), dict(zip(flat[::2], flat[1::2], strict=True)), int(tries), bool(stale))
