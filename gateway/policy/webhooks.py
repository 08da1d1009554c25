"""An event as a webhook to the shop: body, signature (Standard Webhooks) and when it is tried again.

Law: an event's webhook has the same id and the same body at each try; only its time and its signature are new.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

PREFIX = "whsec_"
SECRET_MIN = 24
"""Bytes of a secret; Standard Webhooks asks for 24 to 64."""

PAUSES = (5, 30, 300, 1_800, 7_200, 28_800)
"""Seconds between a try and the next one; the last one again and again."""
TRIES_MIN = 5
"""Tries that an event has in any case, however old it was at the first one: they take about 2 h 35 min."""
GIVE_UP_AFTER = 3 * 86_400
"""Seconds after an event from which on it is not tried again."""


@dataclass(frozen=True, slots=True)
class Webhook:
    """What is sent: headers, and a body of JSON."""

    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Taken:
    """One event that is to be sent: its shard, the id of its entry there, and how often it was tried before.

    `stale`: it is too old to be sent at all, and is to be given up.
    """

    shard: int
    entry_id: str
    fields: Mapping[str, str]
    tries: int = 0
    stale: bool = False

    @property
    def at(self) -> int:
        """When it was written (Unix s, by the clock of Redis)."""
        return int(self.entry_id.partition("-")[0]) // 1000

    @property
    def is_new(self) -> bool:
        """Whether it is to be sent for the first time."""
        return not self.tries and not self.stale

    @property
    def subject(self) -> str:
        """Whose events are sent in their sequence: the order, else the token, else the event alone."""
        return self.fields.get("order.id") or self.fields.get("token.id") or self.entry_id


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a try: `taken` (2xx), `gone` (410: no more of it), or `failed`. `said`: a status, or a few words."""

    outcome: Literal["taken", "failed", "gone"]
    said: str


def secret_key(secret: str) -> bytes:
    """The key that a secret stands for: the base64 behind `whsec_`, else the text itself, in UTF-8.

    Raises ValueError, which does not repeat it, for one that is no base64 or too short.
    """
    if secret.startswith(PREFIX):
        try:
            key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
        except ValueError:
            raise ValueError("begins with whsec_, and no base64 stands behind that; write it as it was made") from None
    else:
        key = secret.encode("utf-8", "surrogatepass")
    if len(key) < SECRET_MIN:
        raise ValueError(f"is shorter than {SECRET_MIN} bytes; make one with `openssl rand -hex 32`")
    return key


def webhook(event: Mapping[str, str], key: bytes, now: int) -> Webhook:
    """The event's webhook, signed at `now` (Unix s). Source: Standard Webhooks 1.0.0."""
    told = {"type": event.get("type", ""), "timestamp": event.get("time", ""), "data": dict(event)}
    body = json.dumps(told, separators=(",", ":")).encode()
    headers = {
        "Content-Type": "application/json",
        "webhook-id": event.get("id", ""),
        "webhook-timestamp": str(now),
        "webhook-signature": signature(key, event.get("id", ""), now, body),
    }
    return Webhook(headers, body)


def signature(key: bytes, event_id: str, now: int, body: bytes) -> str:
    """The header `webhook-signature` of a body that is sent at `now` (Unix s)."""
    signed = hmac.digest(key, f"{event_id}.{now}.".encode() + body, hashlib.sha256)
    return f"v1,{base64.b64encode(signed).decode()}"


def next_try(taken: Taken, now: float, pauses: tuple[float, ...] = PAUSES) -> float | None:
    """Seconds from `now` (Unix s) to the next try of an event whose try has just failed; None: it is given up."""
    tries = taken.tries + 1
    pause = pauses[min(tries, len(pauses)) - 1]
    if tries >= TRIES_MIN and now + pause > taken.at + GIVE_UP_AFTER:
        return None
    return pause
