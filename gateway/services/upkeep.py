"""How what keeps the ledger whole is doing, for metrics: the journal and the shards."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.ports import Journal, Shards


@dataclass(frozen=True, slots=True)
class Upkeep:
    """Whether the journal can be written (or there is none), lines of it that could not be read, shards not in use."""

    journal_up: bool = True
    journal_torn: int = 0
    shards_closed: int = 0

    @classmethod
    def of(cls, journal: Journal | None, shards: Shards) -> Upkeep:
        """As it is now. Without a journal a shard is used as soon as it is needed."""
        if journal is None:
            return cls()
        closed = sum(not shards.is_entered(shard) for shard in range(shards.count))
        return cls(not journal.trouble, journal.torn, closed)
