"""`gateway serve` and `gateway worker`: the supervisor, which starts `gateway _worker` for each of its processes."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import click

from gateway.bootstrap.starting import check
from gateway.cli.options import config_option
from gateway.cli.output import log_to_stderr
from gateway.cli.worker import served_settings
from gateway.errors import GatewayError, SettingsError
from gateway.settings import Settings, notes
from gateway.web.api.opening import open_api
from gateway.web.api.users import users_of
from gateway.web.listener import close_all, open_sockets, tls_context
from gateway.web.supervisor import Plan, supervise, worker_command

LOG = logging.getLogger("gateway.cli")


@click.command(epilog="Example: gateway serve --config config/gateway.yaml --workers 4")
@config_option
@click.option("--workers", type=click.IntRange(1, 256), help="Worker processes; else the setting `workers`.")
def serve(config: Path | None, workers: int | None) -> None:
    """Run the gateway until SIGTERM or Ctrl-C; a second one does not wait for running downloads."""
    log_to_stderr("gateway")
    try:
        settings = served_settings(config)
        asyncio.run(check(settings))
        for note in notes(settings):
            LOG.warning("%s", note)
        status = asyncio.run(_supervise(settings, config, workers or settings.workers))
    except GatewayError as error:
        raise click.ClickException(str(error)) from error
    sys.exit(status)


@click.command("worker", epilog="Example: gateway worker --config config/gateway.yaml")
@config_option
def background(config: Path | None) -> None:
    """Fulfil orders, send mails and webhooks, until SIGTERM or Ctrl-C. `serve` does that too: this is one more."""
    log_to_stderr("gateway")
    try:
        settings = served_settings(config)
        if not settings.has_background:
            raise SettingsError(
                "neither orders: nor webhooks: is set, so there is nothing to do; see docs/orders.md, docs/webhooks.md"
            )
        asyncio.run(check(settings))
        status = asyncio.run(_supervise(settings, config, 0))
    except GatewayError as error:
        raise click.ClickException(str(error)) from error
    sys.exit(status)


async def _supervise(settings: Settings, config: Path | None, workers: int) -> int:
    if settings.tls is not None:
        tls_context(settings.tls.certificate, settings.tls.key)
    public = open_sockets(settings.listen.host, settings.listen.port) if workers else ()
    try:
        listen = settings.management.listen
        management = open_sockets(listen.host, listen.port) if workers else ()
        plan = Plan(
            command=worker_command(*(("--config", str(config)) if config else ()), "--workers", str(workers)),
            workers=workers,
            sockets=public,
            management=management,
            drain=settings.drain,
            announce=click.echo,
            users=users_of(settings.management),
            api=open_api(settings) if workers else None,
            scheme="https" if settings.tls else "http",
            background=int(settings.has_background),
        )
        async with _embedded_redis(settings):
            return await supervise(plan)
    finally:
        close_all(public)


@asynccontextmanager
async def _embedded_redis(settings: Settings) -> AsyncIterator[None]:
    """Keeps an embedded Redis alive here, since it ends with who started it and a worker may die at any time."""
    if not settings.redis.get_secret_value().startswith("embedded://"):
        yield
        return
    from gateway.bootstrap.redis import hold_embedded_redis  # noqa: PLC0415  the supervisor needs nothing else of it

    async with hold_embedded_redis(settings):
        yield
