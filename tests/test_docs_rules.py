"""docs/rules.md and the sample rules: every example is read and judged, and nothing that can be written is missing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gateway.backends.rules_file import read_rules
from gateway.backends.rules_tests_file import BOUNDS
from gateway.cli.main import main
from gateway.document import Mistakes
from gateway.policy.conditions import CONDITIONS, INDEXED
from gateway.policy.given import KEYS as GIVEN_KEYS
from gateway.policy.given import GivenReader
from gateway.policy.limits import BY_NAME, LIMITS, read_limit
from gateway.policy.rules_tests import KEYS as TEST_KEYS
from gateway.policy.rules_tests import Result, read_tests, run
from gateway.policy.ruleset import ACTIONS, RuleSet
from gateway.yaml_file import parse

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/rules.md").read_text(encoding="utf-8")
PAGES = PAGE + (ROOT / "docs/rules-test.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```yaml\n(.*?)^```", PAGES, re.MULTILINE | re.DOTALL)
EXAMPLES = list(zip(BLOCKS[::2], BLOCKS[1::2], strict=True))
OWN_LIST = "203.0.113.0/24  # the office"


def judged(rules: RuleSet, rows: str) -> list[Result]:
    """What comes of the rows, which are tests as in rules/tests.yaml."""
    mistakes = Mistakes()
    tree = parse(rows, lambda line: f"rows:{line}", mistakes, BOUNDS)
    assert tree is not None, mistakes.report()
    tests = read_tests(tree, rules, GivenReader(tuple(rules.plans), mistakes))
    assert mistakes.report() == ""
    return run(tests, rules)


@pytest.mark.parametrize(("written", "rows"), EXAMPLES, ids=range(len(EXAMPLES)))
def test_an_example_does_what_the_page_says(tmp_path: Path, written: str, rows: str) -> None:
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists/own.txt").write_text(OWN_LIST)
    (tmp_path / "rules.yaml").write_text(written, encoding="utf-8")
    rules = read_rules(tmp_path / "rules.yaml", None)
    results = judged(rules, rows)
    assert [f"{each.test.node.source}: {each.wrong}" for each in results if each.wrong] == []
    named = {each.test.by for each in results}
    assert {rule.name for rule in rules.rules if rule.then == "deny" and not rule.observe} <= named


def test_the_page_says_what_its_list_file_holds() -> None:
    assert f"`{OWN_LIST}`" in PAGE


def rows_of(heading: str) -> str:
    """The first cells of the table under this heading."""
    section = PAGE.partition(f"| {heading} |")[2].partition("\n\n")[0]
    return " ".join(re.findall(r"^\| (.*?) \|", section, re.MULTILINE))


@pytest.mark.parametrize("key", CONDITIONS)
def test_every_condition_is_on_the_page_and_in_an_example(key: str) -> None:
    assert f"`{key}`" in rows_of("condition")
    assert any(re.search(rf"\b{key}: ", written) for written, _ in EXAMPLES)


@pytest.mark.parametrize("needs", sorted({kind.needs for kind in CONDITIONS.values() if kind.needs}))
def test_the_databases_that_conditions_need_are_on_the_page(needs: str) -> None:
    for kind in CONDITIONS.values():
        if kind.needs == needs:
            assert re.search(rf"^\| `{kind.key}` \|.*\| `geo\.{needs}`.* \|$", PAGE, re.MULTILINE)


@pytest.mark.parametrize("name", [limit.name for limit in LIMITS])
def test_every_limit_is_on_the_page_and_in_an_example(name: str) -> None:
    assert f"`{name}`" in rows_of("limit")
    written = re.search(rf"^\| `{name}` \| `(\S+)` \|", PAGE, re.MULTILINE)
    assert written is not None
    assert read_limit(name, int(written[1]) if BY_NAME[name].parse is None else written[1]) > 0
    assert any(f"{name}: " in rows for _, rows in EXAMPLES)


@pytest.mark.parametrize("action", ACTIONS)
def test_every_action_is_on_the_page_and_in_an_example(action: str) -> None:
    assert action in rows_of("`then`")
    assert any(re.search(rf"then: \{{?{action}\b", written) for written, _ in EXAMPLES)


@pytest.mark.parametrize("key", ["version", "otherwise", "plans", "default_plan", "lists", "rules"])
def test_every_top_key_is_on_the_page(key: str) -> None:
    assert f"`{key}`" in rows_of("key")


def test_the_sample_is_right_with_its_comments_taken_away_too(tmp_path: Path) -> None:
    sample = (ROOT / "rules/rules.yaml").read_text(encoding="utf-8")
    active = read_rules(ROOT / "rules/rules.yaml", ())
    opened = re.sub(r"^(  +)# (?=- |  |\w+: [\[{])", r"\1", sample, flags=re.MULTILINE)
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists/bad-networks.txt").write_text("192.0.2.0/24\n")
    (tmp_path / "rules.yaml").write_text(opened, encoding="utf-8")
    whole = read_rules(tmp_path / "rules.yaml", None)
    assert (active.needs, whole.needs) == (set(), {"city", "asn", "anonymous"})
    assert len(whole.rules) == len(active.rules) + 4


@pytest.mark.parametrize("key", TEST_KEYS)
def test_every_key_of_a_test_is_on_its_page(key: str) -> None:
    assert re.search(rf"^\| `{key}` \|", PAGES, re.MULTILINE)


@pytest.mark.parametrize("key", [kind.key for kind in INDEXED])
def test_a_condition_on_one_fact_among_values_has_rows_that_give_it_and_are_decided_by_it(key: str) -> None:
    decided = {
        name
        for written, _ in EXAMPLES
        for name in re.findall(rf"name: ([\w-]+), .*when: \{{.*\b{key}: .*then: (?:allow|deny|require)", written)
    }
    rows = [row for _, rows in EXAMPLES for row in rows.splitlines() if re.search(rf"given: \{{.*\b{key}: ", row)]
    assert any(f"by: {name}" in row for name in decided for row in rows), f"docs/rules.md has no row that gives {key}"


@pytest.mark.parametrize("key", [key for key in GIVEN_KEYS if key not in {kind.key for kind in INDEXED}])
def test_every_fact_that_can_be_given_is_on_its_page(key: str) -> None:
    assert re.search(rf"^\| (`\w+` )*`{key}`( `\w+`)* \|", PAGES.partition("| `given` |")[2], re.MULTILINE)


def test_the_page_on_explaining_shows_what_the_command_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rules.yaml").write_text(EXAMPLES[-1][0], encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs/rules-explain.md").read_text(encoding="utf-8")
    shown = re.search(r"^```console\n\$ gateway (rules explain --rules .*)\n((?:.|\n)*?)^```", page, re.MULTILINE)
    assert shown is not None
    with pytest.raises(SystemExit):
        main(shown[1].split())
    assert capsys.readouterr().out == shown[2]
