"""From what a shop said to what its buyer gets: each webhook in the book becomes an order, its links and a mail.

Law: everything that follows from one change of an order is written with it, in one step of the book, or not at all.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace

from gateway.errors import OrdersDown
from gateway.order_ports import Delivery, Draft, Fields, Mail, OrderBell, OrderBook, Purpose
from gateway.policy.events import new_event
from gateway.policy.granting import claims_of, files_of, granted, happened, is_outlived, linked, prolonged, ungranted
from gateway.policy.links import write_link
from gateway.policy.model import FileEntry
from gateway.policy.orders import Holding, Notice, Order, SoldFile, order_id_of
from gateway.policy.products import Catalogue
from gateway.policy.ruleset import RuleSet
from gateway.services.faults import describe
from gateway.services.identifiers import new_id, now_ms
from gateway.shops.base import Headers, Ignored, Shop

log = logging.getLogger(__name__)

TOKEN_ID_BYTES = 12
PATIENCE = 15_000
"""Milliseconds for which a webhook is this worker's: longer than the store and the book can take together."""
PAUSES = (1_000, 10_000, 60_000, 600_000, 3_600_000)
"""Milliseconds until a webhook that failed is tried again; the last one again and again."""


@dataclass(frozen=True, slots=True)
class Terms:
    """One shop of the settings, for fulfilment."""

    kind: Shop
    needs_confirmation: bool


@dataclass(frozen=True, slots=True)
class Assortment:
    """What may be given now. `sold` looks files up in the store (see services.shelf.sold)."""

    catalogue: Callable[[], Catalogue]
    rules: Callable[[], RuleSet]
    sold: Callable[[Sequence[FileEntry]], Awaitable[Sequence[SoldFile]]]


