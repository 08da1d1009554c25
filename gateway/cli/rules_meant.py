"""Which rules a command is about: a file's, else the settings'."""

from __future__ import annotations

from pathlib import Path

import click

from gateway.backends import rules_file
from gateway.bootstrap.files import read_rules
from gateway.cli.output import read_settings
from gateway.errors import GatewayError, SettingsError
from gateway.policy.ruleset import RuleSet


def rules_meant(file: Path | None, config: Path | None) -> tuple[Path, RuleSet]:
    """The rules and their path. Of a FILE no settings are needed, and it may ask any geo database; where a test of the
    settings' own fails, that is said on stderr, for then a running gateway has other rules.

    Raises SettingsError, and GatewayError where the settings name no rules.
    """
    if file is not None:
        return file, rules_file.read_rules(file, None)
    settings = read_settings(config)
    if settings.rules is None:
        raise GatewayError("the settings name no rules; write `rules: rules/rules.yaml` there, or name a file")
    try:
        return settings.rules, read_rules(settings)
    except SettingsError:
        rules = read_rules(settings, tested=False)
    said = "a test of these rules fails, so a running gateway keeps the ones before: see `gateway rules test`"
    click.echo(f"Warning: {said}", err=True)
    return settings.rules, rules
