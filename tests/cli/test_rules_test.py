from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]
ROOT = Path(__file__).parents[2]
RULES = """version: 1
rules:
  - {name: embargo, when: {country: IR}, then: deny}
  - {name: slow, when: {tier: free}, then: {limit: {rate: 1MB/s}}}
otherwise: allow
"""
PASSES = "- {name: Iran, given: {country: IR}, expect: deny, by: embargo}\n"
FAILS = '- {name: "nobody \\u202e", given: {}, expect: deny, by: embargo}\n'


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    path = tmp_path / "rules.yaml"
    path.write_text(RULES)
    return path


def test_tests_that_pass(run: Run, rules: Path) -> None:
    rules.with_name("tests.yaml").write_text(PASSES)
    shown = run("rules", "test", "rules.yaml")
    assert (shown.returncode, shown.stdout, shown.stderr) == (0, "1 of 1 tests passed\n", "")


def test_one_that_fails_says_why_in_a_line_and_the_status_tells(run: Run, rules: Path) -> None:
    rules.with_name("tests.yaml").write_text(PASSES + FAILS)
    shown = run("rules", "test", "rules.yaml", "--coverage")
    assert shown.returncode == 1
    assert shown.stdout.splitlines() == [
        (
            'tests.yaml:2: tests[1]: "nobody \ufffd": expected deny by embargo, is allow by otherwise; '
            "embargo needs country: IR, but country is unknown"
        ),
        "rules.yaml:4: slow: no test reaches it",
        "2 of 3 rules reached, otherwise among them",
        "1 of 2 tests passed",
    ]


def test_json(run: Run, rules: Path) -> None:
    rules.with_name("tests.yaml").write_text(PASSES + FAILS)
    shown = run("rules", "test", "rules.yaml", "--json", "--coverage")
    assert shown.returncode == 1
    document = json.loads(shown.stdout)
    (failed,) = document.pop("failed")
    assert (failed["source"], failed["name"]) == ("tests.yaml:2", "nobody \u202e")
    assert failed["wrong"].startswith("expected deny by embargo, is allow by otherwise")
    assert len(document.pop("version")) == 12
    assert document == {
        "rules": "rules.yaml",
        "tests": 2,
        "passed": 1,
        "unreached": [{"rule": "slow", "source": "rules.yaml:4"}],
    }
    assert "unreached" not in json.loads(run("rules", "test", "rules.yaml", "--json").stdout)


def test_the_settings_rules_are_meant_where_no_file_is_named(run: Run, config: Path, rules: Path) -> None:
    shown = run("rules", "test", "--config", config)
    assert (shown.returncode, shown.stdout) == (1, "")
    assert "the settings name no rules; write `rules: rules/rules.yaml` there, or name a file" in shown.stderr
    config.write_text(f"{config.read_text()}rules: {rules}\n")
    shown = run("rules", "test", "--config", config)
    # The settings name no geo database, which this condition asks.
    assert (shown.returncode, "needs geo.city in the settings" in shown.stderr) == (1, True)
    rules.write_text(RULES.replace("country: IR", "tier: IR"))
    rules.with_name("tests.yaml").write_text(PASSES.replace("country", "tier"))
    assert run("rules", "test", "--config", config).stdout == "1 of 1 tests passed\n"


@pytest.mark.parametrize(
    ("tests", "line"),
    [
        (None, "there is no tests.yaml; write a test: - {given: {country: IR}, expect: deny}"),
        ("", "tests.yaml:1: is empty; write one `- "),
        (PASSES.replace("IR", "ir"), "tests.yaml:1: tests[0].given.country: 'ir' is no country code; write IR"),
    ],
)
def test_without_tests_there_is_nothing_to_pass(run: Run, rules: Path, tests: str | None, line: str) -> None:
    if tests is not None:
        rules.with_name("tests.yaml").write_text(tests)
    shown = run("rules", "test", "rules.yaml")
    assert (shown.returncode, shown.stdout) == (1, "")
    assert line in shown.stderr


def test_the_sample_s_tests_pass_and_reach_every_rule(run: Run) -> None:
    shown = run("rules", "test", ROOT / "rules/rules.yaml", "--coverage")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "no test reaches" not in shown.stdout
