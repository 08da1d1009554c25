"""Which refusal each kind of breakage becomes: the one table for before the first byte, and for events after it."""

from __future__ import annotations

from gateway.errors import (
    FileMissing,
    GatewayError,
    GeoDown,
    LedgerDown,
    LedgerFault,
    OriginChanged,
    OriginTimeout,
)
from gateway.policy.reasons import Reason

_REASONS: dict[type[GatewayError], Reason] = {
    LedgerDown: Reason.REDIS_DOWN,
    LedgerFault: Reason.REDIS_DOWN,
    GeoDown: Reason.GEO_DOWN,
    FileMissing: Reason.FILE_MISSING,
    OriginChanged: Reason.ORIGIN_CHANGED,
    OriginTimeout: Reason.ORIGIN_TIMEOUT,
}


def reason_of(error: GatewayError) -> Reason:
    """The refusal for an error of ledger, geo data or origin; what is not in the table is a failed origin."""
    return _REASONS.get(type(error), Reason.ORIGIN_DOWN)
