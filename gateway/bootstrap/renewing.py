"""Who renews buyers' links in a worker, and who answers buyers that ask for them, wired."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from gateway.backends.redis_allowance import RedisAllowance
from gateway.backends.redis_client import Wire
from gateway.backends.redis_control import RedisControl
from gateway.backends.redis_events import RedisEventLog
from gateway.backends.redis_ledger import RedisLedger
from gateway.backends.redis_links import RedisLinks
from gateway.bootstrap.links import open_links
from gateway.bootstrap.orders import Orders
from gateway.bootstrap.redis import Tools
from gateway.policy.ruleset import RuleSet
from gateway.services.renewing import Renewing
from gateway.services.self_service import SelfService
from gateway.settings import Settings


@dataclass(frozen=True, slots=True)
class Buyers:
    """`renewing` is None where there is no order book, `self_service` also where no mail is set: there is no other way
    to a buyer.
    """

    renewing: Renewing | None = None
    self_service: SelfService | None = None


@asynccontextmanager
async def open_buyers(
    settings: Settings,
    wire: Wire,
    orders: Orders | None,
    ledger: RedisLedger,
    *,
    rules: Callable[[], RuleSet],
    count: Callable[[str], None],
) -> AsyncIterator[Buyers]:
    """`rules`: those that are in force; `count`: see SelfService."""
    if orders is None:
        yield Buyers()
        return
    tools = Tools(
        RedisEventLog(wire, settings.shards),
        RedisLinks(wire, settings.shards),
        RedisControl(wire),
        ledger,
        settings.key_set(),
    )
    renewing = Renewing(orders.book, orders.fulfilment, open_links(settings, tools, rules), issuer=settings.issuer)
    if settings.mail is None:
        yield Buyers(renewing)
        return
    service = SelfService(orders.book, renewing, RedisAllowance(wire, settings.shards), count=count)
    service.start()
    try:
        yield Buyers(renewing, service)
    finally:
        await service.stop()
