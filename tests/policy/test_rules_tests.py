"""Tests of rules as they are written and what comes of them; docs/rules.md holds more of them that pass."""

from __future__ import annotations

from zoneinfo import ZoneInfo

import pytest

from gateway.document import Mistakes, Node
from gateway.policy.conditions import CONDITIONS
from gateway.policy.conditions.base import Reader
from gateway.policy.given import GivenReader
from gateway.policy.rules_reader import MISTAKES_MAX, read_ruleset
from gateway.policy.rules_tests import read_tests, run, unreached
from gateway.policy.ruleset import RuleSet
from gateway.yaml_file import Bounds, parse

RULES = """
version: 1
plans: {standard: {downloads: 5, rate: 20MB/s}, preview: {view: true}}
default_plan: standard
rules:
  - {name: office, when: {ip: 203.0.113.0/24}, then: allow}
  - {name: slow, when: {tier: free}, then: {limit: {rate: 1MB/s}}}
  - {name: trial, mode: observe, when: {tier: free}, then: deny}
  - {name: masters, when: {file: "masters/**"}, then: require_account}
  - {name: embargo, when: {country: IR}, then: deny, message: Not there.}
otherwise: allow
"""


def tree_of(text: str, mistakes: Mistakes) -> Node:
    tree = parse(text, lambda line: f"t:{line}", mistakes, Bounds("tests", 0, 1000))
    assert tree is not None
    return tree


def rules() -> RuleSet:
    mistakes = Mistakes()
    found = read_ruleset(tree_of(RULES, mistakes), Reader(CONDITIONS, mistakes, {}, (), ZoneInfo), "v")
    assert mistakes.report() == ""
    return found


def wrong(text: str) -> list[str]:
    mistakes = Mistakes()
    tests = read_tests(tree_of(text, mistakes), rules(), GivenReader(("standard", "preview"), mistakes))
    assert mistakes.report() == ""
    return [result.wrong for result in run(tests, rules())]


