"""What makes, shows and changes links, wired."""

from __future__ import annotations

from collections.abc import Callable

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
