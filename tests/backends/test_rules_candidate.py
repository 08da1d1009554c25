"""Suggestions in a rules file's text: only what is suggested changes, however the file is written."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from gateway.backends.rules_candidate import CurrentRules, Remarks
from gateway.errors import GatewayError, SettingsError
from gateway.policy.model import Limits
from gateway.policy.suggest import NO_PLAN, Block, Number, Suggested

ROOT = Path(__file__).parents[2]
TODAY = Remarks(date(2026, 11, 21), 30 * 86_400)


def suggested(plan: str = "a", blocks: bool = True, **limits: int) -> Suggested:
    numbers = [Number(plan, name, None, number, 10**12, [1], [None]) for name, number in limits.items()]
    rules = [Block("network", "tor", 30, 4, 1, []), Block("user_agent", "", 30, 4, 1, [])]
    return Suggested([*numbers, *(rules if blocks else [])], 1, 0, {})


def written(tmp_path: Path, text: str, what: Suggested) -> tuple[str, CurrentRules]:
    (tmp_path / "rules.yaml").write_text(text, encoding="utf-8", newline="")
    current = CurrentRules(tmp_path / "rules.yaml", None)
    return current.changed(what, TODAY)[0], current


FLOW = "version: 1\nplans:\n  a: {downloads: 5, view: true}  # kept\notherwise: allow\n"
BLOCK = "version: 1\nplans:\n  a:\n    downloads: 5      # kept\n\n  b: {}\notherwise: allow\n"
ALIAS = "version: 1\nplans:\n  a: &s {downloads: 5}\n  b: *s\notherwise: allow\n"
IN_LINES = "version: 1\nplans: {a: {\n    downloads: 5,\n    view: true\n  }, b: {}}\notherwise: allow\n"
EMPTY = "version: 1\nplans:\n  a: {}\n# for what no rule decides\notherwise: allow\n"
LAST = "otherwise: allow\nversion: 1\nplans:\n- {}\n".replace("- {}", "  a: {}")
WINDOWS = FLOW.replace("\n", "\r\n")
ONE_RULE = "rules:\n- name: x\n  when: {tier: a}\n  then: deny\n\n  # - {name: y}\n\n"


@pytest.mark.parametrize("text", [FLOW, BLOCK, ALIAS, IN_LINES, EMPTY, LAST, WINDOWS])
@pytest.mark.parametrize("rules", ["", ONE_RULE], ids=["none", "one"])
def test_the_suggested_numbers_and_rules_are_there_and_nothing_else_changes(tmp_path, text, rules) -> None:
    if rules:
        end = "\r\n" if "\r" in text else "\n"
        at = text.index("plans:") if text is LAST else text.index("otherwise")
        text = text[:at] + rules.replace("\n", end) + text[at:]
    new, current = written(tmp_path, text, suggested(downloads=3, networks=2))
    (tmp_path / "new.yaml").write_text(new, newline="")
    got = CurrentRules(tmp_path / "new.yaml", None).rules
    assert got.plans["a"].limits == Limits(downloads=3, networks=2)
    assert {name: plan for name, plan in got.plans.items() if name != "a"} == {
        name: plan for name, plan in current.rules.plans.items() if name != "a"
    }
    assert [(rule.name, rule.observe, rule.since) for rule in got.rules][-2:] == [
        ("suggested-network-tor", True, date(2026, 11, 21)),
        ("suggested-user-agent-none", True, date(2026, 11, 21)),
    ]
    assert got.rules[:-2] == current.rules.rules
    kept = [
        line
        for line in text.splitlines()
        if "downloads" not in line and "a: {}" not in line and "*s" not in line and "view: true\n" not in f"{line}\n"
    ]
    assert [line for line in new.splitlines() if line in kept and line] == [line for line in kept if line]
    assert new.count("# kept") == text.count("# kept")
    assert new.count("\r\n") in {0, new.count("\n")}


def test_the_sample_file_can_be_changed(tmp_path) -> None:
    sample = (ROOT / "rules/rules.yaml").read_text(encoding="utf-8")
    new, _ = written(tmp_path, sample, suggested("preview", downloads=3, networks=2))
    lines = sample.splitlines()
    kept = [line for line in lines if "  preview:" not in line]
    assert [line for line in new.splitlines() if line in kept] == kept
    assert "\n  preview: {valid_for: 1y, downloads: 3, view: true, networks: 2}\n" in new


def test_each_has_its_evidence_above_it(tmp_path) -> None:
    new, _ = written(tmp_path, BLOCK, suggested(downloads=3))
    lines = new.splitlines()
    assert lines[3].startswith(
        "    # suggested 2026-11-21: downloads no limit → 3; of 1 completed downloads in 30d none "
    )
    assert lines[4] == "    downloads: 3      # kept"
    rule = "  - {name: suggested-network-tor, mode: observe, since: 2026-11-21, when: {network: tor}, then: deny}"
    assert lines[7:10:2] == ["rules:", rule]


@pytest.mark.parametrize(
    "text",
    [
        "version: 1\notherwise: allow\n",
        "version: 1\nplans: {b: {}}\notherwise: allow\n",
        "version: 1\nplans:\n  # the other\n  b: {}\notherwise: allow\n",
    ],
)
def test_links_without_a_plan_get_one(tmp_path, text) -> None:
    new, current = written(tmp_path, text, suggested(NO_PLAN, downloads=3, blocks=False))
    (tmp_path / "new.yaml").write_text(new)
    got = CurrentRules(tmp_path / "new.yaml", None).rules
    assert got.default_plan == NO_PLAN
    assert got.plans[NO_PLAN].limits == Limits(downloads=3)
    assert {*got.plans} == {NO_PLAN, *current.rules.plans}


def test_a_gateway_without_rules_gets_a_file() -> None:
    new, rules = CurrentRules(None, None).changed(suggested(NO_PLAN, downloads=3), TODAY)
    assert new.startswith("version: 1\n")
    assert (rules.default_plan, len(rules.rules), rules.otherwise) == (NO_PLAN, 2, True)


def test_a_plan_with_too_few_downloads_says_so(tmp_path) -> None:
    new, _ = written(tmp_path, FLOW, Suggested([], 1, 0, {"a": 12, "": 3}))
    assert new == FLOW.replace("  a:", "  # nothing suggested 2026-11-21: only 12 completed downloads\n  a:")


@pytest.mark.parametrize(
    "text",
    [
        '{"version": 1, "plans": {"a": {}}, "otherwise": "allow"}\n',
        "version: 1\nplans: {a: {}}\nrules: [{name: x, when: {tier: a}, then: deny}]\notherwise: allow\n",
        "version: 1\nplans:\n  a: &s {downloads: &n 5}\n  b: {downloads: *n}\notherwise: allow\n",
    ],
)
def test_what_cannot_be_changed_alone_is_said(tmp_path, text) -> None:
    with pytest.raises(GatewayError, match="then try again"):
        written(tmp_path, text, suggested(downloads=3))


def test_a_wrong_file_is_told_as_at_a_load(tmp_path) -> None:
    with pytest.raises(SettingsError, match=r"rules\.yaml:1: vresion"):
        written(tmp_path, "vresion: 1\n", suggested())
