"""Who renews buyers' links in a worker, wired."""

from __future__ import annotations

from collections.abc import Callable

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
from gateway.settings import Settings


def open_renewing(
    settings: Settings, wire: Wire, orders: Orders, ledger: RedisLedger, rules: Callable[[], RuleSet]
) -> Renewing:
    """`rules`: those that are in force."""
    tools = Tools(
        RedisEventLog(wire, settings.shards),
        RedisLinks(wire, settings.shards),
        RedisControl(wire),
        ledger,
        settings.key_set(),
    )
    return Renewing(orders.book, orders.fulfilment, open_links(settings, tools, rules), issuer=settings.issuer)
