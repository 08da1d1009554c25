"""Customers' libraries in a worker, wired."""

from __future__ import annotations

from gateway.backends.redis_devices import RedisDevices
from gateway.backends.user_agents import name_devices
from gateway.bootstrap.orders import Orders
from gateway.services.desk import LinkDesk
from gateway.services.library import Library
from gateway.services.renewing import Renewing
from gateway.settings import Settings


def open_library(
    settings: Settings, orders: Orders, links: LinkDesk, devices: RedisDevices, renewing: Renewing
) -> Library:
    """What customers see of the order book."""
    return Library(
        orders.book,
        links,
        devices,
        orders.fulfilment,
        renewing,
        name=name_devices,
        issuer=settings.issuer,
        shards=settings.shards,
    )
