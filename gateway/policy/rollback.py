"""When a new version of the rules refuses so much more than the last one that the last one has to return."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.policy.reasons import Reason

REFUSED_LEAST = 10
"""Refusals below which nothing is concluded."""
FLOOR = 0.01
"""What the last version's share counts as at least: where it refused nobody, one refusal in a thousand is no alarm."""
UNKNOWN = 0.1
"""The same, where too little of the last version is known."""

_CAUSED = frozenset(
    {
        Reason.RULE_DENIED,
        Reason.ACCOUNT_REQUIRED,
        Reason.VIEW_NOT_ALLOWED,
        Reason.TOKEN_CLAIMS,
        Reason.TOKEN_EXPIRED,
        Reason.LIMIT_DOWNLOADS,
        Reason.LIMIT_NETWORKS,
        Reason.LIMIT_DEVICES,
        Reason.LIMIT_CONCURRENT,
    }
)


@dataclass(frozen=True, slots=True)
class Tally:
    """How many were decided, and how many of these refused."""

    decided: int = 0
    refused: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.decided + other.decided, self.refused + other.refused)

    @property
    def share(self) -> float:
        """Of the refused, from 0 to 1."""
        return self.refused / self.decided if self.decided else 0.0


def counted(reason: Reason | None) -> Tally | None:
    """What one decision counts as; None where rules and plans had no part in it. A `reason` of None: let through."""
    if reason is None:
        return Tally(1)
    return Tally(1, 1) if reason in _CAUSED else None


@dataclass(frozen=True, slots=True)
class Terms:
    """How many times the last version's share is too much, for how long (s), and after how many decisions at least."""

    factor: float
    within: int
    least: int


def threshold(last: Tally, terms: Terms) -> float:
    """The share that a new version may refuse. Above it, either `factor` times as many are refused as under the last
    one, or, where that would be nearly all, only one in `factor` of those that were let through still is.
    """
    base = max(last.share, FLOOR if last.decided >= terms.least else UNKNOWN)
    return min(terms.factor * base, 1 - (1 - base) / terms.factor)


def must_return(new: Tally, last: Tally, terms: Terms) -> bool:
    """Whether the version under which `new` was counted has to give way to the last one."""
    if new.decided < terms.least or new.refused < REFUSED_LEAST:
        return False
    return new.share > threshold(last, terms)


@dataclass(frozen=True, slots=True)
class Came:
    """A version came into force in place of another one, at a time (Unix s)."""

    version: str
    before: str
    since: int


@dataclass(frozen=True, slots=True)
class Return:
    """A version had to give way to the one before it, at a time (Unix s); what each of them refused of how many."""

    to: str
    at: int
    new: Tally
    last: Tally

    @property
    def said(self) -> str:
        """In words for ops."""
        return f"it refused {_percent(self.new)}, and the version {self.to} before it {_percent(self.last)}"


def _percent(tally: Tally) -> str:
    return f"{tally.share:.1%} of {tally.decided}"
