"""One class per limit: what a token may use up, as the charge that the ledger checks and applies."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Protocol

from gateway.policy.model import Charge, Limits
from gateway.policy.reasons import Reason


class Limit(Protocol):
    """A limit touches nothing itself: it describes its charge."""

    def charge(self) -> Charge:
        """What opening a transfer under this limit costs."""


@dataclass(frozen=True, slots=True)
class Downloads:
    """At most this many downloads of each of a token's files; None counts them without a limit."""

    at_most: int | None

    def charge(self) -> Charge:
        return Charge("count", self.at_most, Reason.LIMIT_DOWNLOADS)


ENFORCED_LIMITS = frozenset({"downloads"})
"""The names of `limits` that this release enforces; a token with another one is refused, never let through."""


def charges(limits: Limits) -> tuple[Charge, ...]:
    """What opening a transfer under these limits costs."""
    return (Downloads(limits.downloads).charge(),)


def unenforced(limits: Limits) -> tuple[str, ...]:
    """The limits that are set here and that no class above enforces."""
    named = (field.name for field in fields(limits) if getattr(limits, field.name) is not None)
    return tuple(name for name in named if name not in ENFORCED_LIMITS)
