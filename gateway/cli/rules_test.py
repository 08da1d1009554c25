"""`gateway rules test`: runs the tests beside a rules file."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import click

from gateway.backends.rules_tests_file import results, tests_path
from gateway.cli.options import config_option, json_option
from gateway.cli.output import print_json, print_line
from gateway.cli.rules_meant import rules_meant
from gateway.document import Mistakes
from gateway.errors import GatewayError, SettingsError
from gateway.policy.rules_tests import Result, unreached
from gateway.policy.ruleset import RuleSet


@click.command(epilog="Example: gateway rules test rules/rules.yaml --coverage")
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False))
@click.option("--coverage", is_flag=True, help="Name the rules that no test reaches.")
@config_option
@json_option
def test(file: Path | None, config: Path | None, *, coverage: bool, as_json: bool) -> int:
    """Run tests.yaml, which lies beside the rules FILE (else the settings' one)."""
    path, rules = rules_meant(file, config)
    mistakes = Mistakes()
    found = results(path, rules, mistakes)
    if found is None:
        raise GatewayError(f"there is no {tests_path(path)}; write a test: - {{given: {{country: IR}}, expect: deny}}")
    if mistakes.keys:
        raise SettingsError(mistakes.report())
    failed = [each for each in found if each.wrong]
    missed = unreached(found, rules) if coverage else ()
    if as_json:
        print_json(_document(path, rules, found, missed if coverage else None))
    else:
        _print(rules, found, missed, coverage=coverage)
    return 1 if failed else 0


def _print(rules: RuleSet, found: Collection[Result], missed: Collection[str], *, coverage: bool) -> None:
    failed = [each for each in found if each.wrong]
    for each in failed:
        print_line(f"{each.test.node.source}: {each.test.shown}: {each.wrong}")
    if coverage:
        for name, source in _places(rules, missed).items():
            print_line(f"{source + ': ' if source else ''}{name}: no test reaches it")
        count = len(rules.rules) + 1
        print_line(f"{count - len(missed)} of {count} rules reached, otherwise among them")
    print_line(f"{len(found) - len(failed)} of {len(found)} tests passed")


def _document(
    path: Path, rules: RuleSet, found: Collection[Result], missed: Collection[str] | None
) -> dict[str, object]:
    failed = [
        {"source": each.test.node.source, "name": each.test.name, "wrong": each.wrong} for each in found if each.wrong
    ]
    document: dict[str, object] = {
        "rules": str(path),
        "version": rules.version,
        "tests": len(found),
        "passed": len(found) - len(failed),
        "failed": failed,
    }
    if missed is not None:
        places = _places(rules, missed)
        document["unreached"] = [{"rule": name, "source": source or None} for name, source in places.items()]
    return document


def _places(rules: RuleSet, names: Collection[str]) -> dict[str, str]:
    """Where each of them stands; of `otherwise` nothing."""
    sources = {rule.name: rule.source for rule in rules.rules}
    return {name: sources.get(name, "") for name in names}
