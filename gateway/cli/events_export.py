"""`gateway events export`: events to a file, for keeping, for other programs, and for `gateway rules replay`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.backends.event_files import writing
from gateway.cli.options import config_option, duration
from gateway.cli.output import print_json, with_tools
from gateway.cli.progress import Progress
from gateway.policy.events import TYPES
from gateway.policy.shards import shard_of

if TYPE_CHECKING:
    from gateway.bootstrap.redis import Tools
    from gateway.ports import Fields
    from gateway.settings import Settings

_UNTIL = "End before this time, as 2026-11-21 or 2026-11-21T09:30 (UTC), or this long ago: 7d."


def _moment(_ctx: click.Context, _param: click.Parameter, value: str | None) -> int | None:
    """Unix ms of a day, a time, or a duration ago."""
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return int((time.time() - (duration(_ctx, _param, value) or 0)) * 1000)
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


@click.command(epilog="Example: gateway events export --since 30d -o events.jsonl.gz")
@click.option("--since", callback=_moment, help="Begin at this time, written as --until's; else at the oldest.")
@click.option("--until", callback=_moment, help=_UNTIL)
@click.option("--order", help="Only this order's.")
@click.option("--type", "types", type=click.Choice(TYPES), multiple=True, metavar="TYPE", help="Only of this type.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="To this file; gzipped if it ends in .gz."
)
@config_option
def export(  # noqa: PLR0917  # one parameter per option
    since: int | None,
    until: int | None,
    order: str | None,
    types: tuple[str, ...],
    output: Path | None,
    config: Path | None,
) -> None:
    """Write events as JSON lines, shard by shard, the oldest of each first."""
    wanted = chosen(order, types)

    async def work(settings: Settings, tools: Tools) -> int:
        shards = range(settings.shards) if order is None else [shard_of(order, settings.shards)]
        total, written = sum([await tools.events.count(shard) for shard in shards]), 0
        with (
            nullcontext(print_json) if output is None else writing(output) as write,
            Progress(total, "events") as advance,
        ):
            for shard in shards:
                async for number, fields in tools.events.scan(shard, since):
                    advance(1)
                    if until is not None and int(number.partition("-")[0]) >= until:
                        break
                    if wanted(fields):
                        write(fields)
                        written += 1
        return written

    count = with_tools(config, work)
    where = "" if output is None else f" to {output}"
    print(f"{count} events written{where}", file=sys.stderr)


def chosen(order: str | None, types: tuple[str, ...]) -> Callable[[Fields], bool]:
    """Tells the events of this order and of these types; None and () leave them all."""

    def wanted(fields: Fields) -> bool:
        return (order is None or fields.get("order.id") == order) and (not types or fields.get("type") in types)

    return wanted
