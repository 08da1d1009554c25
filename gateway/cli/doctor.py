"""`gateway doctor`: whether everything the gateway stands on is as it should be, a line each."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.cli.options import config_option, json_option
from gateway.cli.output import print_json, print_line, read_settings
from gateway.errors import SettingsError
from gateway.policy.checkup import Line
from gateway.policy.claims import is_key

if TYPE_CHECKING:
    from gateway.services.checkup import Report
    from gateway.settings import Settings


@click.command(epilog="Example: gateway doctor --config config/gateway.yaml --file ebooks/sea.pdf")
@click.option("--file", help="A key that is in the store; where our keys may not list the bucket, this one is tried.")
@config_option
@json_option
def doctor(file: str | None, config: Path | None, as_json: bool) -> int:
    """Check settings, Redis, bucket, geo files, rules and clocks; it changes nothing. Exit 1 where something FAILs."""
    if file is not None and not is_key(file):
        raise click.UsageError("--file is no storage key; write one like ebooks/sea.pdf, relative and without . and ..")
    lines: list[Line] = []

    def report(line: Line) -> None:
        lines.append(line)
        if not as_json:
            print_line(f"{line.state:<5} {line.check:<11}  {line.text}")

    try:
        settings = read_settings(config)
    except SettingsError as error:
        for mistake in str(error).splitlines():
            report(Line("FAIL", "settings", mistake))
    else:
        asyncio.run(_examine(settings, file, report))
    failed = any(line.state == "FAIL" for line in lines)
    if as_json:
        told = [{"state": line.state, "check": line.check, "text": line.text} for line in lines]
        print_json({"ok": not failed, "checks": told})
    return int(failed)


async def _examine(settings: Settings, file: str | None, report: Report) -> None:
    from gateway.cli.doctor_checks import Checks, of_settings, open_wire  # noqa: PLC0415  `gateway --help` does without
    from gateway.services.checkup import run  # noqa: PLC0415  `gateway --help` does without

    for line in of_settings(settings):
        report(line)
    async with open_wire(settings, report) as wire:
        async for line in run(Checks(settings, wire, file).all()):
            report(line)
