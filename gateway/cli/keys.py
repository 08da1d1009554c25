"""`gateway keys new`."""

from __future__ import annotations

import json

import click

from gateway.backends.keygen import generate, verification_fields
from gateway.cli.options import json_option
from gateway.cli.output import print_json
from gateway.policy.keys import ALGORITHMS


@click.group(epilog="Example: gateway keys new --kid 2026-11")
def keys() -> None:
    """Make signing keys."""


@keys.command(epilog="Example: gateway keys new --kid 2026-11 --alg EdDSA")
@click.option("--kid", required=True, help="The key's id, which every token names; the month will do.")
@click.option("--alg", type=click.Choice(ALGORITHMS), default="HS256", show_default=True)
@json_option
def new(kid: str, alg: str, as_json: bool) -> None:
    """Print a new signing key, to paste under `keys:` in the settings."""
    try:
        fields = generate(kid, alg)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if as_json:
        print_json(fields)
        return
    text = _yaml(fields)
    if "private_key" in fields:
        half = _yaml(verification_fields(fields)).splitlines()
        text = "\n".join([text, "# Where links are only verified, this is enough:", *(f"# {line}" for line in half)])
    print(text, flush=True)


def _yaml(fields: dict[str, str]) -> str:
    """One entry of a YAML list; what JSON quotes is quoted for YAML 1.2 as well."""
    lines = []
    for name, value in fields.items():
        if "\n" in value:
            lines += [f"{name}: |", *(f"  {line}" for line in value.splitlines())]
        else:
            lines.append(f"{name}: {json.dumps(value)}")
    return "- " + "\n  ".join(lines)
