"""The registry of created links: what each token grants, never the token. Its signature cannot be made from here.

`gw:{N}:links` maps token ids to their claims; `gw:{N}:links:<order>` holds the token ids of one order.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from gateway.backends.redis_client import Reply, Wire
from gateway.errors import GatewayError
from gateway.policy.links import Link, read_link, write_link
from gateway.policy.model import Claims
from gateway.policy.shards import shard_of

PAGE = 500


class RedisLinks:
    """Created links, each in the shard of its order, else of its token id."""

    def __init__(self, wire: Wire, shards: int) -> None:
        self._wire = wire
        self._shards = shards

    async def add(self, claims: Claims, created_ms: int) -> None:
        """Store a link; again does no harm. Raises LedgerDown."""
        shard = shard_of(claims.shard_key, self._shards)
        written = write_link(claims, created_ms)
        commands = [self._wire.execute("HSET", _links(shard), claims.token_id, written)]
        if claims.order_id is not None:
            commands.append(self._wire.execute("SADD", _order(shard, claims.order_id), claims.token_id))
        await asyncio.gather(*commands)

    async def get(self, token_id: str) -> Link | None:
        """The link with this token id. Raises LedgerDown."""
        asked = (self._wire.execute("HGET", _links(shard), token_id) for shard in range(self._shards))
        found = [text for text in await asyncio.gather(*asked) if text is not None]
        return _read(found[0]) if found else None

    async def of_order(self, order: str) -> list[Link]:
        """An order's links, oldest first. Raises LedgerDown."""
        shard = shard_of(order, self._shards)
        ids = await self._wire.execute("SMEMBERS", _order(shard, order))
        asked = (self._wire.execute("HGET", _links(shard), token_id) for token_id in ids)
        links = [_read(text) for text in await asyncio.gather(*asked) if text is not None]
        return sorted(links, key=lambda link: (link.created_ms or 0, link.claims.token_id))

    async def all(self) -> AsyncIterator[Link]:
        """Every link, in no order; one that is created meanwhile may be missing. Raises LedgerDown."""
        for shard in range(self._shards):
            cursor = 0
            seen: set[str] = set()
            while True:
                cursor, page = await self._wire.execute("HSCAN", _links(shard), cursor, "COUNT", PAGE)
                for token_id, text in page.items():
                    if token_id not in seen:  # a hash that grows meanwhile repeats entries
                        seen.add(token_id)
                        yield _read(text)
                if int(cursor) == 0:
                    break


def _links(shard: int) -> str:
    return f"gw:{{{shard}}}:links"


def _order(shard: int, order: str) -> str:
    return f"gw:{{{shard}}}:links:{order}"


def _read(text: Reply) -> Link:
    try:
        return read_link(text)
    except ValueError as error:
        raise GatewayError(f"an entry of the link registry cannot be read: {error}; is this its Redis?") from None
