"""Who fails too often is told to wait: guessed tokens, orders and codes, by network.

Law: only the answer to a failure changes. What is genuine is never asked here, so no office is locked out by one of
its own.
"""

from __future__ import annotations

import logging
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from gateway.policy.model import Deny
from gateway.policy.reasons import Reason

log = logging.getLogger(__name__)

FAILURES_MAX = 60
"""Failures in a minute that one network has free."""
MINUTE = 60.0
NETWORKS_MAX = 10_000
"""Remembered by a worker; the one that failed longest ago is forgotten first."""
TELL_EVERY = 3600.0
_OWN = "::/56"
"""The network of ::1."""


@dataclass(slots=True)
class _Network:
    """Failures of the minute that began at `since`, and of the one before. Times by the clock."""

    since: float
    count: int = 0
    before: int = 0
    over_until: float = -math.inf
    told: float = -math.inf


class Throttle:
    """Failures of this worker. A network is an IPv4 /24 or an IPv6 /56, as DownloadRequest.client_network has it."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` in seconds."""
        self._clock = clock
        self._networks: OrderedDict[str, _Network] = OrderedDict()

    def failed(self, network: str) -> None:
        """Count one failure; more than FAILURES_MAX in a minute, and the network is over for one minute more.

        This very machine has as many as it likes: behind a proxy on it that trusted_proxies does not name, everybody
        would be one network.
        """
        if network.startswith("127.") or network == _OWN:
            return
        now = self._clock()
        known = self._networks.setdefault(network, _Network(now))
        self._networks.move_to_end(network)
        if len(self._networks) > NETWORKS_MAX:
            self._networks.popitem(last=False)
        if (passed := now - known.since) >= MINUTE:
            known.before = known.count if passed < 2 * MINUTE else 0
            known.count, known.since = 0, now - passed % MINUTE
        known.count += 1
        # Of the minute before, the part that is still less than a minute ago.
        if known.count + known.before * (1 - (now - known.since) / MINUTE) > FAILURES_MAX:
            known.over_until = now + MINUTE
            if now - known.told >= TELL_EVERY:
                known.told = now
                log.warning("failures from %s are throttled: more than %d in a minute", network, FAILURES_MAX)

    def instead(self, deny: Deny, network: str) -> Deny:
        """What a failure is answered, which is counted: its own refusal, or `throttled` where there are too many."""
        self.failed(network)
        seconds = self.is_over(network)
        return deny if seconds is None else Deny(Reason.THROTTLED, retry_after=seconds)

    def is_over(self, network: str) -> int | None:
        """Seconds that who fails from there is to wait; None: not too often yet."""
        known = self._networks.get(network)
        left = 0.0 if known is None else known.over_until - self._clock()
        return math.ceil(left) if left > 0 else None
