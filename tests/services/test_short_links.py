"""Where `/o/{id}` leads: a customer to his own, all others nowhere, and nobody learns which ids there are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from gateway.policy.accounts import Account
from gateway.policy.granting import claims_of
from gateway.policy.keys import KeySet, load_key
from gateway.policy.links import Link
from gateway.policy.model import Claims, FileEntry
from gateway.policy.orders import ALL, Buyer, Entitlement, IssuedLink, Line, Notice, Order, SoldFile
from gateway.policy.ruleset import NO_RULES
from gateway.policy.tokens import verify
from gateway.services.addressing import Addressing
from gateway.services.short_links import ShortLinks

NOW = 1_795_228_200
KEYS = KeySet([load_key(kid="a", alg="HS256", use="sign", secret="0123456789" * 4)])
SEA, WAVE = FileEntry("sea.pdf"), FileEntry("wave.pdf")
LINK = IssuedLink("t1", ("l1",), (SEA,), NOW - 100, NOW + 100, account=True)
SECOND = IssuedLink("t2", ("l2",), (WAVE,), NOW - 90, NOW + 100, account=True)
PAID = Notice("1", 1, paid=True, buyer=Buyer("ann@example.com", "Ann", "c-7"), lines=(Line("l1"), Line("l2")))
ORDER = replace(
    Order("main-1", "main", "1").heard(PAID),
    entitlements=(
        Entitlement("l1", "Sea", (SoldFile(SEA),), granted_at=1),
        Entitlement("l2", "Wave", (SoldFile(WAVE),), granted_at=1),
    ),
    links=(LINK,),
)
ANN = Account("c-7")


class Known:
    """An order book and a registry in one."""

    def __init__(self, orders: Mapping[str, Order], links: Mapping[str, Link]) -> None:
        self._orders = orders
        self._links = links
        self.asked: list[tuple[str, str]] = []

    async def read(self, order_id: str) -> Order | None:
        self.asked.append(("order", order_id))
        return self._orders.get(order_id)

    async def get(self, token_id: str) -> Link | None:
        self.asked.append(("link", token_id))
        return self._links.get(token_id)


def short_links(*orders: Order, links: tuple[Claims, ...] = ()) -> ShortLinks:
    known: Any = Known({order.order_id: order for order in orders}, {each.token_id: Link(each, 1) for each in links})
    addressing = Addressing(KEYS, "shop", "", lambda: NO_RULES, lambda order: order.holding(needs_confirmation=False))
    return ShortLinks(addressing, known, known, lambda: NOW)


def leads_to(path: str | None) -> str | None:
    """The token id behind the path of a link, or the path itself."""
    if path is None or not path.startswith("/l/"):
        return path
    claims = verify(path.removeprefix("/l/"), KEYS, "shop", NOW)
    assert isinstance(claims, Claims)
    return claims.token_id


@pytest.mark.parametrize(
    ("order", "account", "leads"),
    [
        (ORDER, ANN, "t1"),
        (ORDER, Account("c-7", ("main",)), "t1"),
        (ORDER, Account("c-7", ("other",)), None),
        (ORDER, Account("c-8"), None),
        (ORDER, Account("ann@example.com"), None),
        (ORDER.heard(Notice("1", 2, buyer=Buyer("ann@example.com"))), ANN, None),
        (ORDER.heard(Notice("1", 2, buyer=Buyer("", "", "ann@example.com"))), Account("ann@example.com"), None),
        (replace(ORDER, links=(LINK, SECOND)), ANN, "/account"),
        (replace(ORDER, links=()), ANN, "/account"),
        (replace(ORDER, links=()), Account("c-8"), None),
        # What does not work any more says so on its own page.
        (replace(ORDER, links=(replace(LINK, expires_at=NOW - 1),)), ANN, "t1"),
        (ORDER.withdrew(ALL, True, 5), ANN, "t1"),
        # Of a link and the one that stands in for it, the newer.
        (replace(ORDER, links=(LINK, replace(LINK, token_id="t3"))), ANN, "t3"),
    ],
)
async def test_an_order_leads_its_customer_to_its_link(order: Order, account: Account, leads: str | None) -> None:
    assert leads_to(await short_links(order).find("main-1", account)) == leads


async def test_an_order_of_somebody_else_costs_as_much_as_none() -> None:
    """So neither the time nor a Redis that is down tells them apart."""
    known = short_links(ORDER)
    store: Any = known.links
    asked = []
    for name in ("main-1", "main-2"):
        assert await known.find(name, Account("c-8")) is None
        asked.append([kind for kind, _ in store.asked])
        store.asked.clear()
    assert asked[0] == asked[1] == ["link", "order"]


async def test_a_link_leads_the_customer_it_was_made_for() -> None:
    made = claims_of(ORDER, LINK, "shop")
    known = short_links(links=(made, replace(made, token_id="guest", customer_id=None)))
    assert leads_to(await known.find("t1", ANN)) == "t1"
    assert await known.find("t1", Account("c-8")) is None
    assert await known.find("guest", ANN) is None
    assert await known.find("unknown", ANN) is None
