"""What decisions rest on besides the ledger: rules, geo databases and products, read, watched and observed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from gateway.backends.maxmind import Databases
from gateway.backends.redis_client import Wire
from gateway.bootstrap.files import watched_geo, watched_products
from gateway.bootstrap.rules import open_rules
from gateway.bootstrap.told import Told
from gateway.policy.products import Catalogue
from gateway.policy.ruleset import RuleSet
from gateway.ports import EventLog
from gateway.services.observing import Observing
from gateway.services.reloading import Reloading, Watched
from gateway.settings import Settings


@dataclass(frozen=True, slots=True)
class PolicyFiles:
    """What is in force, and who watches what it does."""

    rules: Watched[RuleSet]
    geo: Watched[Databases]
    products: Watched[Catalogue]
    observing: Observing


@asynccontextmanager
async def open_policy(settings: Settings, wire: Wire, events: EventLog, told: Told) -> AsyncIterator[PolicyFiles]:
    """All of it, read and watched. Raises SettingsError."""
    rules = await open_rules(settings, wire, events, told)
    live, candidate, geo = rules.live, rules.candidate, watched_geo(settings, told.keeper)
    products = watched_products(settings, told.keeper, lambda: live.current.plans)

    def versions() -> dict[str, str]:
        return {"rules.version": live.version, "geo.version": geo.version, "candidate.version": candidate.version}

    reloading = Reloading(
        [live, geo, products, candidate],
        events,
        wanted=told.reload,
        versions=versions,
        count=told.reloaded,
        show=told.files,
    )
    async with AsyncExitStack() as closing:
        await reloading.start()
        closing.push_async_callback(reloading.stop)
        if rules.rollback is not None:
            rules.rollback.start()
            closing.push_async_callback(rules.rollback.stop)
        observing = Observing(lambda: candidate.current, tell=told.verdict, tally=rules.rollback)
        yield PolicyFiles(live, geo, products, observing)
