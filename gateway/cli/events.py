"""`gateway events …`: events as JSON lines, as they were stored."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.cli.events_export import chosen, export
from gateway.cli.options import config_option, duration
from gateway.cli.output import print_json, with_tools
from gateway.policy.events import TYPES
from gateway.policy.shards import shard_of

if TYPE_CHECKING:
    from gateway.bootstrap.redis import Tools
    from gateway.settings import Settings


_TYPES_HELP = f"Only of this type, may be repeated: {', '.join(TYPES)}."


@click.group(epilog="Example: gateway events tail --since 1h --type download.denied")
def events() -> None:
    """Read the events."""


events.add_command(export)


@events.command(epilog="Example: gateway events tail --since 1h --no-follow --order 10001")
@click.option("--since", callback=duration, help="Begin this long ago; else now, with --no-follow at the oldest.")
@click.option("--order", help="Only this order's.")
@click.option("--type", "types", type=click.Choice(TYPES), multiple=True, metavar="TYPE", help=_TYPES_HELP)
@click.option("--follow/--no-follow", default=True, show_default=True, help="Go on until Ctrl-C.")
@config_option
def tail(since: int | None, order: str | None, types: tuple[str, ...], follow: bool, config: Path | None) -> None:
    """Print events, one JSON object a line, oldest first."""
    since_ms = None if since is None else max(int((time.time() - since) * 1000), 0)
    wanted = chosen(order, types)

    async def work(settings: Settings, tools: Tools) -> None:
        shards = range(settings.shards) if order is None else [shard_of(order, settings.shards)]
        if not follow:
            async for _, fields in tools.events.history(shards, since_ms, wanted):
                print_json(fields)
            return
        async for _, (_, fields) in tools.events.tail(shards, "$" if since_ms is None else f"{since_ms}-0"):
            if wanted(fields):
                print_json(fields)

    try:
        with_tools(config, work)
    except KeyboardInterrupt:
        return
