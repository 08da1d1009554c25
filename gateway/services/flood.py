"""How many events may be written that no ledger call pays for."""

from __future__ import annotations

import time

from gateway.policy.model import Claims

JUNK_EVENTS_PER_SECOND = 10
TOKEN_EVENTS_PER_SECOND = 50


class FloodLimit:
    """Bounds the events that no ledger call pays for, so that noise cannot fill Redis: per second and worker, all
    requests without a genuine token together, and each token by itself. Metrics count them all.
    """

    def __init__(self) -> None:
        self._second = 0
        self._counts: dict[str, int] = {}

    def allows(self, claims: Claims | None) -> bool:
        """Whether one more event may be written for this token, None: for none."""
        second = int(time.monotonic())
        if second != self._second:
            self._second = second
            self._counts.clear()
        key = claims.token_key if claims else ""
        count = self._counts[key] = self._counts.get(key, 0) + 1
        return count <= (TOKEN_EVENTS_PER_SECOND if claims else JUNK_EVENTS_PER_SECOND)
