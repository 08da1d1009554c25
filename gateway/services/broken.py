"""Which refusal each kind of breakage becomes: the one table for before the first byte, and for events after it."""

from __future__ import annotations

from gateway.errors import (
    FileMissing,
    GatewayError,
    GeoDown,
    LedgerDown,
    OrdersDown,
    OriginChanged,
    OriginTimeout,
)
from gateway.policy.reasons import Reason

_REASONS: dict[type[GatewayError], Reason] = {
    LedgerDown: Reason.REDIS_DOWN,
    GeoDown: Reason.GEO_DOWN,
    OrdersDown: Reason.ORDERS_DOWN,
    FileMissing: Reason.FILE_MISSING,
    OriginChanged: Reason.ORIGIN_CHANGED,
    OriginTimeout: Reason.ORIGIN_TIMEOUT,
}


def reason_of(error: GatewayError) -> Reason:
    """The refusal for an error of ledger, order book, geo data or origin; any other is a failed origin."""
    return next((reason for kind, reason in _REASONS.items() if isinstance(error, kind)), Reason.ORIGIN_DOWN)
