"""A created link as the ops see it: what it grants, when it was made, and whether it is any good now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gateway.policy.limits import Downloads
from gateway.policy.model import Claims, Limits


@dataclass(frozen=True, slots=True)
class Link:
    """A link without its token; `created_ms` in Unix milliseconds, None where it was not made here."""

    claims: Claims
    created_ms: int | None


def state(claims: Claims, limits: Limits, used: Mapping[str, int], now: int, *, expires_at: int, revoked: bool) -> str:
    """`revoked`, `expired`, `not yet valid`, `used up` or `valid`, the first of them that holds.

    `limits`: the token's and its plan's; `used`: downloads charged, by file identity; `now` and `expires_at` (as
    extended) in Unix seconds.
    """
    if revoked:
        return "revoked"
    if expires_at <= now:
        return "expired"
    if claims.not_before is not None and claims.not_before > now:
        return "not yet valid"
    limit = limits.get(Downloads.name)
    if limit is not None and all(used.get(file.identity, 0) >= limit for file in claims.files):
        return "used up"
    return "valid"
