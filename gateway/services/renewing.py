"""A buyer's link goes on, or begins anew, because the buyer asks for it: at the link, with the form or in the account.

Law: what may be had is asked again while nobody else can change the order, so asking twice gives it once.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from gateway.errors import LedgerDown
from gateway.order_ports import OrderBook
from gateway.policy.events import new_event
from gateway.policy.granting import claims_of
from gateway.policy.limits import Downloads
from gateway.policy.links import Link
from gateway.policy.orders import IssuedLink, Order
from gateway.policy.renewing import Offer, Refused, Use, extended, link_of, offer, renewed, stand_in
from gateway.services.desk import LinkDesk, Shown, on_record
from gateway.services.fulfilment import TOKEN_ID_BYTES, Fulfilment
from gateway.services.identifiers import new_id, now_ms
from gateway.services.linking import Subject

log = logging.getLogger(__name__)

By = Literal["link", "help", "account"]
"""Where the buyer asked: at the page of a link, with the form for help, or in the account."""
JUST = 60_000
"""Milliseconds in which a mail that was asked for again is still on its way."""
PAUSES = (0.5, 1.0, 2.0, 4.0)
"""Seconds between tries to tell Redis what the book says already."""


@dataclass(frozen=True, slots=True)
class Renewed:
    """It is had: `token_id` is the link that is good now. `way` as in Offer; `mailed`: whether its mail was queued."""

    way: Literal["extend", "renew", "mail"]
    order: Order
    token_id: str
    mailed: bool = False


class _Moot(Exception):
    """Nothing of the change is written."""

    def __init__(self, why: Refused | None) -> None:
        super().__init__()
        self.why = why


class Renewing:
    """Renews links of the order book. Every call raises SettingsError, LedgerDown, OrdersDown."""

    def __init__(
        self,
        book: OrderBook,
        fulfilment: Fulfilment,
        links: LinkDesk,
        *,
        issuer: str,
        clock: Callable[[], int] = now_ms,
    ) -> None:
        """`clock` in Unix ms."""
        self._book = book
        self._fulfilment = fulfilment
        self._links = links
        self._issuer = issuer
        self._clock = clock

    async def offered(self, order: Order, link: IssuedLink, issued_at: int | None = None) -> Offer | None:
        """What the buyer may have for this link of the order, or for the one that stands in for it; None: nothing.
        `issued_at` (Unix s): when the token was made that the buyer shows, if he does.
        """
        newest = stand_in(order, link)
        found = self._judge(order, newest, await self._shown(order, newest))
        if found == Refused("good") and (newest != link or _is_old(link, issued_at)):
            return Offer("mail", newest.expires_at)
        return found if isinstance(found, Offer) else None

    async def renew(self, order_id: str, token_id: str, *, by: By, issued_at: int | None = None) -> Renewed | Refused:
        """Give what is offered for the link, and mail it to the order's own address. Asked for twice, it is given once.
        Who has not signed in is given nothing where there is no such address: anybody may have the link.

        Where Redis fails after the book has it, the same again does the rest. `issued_at` as in `offered`.
        """
        order = await self._book.read(order_id)
        link = None if order is None else link_of(order, token_id)
        if order is None or link is None:
            return Refused("unknown")
        if by != "account" and not order.email:
            return Refused("unreachable")
        newest = stand_in(order, link)
        shown = await self._shown(order, newest)
        found = self._judge(order, newest, shown)
        if isinstance(found, Offer):
            return await self._give(order, newest, shown, found, by=by)
        if found == Refused("good") and (newest != link or _is_old(link, issued_at)):
            if newest != link:
                await self._end_renewed(order, link)
            return await self._mail_again(order, newest, by)
        return found

    async def mail(self, order_id: str, *, by: By) -> bool:
        """Mail the order's links again, expired ones extended first; whether a mail was queued. What is used up stays
        so. Nothing is done where there is no address, and nothing mailed where nothing could be opened, or where a mail
        has only just left.
        """
        order = await self._book.read(order_id)
        if order is None or not order.email:
            return False
        opens = False
        for link in dict.fromkeys(stand_in(order, each) for each in order.links):
            shown = await self._shown(order, link)
            found = self._judge(order, link, shown)
            if isinstance(found, Offer) and found.way == "extend":
                opens |= isinstance(await self._give(order, link, shown, found, by=by, mail=False), Renewed)
            elif found not in (Refused("revoked"), Refused("lost")):
                opens |= link.expires_at > self._clock() // 1000
        return opens and (await self._mail_again(order, order.links[-1], by)).mailed

    async def _shown(self, order: Order, link: IssuedLink) -> Shown:
        [shown] = await self._links.show([Link(claims_of(order, link, self._issuer), None)])
        return shown

    def _judge(self, order: Order, link: IssuedLink, shown: Shown) -> Offer | Refused:
        now = self._clock() // 1000
        use = Use(
            min(shown.now.expires_at, shown.ends_after_first or shown.now.expires_at),
            revoked=shown.now.revoked,
            downloads=shown.now.limits.get(Downloads.name),
            used=shown.used,
            running=shown.taken.live > 0,
            too_late=shown.ends_after_first is not None and shown.ends_after_first <= now,
        )
        return offer(order, link, use, holding=self._fulfilment.holding(order), plan=shown.now.plan, now=now)

    async def _give(
        self, order: Order, link: IssuedLink, shown: Shown, offered: Offer, *, by: By, mail: bool = True
    ) -> Renewed | Refused:
        another = secrets.token_hex(TOKEN_ID_BYTES)

        def step(current: Order) -> Order:
            own = link_of(current, link.token_id)
            if (
                own is None
                or stand_in(current, own) != own
                or (offered.way == "extend" and self._is_done(current, own))
            ):
                raise _Moot(None)
            again = self._judge(current, own, shown)
            if isinstance(again, Refused):
                raise _Moot(again)
            if again.way == "extend":
                return extended(current, own, now=self._clock() // 1000, until=again.until)
            return renewed(current, own, another, now=self._clock() // 1000, until=again.until)

        try:
            after = await self._amend(order, link, step, f"link.{offered.way}", by=by, mail=mail)
        except _Moot as moot:
            if moot.why is not None:
                return moot.why
            after = await self._book.read(order.order_id) or order
        if offered.way == "renew":
            await self._revoke(shown)
        newest = stand_in(after, link_of(after, link.token_id) or link)
        return Renewed(offered.way, after, newest.token_id, mail and after.mailed_at > order.mailed_at)

    async def _end_renewed(self, order: Order, link: IssuedLink) -> None:
        """Revoke a used-up link that another stands in for, where a worker died before it had."""
        if not order.renewed:
            return
        shown = await self._shown(order, link)
        found = self._judge(order, link, shown)
        if found == Refused("spent") or (isinstance(found, Offer) and found.way == "renew"):
            await self._revoke(shown)

    def _is_done(self, order: Order, link: IssuedLink) -> bool:
        """Whether a mail with this link, which is good for longer by now, has only just left."""
        now = self._clock()
        return order.mailed_at > now - JUST and link.expires_at > now // 1000

    async def _mail_again(self, order: Order, link: IssuedLink, by: By) -> Renewed:
        def step(current: Order) -> Order:
            if current.mailed_at > self._clock() - JUST:
                raise _Moot(None)
            return current

        try:
            after = await self._amend(order, link, step, "link.mail", by=by, mail=True)
        except _Moot:
            after = order
        return Renewed("mail", after, link.token_id, after.mailed_at > order.mailed_at)

    async def _amend(
        self, order: Order, link: IssuedLink, step: Callable[[Order], Order], action: str, *, by: By, mail: bool
    ) -> Order:
        fields = {"buyer.action": action, "buyer.at": by, "order.id": order.order_id, "token.id": link.token_id}
        acted = new_event("buyer.acted", new_id(), self._clock(), fields)
        return await self._fulfilment.by(acted).amend(order.order_id, step, mail=mail) or order

    async def _revoke(self, shown: Shown) -> None:
        """End the link that another stands in for, as the book says. Raises LedgerDown where Redis stays away."""
        subject = Subject((shown.now.link.claims,))
        for pause in PAUSES:
            try:
                await self._links.revoke(subject, on_record)
            except LedgerDown:
                await asyncio.sleep(pause)
            else:
                return
        await self._links.revoke(subject, on_record)


def _is_old(link: IssuedLink, issued_at: int | None) -> bool:
    """Whether a token of the link was made before the link was made anew."""
    return issued_at is not None and issued_at < link.issued_at
