"""What versions of the rules let through and refused, by all workers together. See services.rollback.Book.

`gw:{0}:verdicts:<version>` counts by minute, `gw:{0}:rules` says which version came into force last, and
`gw:{0}:rolled_back` which ones had to give way.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping

from gateway.backends.redis_client import Wire
from gateway.errors import LedgerFault
from gateway.policy.rollback import Came, Return, Tally

IN_FORCE = "gw:{0}:rules"
ROLLED_BACK = "gw:{0}:rolled_back"
KEEP_RETURNS = 30 * 86_400


class RedisVerdicts:
    """services.rollback.Book on Redis hashes. `keep_seconds`: how long counts are of use."""

    def __init__(self, wire: Wire, keep_seconds: int) -> None:
        self._wire = wire
        self._keep_seconds = keep_seconds

    async def add(self, version: str, minute: int, tally: Tally) -> None:
        """See Book.add."""
        key = _counts(version)
        await asyncio.gather(
            self._wire.execute("HINCRBY", key, f"{minute}:decided", tally.decided),
            self._wire.execute("HINCRBY", key, f"{minute}:refused", tally.refused),
            self._wire.execute("EXPIRE", key, self._keep_seconds),
        )

    async def tally(self, version: str, since: int, until: int) -> Tally:
        """See Book.tally."""
        decided = refused = 0
        for field, count in (await self._hash(_counts(version))).items():
            minute, _, what = field.partition(":")
            if since <= int(minute) <= until:
                decided += int(count) * (what == "decided")
                refused += int(count) * (what == "refused")
        return Tally(decided, refused)

    async def came(self) -> Came | None:
        """See Book.came."""
        text = await self._wire.execute("GET", IN_FORCE)
        return None if text is None else _came(str(text))

    async def note(self, came: Came) -> None:
        """See Book.note."""
        await self._wire.execute("SET", IN_FORCE, json.dumps([came.version, came.before, came.since]))

    async def returns(self) -> dict[str, Return]:
        """See Book.returns."""
        return {version: _return(text) for version, text in (await self._hash(ROLLED_BACK)).items()}

    async def refuse(self, version: str, why: Return) -> None:
        """See Book.refuse."""
        document = [why.to, why.at, [why.new.decided, why.new.refused], [why.last.decided, why.last.refused]]
        await asyncio.gather(
            self._wire.execute("HSETNX", ROLLED_BACK, version, json.dumps(document)),
            self._wire.execute("EXPIRE", ROLLED_BACK, KEEP_RETURNS),
        )

    async def _hash(self, key: str) -> Mapping[str, str]:
        reply = await self._wire.execute("HGETALL", key)
        pairs = reply.items() if isinstance(reply, Mapping) else zip(reply[::2], reply[1::2], strict=True)
        return {str(name): str(value) for name, value in pairs}


def _counts(version: str) -> str:
    return f"gw:{{0}}:verdicts:{version}"


def _came(text: str) -> Came:
    try:
        version, before, since = json.loads(text)
        return Came(str(version), str(before), int(since))
    except (ValueError, TypeError):
        raise LedgerFault(f"{IN_FORCE} cannot be read; delete it (redis-cli DEL)") from None


def _return(text: str) -> Return:
    try:
        to, at, (decided, refused), (last_decided, last_refused) = json.loads(text)
        return Return(str(to), int(at), Tally(decided, refused), Tally(last_decided, last_refused))
    except (ValueError, TypeError):
        raise LedgerFault(f"{ROLLED_BACK} cannot be read; delete it (redis-cli DEL)") from None
