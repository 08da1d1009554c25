"""Event streams, one a shard: `gw:{N}:events`. What is read is what was written; nothing is trimmed before it was read.

Stream ids are Redis's own clock in ms, so `since` goes by that clock.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from heapq import heapify, heappop, heapreplace

from redis.exceptions import RedisError

from gateway.backends.redis_client import Reply, Script, Wire
from gateway.backends.redis_shards import RedisShards, meta_key
from gateway.errors import LedgerDown
from gateway.ports import Fields

log = logging.getLogger(__name__)

Entry = tuple[str, dict[str, str]]
"""An event's id in its stream (`ms-n`), and its fields."""

PAGE = 500
BLOCK_MS = 250
"""Below every reply timeout that a client may have been given."""
QUEUE = 1000
WEBHOOK_GROUP = "webhook:"
FORSAKEN_MS = 7 * 86_400_000
"""A group that no background worker has asked for so long has none any more; one that runs asks every second."""


class RedisEventLog:
    """gateway.ports.EventLog on Redis streams, and the readers of them."""

    def __init__(self, wire: Wire, shards: int, through: RedisShards | None = None) -> None:
        """`through`: where a gateway writes, which keeps what it wrote; commands write as they are."""
        self._wire = wire
        self._append = Script("shard.lua", "append.lua")
        self._once = Script("shard.lua", "once.lua")
        self._through = through
        self.shards = shards
        """How many there are."""

    async def append(self, shard: int, fields: Fields) -> None:
        """See EventLog.append."""
        flat = [text for pair in fields.items() for text in pair]
        if self._through is None:
            await self._wire.execute("XADD", stream(shard), "*", *flat)
        else:
            await self._through.run(self._append, shard, [stream(shard), meta_key(shard)], flat)

    async def append_once(self, shard: int, mark: str, fields: Fields, seconds: int) -> bool:
        """See EventLog.append_once."""
        flat = [text for pair in fields.items() for text in pair]
        if self._through is None:
            raise TypeError("only a gateway tells what others tell too")
        keys = [f"gw:{{{shard}}}:told:{mark}", stream(shard), meta_key(shard)]
        reply = await self._through.run(self._once, shard, keys, [seconds, *flat])
        return bool(reply[0])

    async def count(self, shard: int) -> int:
        """How many events the shard holds. Raises LedgerDown."""
        return int(await self._wire.execute("XLEN", stream(shard)))

    async def scan(
        self, shard: int, since_ms: int | None = None, match: Callable[[Fields], bool] | None = None
    ) -> AsyncIterator[Entry]:
        """The shard's events from `since_ms` (Unix ms; None: all) to now, oldest first. Raises LedgerDown."""
        start = "-" if since_ms is None else f"{max(since_ms, 0)}-0"
        while True:
            page = _entries(await self._wire.execute("XRANGE", stream(shard), start, "+", "COUNT", PAGE))
            for entry in page:
                if match is None or match(entry[1]):
                    yield entry
            if len(page) < PAGE:
                return
            start = f"({page[-1][0]}"

    async def history(
        self, shards: Iterable[int], since_ms: int | None = None, match: Callable[[Fields], bool] | None = None
    ) -> AsyncIterator[Entry]:
        """`scan` of several shards, in the order of their ids."""
        readers = [self.scan(shard, since_ms, match) for shard in shards]
        heads = [(entry, reader) for reader in readers if (entry := await anext(reader, None)) is not None]
        heap = [(_parsed(entry[0]), place, entry, reader) for place, (entry, reader) in enumerate(heads)]
        heapify(heap)
        while heap:
            _, place, entry, reader = heap[0]
            yield entry
            following = await anext(reader, None)
            if following is None:
                heappop(heap)
            else:
                heapreplace(heap, (_parsed(following[0]), place, following, reader))

    async def tail(self, shards: Iterable[int], from_id: str = "$") -> AsyncIterator[tuple[int, Entry]]:
        """Events as they come, with their shard, for ever; those of one shard in order. Raises LedgerDown.

        `from_id`: only what is newer than that; `$` is what comes after this call.
        """
        starts = [(shard, await self._last_id(shard) if from_id == "$" else from_id) for shard in shards]
        # One reader a shard, since in a cluster the shards are on different servers.
        queue: asyncio.Queue[tuple[int, Entry] | LedgerDown] = asyncio.Queue(QUEUE)
        readers = [asyncio.create_task(self._follow(shard, start, queue)) for shard, start in starts]
        try:
            while True:
                item = await queue.get()
                if isinstance(item, LedgerDown):
                    raise item
                yield item
        finally:
            # redis-py loses a cancellation that meets the end of a reply: it is said until it is heard.
            while unheard := [reader for reader in readers if not reader.done()]:
                for reader in unheard:
                    reader.cancel()
                await asyncio.wait(unheard, timeout=0.1)

    async def trim(self, shard: int, keep_seconds: int) -> int:
        """Remove events older than `keep_seconds` that every consumer group has acknowledged; returns how many.

        Raises LedgerDown.
        """
        await forsake(self._wire, stream(shard))
        seconds, _ = await self._wire.execute("TIME")
        oldest_kept = min([(max(int(seconds) - keep_seconds, 0) * 1000, 0), *await self._unread(shard)])
        removed = 0
        # Whole nodes in small steps first, which is cheap; exactly then, for `keep` is also a promise about addresses.
        while step := await self._trim(shard, "~", oldest_kept):
            removed += step
        return removed + await self._trim(shard, "=", oldest_kept)

    async def _trim(self, shard: int, how: str, oldest_kept: tuple[int, int]) -> int:
        return int(await self._wire.execute("XTRIM", stream(shard), "MINID", how, "{}-{}".format(*oldest_kept)))

    async def _unread(self, shard: int) -> list[tuple[int, int]]:
        """Each group's oldest event that it still needs."""
        key = stream(shard)
        if not await self._wire.execute("EXISTS", key):
            return []
        needed = []
        for group in await self._wire.execute("XINFO GROUPS", key):
            milliseconds, number = _parsed(group["last-delivered-id"])
            needed.append((milliseconds, number + 1))
            pending = await self._wire.execute("XPENDING", key, group["name"])
            if pending["pending"]:
                needed.append(_parsed(pending["min"]))
        return needed

    async def _last_id(self, shard: int) -> str:
        last = _entries(await self._wire.execute("XREVRANGE", stream(shard), "+", "-", "COUNT", 1))
        return last[0][0] if last else "0-0"

    async def _follow(self, shard: int, last: str, queue: asyncio.Queue[tuple[int, Entry] | LedgerDown]) -> None:
        while True:
            try:
                # Not over the wire: it would hold up the commands that share its round trip.
                streams: Reply = await self._wire.client.xread({stream(shard): last}, PAGE, BLOCK_MS)
            except (RedisError, OSError) as error:
                await queue.put(LedgerDown(f"Redis cannot be read: {type(error).__name__}"))
                return
            for entry in _streamed(streams):
                last = entry[0]
                await queue.put((shard, entry))


