"""Not a test: the supervisor, and workers with a stand-in application, as the real processes the tests start.

`standin.py gateway WORKERS DRAIN` runs the supervisor; it starts `standin.py work …` itself.
"""

import asyncio
import logging
import os
import sys

import click
from aiohttp import web

from gateway.errors import GatewayError, SettingsError
from gateway.web.api.users import User
from gateway.web.listener import close_all, open_sockets
from gateway.web.status import WorkerStatus
from gateway.web.supervisor import Plan, supervise
from gateway.web.worker import WorkerOptions, run_worker

STATUS = web.AppKey("status", WorkerStatus)
WATCHER = web.AppKey("watcher", asyncio.Task[None])
MISSING = os.environ.get("STANDIN_MISSING", "/nonexistent")


async def pid(request: web.Request) -> web.Response:
    if request.app[STATUS].draining:
        return web.Response(status=503, text="draining")
    return web.Response(text=str(os.getpid()))


async def slow(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "20"})
    await response.prepare(request)
    request.app[STATUS].downloads += 1
    try:
        for _ in range(20):
            await response.write(b"x")
            await asyncio.sleep(float(request.query["each"]))
    finally:
        request.app[STATUS].downloads -= 1
    return response


async def broken(request: web.Request) -> web.Response:
    raise ValueError(f"cannot use {request.path}")


async def reloads(request: web.Request) -> web.Response:
    return web.Response(text=str(request.app[STATUS].reload.is_set()))


async def watch(status: WorkerStatus) -> None:
    while True:
        status.missing = {"redis: refused"} if os.access(MISSING, os.F_OK) else set()
        await asyncio.sleep(0.05)


async def start(app: web.Application) -> None:
    app[WATCHER] = asyncio.create_task(watch(app[STATUS]))
    await asyncio.sleep(0.1)


async def settle(app: web.Application) -> None:
    print(f"settled, {app[STATUS].downloads} still running", flush=True)


async def application(status: WorkerStatus) -> web.Application:
    if reason := os.environ.get("STANDIN_REFUSES"):
        raise SettingsError(reason)
    app = web.Application()
    app[STATUS] = status
    app.on_startup.append(start)
    app.on_cleanup.append(settle)
    app.router.add_get("/pid", pid)
    app.router.add_get("/slow", slow)
    app.router.add_get("/broken/{secret}", broken)
    app.router.add_get("/reloads", reloads)
    return app


@click.group()
def main() -> None:
    logging.basicConfig(level=logging.DEBUG, stream=sys.stderr, format="%(levelname)s %(process)d %(message)s")


@main.command()
@click.argument("workers", type=int)
@click.argument("drain", type=float)
def gateway(workers: int, drain: float) -> None:
    async def run() -> int:
        sockets = open_sockets("127.0.0.1", 0)
        try:
            command = (sys.executable, __file__, "work", "--drain", str(drain))
            management = open_sockets("127.0.0.1", 0)
            users = (User("token", "ops", "management-token"),)
            return await supervise(Plan(command, workers, sockets, management, drain, click.echo, users))
        finally:
            close_all(sockets)

    try:
        sys.exit(asyncio.run(run()))
    except GatewayError as error:
        raise click.ClickException(str(error)) from error


@main.command()
@click.option("--drain", type=float)
@click.option("--status-fd", type=int)
@click.option("--listen-fd", type=int, multiple=True)
def work(drain: float, status_fd: int, listen_fd: tuple[int, ...]) -> None:
    sys.exit(run_worker(WorkerOptions(listen_fd, status_fd, drain), application))


if __name__ == "__main__":
    main()