@pytest.mark.parametrize(
    ("test", "expected"),
    [
        ("{given: {}, expect: allow}", ""),
        ("{given: {}, expect: allow, by: otherwise}", ""),
        ("{given: {ip: 203.0.113.9, file: masters/a}, expect: allow, by: office, would_deny: []}", ""),
        ("{given: {file: masters/a}, expect: require_account, by: masters}", ""),
        ("{given: {file: masters/a, country: IR}, expect: deny, by: embargo, message: Not there.}", ""),
        ("{given: {account: true}, expect: require_account}", ""),
        ("{given: {view: true}, expect: deny}", ""),
        ("{given: {front: nginx}, expect: deny, by: otherwise}", ""),
        ("{given: {front: nginx, plan: preview}, expect: allow}", ""),
        ("{given: {front: mitm}, expect: allow}", "expected allow, is deny, for this front door cannot keep rate"),
        ("{given: {front: auth}, expect: deny, limits: {downloads: 5, rate: 20MB/s}}", ""),
        ("{given: {view: true, plan: preview}, expect: allow, limits: {}}", ""),
        ("{given: {file: 'https://cdn.example.com/a'}, expect: allow}", ""),
        (
            "{given: {tier: free}, expect: allow, limits: {downloads: 5, rate: 1MB/s}, would_deny: [trial]}",
            "",
        ),
        ("{given: {country: IR}, expect: deny, limits: {downloads: 5, rate: 20MB/s}}", ""),
        ("{given: {}, expect: deny}", "expected deny, is allow by otherwise"),
        (
            "{given: {country: PL}, expect: deny, by: embargo}",
            "expected deny by embargo, is allow by otherwise; embargo needs country: IR, but country is PL",
        ),
        (
            "{given: {ip: 203.0.113.9, country: IR}, expect: deny, by: embargo}",
            "expected deny by embargo, is allow by office (t:6); embargo comes later",
        ),
        (
            "{given: {ip: 203.0.113.9}, expect: allow, by: otherwise}",
            "expected allow by otherwise, is allow by office (t:6)",
        ),
        ("{given: {file: masters/a}, expect: allow}", "expected allow, is require_account by masters (t:9)"),
        ("{given: {account: true}, expect: allow}", "expected allow, is require_account by the link itself"),
        ("{given: {view: true}, expect: allow}", "expected allow, is deny, for the plan standard has no view"),
        (
            "{given: {tier: free}, expect: allow, limits: {downloads: 5, rate: 2MB/s, networks: 1}}",
            "expected networks 1, there is none; expected rate 2MB/s, is 1MB/s (rule slow)",
        ),
        ("{given: {}, expect: allow, limits: {rate: 20MB/s}}", "expected no limit downloads, is 5 (plan standard)"),
        ("{given: {tier: free}, expect: allow, would_deny: []}", "expected would_deny none, is trial"),
        ("{given: {}, expect: allow, message: Hm.}", "expected message 'Hm.', is none"),
        ("{given: {country: IR}, expect: deny, message: Hm.}", "expected message 'Hm.', is 'Not there.'"),
    ],
)
def test_what_comes_of_a_test(test: str, expected: str) -> None:
    assert wrong(f"[{test}]") == [expected]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "",
            ["1: is empty; write one `- {name: …, given: {country: IR}, expect: deny, by: embargo}` a test, or remove"],
        ),
        ("[]", ["1: is empty; write one"]),
        ("tests: []", ["1: is no list; write one"]),
        ("- a", ["1: tests[0]: is no test; write {name: "]),
        (
            "- {name: a}",
            [
                "1: tests[0].expect: is missing; write allow or deny or require_account",
                "1: tests[0].given: is missing; say of which request, such as given: {country: PL}",
            ],
        ),
        ("- {given: {}, expect: alow}", ["1: tests[0].expect: 'alow' is not what can stand here; write allow or"]),
        ("- {given: {}, expect: deny, by: embarg}", ["1: tests[0].by: embarg is no rule of the rules file; did you "]),
        ("- {given: {}, expect: deny, of: x}", ["1: tests[0].of: of is no key of a test; "]),
        ("- {given: {now: 1}, expect: deny}", ["1: tests[0].given.now: now is no fact of a request; "]),
        ("- {given: {}, expect: allow, limits: 5}", ["1: tests[0].limits: is no mapping; write {downloads: 5}, or {}"]),
        ("- {given: {}, expect: allow, limits: {rate: 2}}", ["1: tests[0].limits.rate: '2' is no rate; write"]),
        ("- {given: {}, expect: allow, would_deny: trial}", ["1: tests[0].would_deny: is no list; write [the-rule]"]),
        ("- {given: {}, expect: allow, would_deny: [tril]}", ["1: tests[0].would_deny[0]: tril is no rule of the "]),
        ("- {given: {}, expect: allow, name: ''}", ["1: tests[0].name: '' is empty; write a short text"]),
    ],
)
def test_a_file_of_tests_that_is_wrong(text: str, expected: list[str]) -> None:
    mistakes = Mistakes()
    read_tests(tree_of(text, mistakes), rules(), GivenReader(("standard", "preview"), mistakes))
    found = [line.removeprefix("t:") for line in mistakes.report().splitlines()]
    assert [line[: len(start)] for line, start in zip(found, expected, strict=True)] == expected


@pytest.mark.parametrize(
    ("tests", "expected"),
    [
        ("[{given: {ip: 203.0.113.9}, expect: allow}]", ("slow", "trial", "masters", "embargo", "otherwise")),
        ("[{given: {tier: free, file: masters/a}, expect: allow}]", ("office", "embargo")),
        (
            "[{given: {ip: 203.0.113.9}, expect: allow}, {given: {country: IR}, expect: deny}]",
            ("slow", "trial", "masters", "otherwise"),
        ),
        ("[{given: {view: true}, expect: deny}]", ("office", "slow", "trial", "masters", "embargo")),
    ],
)
def test_rules_that_no_test_reaches(tests: str, expected: tuple[str, ...]) -> None:
    mistakes = Mistakes()
    found = read_tests(tree_of(tests, mistakes), rules(), GivenReader(("standard",), mistakes))
    assert unreached(run(found, rules()), rules()) == expected


def test_failures_without_end_are_told_in_short_order() -> None:
    """20,000 tests that fail took twelve seconds at each reload, and said so in as many lines."""
    mistakes = Mistakes()
    reader = GivenReader(("standard", "preview"), mistakes)
    text = "- {given: {}, expect: allow}\n" + "- {given: {}, expect: deny}\n" * (MISTAKES_MAX + 3)
    tree = parse(text, lambda line: f"t:{line}", mistakes, Bounds("tests", 0, 10_000))
    assert tree is not None
    results = run(read_tests(tree, rules(), reader), rules())
    assert (len(results), results[0].wrong) == (MISTAKES_MAX + 2, "")
    assert results[-2].wrong == "expected deny, is allow by otherwise"
    assert results[-1].wrong == "3 not run, from this one on; correct the others first"
    assert results[-1].test.key == f"tests[{MISTAKES_MAX + 1}]"
