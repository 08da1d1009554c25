"""`gateway rules …`: what ops do with a rules file before and after it goes live."""

from __future__ import annotations

from typing import ClassVar

import click

from gateway.cli.lazy import LazyGroup, Table


class _Rules(LazyGroup):
    table: ClassVar[Table] = {
        "replay": ("gateway.cli.rules_replay:replay", "Show whom a candidate file would refuse or let in."),
    }


@click.group(cls=_Rules, epilog="Example: gateway rules check rules/rules.yaml")
def rules() -> None:
    """Check, explain, test and replay rules."""
