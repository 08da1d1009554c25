"""Webhooks to the shop: each event that an endpoint asked for is sent until it has it, or until that is given up.

Law: an event counts as told when the endpoint has answered 2xx, never before; so it may come twice, with the same id.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from gateway.policy.events import new_event
from gateway.policy.webhooks import GIVE_UP_AFTER, PAUSES, Answer, Taken, Webhook, next_try, webhook
from gateway.services.identifiers import new_id

log = logging.getLogger(__name__)

AT_ONCE = 8
PATIENCE = 100.0
"""Seconds after which another worker sends what this one took: eight of one order, one after the other, take 80."""
FAILING = 3
"""Tries in a row after which an endpoint counts as failing: then nothing new is sent to it but a probe now and then."""
PROBE_EVERY = 60.0


class EventQueue(Protocol):
    """What is still to be sent to one endpoint; it is in Redis, and shared by all workers. Calls raise LedgerDown."""

    async def open(self) -> None:
        """Begin with what happens from now on, where the endpoint is new."""

    async def take(
        self, shard: int, most: int, fresh: int, *, oldest: int, patience: float
    ) -> tuple[list[Taken], bool]:
        """Up to `most` events for the caller alone during `patience` s, at most `fresh` of them never tried before; and
        whether there may be more. Of the new ones those before `oldest` (Unix s) come as stale, and do not count.
        """

    async def done(self, taken: Taken) -> None:
        """The endpoint has it."""

    async def postpone(self, taken: Taken, seconds: float) -> None:
        """Its try failed; the next one is due in so many seconds."""

    async def give_up(self, taken: Taken, event: Mapping[str, str]) -> None:
        """It is not tried again, and `event` says so: both in one step, and once."""

    async def hurry(self) -> None:
        """Whatever waits for its next try is due now."""


class Sender(Protocol):
    """Hands a webhook to one endpoint."""

    async def send(self, webhook: Webhook) -> Answer:
        """Try once. Never raises; takes 10 s at most."""


class Endpoint:
    """One endpoint of the settings, in one background worker. `work` is its step (see services.background)."""

    def __init__(
        self,
        queue: EventQueue,
        sender: Sender,
        *,
        host: str,
        key: bytes,
        shards: int,
        count: Callable[[str], None] = lambda _: None,
        pauses: Sequence[float] = PAUSES,
        patience: float = PATIENCE,
    ) -> None:
        """`host`: what may be shown of its address. `count` hears `sent`, `retried` or `failed` of each try."""
        self._queue = queue
        self._sender = sender
        self._host = host
        self._key = key
        self._shards = shards
        self._count = count
        self._pauses = tuple(pauses)
        self._patience = patience
        self._is_open = False
        self._first_shard = 0
        self._failures = 0
        self._probe_at = float("-inf")
        self._stopped = False

    async def work(self) -> bool:
        """Send what is due; whether there was any. Raises LedgerDown."""
        if not self._is_open:
            await self._queue.open()
            self._is_open = True
        taken, more = await self._take()
        # One after the other for each order, or the shop would hear of a refusal before what it is about.
        chains: dict[str, list[Taken]] = {}
        for each in taken:
            chains.setdefault(each.subject, []).append(each)
        # All of them end before one that failed is told of: what is broken off would be sent again.
        ended = await asyncio.gather(*(self._send_all(chain) for chain in chains.values()), return_exceptions=True)
        for broken in ended:
            if broken is not None:
                raise broken
        return more or bool(taken)

    async def _take(self) -> tuple[list[Taken], bool]:
        failing = self._failures >= FAILING
        probing = failing and time.monotonic() >= self._probe_at
        fresh = AT_ONCE if not failing else int(probing)
        oldest = int(time.time()) - GIVE_UP_AFTER if failing else 0
        taken: list[Taken] = []
        room, more = AT_ONCE, False
        for step in range(self._shards):
            shard = (self._first_shard + step) % self._shards
            found, left = await self._queue.take(shard, room, min(fresh, room), oldest=oldest, patience=self._patience)
            taken += found
            more = more or left
            room = AT_ONCE - sum(not each.stale for each in taken)
            if failing and any(each.is_new for each in found):
                fresh = 0
            if room <= 0:
                more = True
                break
        if probing and (not fresh or not more):
            self._probe_at = time.monotonic() + PROBE_EVERY
        self._first_shard = (self._first_shard + 1) % self._shards
        return taken, more

    async def _send_all(self, chain: Sequence[Taken]) -> None:
        for taken in chain:
            if taken.stale:
                await self._give_up(taken, Answer("failed", "it was too old when its turn came"), taken.tries)
            else:
                await self._send(taken)

    async def _send(self, taken: Taken) -> None:
        answer = Answer("failed", "410")
        if not self._stopped:
            answer = await self._sender.send(webhook(taken.fields, self._key, int(time.time())))
        if answer.outcome == "taken":
            await self._queue.done(taken)
            self._count("sent")
            await self._well()
            return
        if answer.outcome == "gone" and not self._stopped:
            self._stopped = True
            log.critical(
                "%s answered 410 Gone: no webhook is sent to it until the gateway is restarted; take it out of "
                "webhooks: in the settings, or put it right there",
                self._host,
            )
        self._failures += 1
        if self._failures == FAILING:
            log.error(
                "%s does not take its webhooks (%s): they are tried again for three days", self._host, answer.said
            )
        pause = next_try(taken, time.time(), self._pauses)
        if pause is None:
            await self._give_up(taken, answer, taken.tries + 1)
        else:
            await self._queue.postpone(taken, pause)
            self._count("retried")

    async def _well(self) -> None:
        failures, self._failures = self._failures, 0
        if failures >= FAILING:
            log.info("%s takes its webhooks again", self._host)
            await self._queue.hurry()

    async def _give_up(self, taken: Taken, answer: Answer, tries: int) -> None:
        own = {name: taken.fields.get(name) for name in ("order.id", "token.id", "customer.id")}
        told = {
            "reason": answer.said,
            "webhook.host": self._host,
            "webhook.id": taken.fields.get("id"),
            "webhook.attempts": tries,
        }
        event = new_event("webhook.failed", new_id(), time.time_ns() // 1_000_000, {**own, **told})
        await self._queue.give_up(taken, event)
        self._count("failed")
        # At most so often as it is tried; of those that were not, there may be a day's traffic at once.
        level = logging.INFO if taken.stale else logging.ERROR
        log.log(level, "%s was not told of the event %s: it is given up", self._host, taken.fields.get("id", ""))
