"""What every worker does beside its requests: watch the ledger, close what dead workers left, trim old events.

A worker reaps only after it has seen the ledger for one whole lease, so that after an outage the living come first.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable

from gateway.errors import LedgerDown, SettingsError
from gateway.policy.events import VERSION, rfc3339
from gateway.ports import EventLog, Ledger
from gateway.services.faults import describe
from gateway.services.identifiers import new_id, now_ms

log = logging.getLogger(__name__)

EVERY = 1.0
TRIM_EVERY = 600.0
_JITTER = secrets.SystemRandom()


class Housekeeping:
    """One loop per worker. `on_ledger` is told in words what is wrong with the ledger, or '' when all is well.

    `agree` sees to it that the ledger may be used, and is called again when it comes back.
    `trouble` says what else in Redis keeps requests from being served, or ''.
    """

    def __init__(
        self,
        ledger: Ledger,
        events: EventLog,
        *,
        shards: int,
        lease: float,
        keep_events: int,
        agree: Callable[[], Awaitable[None]],
        on_ledger: Callable[[str], None],
        trouble: Callable[[], str] = lambda: "",
    ) -> None:
        self._ledger = ledger
        self._events = events
        self._shards = shards
        self._lease = lease
        self._keep_events = keep_events
        self._agree = agree
        self._on_ledger = on_ledger
        self._trouble = trouble
        self._said: str | None = None
        self._has_agreed = False
        self._seen_since: float | None = None
        self._trim_at = time.monotonic() + _JITTER.uniform(0, TRIM_EVERY)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Ask the ledger once, then go on in the background. Raises SettingsError where it must not be used."""
        await self._look()
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(EVERY * _JITTER.uniform(0.8, 1.2))
            try:
                await self._look()
                await self._reap()
                await self._trim()
            except LedgerDown as error:
                self._down(str(error))
            except SettingsError as error:
                log.critical("refusing every request: %s", error)
                self._down(str(error))
            except Exception as error:  # noqa: BLE001  this loop must outlive whatever goes wrong in it
                log.error("housekeeping failed: %s", describe(error))

    async def _look(self) -> None:
        try:
            if self._has_agreed and not self._trouble():
                await self._ledger.ping()
            else:
                await self._agree()
                self._has_agreed = True
        except LedgerDown as error:
            self._down(str(error))
            return
        wrong = self._trouble()
        if wrong:
            self._seen_since = None  # the living are to renew their leases before anybody reaps
        elif self._seen_since is None:
            self._seen_since = time.monotonic()
        self._say(wrong)

    def _down(self, why: str) -> None:
        self._seen_since = None
        self._has_agreed = False  # a Redis that comes back may know nothing of it any more
        self._say(why)

    def _say(self, wrong: str) -> None:
        if wrong != self._said:
            self._said = wrong
            self._on_ledger(wrong)

    async def _reap(self) -> None:
        if self._seen_since is None or time.monotonic() - self._seen_since < self._lease:
            return
        closed = await self._ledger.reap(lambda: {"id": new_id(), "v": VERSION, "time": rfc3339(now_ms())})
        if closed:
            log.warning("closed %d downloads that a dead worker had left", closed)

    async def _trim(self) -> None:
        if self._seen_since is None or time.monotonic() < self._trim_at:
            return
        self._trim_at = time.monotonic() + TRIM_EVERY
        for shard in range(self._shards):
            await self._events.trim(shard, self._keep_events)
