"""The hidden `gateway _worker`, of which `gateway serve` and `gateway worker` start one for each process.

Settings are read again by every worker, so that no secret stands on a command line. It imports nothing of the
supervisor's, whose restarts wait for it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click
from aiohttp import web

from gateway.bootstrap.starting import supported
from gateway.cli.options import config_option
from gateway.cli.output import log_to_stderr, read_settings
from gateway.errors import GatewayError
from gateway.settings import Settings
from gateway.web.listener import tls_context
from gateway.web.status import WorkerStatus
from gateway.web.worker import WorkerOptions, refuse_to_start, run_worker


@click.command(hidden=True)
@config_option
@click.option("--listen-fd", "listen_fds", type=int, multiple=True, help="None: work in the background.")
@click.option("--status-fd", type=int, required=True)
@click.option("--workers", type=int, required=True, help="How many share the machine.")
def worker(config: Path | None, listen_fds: tuple[int, ...], status_fd: int, workers: int) -> None:
    """One worker of `gateway serve`, which alone starts it."""
    log_to_stderr("worker")
    try:
        settings = served_settings(config).model_copy(update={"workers": max(workers, 1)})
        tls = tls_context(settings.tls.certificate, settings.tls.key) if settings.tls else None
    except GatewayError as error:
        sys.exit(refuse_to_start(status_fd, str(error)))
    options = WorkerOptions(listen_fds, status_fd, settings.drain, tls)

    async def application(status: WorkerStatus) -> web.Application:
        from gateway.web.app import build_app, build_background  # noqa: PLC0415  the supervisor has no use for them

        return await (build_app if listen_fds else build_background)(settings, status)

    sys.exit(run_worker(options, application))


def served_settings(config: Path | None) -> Settings:
    """The settings, where a gateway can be served by them. Raises SettingsError."""
    return supported(read_settings(config))
