"""Files of tests beside rules: a sentence for every mistake and each test that fails, and what passed was expected."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from engine import Target
from rules_targets import EVERYTHING, sentences

from gateway.backends.rules_file import read_rules
from gateway.backends.rules_tests_file import fail, results
from gateway.document import Mistakes
from gateway.policy.given import GivenReader, written
from gateway.policy.rules_tests import OUTCOMES, unreached
from gateway.policy.trace import rules_alone, trace
from gateway.yaml_file import Bounds, parse

_FOLDER = tempfile.TemporaryDirectory(prefix="fuzz-")
FILE = Path(_FOLDER.name) / "rules.yaml"
FILE.write_text(EVERYTHING, encoding="utf-8")
FILE.with_name("list.txt").write_text("203.0.113.0/24\n", encoding="utf-8")
TESTS = FILE.with_name("tests.yaml")
RULES = read_rules(FILE, None)
PASSES = """\
- given: {ip: "::ffff:192.0.2.7", country: PL, continent: EU, region: PL-14, asn: 64496, network: [tor, vpn], file: a/b}
  expect: allow
  by: office
  would_deny: []
- {name: x, given: {customer: c-1, user_agent: "", method: HEAD, tier: gold}, expect: deny, by: nested}
- {given: {plan: preview, view: true, file: b, country: PL, network: []}, expect: allow, limits: {}}
- {given: {time: "2026-11-20T12:00:00+01:00", account: true}, expect: require_account}
- {given: {front: nginx}, expect: deny}
"""
FAILS = """\
- {given: {country: CU}, expect: allow, would_deny: [tor], message: Hm., limits: {rate: 2MB/s, downloads: 5}}
- {given: {order: "10001", plan: preview}, expect: deny, by: bad}
"""
WORDS = (
    *(
        "given: {}",
        "expect: deny",
        "by: otherwise",
        "by: night",
        "limits: {}",
        "limits:",
        "would_deny: []",
        "- {",
        "- a",
    ),
    *("network: [unknown]", "network: [none, tor]", "time: 9999-12-31T23:59:59Z", "0001-01-01T00:00:00+14:00", "null"),
    *(
        "file: /",
        "https://a",
        "ip: '::'",
        "::",
        "unknown",
        "[]",
        "{}",
        "&a x",
        "*a",
        "!!str",
        "---",
        "'",
        '"',
        "# x",
    ),
    *(
        '"\\ud800"',
        '"\\e[2J"',
        "\u202e",
        "country: [PL]",
        "plan: gone",
        "view: true",
        "front: nginx",
        "front: side",
        "asn: 4294967295",
        "true",
        "PL",
    ),
)


def check(text: str) -> str:
    TESTS.write_bytes(text.encode("utf-8", "surrogatepass"))
    mistakes = Mistakes()
    found = results(FILE, RULES, mistakes)
    assert found is not None
    refused = bool(mistakes.keys)
    fail(found, mistakes)
    if mistakes.keys:
        sentences(mistakes.report())
        return "refused" if refused else "failed"
    assert found, "an empty file passed"
    unreached(found, RULES)
    for each in found:
        assert each.test.expect in OUTCOMES
        assert each.test.expect == trace(each.test.given, rules_alone(RULES, each.test.given.facts.file)).outcome
        again = GivenReader(tuple(RULES.plans), Mistakes())
        text = json.dumps(written(each.test.given))
        tree = parse(text, lambda line: f"t:{line}", again.mistakes, Bounds("tests", 0, 1000))
        assert tree is not None
        again.given(tree, "given")
        assert not again.mistakes.keys, f"explain writes what no test can be given: {again.mistakes.report()}"
    return "passed"


TARGETS = (Target("tests of rules", check, (PASSES, FAILS), WORDS, ("passed", "failed", "refused"), cpu=2.0),)
