"""Webhooks of shops: genuine, and kept before they are answered. What follows from them is done elsewhere, later."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from gateway.errors import OrdersDown
from gateway.order_ports import Delivery, OrderBell, OrderBook
from gateway.services.faults import describe
from gateway.services.identifiers import now_ms
from gateway.shops.base import Headers, Ignored, Shop

log = logging.getLogger(__name__)

BODY_MAX = 2 * 1024 * 1024
"""Bytes of a webhook; an order of a thousand lines has about one million."""
COMPLAIN_EVERY = 5.0
AGE_MAX = 3600
"""Seconds between a signature that has a time and now, either way: room for a shop that tries again."""


@dataclass(frozen=True, slots=True)
class Source:
    """A shop of the settings, as its webhooks see it."""

    kind: Shop
    secrets: Sequence[bytes] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Heard:
    """The answer to a webhook: its status, a word for it that stays, and a sentence. A shop tries again from 500 on."""

    status: int
    outcome: str
    text: str


class Intake:
    """Takes what shops send to `/hooks/{shop}`."""

    def __init__(self, book: OrderBook, bell: OrderBell, sources: Mapping[str, Source]) -> None:
        self._book = book
        self._bell = bell
        self._sources = sources
        self._complained = float("-inf")

    def knows(self, shop: str) -> bool:
        """Whether there is a shop of this name, so that its webhooks are worth reading."""
        return shop in self._sources

    def _complain(self, shop: str, wrong: str) -> None:
        # Anybody may send what is not signed: it makes metrics, and a line now and then.
        if time.monotonic() - self._complained > COMPLAIN_EVERY:
            self._complained = time.monotonic()
            log.warning("a webhook for %s is refused: %s", shop, wrong)

    async def take(self, shop: str, headers: Headers, body: bytes) -> Heard:
        """Keep one webhook, whose body is as it came, at most BODY_MAX bytes. Never raises."""
        source = self._sources.get(shop)
        if source is None:
            return Heard(404, "shop.unknown", "No shop of this name is in the settings.")
        wrong = source.kind.verify(headers, body, source.secrets)
        if wrong:
            self._complain(shop, wrong)
            return Heard(401, "hook.signature", f"The signature is not good: {wrong}.")
        signed_at = source.kind.signed_at(headers)
        if signed_at is not None and abs(time.time() - signed_at) > AGE_MAX:
            return Heard(401, "hook.too_old", "It was signed too long ago; sign it again, and look at the clock.")
        received_at = now_ms()
        try:
            said = source.kind.read(headers, body, received_at)
        except ValueError as error:
            if source.kind.ours:
                log.warning("a webhook of %s cannot be read: %s", shop, error)
                return Heard(422, "hook.unreadable", f"{error}.")
            # Kept all the same: it is genuine, and a later release may read it.
        else:
            if isinstance(said, Ignored):
                return Heard(200, "ignored", "It says nothing of an order.")
        kept = {name: values[0] for name, values in headers.items() if name in source.kind.kept and len(values) == 1}
        delivery = Delivery(shop, source.kind.delivery_id(headers, body), received_at, kept, body)
        try:
            is_new = await self._book.take_in(delivery)
        except OrdersDown as error:
            log.error("a webhook of %s cannot be kept, and is to come again: %s", shop, describe(error))
            return Heard(503, "orders.down", "It could not be kept; please send it again.")
        if not is_new:
            return Heard(200, "known", "It was here before, and is done once.")
        await self._bell.ring()
        return Heard(200, "taken", "It is kept, and will be done in a moment.")
