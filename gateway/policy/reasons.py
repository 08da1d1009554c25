"""Every reason for which the gateway refuses, with its HTTP status: the one table that all doors share."""

from __future__ import annotations

from enum import Enum


class Reason(Enum):
    """A refusal's name (stable, seen by buyers' programs and in events) and its status (RFC 9110 §15)."""

    ACCOUNT_REQUIRED = ("account.required", 401)
    DEVICE_CODE = ("device.code", 401)
    TOKEN_MALFORMED = ("token.malformed", 403)
    TOKEN_SIGNATURE = ("token.signature", 403)
    TOKEN_CLAIMS = ("token.claims", 403)
    TOKEN_NOT_YET = ("token.not_yet", 403)
    TOKEN_IP = ("token.ip", 403)
    ACCOUNT_OTHER = ("account.other", 403)
    ORDER_UNPAID = ("order.unpaid", 403)
    RULE_DENIED = ("rule.denied", 403)
    LIMIT_NETWORKS = ("limit.networks", 403)
    LIMIT_DEVICES = ("limit.devices", 403)
    LIMIT_UNKEPT = ("limit.unkept", 403)
    VIEW_NOT_ALLOWED = ("view.not_allowed", 403)
    FILE_UNKNOWN = ("file.unknown", 404)
    FILE_MISSING = ("file.missing", 404)
    LINK_UNKNOWN = ("link.unknown", 404)
    TOKEN_EXPIRED = ("token.expired", 410)
    TOKEN_REVOKED = ("token.revoked", 410)
    LIMIT_DOWNLOADS = ("limit.downloads", 410)
    LIMIT_CONCURRENT = ("limit.concurrent", 429)
    THROTTLED = ("throttled", 429)
    ORIGIN_DOWN = ("origin.down", 502)
    ORIGIN_CHANGED = ("origin.changed", 502)
    ORIGIN_TIMEOUT = ("origin.timeout", 504)
    REDIS_DOWN = ("redis.down", 503)
    GEO_DOWN = ("geo.down", 503)
    ORDERS_DOWN = ("orders.down", 503)
    FROZEN = ("frozen", 503)
    OVERLOAD = ("overload", 503)
    DRAINING = ("draining", 503)

    def __init__(self, text: str, status: int) -> None:
        self.text = text
        self.status = status

    @classmethod
    def named(cls, text: str) -> Reason:
        """The reason with this name. Raises KeyError for a name that is not in the table."""
        return _BY_TEXT[text]


_BY_TEXT = {reason.text: reason for reason in Reason}
