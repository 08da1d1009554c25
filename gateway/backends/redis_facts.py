"""What a Redis tells of itself, read without changing anything: the facts that `gateway doctor` judges."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from gateway.backends.redis_client import Wire


@dataclass(frozen=True, slots=True)
class RedisFacts:
    """`servers`: INFO of each by its name, empty for a single one. `ahead`, `uncertain`: see policy.checkup.of_clock.

    `first_used_with`: how many shards the ledger in it has; None where it has none yet.
    """

    servers: Mapping[str, Mapping[str, object]]
    answered_ms: float
    ahead: float
    uncertain: float
    first_used_with: str | None


async def look(wire: Wire) -> RedisFacts:
    """Ask it. Raises LedgerDown."""
    await wire.execute("PING")  # or the first answer's time would be that of connecting
    began, clock = time.monotonic(), time.time()
    seconds, microseconds = await wire.execute("TIME")
    took = time.monotonic() - began
    return RedisFacts(
        servers=await wire.survey("INFO"),
        answered_ms=took * 1000,
        ahead=clock + took / 2 - (int(seconds) + int(microseconds) / 1e6),
        uncertain=took / 2,
        first_used_with=await wire.execute("HGET", "gw:{0}:meta", "shards"),
    )
