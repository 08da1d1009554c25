"""What options mean that click does not know by itself, and the options that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import TypeVar

import click

from gateway.policy.limits import LIMIT_MAX, LIMITS, read_limit
from gateway.policy.model import Network
from gateway.policy.units import parse_duration

DEFAULT_CONFIG = Path("config/gateway.yaml")

S = TypeVar("S")
T = TypeVar("T")
Command = TypeVar("Command", bound=Callable[..., object])

config_option = click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="GATEWAY_CONFIG",
    help=f"The settings file.  [default: {DEFAULT_CONFIG}]",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def duration(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """Callback of an option: seconds, written `30d`."""
    return None if value is None else _converted(parse_duration, value)


def limit_options(command: Command) -> Command:
    """An option for every limit that a token can carry."""
    for limit in reversed(LIMITS):
        name = f"--{limit.name.replace('_', '-')}"
        kind = click.IntRange(1, LIMIT_MAX) if limit.parse is None else None
        command = click.option(name, callback=_limit(limit.name), type=kind, help=limit.about)(command)
    return command


def _limit(name: str) -> Callable[[click.Context, click.Parameter, object], int | None]:
    def read(_ctx: click.Context, _param: click.Parameter, value: object) -> int | None:
        return None if value is None else _converted(lambda text: read_limit(name, text), value)

    return read


def networks(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[Network, ...]:
    """Callback of a repeated option: networks; one with host bits is refused, with the right one shown."""
    return tuple(_converted(_network, text) for text in value)


def _converted(convert: Callable[[S], T], text: S) -> T:
    try:
        return convert(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _network(text: str) -> Network:
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        raise ValueError("write a network like 203.0.113.0/24") from None
    if ip_address(text.partition("/")[0]) != network.network_address:
        raise ValueError(f"it has host bits set; write {network}")
    return network


class WithNames(click.Command):
    """Ties each --name to the --file before it, which click, once it has parsed them, no longer knows."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, list(self._numbered(ctx, iter(args))))

    def _numbered(self, ctx: click.Context, args: Iterator[str]) -> Iterator[str]:
        files = 0
        for argument in args:
            option, equals, value = argument.partition("=")
            files += option == "--file"
            if option != "--name":
                yield argument
                continue
            if not files:
                raise click.UsageError("--name stands before any --file; put it behind the file it is for", ctx)
            yield f"--name={files}:{value if equals else next(args, '')}"
