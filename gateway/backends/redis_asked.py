"""Requests that must be done once though they come twice (Idempotency-Key), `gw:{N}:asked:<name>`, for some time.

It lies where the links lie that were made: who loses the one loses the other.
"""

from __future__ import annotations

import hashlib

from gateway.backends.redis_client import Wire
from gateway.policy.shards import shard_of


class RedisAsked:
    """What was begun for each name; of several who come at once the first one's counts."""

    def __init__(self, wire: Wire, shards: int) -> None:
        self._wire = wire
        self._shards = shards

    async def first(self, name: str, begun: str, seconds: int) -> str:
        """What was begun under this name by who came first: `begun`, where nobody came before. Raises LedgerDown."""
        hashed = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
        key = f"gw:{{{shard_of(hashed, self._shards)}}}:asked:{hashed}"
        # SET with NX and GET at once needs Redis 7.
        if await self._wire.execute("SET", key, begun, "NX", "EX", seconds):
            return begun
        known = await self._wire.execute("GET", key)
        return begun if known is None else str(known)
