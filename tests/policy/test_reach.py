"""Rules that no request gets to: what is called so is so, and what ops do by mistake is found."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from ipaddress import ip_address
from itertools import product
from zoneinfo import ZoneInfo

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from gateway.document import Mistakes
from gateway.policy.conditions import CONDITIONS
from gateway.policy.conditions.base import Asks, Reader
from gateway.policy.conditions.combined import All, Any, Not
from gateway.policy.glob_ways import ways
from gateway.policy.globs import path_glob, word_glob
from gateway.policy.model import Claims, Facts, FileEntry, Place
from gateway.policy.reach import unreached
from gateway.policy.rules_reader import read_ruleset
from gateway.policy.ruleset import RuleSet, holds
from gateway.yaml_file import Bounds, parse

Written = Mapping[str, object]


def rules_of(written: str) -> RuleSet:
    mistakes = Mistakes()
    tree = parse(written, lambda line: f"r:{line}", mistakes, Bounds("rules", 0, 300_000))
    assert tree is not None, mistakes.report()
    rules = read_ruleset(tree, Reader(CONDITIONS, mistakes, {}, (), ZoneInfo), "v")
    assert not mistakes.keys, mistakes.report()
    return rules


def made(*rules: Written) -> RuleSet:
    """Rules r0, r1, … of these, each a deny unless it says more."""
    numbered = [{"name": f"r{at}", "then": "deny", **rule} for at, rule in enumerate(rules)]
    return rules_of(json.dumps({"version": 1, "rules": numbered, "otherwise": "allow"}))


def found(rules: RuleSet) -> dict[str, list[str]]:
    return {each.rule.name: [rule.name for rule in each.by] for each in unreached(rules.rules)}


def denied(**when: object) -> Written:
    return {"when": when}


EVE = "2026-12-24T00:00:00Z"


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ([denied(country="PL"), denied(country="PL", tier="x")], {"r1": ["r0"]}),
        ([denied(country="PL", tier="x"), denied(country="PL")], {}),
        ([denied(country=["PL", "DE"]), denied(country="DE")], {"r1": ["r0"]}),
        ([denied(country="PL"), denied(country=["PL", "DE"])], {}),
        ([denied(country="PL"), denied(country="DE"), denied(country=["PL", "DE"])], {"r2": ["r0", "r1"]}),
        ([denied(tier="x"), {**denied(country="PL"), "then": "allow"}, denied(country="PL")], {"r2": ["r1"]}),
        ([denied(country="unknown"), denied(**{"not": {"country": "PL"}}), denied(country="DE")], {"r2": ["r1"]}),
        # What does not decide takes nothing.
        ([{**denied(tier="x"), "mode": "observe"}, denied(tier="x")], {}),
        ([{**denied(tier="x"), "then": "require_account"}, denied(tier="x")], {}),
        ([{**denied(tier="x"), "then": {"limit": {"downloads": "1"}}}, denied(tier="x")], {}),
        # … but is as little reached behind what does.
        ([denied(tier="x"), {**denied(tier="x"), "mode": "observe"}], {"r1": ["r0"]}),
        ([denied(tier="x"), {**denied(tier="x"), "then": {"limit": {"downloads": "1"}}}], {"r1": ["r0"]}),
        ([denied(tier="x"), {**denied(tier="x"), "then": "require_account"}], {"r1": ["r0"]}),
        # Addresses.
        ([denied(ip="203.0.113.0/24"), denied(ip=["203.0.113.9", "203.0.113.128/25"])], {"r1": ["r0"]}),
        ([denied(ip="203.0.113.0/25"), denied(ip="203.0.113.0/24")], {}),
        ([denied(ip="192.0.2.0/25"), denied(ip="192.0.2.128/25"), denied(ip="192.0.2.0/24")], {"r2": ["r0", "r1"]}),
        ([denied(ip=["0.0.0.0/0", "::/0"]), denied(country="PL")], {"r1": ["r0"]}),
        ([denied(ip="0.0.0.0/0"), denied(country="PL")], {}),
        ([denied(ip="255.255.255.255"), denied(ip="255.255.255.254/31")], {}),
        # Patterns.
        ([denied(file="masters/**"), denied(file="masters/*.wav")], {"r1": ["r0"]}),
        ([denied(file="masters/*.wav"), denied(file="masters/**")], {}),
        ([denied(file="masters/*"), denied(file="masters/**/a.wav")], {}),
        ([denied(file="**"), denied(tier="x")], {"r1": ["r0"]}),
        ([denied(file="*"), denied(tier="x")], {}),
        ([denied(file="**/*.wav"), denied(file=["masters/a.wav", "b.wav"])], {"r1": ["r0"]}),
        ([denied(file="a*"), denied(file="*b"), denied(all=[{"file": "a*"}, {"file": "*b"}])], {"r2": ["r0"]}),
        ([denied(all=[{"file": "a*"}, {"file": "*b"}]), denied(file="a*")], {}),
        ([denied(user_agent="*bot*"), denied(user_agent="Google*Bot*")], {"r1": ["r0"]}),
        ([denied(user_agent="*"), denied(user_agent="")], {"r1": ["r0"]}),
        ([denied(user_agent="?*"), denied(user_agent="")], {}),
        # The rest of the facts.
        ([denied(method=["GET", "HEAD"]), denied(tier="x")], {"r1": ["r0"]}),
        ([denied(network=["vpn", "tor"]), denied(network="tor")], {"r1": ["r0"]}),
        ([denied(network=["hosting", "vpn", "proxy", "tor", "anonymous", "unknown"]), denied(tier="x")], {}),
        ([denied(before=EVE), denied(before="2026-12-23T00:00:00Z")], {"r1": ["r0"]}),
        ([denied(before=EVE), denied(after=EVE), denied(tier="x")], {"r2": ["r0", "r1"]}),
        ([denied(before=EVE), denied(after="2026-12-24T00:00:01Z"), denied(tier="x")], {}),
        ([denied(time={"days": "mon-sun"}), denied(tier="x")], {"r1": ["r0"]}),
        ([denied(time={"hours": "22:00-06:00"}), denied(time={"days": "tue", "hours": "01:00-02:00"})], {"r1": ["r0"]}),
        ([denied(time={"days": "mon", "hours": "22:00-06:00"}), denied(time={"days": "tue"})], {}),
        # Hours of two zones are taken to be free of each other, so this one is not found.
        ([denied(time={"hours": "00:00-24:00"}), denied(time={"hours": "01:00-02:00", "zone": "Europe/Warsaw"})], {}),
        # Rules that mean nobody.
        ([denied(all=[{"country": "PL"}, {"country": "DE"}])], {"r0": []}),
        ([denied(tier="x", **{"not": {"tier": ["x", "y"]}})], {"r0": []}),
        ([denied(after=EVE, before="2026-12-23T00:00:00Z")], {"r0": []}),
        ([denied(tier="y"), denied(all=[{"ip": "203.0.113.9"}, {"ip": "203.0.113.8"}]), denied(tier="x")], {"r1": []}),
        # One that takes all by itself is named alone; and what is not reached takes nothing from others.
        ([denied(tier="x"), denied(country="PL"), denied(tier="x", country="PL")], {"r2": ["r0"]}),
        ([denied(tier="x"), denied(tier="x"), denied(tier="x")], {"r1": ["r0"], "r2": ["r0"]}),
        ([denied(any=[{"tier": "x"}, {"order": "1"}]), denied(**{"not": {"any": [{"tier": "y"}], "order": "2"}}),
          denied(tier="x"), denied(order="2", tier="y"), denied(customer="c")],
         {"r2": ["r0"], "r4": ["r1", "r3"]}),
    ],
)  # fmt: skip
def test_what_is_never_reached_and_what_takes_it(rules: list[Written], expected: dict[str, list[str]]) -> None:
    assert found(made(*rules)) == expected


def test_a_search_that_takes_too_long_says_nothing() -> None:
    rules = made(denied(country="PL"), denied(country="DE"), denied(country=["PL", "DE"])).rules
    assert [each.rule.name for each in unreached(rules)] == ["r2"]
    assert list(unreached(rules, effort=3)) == []


def test_each_condition_can_be_looked_through() -> None:
    """One that is neither a leaf nor one of these would be left out."""
    assert all(issubclass(kind, Asks) or kind in (Any, All, Not) for kind in CONDITIONS.values())


# A claim must be right, whatever the rules: a world small enough that rules often are in each other's way.

MOMENTS = ["2026-11-20T00:00:00Z", "2026-11-21T12:00:00Z"]
SMALL: Written = {
    "country": ["PL", "DE", "unknown"],
    "ip": ["203.0.113.0/24", "203.0.113.9", "0.0.0.0/0", "::/0"],
    "network": ["vpn", "tor", "unknown"],
    "tier": ["x", "y"],
    "method": ["GET", "HEAD"],
    "file": ["a/**", "**/*.wav", "a/b.wav", "*", "**", "?/*"],
    "user_agent": ["*bot*", "w*", ""],
}
LEAVES = {
    **{
        key: st.sampled_from(words) | st.lists(st.sampled_from(words), min_size=1, max_size=3)
        for key, words in SMALL.items()
    },
    "before": st.sampled_from(MOMENTS),
    "after": st.sampled_from(MOMENTS),
    "time": st.sampled_from(
        [
            {"days": "fri-sat"},
            {"days": "fri", "hours": "22:00-06:00"},
            {"hours": "00:00-12:00"},
            {"hours": "00:00-12:00", "zone": "Europe/Warsaw"},
        ]
    ),
}


def whens(leaves: Mapping[str, st.SearchStrategy[object]]) -> st.SearchStrategy[Written]:
    def mapping(options: Mapping[str, st.SearchStrategy[object]]) -> st.SearchStrategy[Written]:
        keys = st.lists(st.sampled_from(sorted(options)), min_size=1, max_size=2, unique=True)
        return keys.flatmap(lambda chosen: st.fixed_dictionaries({key: options[key] for key in chosen}))

    def combined(inner: st.SearchStrategy[Written]) -> st.SearchStrategy[Written]:
        several = st.lists(inner, min_size=1, max_size=3)
        return mapping({**leaves, "any": several, "all": several, "not": inner})

    return st.recursive(mapping(leaves), combined, max_leaves=4)


def rules_from(leaves: Mapping[str, st.SearchStrategy[object]]) -> st.SearchStrategy[list[Written]]:
    thens = st.sampled_from(["allow", "deny", "deny", "require_account"])
    modes = st.sampled_from(["enforce", "enforce", "observe"])
    rule = st.fixed_dictionaries({"when": whens(leaves), "then": thens, "mode": modes})
    return st.lists(rule, min_size=1, max_size=7)


def facts(  # a value each, with what is not given as for a request that nothing is known of
    country: str | None = None,
    address: str = "198.51.100.1",
    network: frozenset[str] | None = None,
    tier: str | None = None,
    method: str = "GET",
    file: str = "z",
    agent: str = "",
    now: float = 0,
) -> Facts:
    claims = Claims(issuer="s", token_id="t", expires_at=1, files=(), tier=tier)
    place = Place(country=country, network=network)
    return Facts(claims, FileEntry(file), None, ip_address(address), place, method, agent, now)


TEXTS = {
    "country": [None, "PL", "DE", "NO"],
    "tier": [None, "x", "y", "z"],
    "method": ["GET", "HEAD"],
    "network": [None, frozenset(), frozenset({"vpn"}), frozenset({"vpn", "tor"})],
}
REQUESTS = st.builds(
    facts,
    country=st.sampled_from(TEXTS["country"]),
    address=st.sampled_from(["203.0.113.9", "203.0.113.8", "198.51.100.1", "::ffff:203.0.113.9", "2001:db8::1"]),
    network=st.sampled_from(TEXTS["network"]),
    tier=st.sampled_from(TEXTS["tier"]),
    method=st.sampled_from(TEXTS["method"]),
    file=st.sampled_from(["a/b.wav", "a/c/b.wav", "b.wav", "a", "ab/x", "b/x", "a/x/y"]),
    agent=st.sampled_from(["", "Wget/1", "a Bot", "wbot", "curl"]),
    now=st.integers(0, 400).map(lambda step: datetime(2026, 11, 18, tzinfo=UTC).timestamp() + 1800 * step),
)


def reached_by(rules: RuleSet, request: Facts) -> Iterator[str]:
    """The rules that this request gets to, in one naive pass."""
    for rule in rules.rules:
        if holds(rule.when, request):
            yield rule.name
            if not rule.observe and rule.then in ("allow", "deny"):
                return


# Making 40 requests smaller takes longer than a test may.
@settings(max_examples=120, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(rules_from(LEAVES), st.lists(REQUESTS, min_size=20, max_size=40))
def test_what_is_called_unreachable_decides_nothing(written: list[Written], requests: list[Facts]) -> None:
    rules = made(*written)
    claimed = found(rules)
    for request in requests:
        assert rules.judge(request).rule not in claimed
        assert claimed.keys().isdisjoint(reached_by(rules, request))


FEW = {key: LEAVES[key] for key in ("country", "network", "tier", "method")}


@settings(max_examples=120, deadline=None)
@given(rules_from(FEW))
def test_of_small_rule_sets_all_that_is_unreachable_is_found(written: list[Written]) -> None:
    """Every request there can be of these facts, one by one."""
    rules = made(*written)
    networks = [None, *(frozenset(kind for kind in kinds if kind) for kinds in product((None, "vpn"), (None, "tor")))]
    reached: set[str] = set()
    for country, tier, method, network in product(TEXTS["country"], TEXTS["tier"], TEXTS["method"], networks):
        reached.update(reached_by(rules, facts(country=country, tier=tier, method=method, network=network)))
    assert set(found(rules)) == {rule.name for rule in rules.rules} - reached


@settings(max_examples=120, deadline=None)
@given(rules_from(LEAVES))
def test_those_that_take_all_do_so_together_and_none_is_named_in_vain(written: list[Written]) -> None:
    rules = made(*written)
    for each in unreached(rules.rules):
        (last,) = [one for one in unreached((*each.by, each.rule)) if one.rule is each.rule]
        assert last.by == each.by
        for left_out in each.by:
            fewer = [rule for rule in each.by if rule is not left_out]
            assert all(one.rule is not each.rule for one in unreached((*fewer, each.rule)))


PATTERNS = st.text("ab*?/", min_size=1, max_size=6)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([path_glob, word_glob]),
    st.lists(st.lists(PATTERNS, min_size=1, max_size=3), min_size=1, max_size=3),
    st.lists(st.text("abc/", max_size=8), min_size=1, max_size=20),
)
def test_no_way_that_a_text_matches_patterns_is_missing(
    compiled: object, written: list[list[str]], texts: list[str]
) -> None:
    wild = [[compiled(text) for text in each if "*" in text or "?" in text] for each in written]
    exact = [frozenset(text for text in each if "*" not in text and "?" not in text) for each in written]
    possible = ways(list(zip(exact, wild, strict=True)))
    assert possible is not None
    for text in texts + [text for each in exact for text in each]:
        globbed = [text in exact[at] or any(glob.matches(text) for glob in wild[at]) for at in range(len(written))]
        assert sum(matched << at for at, matched in enumerate(globbed)) in possible


def test_patterns_that_take_too_long_say_nothing() -> None:
    many = [(frozenset(), [word_glob(f"*{letter}{letter}*")]) for letter in "abcdefghijklmnopqrst"]
    assert ways(many) is None
    assert ways(many[:4]) == set(range(16))


def test_many_rules_and_networks_are_looked_through_in_a_moment() -> None:
    shared = [f"10.{at >> 8 & 255}.{at & 255}.0/24" for at in range(10_000)]
    some = [
        denied(
            ip=f"192.0.{at}.0/24" if at % 3 else shared[: at * 20 + 1],
            country="PL",
            tier=f"t{at % 40}",
            file=f"f{at}/**/*.wav",
        )
        for at in range(40)
    ]
    rules = made(*some, denied(ip=shared), *(denied(ip=shared[at], customer=f"c{at}") for at in range(60)))
    began = time.process_time()
    assert found(rules).keys() >= {f"r{at}" for at in range(41, 101)}
    assert time.process_time() - began < 2
