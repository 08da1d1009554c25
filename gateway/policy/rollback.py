"""When a new version of the rules refuses so much of what the proven one would have let through that it has to go.

Both judge the same requests, so what comes and goes with the traffic (expired links, used up ones) weighs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gateway.policy.limits import Concurrent, Devices, Downloads, Networks, ValidAfterFirst
from gateway.policy.model import Allow, Decision, Deny
from gateway.policy.reasons import Reason

REFUSED_LEAST = 10
"""Refusals that the proven rules would not have made, below which nothing is concluded."""
FLOOR = 0.01
"""What the proven rules' share counts as at least: where they refuse nobody, one refusal in a thousand is no alarm."""

_LIMITED: Mapping[Reason, str] = {
    Reason.LIMIT_DOWNLOADS: Downloads.name,
    Reason.LIMIT_NETWORKS: Networks.name,
    Reason.LIMIT_DEVICES: Devices.name,
    Reason.LIMIT_CONCURRENT: Concurrent.name,
}
_CAUSED = frozenset(
    {
        Reason.RULE_DENIED,
        Reason.ACCOUNT_REQUIRED,
        Reason.VIEW_NOT_ALLOWED,
        Reason.LIMIT_UNKEPT,
        Reason.TOKEN_CLAIMS,
        Reason.TOKEN_EXPIRED,
        *_LIMITED,
    }
)


@dataclass(frozen=True, slots=True)
class Tally:
    """Of so many `decided`, the new rules refused `refused` and the proven ones would have refused `refused_before`;
    `newly` of those that were refused would have been let through.
    """

    decided: int = 0
    refused: int = 0
    refused_before: int = 0
    newly: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.decided + other.decided,
            self.refused + other.refused,
            self.refused_before + other.refused_before,
            self.newly + other.newly,
        )

    @classmethod
    def of(cls, *, refused: bool, before: bool) -> Tally:
        """One decision."""
        return cls(1, int(refused), int(before), int(refused and not before))

    @property
    def share(self) -> float:
        """Of the refused, from 0 to 1."""
        return self.refused / self.decided if self.decided else 0.0

    @property
    def share_before(self) -> float:
        """The same under the proven rules."""
        return self.refused_before / self.decided if self.decided else 0.0


def counts(reason: Reason | None) -> bool:
    """Whether rules or plans can have caused this answer; a `reason` of None: let through."""
    return reason is None or reason in _CAUSED


def refused_before(proven: Decision, decision: Decision | None, reason: Reason | None, now: float) -> bool:
    """Whether a request would have been refused under the proven rules too, which decide `proven` of it.

    `decision` is what the new rules decided, and `reason` why it was refused in the end, as in `counts`: where they
    allowed it, the ledger did, by their limits and expiry. `now` in Unix seconds.
    """
    if isinstance(proven, Deny):
        return True
    if reason is None or not isinstance(decision, Allow):
        return False
    if reason is not Reason.TOKEN_EXPIRED:
        return reason in _LIMITED and _as_tight(proven, decision, _LIMITED[reason])
    if proven.expires_at <= now:
        return True
    if decision.expires_at > now and decision.limits.get(ValidAfterFirst.name) is not None:
        return _as_tight(proven, decision, ValidAfterFirst.name)
    return proven.expires_at <= decision.expires_at


def _as_tight(proven: Allow, new: Allow, limit: str) -> bool:
    before, now = proven.limits.get(limit), new.limits.get(limit)
    return before is not None and now is not None and before <= now


@dataclass(frozen=True, slots=True)
class Terms:
    """How many times the proven rules' share is too much, for how long (s), and after how many decisions at least."""

    factor: float
    within: int
    least: int


def threshold(share_before: float, terms: Terms) -> float:
    """The share that a new version may refuse. Above it, either `factor` times as many are refused as under the proven
    one, or, where that would be nearly all, only one in `factor` of those that it lets through still is.
    """
    base = max(share_before, FLOOR)
    return min(terms.factor * base, 1 - (1 - base) / terms.factor)


def must_return(tally: Tally, terms: Terms) -> bool:
    """Whether the version of which this was counted has to give way."""
    if tally.decided < terms.least or tally.newly < REFUSED_LEAST:
        return False
    return tally.share > threshold(tally.share_before, terms)


@dataclass(frozen=True, slots=True)
class Watch:
    """A version is held against the proven one `before` it, since it came into force (Unix s)."""

    version: str
    before: str
    came: int


@dataclass(frozen=True, slots=True)
class Return:
    """A version has to give way to the proven one (`to`), since a time (Unix s), for what was counted of both.

    `text` is the RuleSet.text of the version, or '' where it is the proven one's too: then a list was at fault.
    """

    to: str
    at: int
    tally: Tally
    text: str = ""

    @property
    def said(self) -> str:
        """In words for ops."""
        tally = self.tally
        return (
            f"it refused {tally.share:.1%} of {tally.decided}, of which the version {self.to} before it would have "
            f"refused {tally.share_before:.1%}"
        )
