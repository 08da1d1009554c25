"""How a decision is told: its gates, its rules, whose limits hold. That the rules' part is the verdict's is held by
test_ruleset's property.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network
from zoneinfo import ZoneInfo

import pytest

from gateway.document import Mistakes
from gateway.policy.conditions import CONDITIONS
from gateway.policy.conditions.base import Reader
from gateway.policy.decide import Policy
from gateway.policy.fronts import Waived
from gateway.policy.given import Given, GivenReader, nothing_known
from gateway.policy.model import Allow, Deny, Limits
from gateway.policy.orders import Holding
from gateway.policy.reasons import Reason
from gateway.policy.rules_reader import read_ruleset
from gateway.policy.ruleset import RuleSet
from gateway.policy.standing import Command, Standing
from gateway.policy.trace import InForce, Trace, rules_alone, trace
from gateway.yaml_file import Bounds, parse

RULES = """
version: 1
plans:
  standard: {valid_for: 30d, downloads: 5, rate: 20MB/s, valid_after_first: 72h}
  preview: {view: true}
default_plan: standard
lists: {embargoed: [CU, IR]}
rules:
  - {name: embargo, when: {country: $embargoed}, then: deny, message: Not there.}
  - {name: slow, when: {tier: free}, then: {limit: {rate: 1MB/s, downloads: 9}}}
  - {name: trial, mode: observe, when: {tier: free}, then: {limit: {networks: 1}}}
  - name: odd
    when: {not: {any: [{tier: [free]}, {all: [{country: PL}, {network: vpn}, {tier: [gold]}]}]}}
    then: deny
  - {name: night, when: {time: {hours: "22:00-06:00", zone: Europe/Warsaw}}, then: deny}
  - {name: later, when: {after: 2026-11-28T00:00:00+01:00}, then: deny}
  - {name: office, when: {ip: 203.0.113.0/24, user_agent: "*bot*"}, then: allow}
  - {name: masters, when: {file: "masters/**"}, then: require_account}