class Fulfilment:
    """Changes orders. `mails`: whether there is a mail server to send links by."""

    def __init__(
        self,
        book: OrderBook,
        bell: OrderBell,
        assortment: Assortment,
        *,
        shops: Mapping[str, Terms],
        issuer: str,
        mails: bool,
    ) -> None:
        self._book = book
        self._bell = bell
        self._assortment = assortment
        self._shops = shops
        self._issuer = issuer
        self._mails = mails
        self._failures: dict[tuple[str, str], int] = {}
        self._acted: Fields | None = None

    def by(self, acted: Fields) -> Fulfilment:
        """The same for one act of one of the shop's people: its event is written with the change, or neither is."""
        own = copy(self)
        own._acted = acted
        return own

    async def work(self) -> bool:
        """Do one webhook that is due; whether there was one. Raises OrdersDown."""
        delivery = await self._book.next_delivery(now_ms(), PATIENCE)
        if delivery is None:
            return False
        name = (delivery.shop, delivery.delivery_id)
        try:
            await self._take(delivery)
        except OrdersDown:
            raise
        except Exception as error:  # noqa: BLE001  whatever one webhook does, the others must not wait for it
            failures = self._failures[name] = self._failures.get(name, 0) + 1
            pause = PAUSES[min(failures, len(PAUSES)) - 1]
            log.error("a webhook of %s failed, and is tried again: %s", delivery.shop, describe(error))
            await self._book.postpone(delivery, now_ms() + pause, describe(error))
        else:
            self._failures.pop(name, None)
            await self._book.delivered(delivery)
        return True

    async def _take(self, delivery: Delivery) -> None:
        terms = self._shops.get(delivery.shop)
        if terms is None:
            log.warning("a webhook of %s is left out: the settings have no shop of this name any more", delivery.shop)
            return
        headers: Headers = {name: (value,) for name, value in delivery.headers.items()}
        # One that cannot be read is genuine all the same: it is kept and tried again, until a later release reads it.
        notice = terms.kind.read(headers, delivery.body, delivery.received_at)
        if isinstance(notice, Ignored):
            log.info("a webhook of %s says nothing of an order: %s", delivery.shop, notice.why)
            return
        # No shop can speak of what is still to come: its clock is ahead, and later words must still count.
        await self.hear(delivery.shop, replace(notice, at=min(notice.at, delivery.received_at)))

    def gives(self, order: Order) -> bool:
        """Whether anything of it is its buyer's now, be it lapsed."""
        return bool(self.holding(order).until)

    def holding(self, order: Order) -> Holding:
        """What the order gives its buyer now."""
        return order.holding(needs_confirmation=self._needs_confirmation(order.shop))

    async def hear(self, shop: str, notice: Notice) -> None:
        """Take in what a shop said of an order, with all that follows. Raises OrdersDown."""
        order_id = order_id_of(shop, notice.shop_order_id)
        new = Order(order_id, shop, notice.shop_order_id)
        await self._change(order_id, lambda order: order.heard(notice), new=new)

    async def withdraw(self, order_id: str, line_id: str, *, gone: bool) -> Order | None:
        """Take a line (or ALL) of a known order back from its buyer, or give it back. Raises OrdersDown."""
        return await self._change(order_id, lambda order: order.withdrew(line_id, gone, now_ms()), grants=not gone)

    async def correct(self, order_id: str, email: str) -> Order | None:
        """Write down another address for a known order's mails; nothing is sent. Raises OrdersDown."""
        return await self._change(order_id, lambda order: _corrected(order, email), mail=False, grants=False)

    async def grant(self, order_id: str) -> Order | None:
        """Give what a known order should have and has not, now that the products file has it. Raises OrdersDown."""
        return await self._change(order_id, lambda order: order)

    async def resend(self, order_id: str, *, anew: bool, to: str | None = None) -> Order | None:
        """Mail a known order's links again; `anew`: new links, where the old ones have expired; `to`: as `correct`.

        Raises OrdersDown.
        """
        step = (lambda order: order) if to is None else (lambda order: _corrected(order, to))
        return await self._change(order_id, step, mail=True, anew=anew, grants=False)

    async def prolong(self, order_id: str, until: int) -> Order | None:
        """Let what a known order gives last until then (Unix s) at least. Raises OrdersDown."""
        return await self._change(order_id, lambda order: prolonged(order, until, now_ms()), grants=False)

    async def erase(self, order_id: str) -> Order | None:
        """Forget a known order's buyer: all personal data, and where its mails went. Raises OrdersDown."""
        return await self.amend(order_id, lambda order: order.erased(now_ms()), mail=False)

    async def amend(self, order_id: str, step: Callable[[Order], Order], *, mail: bool) -> Order | None:
        """Change a known order by the step and nothing more, with the events of that. Nobody else can change it while
        the step is asked; what it raises leaves all as it was. Raises OrdersDown.
        """
        async with self._book.change(order_id) as draft:
            if draft.order is None:
                return None
            before, draft.order = draft.order, step(draft.order)
            self._tell(draft, before, draft.order, mail=mail)
        if draft.mails:
            await self._bell.ring()
        return draft.order

    async def mail_code(self, order_id: str, mail_id: str) -> None:
        """Queue the mail with a one-time code to the order's own address, if it has one. Raises OrdersDown."""
        async with self._book.change(order_id) as draft:
            order = draft.order
            if order is None or not self.gives(order):
                return
            self._queue(draft, order, "code", mail_id, now_ms())
        if draft.mails:
            await self._bell.ring()

    async def _change(
        self,
        order_id: str,
        step: Callable[[Order], Order],
        *,
        new: Order | None = None,
        mail: bool | None = None,
        anew: bool = False,
        grants: bool = True,
    ) -> Order | None:
        """The order after the step and all that follows from it; None where there is none, and no `new` one.

        `mail`: whether one is to be sent, None: where there is something new; `grants`: whether more may be given.
        """
        seen = await self._book.read(order_id) or new
        if seen is None:
            return None
        # The store is asked before the order is held: nobody waits for a bucket behind a lock.
        stock = await self._stock(step(seen)) if grants else {}
        async with self._book.change(order_id) as draft:
            before = draft.order
            stepped = step(before or seen)
            ended = mail is True and all(link.expires_at <= now_ms() // 1000 for link in stepped.links)
            draft.order = order = self._followed(
                stepped, stock, anew=anew or ended or is_outlived(before, stepped), grants=grants
            )
            self._tell(draft, before, order, mail=mail)
        if draft.mails:
            await self._bell.ring()
        return draft.order

    async def _stock(self, order: Order) -> dict[FileEntry, SoldFile]:
        if not self._is_due(order):
            return {}
        files = files_of(ungranted(order, self._assortment.catalogue(), self._assortment.rules().plans))
        return {sold.file: sold for sold in await self._assortment.sold(files)} if files else {}

    def _is_due(self, order: Order) -> bool:
        return order.is_paid(needs_confirmation=self._needs_confirmation(order.shop))

    def _needs_confirmation(self, shop: str) -> bool:
        terms = self._shops.get(shop)
        return terms is not None and terms.needs_confirmation

    def _followed(self, order: Order, stock: Mapping[FileEntry, SoldFile], *, anew: bool, grants: bool) -> Order:
        if not self._is_due(order):
            return order
        rules, now = self._assortment.rules(), now_ms()
        wanted = ungranted(order, self._assortment.catalogue(), rules.plans) if grants else []
        order = granted(order, wanted, stock, now)
        return linked(
            order,
            rules.plans,
            rules.default_plan,
            issuer=self._issuer,
            now=now // 1000,
            new_token_id=lambda: secrets.token_hex(TOKEN_ID_BYTES),
            anew=anew,
        )

    def _tell(self, draft: Draft, before: Order | None, order: Order, *, mail: bool | None) -> None:
        now = now_ms()
        own = {"order.id": order.order_id, "order.reference": order.reference, "shop": order.shop}
        draft.forgets_recipients = before is not None and before.erased_at != order.erased_at
        if self._acted is not None:
            draft.events.append(self._acted)
        for kind, fields in happened(before, order):
            draft.events.append(new_event(kind, new_id(), now, {**own, **fields}))
        if self._is_due(order) and not order.entitlements and (before is None or not self._is_due(before)):
            draft.events.append(new_event("order.nothing", new_id(), now, own))
        # A link that was made anew has its id still: what is registered of it is what it says now.
        known = {(link.token_id, link.issued_at) for link in before.links} if before is not None else set()
        new = [link for link in order.links if (link.token_id, link.issued_at) not in known]
        for link in new:
            claims = claims_of(order, link, self._issuer)
            named = {"token.id": claims.token_id, "order.id": claims.order_id, "customer.id": claims.customer_id}
            draft.links.append((new_event("link.created", new_id(), now, named), write_link(claims, now)))
        wanted = bool(new) or self._became_reachable(before, order) if mail is None else mail
        if self._mails and wanted and self._queue(draft, order, "links", secrets.token_hex(TOKEN_ID_BYTES), now):
            draft.order = replace(order, mailed_at=now)

    def _became_reachable(self, before: Order | None, order: Order) -> bool:
        """Whether its links were made while nobody knew where to send them; a shop may tell of the buyer later."""
        if before is None or not before.links or before.email or not order.email:
            return False
        return self.gives(order)

    @staticmethod
    def _queue(draft: Draft, order: Order, purpose: Purpose, mail_id: str, now: int) -> bool:
        """Queue a mail to the order's own address; False where it has none."""
        own = {"order.id": order.order_id, "order.reference": order.reference, "shop": order.shop}
        own["mail.purpose"] = purpose
        to = order.email
        if not to:
            draft.events.append(new_event("mail.queued", new_id(), now, {**own, "reason": "mail.no_address"}))
            return False
        mail = Mail(mail_id, order.order_id, purpose, now, to, order.buyer.value.language, now, due_at=now)
        draft.mails.append(mail)
        draft.events.append(new_event("mail.queued", new_id(), now, {**own, "mail.id": mail_id}))
        return True


def _corrected(order: Order, email: str) -> Order:
    return replace(order, corrected=(order.buyer.value.email, email))
