"""`gateway demo`: the whole gateway on this machine, with nothing installed and nothing left behind."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from typing import TYPE_CHECKING

import click

from gateway.errors import GatewayError

if TYPE_CHECKING:
    from gateway.cli.demo_stage import Stage


@click.command(epilog="Example: gateway demo --port 8080")
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=8080,
    show_default=True,
    help="Where it listens, on 127.0.0.1 only; 0 takes a free one.",
)
@click.option("--once", is_flag=True, help="Make the tour by itself; exit 0 when all was as it should be, else 1.")
def demo(port: int, once: bool) -> int:
    """The whole gateway on this machine: sample files, links to try and live events, until Ctrl-C."""
    # That the second worker is a moment later than the first is nothing to tell here.
    logging.getLogger("gateway").setLevel(logging.ERROR)
    try:
        kept = asyncio.run(_perform(port, once))
    except (asyncio.CancelledError, KeyboardInterrupt):
        kept = None
    except GatewayError as error:
        raise click.ClickException(str(error)) from error
    if kept is None:
        if once:
            raise click.Abort
        with contextlib.suppress(OSError):  # the terminal may be what has ended
            click.echo("\nEnded; its folder and its processes are gone.")
    return 1 if kept is False else 0


async def _perform(port: int, once: bool) -> bool | None:
    click.echo("Setting up sample files, a private Redis and the gateway; this takes some seconds.")
    from gateway.cli.demo_stage import open_stage, play  # noqa: PLC0415  `--help` needs none of it

    task = asyncio.current_task()
    if task is not None:
        # Until the supervisor listens to it; the default would leave the folder behind.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    async with open_stage(port) as stage:
        return await play(stage, _tour if once else _watch)


async def _tour(stage: Stage) -> bool:
    from gateway.cli.demo_tour import tour  # noqa: PLC0415  `--help` needs none of it

    return await tour(stage)


async def _watch(stage: Stage) -> bool:
    from gateway.cli.demo_screen import follow, welcome  # noqa: PLC0415  `--help` needs none of it

    welcome(stage)
    await follow(stage)
    return True
