"""docs/recipes.md: every recipe is pasted, checked, tested and shown, and its commands are typed, as the page says."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]
PAGE = (Path(__file__).parents[2] / "docs/recipes.md").read_text(encoding="utf-8")
TITLES = (
    *("Embargo", "Office only", "Previews free, masters restricted", "Campaign window", "Slow abroad"),
    *("No hosting networks, but Apple's Private Relay", "Staged roll-out", "Lock one order for a while"),
    *("Open a link for support", "Freeze"),
)
LATER = re.compile(r"freeze|thaw|rules replay")
"""What tests/cli/test_docs_recipes_live.py runs."""
EGRESS = (
    "172.224.226.0/27,GB,GB-EN,London,\n172.224.226.32/31,GB,GB-SC,Aberdeen,\n"
    "2a02:26f7:c000:4000::/64,DE,DE-BE,Berlin,\n\n"
)
"""In the form of Apple's list."""


@dataclass(frozen=True)
class Recipe:
    """One section. `shown`: its commands with what they print; `typed`: those of which no output is shown."""

    text: str
    rules: str
    rows: str
    shown: tuple[tuple[str, str], ...]
    typed: tuple[str, ...]
    shell: tuple[str, ...]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def recipe(text: str) -> Recipe:
    rules, rows = blocks(text, "yaml")
    (console,) = blocks(text, "console")
    lines = [line for block in blocks(text, "sh") for line in block.splitlines()]
    shown = re.findall(r"^\$ gateway (.*)\n((?:(?!\$ ).*\n)*)", console, re.MULTILINE)
    typed = tuple(line.removeprefix("gateway ") for line in lines if line.startswith("gateway "))
    shell = tuple(line for line in lines if not line.startswith("gateway "))
    return Recipe(text, rules, rows, tuple(shown), typed, shell)


SECTIONS = dict(re.findall(r"^## \d+\. (.*)\n((?:(?!^## ).*\n)*)", PAGE, re.MULTILINE))
RECIPES = {title: recipe(text) for title, text in SECTIONS.items()}

WRITTEN = datetime(2026, 11, 20, tzinfo=UTC).timestamp()


def pasted(found: Recipe, here: Path) -> None:
    """The recipe where the page says, its list made by its own commands."""
    (here / "egress.csv").write_text(EGRESS)
    for line in found.shell:
        if not line.startswith("curl "):
            subprocess.run(["/bin/sh", "-ec", line], cwd=here, check=True, timeout=10)
    (here / "rules/rules.yaml").write_text(found.rules, encoding="utf-8")
    (here / "rules/tests.yaml").write_text(found.rows, encoding="utf-8")


def test_the_ten_are_there_each_with_rows_and_the_way_back() -> None:
    assert tuple(RECIPES) == TITLES
    for found in RECIPES.values():
        assert found.rows.startswith("- {"), "a recipe without rows shows nothing"
        assert re.search(r"expect: (deny|allow, limits: \{rate|allow, by: \S+, would_deny)", found.rows)
        assert all(f"\n*{word}" in found.text for word in ("When:*", "Back:*", "It does not*"))


