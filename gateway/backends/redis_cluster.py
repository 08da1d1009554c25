"""Redis Cluster: each command goes down the line of the server that has its slot, and follows where a slot has gone.

A dead server fails its own slots and no others'. What a server has refused with MOVED or ASK it has not run, so only
that is sent again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from redis.asyncio import Redis
from redis.crc import key_slot
from redis.exceptions import AskError, ClusterDownError, MovedError

from gateway.backends.redis_line import Command, Line, Reply, patience
from gateway.errors import LedgerDown

Address = tuple[str, int]

REDIRECTS = 3
LOOK_EVERY = 0.25
HOME = "gw:{0}"
"""Where a command without a key goes: to the server of the control stream."""


class Cluster:
    """The servers of one cluster. `seeds`: those to ask first where the slots are; any one that answers will do."""

    def __init__(self, seeds: Iterable[Address], client: Callable[[Address], Redis], *, timeout: float) -> None:
        self.seeds = frozenset(seeds)
        self.client = client
        self._timeout = timeout
        self._known = self.seeds
        self._lines: dict[Address, Line] = {}
        self._owners: dict[int, Address] = {}
        self._look: asyncio.Task[None] | None = None
        self._look_after = 0.0
        self._closings: set[asyncio.Task[None]] = set()

    async def send(self, command: Command) -> Reply:
        """The reply of the server that has the command's slot, which may be an error. Raises LedgerDown."""
        try:
            async with patience(self._timeout):
                reply = await self._follow(_slot(_key(command)), command)
        except (LedgerDown, TimeoutError) as error:
            self._look_again()
            raise error if isinstance(error, LedgerDown) else LedgerDown("Redis gave no answer in time") from None
        if isinstance(reply, ClusterDownError):
            self._look_again()
        return reply

    async def survey(self, *command: str) -> Mapping[str, Reply]:
        """The reply of every master, by its address. Raises LedgerDown."""
        await self._looked()
        masters = sorted(set(self._owners.values()))
        replies = await asyncio.gather(*(self._line(address).send(command) for address in masters))
        return {f"{host}:{port}": reply for (host, port), reply in zip(masters, replies, strict=True)}

    async def xread(self, streams: Mapping[str, str], count: int, block: int) -> Reply:
        """XREAD of one stream, on a connection of its own while it blocks. Raises RedisError, LedgerDown."""
        (key,) = streams
        line = self._line(await self._owner(_slot(key)))
        return await line.client.xread({key: streams[key]}, count, block)

    async def aclose(self) -> None:
        """Drop all connections, after what is on its way."""
        if self._look is not None:
            self._look.cancel()
            await asyncio.wait([self._look])
        await asyncio.gather(*self._closings, *(line.aclose() for line in self._lines.values()))

    async def _follow(self, slot: int, command: Command) -> Reply:
        address, asking = await self._owner(slot), False
        for _ in range(REDIRECTS):
            reply = await self._line(address).send(command, asking=asking)
            if not isinstance(reply, AskError):
                return reply
            # A server that does not know its own name leaves the host out: it is the one we asked.
            address, asking = (reply.host or address[0], int(reply.port)), True
            if isinstance(reply, MovedError):
                self._owners[slot], asking = address, False
                self._look_again()
        raise LedgerDown("the servers of the Redis Cluster do not agree who has this shard")

    async def _owner(self, slot: int) -> Address:
        if slot not in self._owners:
            await self._looked()
        if slot not in self._owners:
            raise LedgerDown("no server of the Redis Cluster has this shard")
        return self._owners[slot]

    def _line(self, address: Address) -> Line:
        if address not in self._lines:
            self._lines[address] = Line(self.client(address), timeout=self._timeout)
        return self._lines[address]

    def _look_again(self) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._look_after:
            self._look_after = now + LOOK_EVERY
            self._looking()

    async def _looked(self) -> None:
        await asyncio.shield(self._looking())
        if not self._owners:
            raise LedgerDown("no server answers as one of a Redis Cluster")

    def _looking(self) -> asyncio.Task[None]:
        if self._look is None or self._look.done():
            self._look = asyncio.get_running_loop().create_task(self._ask_where())
        return self._look

    async def _ask_where(self) -> None:
        # All at once, and the first answer counts: one that is dead or hangs must not hold up the search, and a stale
        # answer is put right by MOVED or by the next look.
        asks = [asyncio.create_task(self._slots(address)) for address in self._known]
        try:
            for ask in asyncio.as_completed(asks):
                if answer := await ask:
                    self._adopt(*answer)
                    return
        finally:
            for task in asks:
                task.cancel()
            await asyncio.gather(*asks, return_exceptions=True)

    async def _slots(self, address: Address) -> tuple[Address, list[Any]] | None:
        try:
            reply = await self._line(address).send(("CLUSTER SLOTS",))
        except LedgerDown:
            return None
        return (address, reply) if reply and isinstance(reply, list) else None

    def _adopt(self, asked: Address, ranges: list[Any]) -> None:
        owners: dict[int, Address] = {}
        known = set(self.seeds)
        for first, last, *servers in ranges:
            addresses = [(host or asked[0], int(port)) for host, port, *_ in servers]
            owners |= dict.fromkeys(range(first, last + 1), addresses[0])
            known.update(addresses)
        self._owners, self._known = owners, frozenset(known)
        for gone in self._lines.keys() - known:
            closing = asyncio.create_task(self._lines.pop(gone).aclose())
            self._closings.add(closing)
            closing.add_done_callback(self._closings.discard)


def _slot(key: str) -> int:
    return key_slot(key.encode())


def _key(command: Command) -> str:
    """The command's first key; all of a script's are in one slot."""
    place = 1
    if command[0] in ("EVALSHA", "EVAL"):
        place = 3 if command[2] else len(command)
    return str(command[place]) if len(command) > place else HOME
