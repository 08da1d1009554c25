"""One-time codes in Redis: `gw:{N}:code:<token>:<device>`, hashed, and beside them how many were made of late.

Who loses them asks for another one: so they are in no journal.
"""

from __future__ import annotations

from gateway.backends.redis_client import Script, Wire
from gateway.order_ports import CODE_SECONDS

TRIES_MAX = 5
_HOUR, _DAY = 3600, 86_400
OF_DEVICE = ((3, _HOUR),)
OF_TOKEN = ((6, _HOUR), (12, _DAY))
"""How many codes may be made for it in how many seconds, from the first one on."""


class RedisCodes:
    """gateway.ports.CodeStore."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._put = Script("code_put.lua")
        self._try = Script("code_try.lua")
        self._spend = Script("code_spend.lua")

    async def put(self, shard: int, token_key: str, device: str, hashed: str) -> bool:
        """See CodeStore.put."""
        made = f"gw:{{{shard}}}:codes:{token_key}"
        counted = [(f"{made}:{device}:{seconds}", most, seconds) for most, seconds in OF_DEVICE]
        counted += [(f"{made}:{seconds}", most, seconds) for most, seconds in OF_TOKEN]
        keys = [_key(shard, token_key, device), *(key for key, _, _ in counted)]
        bounds = [number for _, most, seconds in counted for number in (most, seconds)]
        return bool(await self._wire.run(self._put, keys, [hashed, CODE_SECONDS, *bounds]))

    async def take_try(self, shard: int, token_key: str, device: str) -> tuple[str, int] | None:
        """See CodeStore.take_try."""
        reply = await self._wire.run(self._try, [_key(shard, token_key, device)], [TRIES_MAX])
        return (str(reply[0]), int(reply[1])) if reply else None

    async def spend(self, shard: int, token_key: str, device: str, hashed: str) -> bool:
        """See CodeStore.spend."""
        return bool(await self._wire.run(self._spend, [_key(shard, token_key, device)], [hashed]))


def _key(shard: int, token_key: str, device: str) -> str:
    return f"gw:{{{shard}}}:code:{token_key}:{device}"
