"""`gateway rules …`: what ops do with a rules file before and after it goes live."""

from __future__ import annotations

from typing import ClassVar

import click

from gateway.cli.lazy import LazyGroup, Table


class _Rules(LazyGroup):
    table: ClassVar[Table] = {
        "check": ("gateway.cli.rules_check:check", "Every mistake in a rules file, and what was hardly meant."),
        "test": ("gateway.cli.rules_test:test", "Run the tests beside a rules file."),
        "explain": ("gateway.cli.rules_explain:explain", "Why a request is allowed or denied."),
        "replay": ("gateway.cli.rules_replay:replay", "Show whom a candidate file would refuse or let in."),
        "suggest": ("gateway.cli.rules_suggest:suggest_rules", "Tighter plans and rules that hit hardly any buyer."),
        "schema": ("gateway.cli.rules_schema:schema", "The JSON Schema of rules files, for editors."),
    }


@click.group(cls=_Rules, epilog="Example: gateway rules check rules/rules.yaml")
def rules() -> None:
    """Check, explain, test, replay and suggest rules."""
