"""`gateway rules schema`: what an editor needs to complete and check a rules file while it is written."""

from __future__ import annotations

import json

import click

from gateway.policy.rules_schema import rules_schema


@click.command(epilog="Example: gateway rules schema > rules/rules.schema.json")
def schema() -> None:
    """Print the JSON Schema (2020-12) of rules files, for editors."""
    print(json.dumps(rules_schema(), indent=2))
