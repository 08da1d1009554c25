"""Everything that the shop's own people work with, over the API and at the command line: links and orders, as one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module

from gateway.backends.redis_asked import RedisAsked
from gateway.backends.redis_bell import RedisBell
from gateway.bootstrap.files import read_products, read_rules
from gateway.bootstrap.links import open_links
from gateway.bootstrap.orders import open_book, open_fulfilment
from gateway.bootstrap.origin import open_store
from gateway.bootstrap.redis import Tools, open_redis, open_tools
from gateway.errors import SettingsError
from gateway.policy.products import NO_PRODUCTS, Catalogue
from gateway.policy.ruleset import NO_RULES, RuleSet
from gateway.services import shelf
from gateway.services.desk import LinkDesk
from gateway.services.fulfilment import Assortment
from gateway.services.order_desk import OrderDesk
from gateway.settings import Settings


@dataclass(frozen=True, slots=True)
class Office:
    """What there is to work with; `orders` is None where there is no order book."""

    settings: Settings
    tools: Tools
    asked: RedisAsked
    links: LinkDesk
    orders: OrderDesk | None
    refresh: Callable[[], None]
    """Reads rules and products again, if their files are others. Raises SettingsError; blocks."""


@dataclass(slots=True)
class _Files:
    """Rules and products as they were read last."""

    settings: Settings
    rules: RuleSet = NO_RULES
    catalogue: Catalogue = NO_PRODUCTS
    seen: tuple[Hashable, ...] = ()

    def refresh(self) -> None:
        now = tuple(
            (path, path.stat().st_mtime_ns, path.stat().st_size) if path.exists() else (path,)
            for path in (self.settings.rules, self.settings.products)
            if path is not None
        )
        if now and now != self.seen:
            try:
                rules = read_rules(self.settings)
                self.rules, self.catalogue = rules, read_products(self.settings, rules)
            except SettingsError:
                if not self.seen:
                    raise
                return  # the last good ones stay, as they do in the workers
            self.seen = now


@asynccontextmanager
async def open_office(settings: Settings) -> AsyncIterator[Office]:
    """All of it; files are read, and what is slow to import is imported, in a thread.

    Raises SettingsError, LedgerDown, OrdersDown.
    """
    files = _Files(settings)
    await asyncio.to_thread(files.refresh)
    async with AsyncExitStack() as closing:
        tools = await closing.enter_async_context(open_tools(settings))
        wire = await closing.enter_async_context(open_redis(settings))
        links = open_links(settings, tools, lambda: files.rules)
        orders = None
        if settings.has_orders:
            store = await asyncio.to_thread(open_store, settings)
            closing.push_async_callback(store.close)
            book = await closing.enter_async_context(open_book(settings))
            assortment = Assortment(lambda: files.catalogue, lambda: files.rules, partial(shelf.sold, store=store))
            fulfilment = open_fulfilment(settings, book, RedisBell(wire), assortment)
            orders = OrderDesk(book, fulfilment, mails=settings.mail is not None, issuer=settings.issuer)
        yield Office(settings, tools, RedisAsked(wire, settings.shards), links, orders, files.refresh)


def import_all(settings: Settings) -> None:
    """Import what is slow to import, for these settings, where nobody waits for it: in a thread."""
    if settings.has_orders:
        import_module("gateway.backends.order_book")
    if settings.origin.kind == "s3":
        import_module("gateway.backends.s3")
