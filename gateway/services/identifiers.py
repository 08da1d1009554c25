"""Where ids and wall-clock times of requests and events come from (UUIDv7: RFC 9562 §5.7)."""

from __future__ import annotations

import time

import uuid_utils


def new_id() -> str:
    """A fresh UUIDv7 as text; ids of one worker sort by time."""
    return str(uuid_utils.uuid7())


def now_ms() -> int:
    """Unix time in milliseconds."""
    return time.time_ns() // 1_000_000
