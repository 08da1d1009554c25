"""What the shop's own people do with an order, at the command line and over the API.

Law: what cannot be done is refused before anything is written; who acted is written in one step with the change.
"""

from __future__ import annotations

from gateway.errors import GatewayError
from gateway.mail.envelope import sendable
from gateway.order_ports import Fields, OrderBook
from gateway.policy.claims import TIME_MAX
from gateway.policy.granting import claims_of
from gateway.policy.links import Link
from gateway.policy.orders import ALL, Order
from gateway.services.desk import LinkDesk, Refused
from gateway.services.fulfilment import Fulfilment
from gateway.services.identifiers import now_ms


class OrderDesk:
    """Orders of the book. `mails`: whether there is a mail server; `acted`: the event of who did it (see staff.acted).

    Every call raises Refused and OrdersDown, and returns the order as it is afterwards.
    """

    def __init__(self, book: OrderBook, fulfilment: Fulfilment, *, mails: bool, issuer: str) -> None:
        self.book = book
        self._fulfilment = fulfilment
        self._mails = mails
        self._issuer = issuer

    async def take_back(self, order: Order, line: str | None, acted: Fields) -> Order:
        """Take a line, or all of them, back from the buyer."""
        return await self._withdraw(order, line, acted, gone=True)

    async def give_back(self, order: Order, line: str | None, acted: Fields) -> Order:
        """Give back what was refunded, cancelled, charged back or taken back: the same links work again."""
        return await self._withdraw(order, line, acted, gone=False)

    async def _withdraw(self, order: Order, line: str | None, acted: Fields, *, gone: bool) -> Order:
        known = list(
            dict.fromkeys(
                [*(each.line_id for each in order.lines.value), *(each.line_id for each in order.entitlements)]
            )
        )
        if line is not None and line not in known:
            lines = f"write one of {', '.join(known)}" if known else "its shop told of none"
            raise Refused("line", f": order {order.order_id} has no line {line}; {lines}")
        name = ALL if line is None else line
        return await self._fulfilment.by(acted).withdraw(order.order_id, name, gone=gone) or order

    async def resend(self, order: Order, to: str | None, acted: Fields, *, new_links: bool) -> Order:
        """Mail its links again; `to`: at this address, which is the order's from then on."""
        if not self._mails:
            raise Refused("", "mail is not set, so nothing can be mailed; write mail: {server: …, sender: …}")
        address = None if to is None else _address(to)
        if not order.links:
            raise Refused("", f"order {order.order_id} has no links to mail; see `gateway order why`")
        if not self._fulfilment.gives(order):
            raise Refused("", f"nothing of order {order.order_id} is its buyer's now; see `gateway order why`")
        if address is None and not order.email:
            raise Refused("", f"order {order.order_id} has no e-mail address; name one (to)")
        return await self._fulfilment.by(acted).resend(order.order_id, anew=new_links, to=address) or order

    async def correct(self, order: Order, email: str, acted: Fields) -> Order:
        """Write down another address for its mails; nothing is sent."""
        return await self._fulfilment.by(acted).correct(order.order_id, _address(email)) or order

    async def grant(self, order: Order, acted: Fields) -> Order:
        """Give it what the products file knows only now, and mail that."""
        return await self._fulfilment.by(acted).grant(order.order_id) or order

    async def erase(self, order: Order, acted: Fields) -> Order:
        """Forget the buyer's personal data for good; the shop's own id of the customer stays, and with it the links."""
        return await self._fulfilment.by(acted).erase(order.order_id) or order

    async def extend(self, order: Order, until: int, acted: Fields, links: LinkDesk) -> Order:
        """Let what it gives, and its links, last until then (Unix s) at least. Raises also SettingsError, LedgerDown.

        The book comes first: where Redis fails after it, the same again does the rest.
        """
        if until <= now_ms() // 1000:
            raise Refused("until", " lies in the past; write a later time")
        if until > TIME_MAX:
            raise Refused("until", " lies beyond the year 9999; write an earlier time")
        after = await self._fulfilment.by(acted).prolong(order.order_id, until) or order
        # As they were: the tokens that are out end when they ended.
        own = {link.token_id: Link(claims_of(order, link, self._issuer), None) for link in order.links}
        registered = await links.of_order(order.order_id)
        await links.last({**own, **{link.claims.token_id: link for link in registered}}.values(), until)
        return after


async def order_named(book: OrderBook, name: str) -> Order:
    """The order with this id, number, e-mail address or customer. Raises GatewayError unless it is exactly one."""
    order = await order_meant(book, name)
    if order is None:
        raise GatewayError(f"the order book has no order {name}; write its id, its number or the buyer's address")
    return order


async def order_meant(book: OrderBook, name: str) -> Order | None:
    """As `order_named`, but None where there is none of that name."""
    known = await book.read(name)
    if known is not None:
        return known
    found = list(await book.find(name))
    if len(found) > 1:
        raise GatewayError(f"several orders are meant; write one of {', '.join(each.order_id for each in found)}")
    return found[0] if found else None


def _address(to: str) -> str:
    try:
        return sendable(to)
    except ValueError as error:
        raise Refused("to", f": {error}; write one like buyer@example.com") from None
