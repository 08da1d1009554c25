"""How what keeps the ledger whole is doing, for metrics: the journal and the shards; and whether all is frozen."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.policy.standing import Frozen, Standing
from gateway.ports import Journal, Shards


@dataclass(frozen=True, slots=True)
class Upkeep:
    """Whether the journal can be written (or there is none), lines of it that could not be read, shards not in use;
    and since when all is `frozen`.
    """

    journal_up: bool = True
    journal_torn: int = 0
    shards_closed: int = 0
    frozen: Frozen | None = None

    @classmethod
    def of(cls, journal: Journal | None, shards: Shards, standing: Standing) -> Upkeep:
        """As it is now. Without a journal a shard is used as soon as it is needed."""
        if journal is None:
            return cls(frozen=standing.frozen)
        closed = sum(not shards.is_entered(shard) for shard in range(shards.count))
        return cls(not journal.trouble, journal.torn, closed, standing.frozen)
