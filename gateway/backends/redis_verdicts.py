"""What a new version of the rules refused, and the proven one would have, by all workers. See services.rollback.Book.

`gw:{0}:watch:<version>` counts while a version is watched, and `gw:{0}:rolled_back` says which ones had to give way.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, astuple

from gateway.backends.redis_client import Reply, Wire
from gateway.errors import LedgerFault
from gateway.policy.rollback import Return, Tally, Watch

ROLLED_BACK = "gw:{0}:rolled_back"
KEEP_RETURNS = 30 * 86_400
KEEP_WATCH = 3600
"""Seconds beyond `within`."""
RENEW_EVERY = 60.0


class RedisVerdicts:
    """services.rollback.Book on Redis hashes, of versions that are watched for `within` seconds."""

    def __init__(self, wire: Wire, within: int) -> None:
        self._wire = wire
        self._keep_seconds = within + KEEP_WATCH
        self._renewed: tuple[str, float] = ("", 0.0)

    async def watched(self, version: str) -> Watch | None:
        """See Book.watched."""
        fields = await self._hash(_key(version))
        return _read(version, fields)[0] if fields else None

    async def count(self, watch: Watch, tally: Tally) -> tuple[Watch, Tally]:
        """See Book.count."""
        key = _key(watch.version)
        counts = [("HINCRBY", key, name, count) for name, count in asdict(tally).items() if count]
        due = self._renewed[0] != key or time.monotonic() - self._renewed[1] >= RENEW_EVERY
        renewal = [("EXPIRE", key, self._keep_seconds)] if due else []
        is_new, _, *_, reply = await asyncio.gather(
            self._send(key, "HSETNX", key, "came", watch.came),
            self._send(key, "HSETNX", key, "before", watch.before),
            *(self._send(key, *command) for command in (*counts, *renewal)),
            self._send(key, "HGETALL", key),
        )
        if is_new and not due:
            await self._send(key, "EXPIRE", key, self._keep_seconds)
        if is_new or due:
            self._renewed = (key, time.monotonic())
        return _read(watch.version, _pairs(reply))

    async def forget(self, version: str) -> None:
        """See Book.forget."""
        await self._send(_key(version), "DEL", _key(version))

    async def returns(self) -> dict[str, Return]:
        """See Book.returns."""
        return {version: _return(text) for version, text in (await self._hash(ROLLED_BACK)).items()}

    async def refuse(self, version: str, why: Return) -> None:
        """See Book.refuse."""
        await asyncio.gather(
            self._send(ROLLED_BACK, "HSETNX", ROLLED_BACK, version, json.dumps(astuple(why))),
            self._send(ROLLED_BACK, "EXPIRE", ROLLED_BACK, KEEP_RETURNS),
        )

    async def _hash(self, key: str) -> Mapping[str, str]:
        return _pairs(await self._send(key, "HGETALL", key))

    async def _send(self, key: str, *command: str | int) -> Reply:
        try:
            return await self._wire.execute(*command)
        except LedgerFault as fault:
            raise _unreadable(key, f" ({fault})") from None


def _key(version: str) -> str:
    return f"gw:{{0}}:watch:{version}"


def _pairs(reply: Reply) -> Mapping[str, str]:
    pairs = reply.items() if isinstance(reply, Mapping) else zip(reply[::2], reply[1::2], strict=True)
    return {str(name): str(value) for name, value in pairs}


def _read(version: str, fields: Mapping[str, str]) -> tuple[Watch, Tally]:
    try:
        watch = Watch(version, fields["before"], int(fields["came"]))
        return watch, Tally(**{name: int(fields.get(name, 0)) for name in asdict(Tally())})
    except (KeyError, ValueError):
        raise _unreadable(_key(version)) from None


def _return(text: str) -> Return:
    try:
        to, at, (decided, refused, before, newly), own = json.loads(text)
        return Return(str(to), int(at), Tally(int(decided), int(refused), int(before), int(newly)), str(own))
    except (ValueError, TypeError):
        raise _unreadable(ROLLED_BACK) from None


def _unreadable(key: str, why: str = "") -> LedgerFault:
    return LedgerFault(f"{key} in Redis cannot be read{why}; delete it: redis-cli DEL '{key}'")
