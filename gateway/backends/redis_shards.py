"""The way in which a gateway writes to a shard: only where no write is missing, and each write kept in the journal.

lua/shard.lua refuses and numbers, lua/meet.lua closes a shard whose Redis may have lost writes and opens it again.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Sequence

from gateway.backends.redis_client import Reply, Script, Wire
from gateway.errors import JournalDown, LedgerDown
from gateway.policy.model import Mark
from gateway.ports import Entry, Journal, Meeting

log = logging.getLogger(__name__)

GRACE_MS = 2000
"""How long a closed shard waits for gateways that have not noticed yet; each looks at it twice a second."""
SILENT_MS = 5000
BATCH = 200


class RedisShards:
    """gateway.ports.Shards on Redis. Without a journal there is nothing to put back, and an open shard is just used.

    `clock` replaces the server's clock, for tests.
    """

    def __init__(self, wire: Wire, count: int, *, journal: Journal | None = None, clock: str | None = None) -> None:
        self.count = count
        self._wire = wire
        self._journal = journal
        self._worker = journal.worker if journal is not None else ""
        self._meet = Script("meet.lua", clock=clock)
        self._putback = Script("putback.lua", clock=clock)
        self._vouch = Script("vouch.lua", clock=clock)
        self._epochs: dict[int, int] = {}
        self._marks: dict[int, Mark] = {}
        self._tasks: set[asyncio.Task[Reply]] = set()

    async def run(self, script: Script, shard: int, keys: Sequence[str], args: Sequence[str | int]) -> Reply:
        """The reply of a script that was loaded with shard.lua, without what it has written: that is in the journal.

        `keys` end with META. Raises LedgerDown, also where the shard is closed, and JournalDown where the journal
        cannot be written: only the call that met it first has then been carried out.
        """
        if shard not in self._epochs and self._journal is None:
            await self._follow(shard)
        if shard not in self._epochs:
            raise LedgerDown(f"Redis may have lost what was written last; shard {shard} is closed until it is put back")
        if self._journal is not None and self._journal.trouble:
            raise JournalDown(self._journal.trouble)
        # Once it is on its way it is carried out, whoever still waits for it: what it writes must be kept.
        task = asyncio.create_task(self._exchange(script, shard, self._epochs[shard], keys, args))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_heard)
            raise

    async def meet(self, shard: int, known: Mark, handed_in: str) -> Meeting:
        """See Shards.meet."""
        own = max(known, self._marks.get(shard, known))
        args: list[str | int] = [self._worker, own.epoch, own.seq, "journal" if self._journal else "", handed_in]
        keys = [meta_key(shard), _met_key(shard), _putback_key(shard)]
        state, epoch, seq, closing, *rest = await self._wire.run(self._meet, keys, [*args, GRACE_MS, SILENT_MS])
        if state != "open" or self._epochs.get(shard) != int(epoch):
            self._epochs.pop(shard, None)
        base = Mark(*map(int, rest[:2]))
        return Meeting(state, Mark(int(epoch), int(seq)), closing, base, frozenset(rest[2:]))

    def enter(self, shard: int, epoch: int) -> None:
        """See Shards.enter."""
        self._epochs[shard] = epoch

    def is_entered(self, shard: int) -> bool:
        """See Shards.is_entered."""
        return shard in self._epochs

    async def hand_in(self, shard: int, entries: Sequence[Entry]) -> None:
        """See Shards.hand_in."""
        for at in range(0, len(entries), BATCH):
            members = [text for entry in entries[at : at + BATCH] for text in (0, f"{_place(entry.mark)} {entry.text}")]
            await self._wire.execute("ZADD", _putback_key(shard), *members)

    async def put_back(self, shard: int, closing: str) -> int:
        """See Shards.put_back."""
        done = 0
        while members := await self._wire.execute("ZRANGE", _putback_key(shard), 0, BATCH - 1):
            # Issued in one turn of the loop, so they travel together and are carried out in this order.
            runs = [self._put_one_back(shard, closing, member) for member in members]
            results = await asyncio.gather(*runs)
            done += results.count(1)
            if late := results.count(0):
                log.critical("%d writes of shard %d came too late: only their events are put back", late, shard)
            if -1 in results:
                break
        return done

    async def _put_one_back(self, shard: int, closing: str, member: str) -> int:
        place, _, text = member.partition(" ")
        entry = json.loads(text)
        effects = json.dumps(entry["w"], ensure_ascii=False)
        keys = [*entry["k"], _putback_key(shard)]
        args = [closing, self._worker, place, member, effects]
        # Not by its SHA-1: where another loads the script meanwhile, the end of a batch would come before its start.
        reply = await self._wire.execute("EVAL", self._putback.text, len(keys), *keys, *args)
        return int(reply[0])

    async def vouch(self, shard: int, worker: str, closing: str) -> None:
        """See Shards.vouch."""
        await self._wire.run(self._vouch, [meta_key(shard), _met_key(shard)], [worker, closing])

    async def drain(self) -> None:
        """Return when everything that is on its way is in the journal."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _follow(self, shard: int) -> None:
        meeting = await self.meet(shard, Mark(0, 0), "")
        if meeting.state == "open":
            self.enter(shard, meeting.mark.epoch)

    async def _exchange(
        self, script: Script, shard: int, epoch: int, keys: Sequence[str], args: Sequence[str | int]
    ) -> Reply:
        *reply, told = await self._wire.run(script, keys, [*args, epoch, "tell" if self._journal else ""])
        if not reply:  # nothing but 'closed'
            if self._epochs.get(shard) == epoch:
                del self._epochs[shard]
            raise LedgerDown(f"shard {shard} was closed: Redis was restarted, has failed over, or was emptied")
        if told and self._journal is not None:
            seq, _, effects = told.partition(" ")
            mark = self._marks[shard] = Mark(epoch, int(seq))
            self._journal.keep(shard, Entry(mark, _text(keys, effects)))
            if self._journal.trouble:
                raise JournalDown(self._journal.trouble)
        return reply


def meta_key(shard: int) -> str:
    """The key of what is known of a shard as a whole."""
    return f"gw:{{{shard}}}:meta"


def _met_key(shard: int) -> str:
    return f"gw:{{{shard}}}:met"


def _putback_key(shard: int) -> str:
    return f"gw:{{{shard}}}:putback"


def _place(mark: Mark) -> str:
    return f"{mark.epoch:012d}{mark.seq:012d}"


def _text(keys: Sequence[str], effects: str) -> str:
    """An entry's text; the script has written the effects as JSON already."""
    return f'{{"k":{json.dumps(keys)},"w":{effects}}}'


def _heard(task: asyncio.Task[Reply]) -> None:
    if not task.cancelled():
        task.exception()
