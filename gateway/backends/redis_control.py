"""The control stream, `gw:{0}:control`: one entry a command of the ops, never trimmed. See ControlLog for the contract.

An entry that cannot be read is never skipped: it may be a revocation. Nobody gets past it until it is dealt with.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import aclosing

from gateway.backends.redis_client import Wire
from gateway.backends.redis_shards import meta_key
from gateway.errors import GatewayError, LedgerFault
from gateway.policy.model import Mark
from gateway.policy.standing import Command, Standing, read_command, write_command
from gateway.ports import Entry

log = logging.getLogger(__name__)

STREAM = "gw:{0}:control"
START = "0"
PAGE = 1000
POLL = 0.25
"""Seconds between two looks at an idle stream: how long a command may take to be in force."""

Row = tuple[str, dict[str, str]]


class RedisControl:
    """gateway.ports.ControlLog on a Redis stream."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def append(self, command: Command) -> None:
        """See ControlLog.append. Raises ValueError for a command that nobody could read."""
        flat = [text for pair in write_command(command).items() for text in pair]
        await self._wire.execute("XADD", STREAM, "*", *flat)

    async def follow(self, last: str) -> AsyncGenerator[tuple[str, list[Command] | None], None]:
        """See ControlLog.follow."""
        while True:
            entries = await self._after(last)
            if entries is None:
                log.error("%s has lost entries that were read here; what was read stays in force", STREAM)
                last = START
                yield last, None
                continue
            commands: list[Command] = []
            fault: LedgerFault | None = None
            for entry_id, fields in entries:
                try:
                    commands.append(read_command(fields))
                except ValueError as error:
                    fault = _unreadable(entry_id, error)
                    break
                last = entry_id
            if commands or fault is None:
                yield last, commands
            if fault is not None:
                raise fault
            if not entries:
                await asyncio.sleep(POLL)

    async def missing(self, commands: Iterable[Command]) -> list[Entry]:
        """See ControlLog.missing."""
        there = {command async for command in self._all()}
        return [_entry(command) for command in commands if command not in there]

    async def read_all(self) -> Standing:
        """Every command until now. Raises GatewayError where one of them cannot be read, LedgerDown."""
        standing = Standing()
        try:
            async for command in self._all():
                standing.apply(command)
        except LedgerFault as error:
            raise GatewayError(str(error)) from None
        return standing

    async def _all(self) -> AsyncIterator[Command]:
        async with aclosing(self.follow(START)) as pages:
            async for _, commands in pages:
                if commands == []:
                    return
                for command in commands or ():
                    yield command

    async def _after(self, last: str) -> list[Row] | None:
        # The entry `last` is asked for again: a stream that was emptied, or went back to an older copy, has new
        # entries whose ids may lie before it, and would look as if there were none. A blocking XREAD cannot see that,
        # and would hold a connection that outlives a failover; over the wire it goes where the charges go.
        start = "-" if last == START else last
        reply = await self._wire.execute("XRANGE", STREAM, start, "+", "COUNT", PAGE + 1)
        entries = [(str(entry_id), dict(fields or {})) for entry_id, fields in reply]
        if last == START:
            return entries
        return entries[1:] if entries and entries[0][0] == last else None


def _entry(command: Command) -> Entry:
    effects = [["XADD", 1, "*", *(text for pair in write_command(command).items() for text in pair)]]
    return Entry(Mark(0, 0), json.dumps({"k": [STREAM, meta_key(0)], "w": effects}, sort_keys=True))


def _unreadable(entry_id: str, error: ValueError) -> LedgerFault:
    return LedgerFault(
        f"the entry {entry_id} of {STREAM} cannot be read: {error}; every download is refused until all gateways "
        "understand it (upgrade them) or it is taken out (redis-cli XDEL) and ordered again"
    )
