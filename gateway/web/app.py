"""The aiohttp application of one worker: the door on its services, and what the worker says of itself."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

from aiohttp import HttpVersion10, HttpVersion11, hdrs, web
from aiohttp.typedefs import Handler

from gateway.bootstrap.services import open_services
from gateway.bootstrap.told import Told
from gateway.bootstrap.work import open_background
from gateway.errors import FileMissing, OriginError
from gateway.front.answers import door_settings
from gateway.policy.events import rfc3339
from gateway.services.settlement import Running
from gateway.services.upkeep import Upkeep
from gateway.settings import Settings
from gateway.store_ports import ObjectStore
from gateway.web.door import Door
from gateway.web.last_good import Inherited
from gateway.web.metrics import (
    BYTES_DELIVERED,
    DOWNLOADS,
    FILES_WRONG,
    FROZEN,
    JOURNAL_TORN,
    JOURNAL_UP,
    MEMORY_CAP,
    REDIS_UP,
    RELOADS,
    RULES_ROLLED_BACK,
    SELF_SERVICE,
    SHARDS_CLOSED,
    WEBHOOKS,
    count_verdict,
)
from gateway.web.overload import MEMORY, memory_of_worker, resident
from gateway.web.status import InForce, WorkerStatus

log = logging.getLogger(__name__)

DOOR = web.AppKey("door", Door)
PROBE = "download-gateway-probe"
WATCH_EVERY = 1.0


async def build_app(settings: Settings, status: WorkerStatus) -> web.Application:
    """The application; it starts and ends its services with itself. Raises SettingsError when it is started."""
    app = web.Application(middlewares=[_all_to_the_door])

    async def services(app: web.Application) -> AsyncIterator[None]:
        keeper = Inherited()
        told = _told(status, keeper)
        async with AsyncExitStack() as closing:
            closing.callback(keeper.close)
            opened = await closing.enter_async_context(open_services(settings, told))
            keeper.release()
            app[MEMORY] = memory_of_worker(settings, resident())
            MEMORY_CAP.set(app[MEMORY].cap)
            door = Door(door_settings(settings), opened, status=status, memory=app[MEMORY])
            app[DOOR] = door
            watch = asyncio.create_task(_watch(opened.upkeep, status))
            probe = asyncio.create_task(_probe(opened.store, status))
            yield
            probe.cancel()
            watch.cancel()

    app.cleanup_ctx.append(services)
    app.on_response_prepare.append(_sign)
    app.router.add_route("*", "/{path:.*}", _handle, expect_handler=_expect)
    return app


async def build_background(settings: Settings, status: WorkerStatus) -> web.Application:
    """What a worker without sockets does: what waits in the order book, and webhooks. Raises as `build_app`."""
    app = web.Application()

    async def services(_: web.Application) -> AsyncIterator[None]:
        keeper = Inherited()

        def on_state(work: str, wrong: str) -> None:
            status.missing = {each for each in status.missing if not each.startswith(f"{work}: ")}
            if wrong:
                status.missing.add(f"{work}: {wrong}")

        async with AsyncExitStack() as closing:
            closing.callback(keeper.close)
            opened = await closing.enter_async_context(open_services(settings, _told(status, keeper)))
            keeper.release()
            await closing.enter_async_context(
                open_background(
                    settings,
                    opened.orders,
                    code=opened.visitors.codes.code_of,
                    on_state=on_state,
                    count_webhook=_count_webhook,
                )
            )
            yield

    app.cleanup_ctx.append(services)
    return app


def _told(status: WorkerStatus, keeper: Inherited) -> Told:
    """Who hears what of a worker's services."""

    def on_ledger(wrong: str, goes_on: bool) -> None:
        status.missing = {each for each in status.missing if not each.startswith("redis: ")}
        if wrong and goes_on:
            log.critical("downloads go on unchecked: %s", wrong)
        elif wrong:
            status.missing.add(f"redis: {wrong}")
        status.redis_ok = not wrong
        REDIS_UP.set(not wrong)

    def on_files(what: str, version: str, wrong: str) -> None:
        status.files[what] = InForce(version, wrong)
        FILES_WRONG.labels(what).set(bool(wrong))

    return Told(
        on_ledger,
        settled=_count,
        reloaded=_count_reload,
        files=on_files,
        verdict=count_verdict,
        rolled_back=RULES_ROLLED_BACK.set,
        helped=_count_helped,
        reload=status.reload,
        keeper=keeper,
    )


@web.middleware
async def _all_to_the_door(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Also what aiohttp's router has no place for, such as `OPTIONS *` and `CONNECT`."""
    return await _handle(request)


async def _handle(request: web.Request) -> web.StreamResponse:
    if (status := _unreadable(request)) is not None:
        refused = web.Response(status=status)
        refused.force_close()
        return refused
    response = await request.app[DOOR].handle(request)
    if request.method == "CONNECT":
        # Whatever its length says, the parser takes what follows for the next request (RFC 9110 §9.3.6).
        response.force_close()
    return response


def _unreadable(request: web.Request) -> int | None:
    """The status that refuses what aiohttp's parser lets through and other readers end elsewhere."""
    # It takes `GET /path` for HTTP/0.9, and HTTP/2.0 where nothing but the request line is that.
    if not HttpVersion10 <= request.version <= HttpVersion11:
        return 505
    # It ignores an empty Transfer-Encoding, where others refuse it or see a length (RFC 9112 §6.1).
    codings = request.headers.getall(hdrs.TRANSFER_ENCODING, [])
    if codings and (hdrs.CONTENT_LENGTH in request.headers or not all(each.strip() for each in codings)):
        return 400
    return None


async def _expect(request: web.Request) -> None:
    """RFC 9110 §10.1.1: a client that waits for 100 gets it; what else it expects is ignored."""
    if request.version >= HttpVersion11 and request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the answer itself has not begun


async def _sign(request: web.Request, response: web.StreamResponse) -> None:
    response.headers["Server"] = "download-gateway"


async def _watch(look: Callable[[], Upkeep], status: WorkerStatus) -> None:
    while True:
        upkeep = look()
        status.frozen = rfc3339(upkeep.frozen.since * 1000) if upkeep.frozen else ""
        FROZEN.set(upkeep.frozen is not None)
        JOURNAL_UP.set(upkeep.journal_up)
        JOURNAL_TORN.set(upkeep.journal_torn)
        SHARDS_CLOSED.set(upkeep.shards_closed)
        await asyncio.sleep(WATCH_EVERY)


async def _probe(store: ObjectStore, status: WorkerStatus) -> None:
    """Ask the origin for a key that is not there, so that a wrong setting is seen before the first buyer does."""
    try:
        await store.stat(PROBE)
    except FileMissing:
        status.origin_ok = True
    except OriginError as error:
        status.origin_ok = False
        log.warning("the origin does not answer as it should: %s", error)


def _count_reload(what: str, outcome: str) -> None:
    RELOADS.labels(what, outcome).inc()


def _count_webhook(outcome: str) -> None:
    WEBHOOKS.labels(outcome).inc()


def _count_helped(outcome: str) -> None:
    SELF_SERVICE.labels(outcome).inc()


def _count(running: Running) -> None:
    DOWNLOADS.labels(running.outcome).inc()
    BYTES_DELIVERED.inc(running.acknowledged)
