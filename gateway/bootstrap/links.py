"""What makes, shows and changes links, wired."""

from __future__ import annotations

from collections.abc import Callable

from gateway.backends.redis_client import Wire
from gateway.backends.redis_control import RedisControl
from gateway.backends.redis_events import RedisEventLog
from gateway.backends.redis_ledger import RedisLedger
from gateway.backends.redis_links import RedisLinks
from gateway.bootstrap.redis import Tools
from gateway.policy.ruleset import RuleSet
from gateway.services.desk import LinkDesk
from gateway.services.linking import sign
from gateway.settings import Settings


def open_links(settings: Settings, tools: Tools, rules: Callable[[], RuleSet]) -> LinkDesk:
    """`rules`: those that are in force, asked for each time; it may raise SettingsError."""
    return LinkDesk(
        links=tools.links,
        events=tools.events,
        control=tools.control,
        counters=tools.ledger,
        sign=lambda claims: sign(claims, tools.keys),
        issuer=settings.issuer,
        shards=settings.shards,
        rules=rules,
    )


def open_worker_links(settings: Settings, wire: Wire, ledger: RedisLedger, rules: Callable[[], RuleSet]) -> LinkDesk:
    """The same in a worker, which has a connection and a ledger already."""
    tools = Tools(
        RedisEventLog(wire, settings.shards),
        RedisLinks(wire, settings.shards),
        RedisControl(wire),
        ledger,
        settings.key_set(),
    )
    return open_links(settings, tools, rules)
