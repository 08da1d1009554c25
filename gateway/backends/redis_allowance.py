"""How often something may be had in how long, `gw:{N}:had:<name>:<seconds>`: one count for all workers of all hosts."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from gateway.backends.redis_client import Script, Wire
from gateway.policy.shards import shard_of


class RedisAllowance:
    """See Allowance."""

    def __init__(self, wire: Wire, shards: int) -> None:
        self._wire = wire
        self._shards = shards
        self._script = Script("allow.lua")

    async def take(self, name: str, limits: Sequence[tuple[int, int]]) -> int | None:
        """See Allowance.take."""
        return await self._run(name, limits, 1) or None

    async def give_back(self, name: str, limits: Sequence[tuple[int, int]]) -> None:
        """See Allowance.give_back."""
        await self._run(name, limits, -1)

    async def _run(self, name: str, limits: Sequence[tuple[int, int]], more: int) -> int:
        hashed = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        keys = [f"gw:{{{shard_of(hashed, self._shards)}}}:had:{hashed}:{seconds}" for _, seconds in limits]
        return int(await self._wire.run(self._script, keys, [more, *(number for pair in limits for number in pair)]))
