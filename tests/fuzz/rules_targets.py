"""Rules and settings files: a sentence for every mistake, within bounds, and no condition that lost what it asks."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from ipaddress import ip_address
from pathlib import Path
from random import Random
from zoneinfo import ZoneInfo

from engine import Target
from mutate import Value

from gateway.backends.rules_file import read_rules
from gateway.document import Mistakes, Node, plain
from gateway.errors import SettingsError
from gateway.policy.conditions import CONDITIONS
from gateway.policy.conditions.base import Reader, holds
from gateway.policy.conditions.combined import All, Any, Not
from gateway.policy.conditions.requests import Patterns
from gateway.policy.model import NETWORK_TYPES, Claims, Facts, FileEntry, Limits, Place
from gateway.policy.networks import NetworkSet
from gateway.policy.rules_reader import read_ruleset
from gateway.policy.ruleset import OTHERWISE, RuleSet, Verdict
from gateway.settings import load
from gateway.yaml_file import Bounds, parse

ROOT = Path(__file__).parents[2]
_FOLDER = tempfile.TemporaryDirectory(prefix="fuzz-")
FOLDER = Path(_FOLDER.name)
FILE = FOLDER / "rules.yaml"
(FOLDER / "list.txt").write_text("203.0.113.0/24  # one\n\n2001:db8::/32\n", encoding="utf-8")

EVERYTHING = """\
version: 1
plans:
  standard: {valid_for: 30d, downloads: 5, networks: 3, devices: 4, concurrent: 2, rate: 20MB/s, valid_after_first: 72h}
  preview: &preview {valid_for: 1y, view: true}
default_plan: standard
lists:
  office: [203.0.113.0/24, "2001:db8:42::/48", 192.0.2.7]
  bad: {file: list.txt}
  agents: ["wget/*", "*bot?", ""]
rules:
  - {name: office, when: {ip: $office}, then: allow}
  - name: embargo
    when: {country: [CU, unknown], continent: EU, region: PL-14}
    then: deny
    message: Not available in your country.
  - {name: tor, when: {network: [tor, vpn], asn: [64496, unknown]}, then: require_account, mode: observe}
  - {name: masters, when: {file: ["masters/**", "*.wav", "a/?/**/b"], not: {tier: gold}}, then: deny}
  - name: night
    when: {time: {days: [fri-mon, wed], hours: ["22:00-06:00"], zone: Europe/Warsaw}, method: GET}
    then: {limit: {rate: 2MB/s, concurrent: 1}}
  - {name: season, when: {after: 2026-01-01T00:00:00Z, before: "2026-12-24T00:00:00+01:00"}, then: allow}
  - name: nested
    when:
      any: [{order: "10001", plan: preview}, {all: [{customer: c-1}, {user_agent: [$agents, "curl*"]}]}]
    then: deny
  - {name: bad, when: {ip: [$bad, $office, 198.51.100.1]}, then: deny, mode: enforce}
