"""The devices that hold a slot of a link, as people see and remove them; lua/charges.lua counts them."""

from __future__ import annotations

import json

from gateway.backends.redis_client import Script, Wire
from gateway.backends.redis_ledger import request_keys
from gateway.backends.redis_shards import RedisShards
from gateway.policy.limits import Devices
from gateway.ports import DeviceSlot, Fields, Freed

_SLOT = f"s:{Devices.name}:"


class RedisDevices:
    """gateway.ports.DeviceList. `clock` replaces the server's clock, for tests."""

    def __init__(self, wire: Wire, shards: RedisShards, *, clock: str | None = None) -> None:
        self._wire = wire
        self._shards = shards
        self._free = Script("shard.lua", "ledger.lua", "charges.lua", "free_device.lua", clock=clock)

    async def of(self, shard: int, token_key: str) -> list[DeviceSlot]:
        """See DeviceList.of."""
        fields = await self._wire.execute("HGETALL", _keys(shard, token_key)[1])
        slots = [
            _slot(name.removeprefix(_SLOT), json.loads(text)) for name, text in fields.items() if name.startswith(_SLOT)
        ]
        return sorted(slots, key=lambda slot: (-(slot.at or 0), slot.slot))

    async def free(self, shard: int, token_key: str, slot: str, *, most: int, span: int, event: Fields) -> Freed:
        """See DeviceList.free."""
        flat = json.dumps([text for pair in event.items() for text in pair], ensure_ascii=False)
        args: list[str | int] = [Devices.name, slot, most, span * 1000, flat]
        answer: Freed = (await self._shards.run(self._free, shard, _keys(shard, token_key), args))[0]
        return answer


def _keys(shard: int, token_key: str) -> list[str]:
    # The scripts' own layout; what they say of files and requests is not touched.
    return request_keys(shard, token_key, "", "")


def _slot(number: str, held: dict[str, object]) -> DeviceSlot:
    at, about = held.get("at"), held.get("about")
    return DeviceSlot(number, int(at) if isinstance(at, int | float) else None, about if isinstance(about, str) else "")
