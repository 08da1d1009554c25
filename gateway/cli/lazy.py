"""A group that knows its commands by name and imports the one that is asked for: so `gateway --help` loads none."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import ClassVar

import click

Table = Mapping[str, tuple[str, str]]
"""Each command's `module:attribute` and what it does; a name with an underscore is not listed."""


class LazyGroup(click.Group):
    """A group with the commands of this table."""

    table: ClassVar[Table]

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name in self.table if not name.startswith("_")]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.table:
            return None
        module, _, attribute = self.table[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        return command if isinstance(command, click.Command) else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, self.table[name][1]) for name in self.list_commands(ctx)])