otherwise: allow
"""


RATE_AT_NGINX: Waived = {"nginx": frozenset({"rate"})}


def rules() -> RuleSet:
    mistakes = Mistakes()
    tree = parse(RULES, lambda line: f"rules/rules.yaml:{line}", mistakes, Bounds("rules", 0, 1000))
    assert tree is not None
    lists = {"embargoed": tree.value["lists"].value["embargoed"].value}
    found = read_ruleset(tree, Reader(CONDITIONS, mistakes, lists, (), ZoneInfo), "v")
    assert mistakes.report() == ""
    return found


def asked(text: str) -> Given:
    mistakes = Mistakes()
    tree = parse(text, lambda line: f"t:{line}", mistakes, Bounds("tests", 0, 1000))
    found = GivenReader(("standard", "preview"), mistakes).given(tree, "given")
    assert mistakes.report() == ""
    return found


def told(text: str) -> Trace:
    given = asked(text)
    return trace(given, rules_alone(rules(), given.facts.file))


def test_every_rule_on_the_way_says_what_failed_and_what_it_saw() -> None:
    found = told("{tier: free, country: DE, ip: 198.51.100.1, time: 2026-11-20T12:00:00+01:00, file: a.pdf}")
    assert [(step.rule.name, step.failed, step.seen) for step in found.steps] == [
        ("embargo", "country: $embargoed", "country is DE"),
        ("slow", "", "tier is free"),
        ("trial", "", "tier is free"),
        (
            "odd",
            "not: {any: [{tier: [free]}, {all: [{country: PL}, {network: vpn}, {tier: [gold]}]}]}",
            "tier is free, country is DE, network is unknown",
        ),
        ("night", "time: {hours: 22:00-06:00, zone: Europe/Warsaw}", "time is fri 12:00 in Europe/Warsaw"),
        ("later", "after: 2026-11-28T00:00:00+01:00", "after is 2026-11-20T11:00:00Z"),
        ("office", "ip: 203.0.113.0/24", "ip is 198.51.100.1"),
        ("masters", "file: masters/**", "file is a.pdf"),
    ]
    assert [step.rule.source for step in found.steps[:2]] == ["rules/rules.yaml:9", "rules/rules.yaml:10"]
    assert (found.outcome, found.decision.rule, found.refused_at) == ("allow", "otherwise", None)


def test_the_first_condition_that_fails_is_named_and_no_rule_behind_the_deciding_one() -> None:
    office = told("{tier: free, ip: 203.0.113.9, time: 2026-11-20T12:00:00+01:00}")
    step = next(step for step in office.steps if step.rule.name == "office")
    assert (step.failed, step.seen) == ("user_agent: *bot*", "user_agent is mozilla/5.0")
    denied = told("{country: IR}")
    assert [(step.rule.name, step.decides, step.seen) for step in denied.steps] == [("embargo", True, "country is IR")]
    assert (denied.outcome, denied.refused_at) == ("deny", "rules")


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("{network: [], tier: x}", "tier is x, country is unknown, network is none of these types"),
        ("{network: [vpn, tor], country: PL}", "tier is none, country is PL, network is tor vpn"),
    ],
)
def test_what_is_not_known_and_what_is_none(text: str, seen: str) -> None:
    assert next(step.seen for step in told(text).steps if step.rule.name == "odd") == seen


def test_whose_limits_are_in_force() -> None:
    given = asked("{tier: free, time: 2026-11-20T12:00:00+01:00}")
    claims = replace(given.facts.claims, limits=Limits(networks=2, downloads=7))
    given = replace(given, facts=replace(given.facts, claims=claims))
    found = trace(given, rules_alone(rules(), given.facts.file))
    assert found.limits == (
        InForce("downloads", 5, "plan standard"),
        InForce("networks", 2, "token"),
        InForce("rate", 1_000_000, "rule slow"),
        InForce("valid_after_first", 259_200, "plan standard"),
    )
    assert isinstance(found.decision, Allow)
    assert found.decision.limits == Limits(**{each.name: each.value for each in found.limits})


@pytest.mark.parametrize(
    ("front", "waived", "states"),
    [
        ("http", {}, {"kept"}),
        ("nginx", {}, {"kept", "unkept"}),
        ("nginx", RATE_AT_NGINX, {"kept", "waived"}),
        ("mitm", RATE_AT_NGINX, {"kept", "unkept"}),
    ],
)
def test_what_the_door_makes_of_each_limit(front: str, waived: Waived, states: set[str]) -> None:
    given = asked(f"{{tier: free, front: {front}}}")
    found = trace(given, Policy(rules(), Standing(), waived=waived))
    assert {each.state for each in found.limits} == states
    assert {each.name for each in found.limits if each.state != "kept"} <= {"rate"}
    unkept = isinstance(found.decision, Deny) and found.decision.reason is Reason.LIMIT_UNKEPT
    assert unkept == ("unkept" in states)
    assert isinstance(found.decision, Deny) or found.decision.waived == (("rate",) if "waived" in states else ())


def test_an_extension_ends_valid_after_first() -> None:
    given = asked("{tier: free}")
    standing = Standing()
    standing.apply(Command("extend", 1, token_key=given.facts.claims.token_key, expires_at=9))
    assert "valid_after_first" not in [each.name for each in trace(given, Policy(rules(), standing)).limits]


def _revoked(given: Given) -> Policy:
    standing = Standing()
    standing.apply(Command("revoke", 1, token_key=given.facts.claims.token_key))
    return Policy(rules(), standing)


@pytest.mark.parametrize(
    ("text", "policy", "gate"),
    [
        ("{tier: free}", _revoked, "revoked"),
        ("{}", lambda _: Policy(rules(), Standing(), (), Holding(False, {})), "order"),
        ("{}", lambda _: Policy(rules(), Standing(), (), Holding(True, {})), "order"),
        ("{file: 'https://cdn.example.com/a'}", lambda _: Policy(rules(), Standing()), "token"),
        ("{country: IR, account: true}", lambda _: Policy(rules(), Standing()), "rules"),
        ("{tier: free, file: masters/a, view: true}", lambda _: Policy(rules(), Standing()), "account"),
        ("{tier: free, account: true}", lambda _: Policy(rules(), Standing()), "account"),
        ("{tier: free, view: true}", lambda _: Policy(rules(), Standing()), "view"),
        ("{tier: free, view: true, plan: preview}", lambda _: Policy(rules(), Standing()), None),
        ("{tier: free, view: true, front: nginx}", lambda _: Policy(rules(), Standing()), "view"),
        ("{tier: free, front: nginx}", lambda _: Policy(rules(), Standing()), "door"),
        ("{tier: free, front: nginx}", lambda _: Policy(rules(), Standing(), waived=RATE_AT_NGINX), None),
        ("{tier: free, front: auth}", lambda _: Policy(rules(), Standing(), waived=RATE_AT_NGINX), "door"),
    ],
)
def test_where_it_was_refused(text: str, policy: object, gate: str | None) -> None:
    given = asked(text)
    found = trace(given, policy(given))
    assert found.refused_at == gate
    assert isinstance(found.decision, Deny) == (gate is not None)
    assert bool(found.steps) == (gate not in ("revoked", "order", "token"))


def test_a_token_for_other_networks_and_one_without_its_plan() -> None:
    given = nothing_known()
    claims = replace(given.facts.claims, ip=(ip_network("192.0.2.0/24"),))
    elsewhere = Given(replace(given.facts, claims=claims))
    assert trace(elsewhere, Policy(rules(), Standing())).refused_at == "token"
    gone = Given(replace(given.facts, claims=replace(given.facts.claims, plan="gone")))
    found = trace(gone, Policy(rules(), Standing()))
    assert (found.refused_at, found.plan, found.steps, found.limits) == ("token", None, (), ())
