"""What one request of a client may cost the store: REQUESTS at most, its HEAD, retries and continuations included.

The count goes with the task that answers the client, so that nobody between `stat` and `open` has to carry it.
"""

from __future__ import annotations

import time
from contextvars import ContextVar

REQUESTS = 3
# What earns one more continuation: much in a body, or some of it and a minute. So a download of hours, to a slow reader
# whose connections the store gives up again and again, does come through, and a store that is ill is asked no more.
MUCH = 16 * 1024 * 1024
SOME = 64 * 1024
A_WHILE_S = 60.0


class Tries:
    """How many requests are left. Bytes that came give back no more than a fresh body has: REQUESTS - 1."""

    def __init__(self) -> None:
        self.left = REQUESTS
        self.failed = False
        """Whether one has failed: the connections that were kept are doubtful then."""
        self.quiet_until = 0.0
        """The store's own Retry-After, in time.monotonic()'s seconds."""
        self.changed = False
        """Whether the object turned out to be another one at `open`: a fresh stat then goes on with what is left."""
        self._came = 0
        self._since = time.monotonic()

    def take(self) -> None:
        """One request goes out."""
        self.left -= 1

    def earn(self, size: int) -> None:
        """So many bytes of the object have arrived."""
        self._came += size
        if self._came < SOME or (self._came < MUCH and time.monotonic() - self._since < A_WHILE_S):
            return
        self._came, self._since = 0, time.monotonic()
        self.left = min(max(self.left, 0) + 1, REQUESTS - 1)


_CURRENT: ContextVar[Tries] = ContextVar("tries")


def begin() -> Tries:
    """A client's request begins to need the store."""
    tries = Tries()
    _CURRENT.set(tries)
    return tries


def current() -> Tries:
    """What is left to the request that is being answered."""
    return _CURRENT.get(None) or begin()
