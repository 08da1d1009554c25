"""Where `/o/{id}` leads whom: a customer to what is his own, and everybody else nowhere, whatever the id is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.order_ports import OrderBook
from gateway.policy.accounts import Account
from gateway.policy.granting import claims_of
from gateway.policy.links import Link, link_path
from gateway.policy.model import Claims
from gateway.policy.orders import Order
from gateway.services.addressing import Addressing
from gateway.services.sign_ins import HOME


class Registry(Protocol):
    """The links that were made here."""

    async def get(self, token_id: str) -> Link | None:
        """The link with this token id. Raises LedgerDown."""


@dataclass(frozen=True, slots=True)
class ShortLinks:
    """`book` is None where there are no orders; `clock` in Unix seconds."""

    addressing: Addressing
    links: Registry
    book: OrderBook | None
    clock: Callable[[], float]

    async def find(self, name: str, account: Account) -> str | None:
        """The path of the order's or link's page, HOME where there are several or none; None: it is not this account's.

        Raises OrdersDown, LedgerDown; GatewayError where no key signs.
        """
        # Both are asked, whatever the name is: else time, or one that is down, would tell which orders there are.
        link = await self.links.get(name)
        order = None if self.book is None else await self.book.read(name)
        if order is not None:
            return self._lead(self._of(order)) if account.bought(order.customer_id, order.order_id) else None
        if link is None or not account.bought(link.claims.customer_id, link.claims.order_id):
            return None
        return self._lead([link.claims])

    def _of(self, order: Order) -> list[Claims]:
        """Its links that are good, or else its newest, whose page says what became of it."""
        chosen = self.addressing.good(order, int(self.clock())) or order.links[-1:]
        return [claims_of(order, link, self.addressing.issuer) for link in chosen]

    def _lead(self, claims: Sequence[Claims]) -> str:
        return link_path("", self.addressing.token(claims[0])) if len(claims) == 1 else HOME
