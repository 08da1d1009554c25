"""Everything that a worker's front door works with, wired and started."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from gateway.backends.redis_control import RedisControl
from gateway.backends.redis_devices import RedisDevices
from gateway.backends.redis_events import RedisEventLog
from gateway.backends.redis_shards import RedisShards
from gateway.bootstrap.orders import Orders, open_orders
from gateway.bootstrap.origin import open_store
from gateway.bootstrap.policy import open_policy
from gateway.bootstrap.redis import open_journal, open_ledger, open_redis, open_sums
from gateway.bootstrap.told import Told
from gateway.bootstrap.visitors import Visitors, open_visitors
from gateway.ports import EventLog, Ledger, SumMemory
from gateway.services import shelf
from gateway.services.agreement import Agreement
from gateway.services.control import Control
from gateway.services.fulfilment import Assortment
from gateway.services.gatekeeper import Gatekeeper
from gateway.services.grounds import Grounds
from gateway.services.housekeeping import Housekeeping
from gateway.services.recovery import Recovery
from gateway.services.settlement import Settlement
from gateway.services.throttle import Throttle
from gateway.services.unchecked import UncheckedEvents, UncheckedLedger
from gateway.services.upkeep import Upkeep
from gateway.settings import Settings
from gateway.store_ports import ObjectStore


@dataclass(frozen=True, slots=True)
class Services:
    """What a front door works with."""

    gatekeeper: Gatekeeper
    store: ObjectStore
    ledger: Ledger
    settlement: Settlement
    sums: SumMemory
    orders: Orders | None
    visitors: Visitors
    throttle: Throttle
    upkeep: Callable[[], Upkeep]


@asynccontextmanager
async def open_services(settings: Settings, told: Told) -> AsyncIterator[Services]:
    """Everything a worker needs. It serves (and refuses) also while Redis is away. Raises SettingsError."""
    lease = settings.counting.lease
    async with open_redis(settings) as wire, AsyncExitStack() as closing:
        journal = open_journal(settings)
        if journal is not None:
            closing.callback(journal.close)
        shards = RedisShards(wire, settings.shards, journal=journal)
        closing.push_async_callback(shards.drain)
        events: EventLog = RedisEventLog(wire, settings.shards, shards)
        counting = open_ledger(settings, wire, shards)
        ledger: Ledger = counting
        if journal is not None:
            owed = UncheckedEvents(events, journal)
            unchecked = UncheckedLedger(counting, journal, owed)
            unchecked.start()  # also where nothing more is given so: what was, is still to be told
            closing.push_async_callback(unchecked.stop)
            if settings.when_redis_is_down == "allow":
                ledger, events = unchecked, owed
        devices = RedisDevices(wire, shards)
        policy = await closing.enter_async_context(open_policy(settings, wire, events, told))
        settlement = Settlement(ledger, lease=lease, standing=lambda: control.standing, on_settled=told.settled)
        commands = RedisControl(wire)
        control = Control(
            commands,
            on_refused=settlement.stop_refused,
            on_command=journal.keep_command if journal else lambda command: None,
        )
        recovery = Recovery(shards, journal, commands, complete_at=lambda: control.complete_at) if journal else None
        store = open_store(settings)
        closing.push_async_callback(store.close)
        orders = None
        if settings.has_orders:
            assortment = Assortment(
                lambda: policy.products.current, lambda: policy.rules.current, lambda files: shelf.sold(files, store)
            )
            orders = await closing.enter_async_context(
                open_orders(settings, wire, assortment=assortment, settlement=settlement, events=events)
            )
        visitors = await closing.enter_async_context(
            open_visitors(
                settings, wire, orders, counting, devices, rules=lambda: policy.rules.current, helped=told.helped
            )
        )
        grounds = Grounds(
            keys=settings.key_set(),
            issuer=settings.issuer,
            rules=lambda: policy.rules.current,
            geo=lambda: policy.geo.current,
            control=control,
            ready=lambda: (
                settings.when_redis_is_down == "allow"
                or (control.current() and (recovery is None or shards.is_entered(0)))
            ),
            external_hosts=frozenset(settings.external_hosts),
            holding=orders.holdings.of if orders is not None else _no_orders,
            observing=policy.observing,
            waived=settings.doors.waived,
        )
        throttle = Throttle()
        gatekeeper = Gatekeeper(
            grounds,
            ledger=ledger,
            events=events,
            store=store,
            counting=settings.counting.rules,
            shards=settings.shards,
            throttle=throttle,
            forsake=settlement.forsake,
        )
        housekeeping = Housekeeping(
            ledger,
            events,
            shards=settings.shards,
            lease=lease,
            keep_events=settings.events.keep,
            agree=Agreement(ledger, journal, gatekeeper.agreed, visitors.codes.agreed),
            on_ledger=lambda wrong: told.ledger(
                wrong, settings.when_redis_is_down == "allow" and not (journal and journal.trouble)
            ),
            trouble=lambda: (recovery.trouble() if recovery else "") or _control_trouble(control),
        )
        if journal is not None:
            for command in journal.commands():
                control.standing.apply(command)
        if recovery is not None:
            await recovery.start()
            closing.push_async_callback(recovery.stop)
        await control.start()
        closing.push_async_callback(control.stop)
        if recovery is not None:
            await recovery.look()
        await housekeeping.start()
        closing.push_async_callback(housekeeping.stop)
        settlement.start()
        closing.push_async_callback(settlement.stop)
        yield Services(
            gatekeeper,
            store,
            ledger,
            settlement,
            await closing.enter_async_context(open_sums(settings, wire)),
            orders,
            visitors,
            throttle,
            lambda: Upkeep.of(journal, shards, control.standing),
        )


async def _no_orders(_: str | None) -> None:
    return None


def _control_trouble(control: Control) -> str:
    return "" if control.current() else control.trouble or "the control stream is being read"
