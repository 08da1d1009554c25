"""What visitors of links do beside downloading, wired: sign in, enter codes, help themselves, see their library."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from gateway.backends.redis_allowance import RedisAllowance
from gateway.backends.redis_client import Wire
from gateway.backends.redis_devices import RedisDevices
from gateway.backends.redis_ledger import RedisLedger
from gateway.backends.user_agents import name_devices
from gateway.bootstrap.accounts import Accounts, open_accounts
from gateway.bootstrap.links import open_worker_links
from gateway.bootstrap.orders import Orders, open_codes
from gateway.policy.ruleset import RuleSet
from gateway.services.codes import Codes
from gateway.services.purchases import Library
from gateway.services.renewing import Renewing
from gateway.services.self_service import SelfService
from gateway.settings import Settings


@dataclass(frozen=True, slots=True)
class Visitors:
    """`accounts`: None where nobody can sign in; `purchases`: None without an order book; `self_service`: None where no
    mail is set either, for there is no other way to a buyer.
    """

    accounts: Accounts | None
    codes: Codes
    purchases: Library | None = None
    self_service: SelfService | None = None


@asynccontextmanager
async def open_visitors(
    settings: Settings,
    wire: Wire,
    orders: Orders | None,
    ledger: RedisLedger,
    devices: RedisDevices,
    *,
    rules: Callable[[], RuleSet],
    helped: Callable[[str], None],
) -> AsyncIterator[Visitors]:
    """`rules`: those that are in force; `helped`: see SelfService."""
    async with AsyncExitStack() as closing:
        book = None if orders is None else orders.book
        accounts = await closing.enter_async_context(open_accounts(settings, wire, rules, book))
        codes = await closing.enter_async_context(open_codes(settings, wire, orders))
        if orders is None:
            yield Visitors(accounts, codes)
            return
        links = open_worker_links(settings, wire, ledger, rules)
        renewing = Renewing(orders.book, orders.fulfilment, links, issuer=settings.issuer)
        library = Library(
            orders.book,
            links,
            devices,
            orders.fulfilment,
            renewing,
            name=name_devices,
            issuer=settings.issuer,
            shards=settings.shards,
        )
        service = None
        if settings.mail is not None:
            service = SelfService(orders.book, renewing, RedisAllowance(wire, settings.shards), count=helped)
            service.start()
            closing.push_async_callback(service.stop)
        yield Visitors(accounts, codes, library, service)
