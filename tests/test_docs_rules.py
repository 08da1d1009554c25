"""docs/rules.md and the sample rules: every example is read and judged, and nothing that can be written is missing."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from gateway.backends.rules_file import read_rules
from gateway.policy.conditions import CONDITIONS
from gateway.policy.limits import BY_NAME, LIMITS, read_limit
from gateway.policy.model import Claims, Facts, FileEntry, Limits, Place
from gateway.policy.ruleset import ACTIONS, RuleSet, Verdict

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/rules.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
EXAMPLES = list(zip(BLOCKS[::2], BLOCKS[1::2], strict=True))
OWN_LIST = "203.0.113.0/24  # the office"
Row = dict[str, object]


def facts(given: Row, rules: RuleSet) -> Facts:
    """What a row is given, with what a row leaves out as a request that nothing is known of."""
    left = dict(given)
    file, now = str(left.pop("file", "a.pdf")), left.pop("now", "2026-11-20T12:00:00+01:00")
    network = left.pop("network", None)
    types = None if network is None else frozenset([network] if isinstance(network, str) else network)
    place = Place(network=types, **{name: left.pop(name, None) for name in ("country", "continent", "region", "asn")})
    claims = Claims(
        issuer="shop.example.com",
        token_id="t",
        expires_at=1,
        files=(),
        tier=left.pop("tier", None),
        order_id=left.pop("order", None),
        customer_id=left.pop("customer", None),
    )
    made = Facts(
        claims=claims,
        file=FileEntry(None, file) if "://" in file else FileEntry(file),
        plan=left.pop("plan", rules.default_plan),
        address=ip_address(str(left.pop("ip", "198.51.100.99"))),
        place=place,
        method=str(left.pop("method", "GET")),
        user_agent=str(left.pop("user_agent", "Mozilla/5.0")),
        now=moment(now),
    )
    assert not left, f"a row gives {left}, which is no fact"
    return made


def moment(written: object) -> float:
    """Unix seconds; YAML's own timestamps come as UTC, with or without saying so."""
    found = written if isinstance(written, datetime) else datetime.fromisoformat(str(written))
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def said(verdict: Verdict) -> str:
    if verdict.allowed and verdict.account_rule is not None:
        return "require_account"
    return "allow" if verdict.allowed else "deny"


def check(row: Row, rules: RuleSet) -> None:
    asked = facts(row["given"], rules)
    verdict = rules.judge(asked)
    found: Row = {"given": row["given"], "expect": said(verdict)}
    if "by" in row:
        found["by"] = verdict.account_rule if found["expect"] == "require_account" else verdict.rule
    if "limits" in row:
        plan = rules.plans.get(asked.plan or "")
        found["limits"] = (plan.limits if plan else Limits()).tightened(verdict.limits)
        row = {**row, "limits": Limits(**{name: read_limit(name, each) for name, each in row["limits"].items()})}
    if "would_deny" in row:
        found["would_deny"] = list(verdict.would_deny)
    if "message" in row:
        found["message"] = verdict.message
    assert found == row


@pytest.mark.parametrize(("written", "rows"), EXAMPLES, ids=range(len(EXAMPLES)))
def test_an_example_does_what_the_page_says(tmp_path: Path, written: str, rows: str) -> None:
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists/own.txt").write_text(OWN_LIST)
    (tmp_path / "rules.yaml").write_text(written, encoding="utf-8")
    rules = read_rules(tmp_path / "rules.yaml", None)
    listed = YAML(typ="safe").load(rows)
    for row in listed:
        check(row, rules)
    verdicts = {str(row["by"]) for row in listed if "by" in row}
    assert {rule.name for rule in rules.rules if rule.then == "deny" and not rule.observe} <= verdicts


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
