"""Who renews buyers' links in a worker, wired."""

from __future__ import annotations

from gateway.bootstrap.orders import Orders
from gateway.services.desk import LinkDesk
from gateway.services.renewing import Renewing
from gateway.settings import Settings


def open_renewing(settings: Settings, orders: Orders, links: LinkDesk) -> Renewing:
    """On the order book, and what the links stand on."""
    return Renewing(orders.book, orders.fulfilment, links, issuer=settings.issuer)
