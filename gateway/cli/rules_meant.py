"""Which rules a command is about: a file's, else the settings'."""

from __future__ import annotations

from pathlib import Path

from gateway.backends import rules_file
from gateway.bootstrap.files import read_rules
from gateway.cli.output import read_settings
from gateway.errors import GatewayError
from gateway.policy.ruleset import RuleSet


def rules_meant(file: Path | None, config: Path | None) -> tuple[Path, RuleSet]:
    """The rules and their path; whether their tests pass is not asked. Of a FILE no settings are needed, and it may
    ask any geo database. Raises SettingsError, and GatewayError where the settings name no rules.
    """
    if file is not None:
        return file, rules_file.read_rules(file, None)
    settings = read_settings(config)
    if settings.rules is None:
        raise GatewayError("the settings name no rules; write `rules: rules/rules.yaml` there, or name a file")
    return settings.rules, read_rules(settings, tested=False)