otherwise: allow
"""
SAMPLE = (ROOT / "rules" / "rules.yaml").read_text(encoding="utf-8")
_WORDS = (
    *(
        "version: 1",
        "otherwise: deny",
        "then: deny",
        "then: allow",
        "when: {}",
        "when:",
        "country:",
        "country: []",
        "[]",
    ),
    *(
        "{}",
        "null",
        "~",
        "$office",
        "$none",
        "*a",
        "&a x",
        "*preview",
        "<<: *preview",
        "!!str",
        "!x",
        "---",
        "...",
        "|",
        ">-",
    ),
    *(
        "? a\n: b",
        "%YAML 1.1",
        "\t",
        "# x",
        "'",
        '"',
        "\\",
        '"\\x41"',
        '"\\ud800"',
        '"\\U99999999"',
        "''",
        "no",
        "0o17",
    ),
    *("mode: observe", "any: [{}]", "all: []", "not: {}", "not: {not: {country: PL}}", "file: '**'", "ip: 0.0.0.0/0"),
    *("ip: ::/0", "::ffff:1.2.3.4/96", "days: mon-mon", 'hours: "00:00-24:00"', "zone: ../etc", "9999-12-31T23:59:59Z"),
)
_SOURCED = re.compile(r"(?:[^\n:]*rules\.yaml|[^\n]*list\.txt|[^\n]*)(?::[0-9]+)?: [^\n]+")


def _facts(rng: Random) -> Facts:
    one = rng.choice
    address = ip_address(
        one(("203.0.113.9", "198.51.100.1", "192.0.2.7", "2001:db8:42::7", "::ffff:203.0.113.1", "::"))
    )
    claims = Claims(
        issuer="shop",
        token_id="t",
        expires_at=2_000_000_000,
        files=(FileEntry("a"),),
        customer_id=one((None, "c-1", "c-2")),
        order_id=one((None, "10000", "10001")),
        tier=one((None, "gold", "partner")),
    )
    networks = one((None, frozenset(), frozenset({one(NETWORK_TYPES)}), frozenset(NETWORK_TYPES)))
    country, region = one(((None, None), ("PL", "PL-14"), ("CU", None), ("US", "US-CA")))
    return Facts(
        claims=claims,
        file=one(
            (FileEntry("masters/a.wav"), FileEntry("a/b/c/b"), FileEntry(None, "https://h/x?y"), FileEntry("*\n?"))
        ),
        plan=one((None, "standard", "preview")),
        address=address,
        place=Place(country, one((None, "EU")), region, None, one((None, 64496)), networks),
        method=one(("GET", "HEAD")),
        user_agent=one(("", "Wget/1.21", "a bot1", "x" * 4000, "\udce9\x00")),
        now=one((0.0, 1_767_225_600.5, 1_774_746_000.0, 1_798_066_800.0, 4_102_444_800.0)),
    )


FACTS = [_facts(Random(number)) for number in range(40)]


def sentences(report: str) -> None:
    """Every line says where, and nothing in it acts on a terminal."""
    lines = report.split("\n")
    assert lines != [""], "refused without a word"
    for line in lines:
        assert _SOURCED.fullmatch(line), f"no sentence with a place: {line!a}"
        assert line.isprintable()
        assert len(line) < 1500 + len(str(FOLDER)), "a novel"


def judged(rules: RuleSet) -> str:
    """The rules as they loaded: nothing is empty, and the index answers as asking one rule after the other does."""
    for rule in rules.rules:
        assert rule.when, "a rule without conditions means everyone"
        for condition in rule.when:
            filled(condition)
    verdicts = [rules.judge(facts) for facts in FACTS]
    assert verdicts == [naively_judged(rules, facts) for facts in FACTS], "the index and the rules disagree"
    return "loaded"


def filled(value: object) -> None:
    """No part of a condition is empty (trap 23)."""
    if isinstance(value, NetworkSet):
        assert any(value.tables.values()), "no network is left of an ip"
    elif isinstance(value, Patterns):
        assert value.exact or value.globs, "no pattern is left"
    elif isinstance(value, Not):
        assert value.when, "not: nothing"
        filled(value.when)
    elif isinstance(value, (Any, All)):
        assert value.of
        assert all(value.of), "any or all of nothing"
        filled(value.of)
    elif isinstance(value, (tuple, frozenset)):
        assert value, "an empty set of values"
        for each in value:
            filled(each)
    elif is_dataclass(value) and not isinstance(value, (type, Enum)):
        for field in fields(value):
            filled(getattr(value, field.name))


def naively_judged(rules: RuleSet, facts: Facts) -> Verdict:
    limits, account, would, beside = Limits(), None, [], []
    for rule in rules.rules:
        if not holds(rule.when, facts):
            continue
        if rule.observe:
            beside.append((rule.name, "observe"))
            would += [rule.name] * (rule.then in ("deny", "require_account"))
        elif rule.then == "limit":
            beside.append((rule.name, "limit"))
            limits = limits.tightened(rule.limits)
        elif rule.then == "require_account":
            account = account or rule.name
        else:
            return Verdict(rule.then == "allow", rule.name, rule.message, account, limits, tuple(would), tuple(beside))
    return Verdict(rules.otherwise, OTHERWISE, None, account, limits, tuple(would), tuple(beside))


def check_rules(text: str) -> str:
    FILE.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        rules = read_rules(FILE, None)
    except SettingsError as error:
        sentences(str(error))
        return "refused"
    return judged(rules)


# --- The tree alone, ten times as fast --------------------------------------------------------------------------------

HEAD: dict[str, Value] = {
    "version": "1",
    "otherwise": "allow",
    "default_plan": "standard",
    "plans": {"standard": {"downloads": "5"}, "preview": {"view": "true", "valid_for": "1y", "rate": "2MB/s"}},
}
"""What each tree has that does not say it otherwise: mutations are to hit the rules."""


def _tree(value: Value) -> Node:
    if isinstance(value, dict):
        return Node("rules.yaml:1", {str(name): _tree(member) for name, member in value.items()})
    if isinstance(value, (list, tuple)):
        return Node("rules.yaml:1", [_tree(member) for member in value])
    # As YAML has it: every scalar is text, or nothing.
    return Node("rules.yaml:1", None if value is None else str(value))


def check_tree(value: tuple[dict[str, Value]]) -> str:
    tree, mistakes = _tree({**HEAD, **value[0]}), Mistakes()
    lists = tree.value.get("lists") if isinstance(tree.value, dict) else None
    known: Mapping[str, list[Node]] = {}
    if lists is not None and isinstance(lists.value, dict):
        known = {name: _texts(node) for name, node in lists.value.items()}
    reader = Reader(CONDITIONS, mistakes, known, (), _zone)
    rules = read_ruleset(tree, reader, "v")
    if mistakes.keys:
        sentences(mistakes.report())
        return "refused"
    if any(not nodes for nodes in known.values()):
        return "an empty list"  # which the reading of files refuses
    return judged(rules)


def _texts(node: Node) -> list[Node]:
    items = node.value if isinstance(node.value, list) else [node]
    return [item for item in items if isinstance(item.value, str) and not item.value.startswith("$")]


def _zone(name: str) -> ZoneInfo:
    if name != "Europe/Warsaw":
        raise ValueError("is no time zone; write Europe/Warsaw")
    return ZoneInfo(name)


# --- YAML alone -------------------------------------------------------------------------------------------------------

SMALL = Bounds("tests", size=64 * 1024, nodes=500, depth=8, aliases=5)


def check_yaml(text: str) -> str:
    mistakes = Mistakes()
    tree = parse(text, lambda line: f"rules.yaml:{line}", mistakes, SMALL)
    if mistakes.keys:
        sentences(mistakes.report())
    if tree is None:
        assert mistakes.keys, "refused without a word"
        return "refused"
    count, deepest = measured(tree)
    assert count <= SMALL.nodes
    assert deepest <= SMALL.depth + 1
    return "read" if not mistakes.keys else "read with mistakes"


def measured(node: Node, depth: int = 1) -> tuple[int, int]:
    """How many nodes there are, keys left out, and how deep they go."""
    value = node.value
    children = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    below = [measured(child, depth + 1) for child in children]
    return 1 + sum(count for count, _ in below), max([depth, *(deep for _, deep in below)])


# --- Settings ---------------------------------------------------------------------------------------------------------

SECRETS = ("5ecret-of-the-shop-which-nobody-may-ever-read-in-a-log", "an0ther-secret-for-the-bucket-which-stays-secret")
SETTINGS = f"""\
listen: 127.0.0.1:8080
public_url: https://dl.example.com
management: {{listen: 127.0.0.1:8081, token: "{SECRETS[0]}"}}
origin: {{url: s3://shop-files/a, endpoint: "http://minio:9000", region: eu, access_key: a, secret_key: {SECRETS[1]}}}
redis: "redis://user:{SECRETS[1]}@127.0.0.1:6379/0"
shards: 1
keys:
  - {{kid: "2026-11", alg: HS256, secret: "{SECRETS[0]}", use: sign}}
  - {{kid: "2026-05", alg: HS512, secret: "${{OLD_SECRET}}"}}
issuer: shop.example.com
trusted_proxies: [10.0.0.0/8]
external_hosts: [cdn.example.com]
counting: {{resume_window: 24h, repeat_window: 60s, free_below: 64KiB}}
events: {{keep: 90d}}
doors: {{secret: "{SECRETS[1]}", mitm: {{waive: [rate]}}, nginx: {{redirect: /_gateway/, waive: [concurrent, rate]}}}}
drain: 30s
"""
_SETTING_WORDS = (
    *("${OLD_SECRET}", "${NOT_SET}", "${file:/nonexistent}", "${", "$${", "}", "origin:", "keys:", "redis:", "secret:"),
    *("public_key: |", "-----BEGIN PUBLIC KEY-----", "rediss://", "redis+cluster://[::1", "file:///srv", "0s", "1y"),
    *(*SECRETS, *_WORDS[:40]),
)  # fmt: skip
QUOTED = 32
"""A name as long as this is cut in an error, for it may be a secret in the wrong place; shorter pieces are none."""


def check_settings(value: tuple[str, dict[str, Value]]) -> str:
    text, variables = value
    old = SECRETS[0] * 2
    path = FOLDER / "gateway.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    environ = {str(name)[:60]: str(each) for name, each in variables.items()} | {"OLD_SECRET": old}
    try:
        settings = load(path, environ)
    except SettingsError as error:
        said = str(error)
        sentences(said)
        quotes = (secret[at : at + QUOTED] for secret in SECRETS for at in range(len(secret) - QUOTED + 1))
        assert not [quote for quote in quotes if quote in said], "an error quotes a secret"
        return "refused"
    shown, written = repr(settings), "\n".join([text, *(each for each in environ.values() if each != old)])
    written = written.replace("${OLD_SECRET}", old)
    for key in settings.keys:
        secret = key.secret.get_secret_value() if key.secret is not None else ""
        # A mutation may have put it where no secret stands, too.
        assert secret not in shown or written.count(secret) != 1, "a repr shows a secret"
    return "loaded"


def _plain(text: str) -> Value:
    mistakes = Mistakes()
    tree = parse(text, str, mistakes, Bounds("rules", 10**6, 10**5))
    assert tree is not None
    return plain(tree)


def _pieces(tree: Value) -> list[dict[str, Value]]:
    """A file for each rule: most mutations of a whole file break something else than what they were after."""
    assert isinstance(tree, dict)
    rules = tree["rules"]
    assert isinstance(rules, list)
    lists = {name: each for name, each in tree["lists"].items() if isinstance(each, list)}
    texts = [json.dumps(rule) for rule in rules]
    used = [{name: each for name, each in lists.items() if f"${name}" in text} for text in texts]
    known = [(rule, own) for rule, text, own in zip(rules, texts, used, strict=True) if "$bad" not in text]
    return [{**({"lists": own} if own else {}), "rules": [rule]} for rule, own in known]


PIECES = [*_pieces(_plain(EVERYTHING)), *_pieces(_plain(SAMPLE))]


def _emptied(piece: dict[str, Value]) -> list[dict[str, Value]]:
    """The file with nothing behind one of its rule's conditions, in every way to write nothing (trap 23)."""
    rules = piece["rules"]
    assert isinstance(rules, list)
    when, nothings = rules[0]["when"], ([], {}, None, "", [[]], [None])
    whens = [*({**when, name: nothing} for name in when for nothing in nothings), *nothings]
    return [{**piece, "rules": [{**rules[0], "when": each}]} for each in whens]


EMPTIED = [each for piece in PIECES for each in _emptied(piece)]
MANY = f"a: &a [{', '.join('1' * 150)}]\nb: [*a, *a, *a, *a]\n"
TARGETS = (
    Target(
        "rules",
        check_rules,
        (EVERYTHING, SAMPLE, *(json.dumps({**HEAD, **piece}) for piece in PIECES)),
        _WORDS,
        ("loaded", "refused"),
        cpu=2.0,
    ),
    Target(
        "rules as a tree",
        check_tree,
        [(piece,) for piece in (*PIECES, *EMPTIED)],
        (*(word for word in _WORDS if ":" not in word), *CONDITIONS, "PL", "unknown", "limit", "days", "hours"),
        ("loaded", "refused"),
        cpu=0.5,
    ),
    Target(
        "yaml",
        check_yaml,
        (EVERYTHING[:600], "a: &a [1]\nb: *a\n", "[{a: b}, 'c', \"\\t\"]", "? x\n: |\n  y\n", MANY),
        _WORDS,
        ("read", "read with mistakes", "refused"),
        cpu=1.0,
    ),
    Target(
        "settings",
        check_settings,
        [(SETTINGS, {"GATEWAY_DRAIN": "20s", "GATEWAY_ORIGIN__REGION": "eu"})],
        _SETTING_WORDS,
        ("loaded", "refused"),
        cpu=1.0,
    ),
)
