"""The aiohttp application of one worker: the door on its services, and what the worker says of itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from urllib.parse import urlsplit

from aiohttp import web

from gateway.bootstrap import open_services
from gateway.services.settlement import Running
from gateway.settings import Settings
from gateway.web.door import Door, DoorSettings
from gateway.web.metrics import BYTES_DELIVERED, DOWNLOADS, REDIS_UP
from gateway.web.status import WorkerStatus

DOOR = web.AppKey("door", Door)


async def build_app(settings: Settings, status: WorkerStatus) -> web.Application:
    """The application; it starts and ends its services with itself. Raises SettingsError when it is started."""
    app = web.Application()

    async def services(app: web.Application) -> AsyncIterator[None]:
        def on_ledger(wrong: str) -> None:
            status.missing.clear()
            if wrong:
                status.missing.add(f"redis: {wrong}")
            status.redis_ok = not wrong
            REDIS_UP.set(not wrong)

        async with open_services(settings, on_ledger=on_ledger, on_settled=_count) as opened:
            base = urlsplit(settings.base_url)
            door = Door(
                DoorSettings(
                    trusted_proxies=settings.trusted_proxies,
                    prefix=base.path.rstrip("/"),
                    secure_cookie=base.scheme == "https",
                ),
                gatekeeper=opened.gatekeeper,
                store=opened.store,
                ledger=opened.ledger,
                settlement=opened.settlement,
                status=status,
            )
            app[DOOR] = door
            yield

    async def handle(request: web.Request) -> web.StreamResponse:
        return await request.app[DOOR].handle(request)

    app.cleanup_ctx.append(services)
    app.router.add_route("*", "/{path:.*}", handle)
    return app


def _count(running: Running) -> None:
    DOWNLOADS.labels(running.outcome).inc()
    BYTES_DELIVERED.inc(running.acknowledged)