@pytest.mark.parametrize("title", TITLES)
def test_a_recipe_is_good_passes_its_tests_and_prints_what_the_page_shows(
    run: Run, here: Path, title: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The page's dates are not over yet on the day that it was written.
    monkeypatch.setattr("gateway.cli.rules_check.time", SimpleNamespace(time=lambda: WRITTEN))
    found = RECIPES[title]
    pasted(found, here)
    assert [command.partition(" --ip")[0].split(" --")[0] for command, _ in found.shown] == [
        *("rules check", "rules test", "rules explain")
    ]
    for command, output in found.shown:
        said = run(*command.split())
        assert (said.stdout, said.stderr, said.returncode) == (output, "", 0)
    coverage = json.loads(run("rules", "test", "--coverage", "--json").stdout)
    assert (coverage["unreached"], coverage["failed"]) == ([], [])


@pytest.mark.parametrize("title", [title for title, found in RECIPES.items() if found.typed])
def test_its_commands_do_what_they_are_for(run: Run, here: Path, title: str) -> None:
    found = RECIPES[title]
    pasted(found, here)
    candidate(here)
    run("link", "create", "--order", "10001", "--file", "ebooks/sea.pdf", "--expires", "1h")
    for command in found.typed:
        if LATER.match(command) is None:
            said = run(*re.findall(r'"[^"]+"|\S+', command))
            assert said.returncode == 0, (command, said.stderr)


def candidate(here: Path) -> None:
    """What the seventh recipe says of its candidate."""
    found = RECIPES["Staged roll-out"]
    (here / "rules-new").mkdir()
    (here / "rules-new/rules.yaml").write_text(found.rules.replace("mode: observe, ", ""))
    old = "expect: allow, by: otherwise, would_deny: [no-bulk-agents]"
    assert old in found.rows
    (here / "rules-new/tests.yaml").write_text(found.rows.replace(old, "expect: deny, by: no-bulk-agents"))


def test_the_way_there_and_back_can_be_gone_again_and_again(tmp_path: Path) -> None:
    steps = PAGE.partition("## 1.")[0]
    copy, *moves = re.findall(r"`((?:rm|mv) [^`]*)`", steps)
    there, back = moves
    (tmp_path / "rules").mkdir()
    rules = tmp_path / "rules/rules.yaml"
    rules.write_text("0")

    def do(line: str) -> str:
        subprocess.run(["/bin/sh", "-ec", line], cwd=tmp_path, check=True, timeout=10)
        return rules.read_text()

    for number in "12":
        before = do(copy)
        (tmp_path / "rules-new/rules.yaml").write_text(number)
        assert (do(there), do(back)) == (number, before)
        do(copy)
        (tmp_path / "rules-new/rules.yaml").write_text(number)
        assert do(there) == number


def test_support_gets_one_download_more_and_the_old_link_lives_again(run: Run, here: Path) -> None:
    found = RECIPES["Open a link for support"]
    pasted(found, here)
    run("link", "create", "--order", "10001", "--file", "ebooks/sea.pdf", "--expires", "1s")
    shown = [run(*command.split(), "--json") for command in found.typed]
    assert [said.returncode for said in shown] == [0, 0, 0]
    links = {link["extended"]: link for link in json.loads(shown[-1].stdout)}
    assert (links[True]["state"], links[False]["state"]) == ("valid", "valid")
    assert links[False]["limits"]["downloads"] == 1


@pytest.mark.parametrize(
    ("title", "option", "expected"),
    [
        ("Lock one order for a while", (), "deny rule.denied by lock-10001"),
        ("Open a link for support", ("--network", "vpn"), "allow by support-10001"),
    ],
)
def test_a_real_link_of_the_order_is_meant_until_the_hour_has_come(
    run: Run, here: Path, title: str, option: tuple[str, ...], expected: str
) -> None:
    pasted(RECIPES[title], here)
    link = run("link", "create", "--order", "10001", "--file", "ebooks/sea.pdf", "--expires", "1y").stdout.strip()

    def at(time: str) -> str:
        return run("rules", "explain", "--link", link, *option, "--time", time).stdout

    assert at("2026-11-20T18:00:00+01:00").startswith(expected)
    assert not at("2026-11-23T09:00:00+01:00").startswith(expected)


INLINE = sorted(set(re.findall(r"(?:`|^\$ |^)gateway ([a-z][^`\n|]*)", PAGE, re.MULTILINE)))


@pytest.mark.parametrize("command", [command for command in INLINE if LATER.match(command) is None])
def test_a_command_that_the_page_names_is_there_with_its_options(run: Run, command: str) -> None:
    names_its_options(run, command)


def names_its_options(run: Run, command: str) -> None:
    words = re.match(r"[a-z]+( [a-z]+(?= |$))?", command)
    assert words is not None
    told = run(*words[0].split(), "--help")
    assert told.returncode == 0
    assert [option for option in re.findall(r"--[a-z-]+", command) if option not in told.stdout] == []