async def forsake(wire: Wire, key: str) -> None:
    """Remove the groups of webhooks' endpoints that no gateway's settings have any more: nothing would be trimmed.

    Raises LedgerDown.
    """
    if not await wire.execute("EXISTS", key):
        return
    for group in await wire.execute("XINFO GROUPS", key):
        name = str(group["name"])
        if not name.startswith(WEBHOOK_GROUP):
            continue
        consumers = await wire.execute("XINFO CONSUMERS", key, name)
        # One without any consumer has only just been made.
        if consumers and all(int(consumer["idle"]) > FORSAKEN_MS for consumer in consumers):
            log.warning("the group %s of %s is of an endpoint that is gone from webhooks:, and is removed", name, key)
            await wire.execute("XGROUP DESTROY", key, name)


def stream(shard: int) -> str:
    """The key of a shard's events."""
    return f"gw:{{{shard}}}:events"


def _entries(reply: Reply) -> list[Entry]:
    return [(str(number), fields or {}) for number, fields in reply or ()]


def _streamed(reply: Reply) -> list[Entry]:
    """XREAD's entries of its one stream: RESP 2 answers with pairs, RESP 3 with a mapping of lists of pages."""
    if not reply:
        return []
    if isinstance(reply, dict):
        return [entry for pages in reply.values() for page in pages for entry in _entries(page)]
    return [entry for _, page in reply for entry in _entries(page)]


def _parsed(number: str) -> tuple[int, int]:
    milliseconds, _, sequence = number.partition("-")
    return int(milliseconds), int(sequence)
