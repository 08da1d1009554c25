"""A customer's library: the orders of the order book that are his, with all that their links still give.

Law: nothing of anybody else's is shown or changed; what is somebody else's and what there is not are answered alike.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from gateway.errors import GatewayError
from gateway.order_ports import OrderBook
from gateway.policy.accounts import Account
from gateway.policy.events import new_event
from gateway.policy.granting import claims_of
from gateway.policy.limits import Devices, Downloads, Networks
from gateway.policy.links import Link
from gateway.policy.model import Claims
from gateway.policy.orders import NEVER, Holding, IssuedLink, Order
from gateway.policy.purchases import (
    DeviceName,
    Purchase,
    Shelf,
    ShownDevice,
    ShownFile,
    ShownLink,
    gone,
    held,
    is_of,
    newest,
    titles,
)
from gateway.policy.renewing import Offer, Refused
from gateway.policy.shards import shard_of
from gateway.ports import DeviceList, DeviceSlot, Fields, Freed
from gateway.services.desk import LinkDesk, Shown
from gateway.services.faults import describe
from gateway.services.fulfilment import Fulfilment
from gateway.services.identifiers import new_id, now_ms
from gateway.services.renewing import Renewed, Renewing

log = logging.getLogger(__name__)

PAGE = 20
"""Orders that are shown at once."""
ERASED_AT_ONCE = 100
PATIENCE = 1.5
"""Seconds that a page waits for what Redis knows; all else is in the book."""
REMOVALS_WITHIN = 30 * 86_400
"""Seconds in which as many devices of a link may be removed as it allows."""
_DIGITS_MAX = 15
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Facts:
    """What only Redis knows of a link."""

    shown: Shown
    devices: Sequence[DeviceSlot]
    offer: Offer | None


class Library:
    """`name`: what devices are called, by their User-Agents, which may block. Every call raises OrdersDown."""

    def __init__(
        self,
        book: OrderBook,
        links: LinkDesk,
        devices: DeviceList,
        fulfilment: Fulfilment,
        renewing: Renewing,
        *,
        name: Callable[[Sequence[str]], Sequence[DeviceName]],
        issuer: str,
        shards: int,
    ) -> None:
        self._book = book
        self._links = links
        self._devices = devices
        self._fulfilment = fulfilment
        self._renewing = renewing
        self._name = name
        self._issuer = issuer
        self._shards = shards
        self._acting: set[asyncio.Future[Any]] = set()

    async def shelf(self, account: Account, before: int | None = None) -> Shelf:
        """The newest orders, or those before that one. What Redis does not tell in time is left out."""
        orders, older = await self._book.of_customer(account.customer_id, shops=account.shops, before=before, most=PAGE)
        now = now_ms() // 1000
        holdings = [self._fulfilment.holding(order) for order in orders]
        chosen = [
            (order, link)
            for order, holding in zip(orders, holdings, strict=True)
            for link in newest(order.links, held(holding, now))
        ]
        facts = await self._facts(chosen, now)
        shown: dict[str, list[ShownLink]] = {order.order_id: [] for order in orders}
        mine = {order.order_id: holding for order, holding in zip(orders, holdings, strict=True)}
        for order, link in chosen:
            known = None if facts is None else facts[link.token_id]
            shown[order.order_id].append(await self._shown(order, link, known, mine[order.order_id], now))
        purchases = tuple(
            Purchase(
                order.order_id,
                order.reference,
                order.shop,
                order.paid.since // 1000 if order.paid.value else None,
                tuple(shown[order.order_id]),
                tuple(gone(order, mine[order.order_id], now)),
                order.erased_at != NEVER,
            )
            for order in orders
        )
        return Shelf(purchases, older, facts is not None)

    async def renew(self, account: Account, order_id: str, token_id: str) -> Renewed | Refused:
        """Renew a link of his; see Renewing.renew. Raises also SettingsError, LedgerDown."""
        if await self._own(account, order_id, token_id) is None:
            return Refused("unknown")
        return await self._see_through(self._renewing.renew(order_id, token_id, by="account"))

    async def remove_device(
        self, account: Account, order_id: str, token_id: str, slot: str
    ) -> Freed | Literal["others"]:
        """Free the slot of a device of his link; `others`: it is none of his. Raises also SettingsError, LedgerDown."""
        link = await self._own(account, order_id, token_id)
        if link is None:
            return "others"
        [now] = await self._links.now([Link(link, None)])
        most = now.limits.get(Devices.name)
        if most is None or not slot.isascii() or not slot.isdigit() or len(slot) > _DIGITS_MAX:
            return "unknown"
        event = _acted("device.remove", order_id, token_id)
        shard = shard_of(link.shard_key, self._shards)
        return await self._devices.free(shard, link.token_key, slot, most=most, span=REMOVALS_WITHIN, event=event)

    async def erase(self, account: Account) -> int:
        """Erase the personal data of all his orders; of how many. Where it fails, the same again does the rest."""
        return await self._see_through(self._erase(account))

    async def _see_through(self, act: Coroutine[Any, Any, T]) -> T:
        # Who asked may leave in the middle: half erased, or with the old link still good beside the one in its place.
        task = asyncio.create_task(act)
        self._acting.add(task)
        task.add_done_callback(self._acting.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_tell_failure)
            raise

    async def _erase(self, account: Account) -> int:
        erased, before = 0, None
        while True:
            orders, before = await self._book.of_customer(
                account.customer_id, shops=account.shops, before=before, most=ERASED_AT_ONCE
            )
            for order in orders:
                if order.erased(now_ms()) is not order:
                    await self._fulfilment.by(_acted("order.erase", order.order_id)).erase(order.order_id)
                    erased += 1
            if before is None:
                return erased

    async def _own(self, account: Account, order_id: str, token_id: str) -> Claims | None:
        order = await self._book.read(order_id)
        if order is None or not is_of(account, order):
            return None
        link = next((link for link in order.links if link.token_id == token_id), None)
        return None if link is None else claims_of(order, link, self._issuer)

    async def _facts(self, chosen: Sequence[tuple[Order, IssuedLink]], now: int) -> dict[str, _Facts] | None:
        try:
            async with asyncio.timeout(PATIENCE):
                found = await asyncio.gather(*(self._ask(order, link, now) for order, link in chosen))
        except (GatewayError, TimeoutError) as error:
            log.warning("a library says nothing of what is left: %s", str(error) or "Redis gave no answer in time")
            return None
        return {link.token_id: each for (_, link), each in zip(chosen, found, strict=True)}

    async def _ask(self, order: Order, link: IssuedLink, now: int) -> _Facts:
        claims = claims_of(order, link, self._issuer)
        [shown] = await self._links.show([Link(claims, None)])
        devices: Sequence[DeviceSlot] = ()
        if shown.now.limits.get(Devices.name) is not None:
            devices = await self._devices.of(shard_of(claims.shard_key, self._shards), claims.token_key)
        limit = shown.now.limits.get(Downloads.name)
        over = limit is not None and any(used >= limit for used in shown.used.values())
        offer = None
        if over or shown.state(now) == "expired":
            offer = await self._renewing.offered(order, link)
        return _Facts(shown, devices, offer)

    async def _shown(
        self, order: Order, link: IssuedLink, facts: _Facts | None, holding: Holding, now: int
    ) -> ShownLink:
        mine = held(holding, now)
        limits = None if facts is None else facts.shown.now.limits
        most = None if limits is None else limits.get(Downloads.name)
        sizes = {sold.file: sold.size for each in order.entitlements for sold in each.files if sold.size >= 0}
        files = []
        for file in link.files:
            if file.identity in mine:
                used = 0 if facts is None else facts.shown.used.get(file.identity, 0)
                files.append(ShownFile(file.shown_name, sizes.get(file), None if most is None else max(0, most - used)))
        ends_at = link.expires_at
        if facts is not None:
            ends_at = min(facts.shown.now.expires_at, facts.shown.ends_after_first or facts.shown.now.expires_at)
        lapses = [holding.until[file.identity] for file in link.files if file.identity in mine]
        last = [each for each in lapses if each is not None]
        if len(last) == len(lapses):
            ends_at = min(ends_at, max(last))
        return ShownLink(
            token_id=link.token_id,
            title=titles(order, link),
            state="" if facts is None else facts.shown.state(now),
            files=tuple(files),
            ends_at=ends_at,
            token=self._token(order, link),
            downloads=most,
            networks=_taken(facts, Networks.name),
            devices=_taken(facts, Devices.name),
            removable=await self._named(facts),
            offer=None if facts is None or facts.offer is None or facts.offer.way == "mail" else facts.offer,
        )

    def _token(self, order: Order, link: IssuedLink) -> str | None:
        try:
            return self._links.sign(claims_of(order, link, self._issuer))
        except GatewayError as error:
            log.error("a link of order %s cannot be made: %s", order.order_id, error)
            return None

    async def _named(self, facts: _Facts | None) -> tuple[ShownDevice, ...]:
        if facts is None or not facts.devices:
            return ()
        # The first time takes a good while: it imports what it knows of browsers.
        names = await asyncio.to_thread(self._name, [device.about for device in facts.devices])
        return tuple(
            ShownDevice(device.slot, name, device.at) for device, name in zip(facts.devices, names, strict=True)
        )


def _tell_failure(task: asyncio.Future[Any]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("a customer asked for something and left, and not all of it was done: %s", describe(error))


def _acted(action: str, order_id: str, token_id: str | None = None) -> Fields:
    fields = {"buyer.action": action, "buyer.at": "account", "order.id": order_id, "token.id": token_id}
    return new_event("buyer.acted", new_id(), now_ms(), fields)


def _taken(facts: _Facts | None, name: str) -> tuple[int, int] | None:
    if facts is None or (most := facts.shown.now.limits.get(name)) is None:
        return None
    taken = facts.shown.taken
    return (taken.devices if name == Devices.name else taken.networks), most
