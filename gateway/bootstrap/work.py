"""What the background worker does: each kind of work, and how many of it at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from gateway.backends.redis_bell import RedisBell
from gateway.bootstrap.orders import Orders
from gateway.bootstrap.redis import open_redis
from gateway.bootstrap.webhooks import open_endpoints
from gateway.errors import SettingsError
from gateway.order_ports import OrderBell
from gateway.services.background import Background
from gateway.settings import Settings

MAILS_AT_ONCE = 4
ORDERS_AT_ONCE = 4
"""So that one whose files a slow store is asked for does not hold up a refund behind it."""

Step = Callable[[], Awaitable[bool]]


@asynccontextmanager
async def open_background(
    settings: Settings,
    orders: Orders | None,
    *,
    code: Callable[[str], str],
    on_state: Callable[[str, str], None],
    count_webhook: Callable[[str], None],
) -> AsyncIterator[Background]:
    """All that the settings give to do, begun. `on_state`: see Background; `count_webhook`: see services.webhooks;
    `code`: that of a mail (see services.codes).

    Raises SettingsError.
    """
    if not settings.has_background:
        raise SettingsError("neither orders: nor webhooks: is set, so nothing is to be done in the background")
    async with AsyncExitStack() as closing:
        work = {} if orders is None else _of_orders(settings, orders, code)
        bell: OrderBell | None = None if orders is None else orders.bell
        if settings.webhooks or bell is None:
            # A connection of its own: many events on their way to a slow endpoint keep no order waiting.
            wire = await closing.enter_async_context(open_redis(settings))
            bell = bell or RedisBell(wire)
            for number, endpoint in enumerate(
                await closing.enter_async_context(open_endpoints(settings, wire, count_webhook)), 1
            ):
                work[f"webhooks to endpoint {number}"] = (endpoint.work, 1)
        background = Background(work, bell, on_state)
        background.start()
        closing.push_async_callback(background.stop)
        yield background


def _of_orders(settings: Settings, orders: Orders, code: Callable[[str], str]) -> dict[str, tuple[Step, int]]:
    work: dict[str, tuple[Step, int]] = {"orders": (orders.fulfilment.work, ORDERS_AT_ONCE)}
    if settings.mail is not None:
        from gateway.bootstrap.mail import open_mailing  # noqa: PLC0415  templates and pictures are slow to import

        work["mails"] = (open_mailing(settings, orders.book, orders.assortment.rules, code).work, MAILS_AT_ONCE)
    return work
