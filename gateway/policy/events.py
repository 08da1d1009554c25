"""What an event may hold: flat texts under the names of docs/events.md, which follow OpenTelemetry's where it has one.

Every value is cleaned and bounded here, so no reader downstream meets a control character, a lone surrogate or a novel.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime

VERSION = "1"

TYPES = (
    "link.created",
    "link.opened",
    "link.revoked",
    "link.extended",
    "download.allowed",
    "download.confirmed",
    "download.denied",
    "download.finished",
    "download.lost",
    "rules.reloaded",
    "rules.rejected",
    "rules.rolled_back",
    "order.received",
    "order.paid",
    "order.unpaid",
    "order.confirmed",
    "order.granted",
    "order.nothing",
    "order.refunded",
    "order.cancelled",
    "order.charged_back",
    "order.removed",
    "order.withdrawn",
    "order.restored",
    "order.renewed",
    "order.shortened",
    "order.erased",
    "mail.queued",
    "mail.accepted",
    "mail.deferred",
    "mail.failed",
    "mail.bounced",
    "webhook.failed",
    "staff.acted",
    "buyer.acted",
)

FIELDS = (
    "id",
    "v",
    "time",
    "type",
    "outcome",
    "reason",
    "rule",
    "would_deny",
    "candidate.outcome",
    "candidate.rule",
    "candidate.version",
    "unchecked",
    "signal",
    "signal.why",
    "rules.version",
    "rules.refused",
    "share.refused",
    "share.before",
    "geo.version",
    "token.id",
    "order.id",
    "order.reference",
    "shop",
    "line.id",
    "line.title",
    "mail.id",
    "mail.purpose",
    "mail.attempt",
    "mail.answer",
    "webhook.host",
    "webhook.id",
    "webhook.attempts",
    "staff.name",
    "staff.action",
    "buyer.action",
    "buyer.at",
    "customer.id",
    "account",
    "token.plan",
    "token.limits",
    "token.account",
    "token.issued_at",
    "token.expires_at",
    "token.extended_to",
    "plan",
    "limits",
    "limits.waived",
    "plan.guests",
    "tier",
    "file.key",
    "file.id",
    "file.size",
    "file.etag",
    "file.use",
    "http.request.method",
    "http.request.range",
    "http.response.status_code",
    "bytes.asked",
    "bytes.delivered",
    "duration.ms",
    "client.address",
    "client.network",
    "client.network.type",
    "geo.country.iso_code",
    "geo.continent.code",
    "geo.region.iso_code",
    "geo.city.name",
    "as.number",
    "user_agent.original",
    "device.id",
    "device.cookie",
    "campaign",
    "front",
    "request.id",
    "transfer.id",
    "counted",
)

LENGTH_MAX = 1024
LENGTHS = {"user_agent.original": 512}
"""Characters kept of a value, where it is not LENGTH_MAX."""

# C0, DEL, C1, line and paragraph separators, and lone surrogates, which no UTF-8 can carry.
_UNCLEAN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_KNOWN = frozenset(FIELDS)


def new_event(kind: str, event_id: str, time_ms: int, fields: Mapping[str, str | int | None]) -> dict[str, str]:
    """One event; `kind` is its type ("" where the ledger will write that), `time_ms` Unix milliseconds.

    Empty values and None are left out. Raises ValueError for a type or a field that docs/events.md does not know.
    """
    if kind and kind not in TYPES:
        raise ValueError(f"{kind} is no type of event")
    if unknown := sorted(fields.keys() - _KNOWN):
        raise ValueError(f"events have no field {', '.join(unknown)}")
    own = {"id": event_id, "v": VERSION, "time": rfc3339(time_ms), "type": kind}
    texts = {name: "" if value is None else str(value) for name, value in {**own, **fields, **own}.items()}
    return {name: clean(text, LENGTHS.get(name, LENGTH_MAX)) for name, text in texts.items() if text}


def clean(text: str, length: int = LENGTH_MAX) -> str:
    """At most `length` characters, with U+FFFD in place of controls, line separators and lone surrogates."""
    return _UNCLEAN.sub("\ufffd", text[:length])


def rfc3339(time_ms: int) -> str:
    """Unix milliseconds as `2026-11-21T09:30:00.125Z` (RFC 3339 §5.6). Raises ValueError beyond the year 9999."""
    seconds, milliseconds = divmod(time_ms, 1000)
    try:
        moment = datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, OSError) as error:
        raise ValueError("the time lies outside the years 1 to 9999") from error
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{milliseconds:03d}Z"
