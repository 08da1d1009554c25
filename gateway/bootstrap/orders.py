"""The order book and everything around it: for the front door, for the background worker, for the command line."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from gateway.backends.redis_bell import RedisBell
from gateway.backends.redis_client import Wire
from gateway.backends.redis_codes import RedisCodes
from gateway.backends.redis_links import RedisLinks
from gateway.bootstrap.files import read_products, read_rules
from gateway.bootstrap.origin import open_store
from gateway.bootstrap.redis import open_redis
from gateway.errors import SettingsError
from gateway.order_ports import OrderBell, OrderBook
from gateway.ports import EventLog
from gateway.services import shelf
from gateway.services.codes import Codes
from gateway.services.fulfilment import Assortment, Fulfilment, Terms
from gateway.services.holdings import Holdings
from gateway.services.intake import Intake, Source
from gateway.services.relay import Relay
from gateway.services.settlement import Settlement
from gateway.settings import Settings
from gateway.settings_sections import OrdersSettings
from gateway.shops import SHOPS


@asynccontextmanager
async def open_book(settings: Settings, *, at_once: bool = True) -> AsyncIterator[OrderBook]:
    """The order book, its tables made where they were missing; where not `at_once`, its `open` is still to be called.

    Raises SettingsError, OrdersDown.
    """
    if not settings.has_orders:
        raise SettingsError(
            "orders: is not set, so there is no order book; write orders: {url: sqlite:///var/orders.db}"
        )
    # SQLAlchemy takes a while to import, and a gateway without orders does without it.
    from gateway.backends.order_book import SqlOrderBook  # noqa: PLC0415  slow to import

    book = SqlOrderBook((settings.orders or OrdersSettings()).url.get_secret_value())
    try:
        if at_once:
            await book.open()
        yield book
    finally:
        await book.close()


@dataclass(frozen=True, slots=True)
class Orders:
    """The order book, and who works with it in each process."""

    book: OrderBook
    bell: OrderBell
    holdings: Holdings
    intake: Intake
    assortment: Assortment
    fulfilment: Fulfilment


@asynccontextmanager
async def open_orders(
    settings: Settings, wire: Wire, *, assortment: Assortment, settlement: Settlement, events: EventLog
) -> AsyncIterator[Orders]:
    """Follows the book, and tells Redis what it has to tell. While it cannot be asked, orders' tokens are refused.

    Raises SettingsError.
    """
    async with open_book(settings, at_once=False) as book:
        bell = RedisBell(wire)
        confirmed = [shop.name for shop in settings.shops if shop.require_confirmation]
        holdings = Holdings(book, settlement, confirmed_shops=confirmed)
        relay = Relay(book, events, RedisLinks(wire, settings.shards), settings.shards)
        await holdings.start()
        relay.start()
        try:
            yield Orders(
                book,
                bell,
                holdings,
                Intake(book, bell, _sources(settings)),
                assortment,
                open_fulfilment(settings, book, bell, assortment),
            )
        finally:
            await relay.stop()
            await holdings.stop()


@asynccontextmanager
async def open_codes(settings: Settings, wire: Wire, orders: Orders | None) -> AsyncIterator[Codes]:
    """Makes and takes one-time codes; without orders or a mail server none is sent."""
    send = orders.fulfilment.mail_code if orders is not None and settings.mail is not None else None
    codes = Codes(RedisCodes(wire), settings.shards, send)
    try:
        yield codes
    finally:
        await codes.drain()


@asynccontextmanager
async def open_desk(settings: Settings) -> AsyncIterator[tuple[OrderBook, Fulfilment]]:
    """The book, and what changes orders, for a command. Raises SettingsError, OrdersDown."""
    rules = read_rules(settings)
    catalogue = read_products(settings, rules)
    store = open_store(settings)
    async with open_redis(settings) as wire, open_book(settings) as book:
        assortment = Assortment(lambda: catalogue, lambda: rules, lambda files: shelf.sold(files, store))
        try:
            yield book, open_fulfilment(settings, book, RedisBell(wire), assortment)
        finally:
            await store.close()


def open_fulfilment(settings: Settings, book: OrderBook, bell: OrderBell, assortment: Assortment) -> Fulfilment:
    """What changes orders."""
    return Fulfilment(
        book,
        bell,
        assortment,
        shops={shop.name: Terms(SHOPS[shop.kind], shop.require_confirmation) for shop in settings.shops},
        issuer=settings.issuer,
        mails=settings.mail is not None,
    )


def _sources(settings: Settings) -> dict[str, Source]:
    return {
        shop.name: Source(SHOPS[shop.kind], tuple(secret.get_secret_value().encode() for secret in shop.secrets))
        for shop in settings.shops
    }
