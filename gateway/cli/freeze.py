"""`gateway freeze` and `gateway thaw`: stop all downloads at once, and allow them again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.cli.named import staff_name
from gateway.cli.options import config_option, json_option
from gateway.cli.output import print_json, print_line, utc, with_tools
from gateway.policy.standing import Frozen
from gateway.services import freezing
from gateway.services.staff import acted, record

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway.bootstrap.redis import Tools
    from gateway.settings import Settings


@click.command(epilog='Example: gateway freeze --message "Back at 18:00, after maintenance."')
@click.option("--message", help='What buyers read beside our own words, at most 255 characters; "" takes it away.')
@config_option
@json_option
def freeze(message: str | None, config: Path | None, as_json: bool) -> None:
    """Stop all downloads at once, running ones too, until `gateway thaw`; also after restarts."""

    async def work(settings: Settings, tools: Tools) -> Frozen:
        return await freezing.freeze(tools.control, _recorded(settings, tools, "gateway.freeze"), message)

    frozen = with_tools(config, work)
    if as_json:
        print_json({"frozen": True, "since": utc(frozen.since), "message": frozen.message})
        return
    print_line(f"frozen since {utc(frozen.since)}: every download is refused, running ones are cut within 5 s")
    print_line("`gateway thaw` allows them again")


@click.command(epilog="Example: gateway thaw")
@config_option
@json_option
def thaw(config: Path | None, as_json: bool) -> None:
    """Allow downloads again that `gateway freeze` stopped."""

    async def work(settings: Settings, tools: Tools) -> bool:
        return await freezing.thaw(tools.control, _recorded(settings, tools, "gateway.thaw"))

    was_frozen = with_tools(config, work)
    if as_json:
        print_json({"frozen": False, "was_frozen": was_frozen})
    elif was_frozen:
        print_line("thawed: downloads are allowed again within a second")
    else:
        print_line("nothing was frozen, as far as Redis knows; a worker that knows better is thawed within a second")


def _recorded(settings: Settings, tools: Tools, action: str) -> Callable[[], Awaitable[None]]:
    return lambda: record(acted(staff_name(), action), tools.events, settings.shards)
