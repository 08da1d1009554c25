"""The JSON Schema of rules files: it takes all that the gateway takes, and refuses what a schema can see."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import date, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from gateway.backends.rules_file import read_rules
from gateway.document import Mistakes
from gateway.errors import SettingsError
from gateway.policy.conditions import CONDITIONS
from gateway.policy.conditions.base import Reader
from gateway.policy.limits import BY_NAME
from gateway.policy.rules_reader import RULE, TOP, read_ruleset
from gateway.policy.rules_schema import ABOUT, rules_schema
from gateway.policy.ruleset import ACTIONS
from gateway.yaml_file import Bounds, parse

ROOT = Path(__file__).parents[2]
SCHEMA = rules_schema()
CHECKED = jsonschema_rs.Draft202012Validator(SCHEMA)
PAGE = (ROOT / "docs/rules.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```yaml\n(version: 1\n.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
SAMPLE = (ROOT / "rules/rules.yaml").read_text(encoding="utf-8")


def plain(value: object) -> object:
    """As editors read YAML 1.2: days and times are texts there."""
    if isinstance(value, dict):
        return {str(key): plain(member) for key, member in value.items()}
    if isinstance(value, list):
        return [plain(member) for member in value]
    if isinstance(value, date | datetime):
        return value.isoformat() if not isinstance(value, datetime) else f"{value.replace(tzinfo=None).isoformat()}Z"
    return value


def complaints(written: str) -> list[str]:
    return [error.message for error in CHECKED.iter_errors(plain(YAML(typ="safe").load(written)))]


def is_taken(written: str) -> bool:
    """Whether the gateway takes it, its lists aside."""
    mistakes = Mistakes()
    tree = parse(written, lambda line: f"r:{line}", mistakes, Bounds("rules", 0, 100_000))
    if tree is not None:
        lists = tree.value.get("lists") if isinstance(tree.value, dict) else None
        named = {name: node.value for name, node in lists.value.items()} if lists is not None else {}
        read_ruleset(tree, Reader(CONDITIONS, mistakes, named, (), ZoneInfo), "v")
    return not mistakes.keys


def test_the_schema_is_one() -> None:
    jsonschema_rs.meta.validate(SCHEMA)


@pytest.mark.parametrize("written", [SAMPLE, *EXAMPLES], ids=range(len(EXAMPLES) + 1))
def test_it_takes_the_sample_and_every_example(written: str) -> None:
    assert complaints(written) == []


def test_it_takes_the_sample_with_its_comments_taken_away() -> None:
    opened = re.sub(r"^(  +)# (?=- |  |\w+: [\[{])", r"\1", SAMPLE, flags=re.MULTILINE)
    assert opened.count("country") > SAMPLE.count("# country")
    assert complaints(opened) == []


HEAD = "version: 1\notherwise: allow\n"
RULE_OF = HEAD + "rules: [{{name: a, when: {}, then: deny}}]"


@pytest.mark.parametrize(
    "written",
    [
        "otherwise: allow",
        "version: 1",
        "version: 2\notherwise: allow",
        "version: 1\notherwise: perhaps",
        f"{HEAD}rule: []",
        f"{HEAD}rules: []",
        f"{HEAD}rules:",
        f"{HEAD}plans: {{}}",
        f"{HEAD}plans: {{a: }}",
        f"{HEAD}plans: {{a: {{downlods: 5}}}}",
        f"{HEAD}plans: {{a: {{downloads: 0}}}}",
        f"{HEAD}plans: {{a: {{rate: 2MB}}}}",
        f"{HEAD}plans: {{a: {{valid_for: 30}}}}",
        f"{HEAD}plans: {{a: {{view: perhaps}}}}",
        f"{HEAD}lists: {{a: []}}",
        f"{HEAD}lists: {{a: [$b]}}",
        f"{HEAD}lists: {{a: {{flie: x}}}}",
        f"{HEAD}rules: [{{name: a, then: deny}}]",
        f"{HEAD}rules: [{{name: a, when: {{tier: x}}, then: dney}}]",
        f"{HEAD}rules: [{{name: a, when: {{tier: x}}, then: {{limit: {{}}}}}}]",
        f"{HEAD}rules: [{{name: a, when: {{tier: x}}, then: limit}}]",
        f"{HEAD}rules: [{{name: a, when: {{tier: x}}, then: deny, mode: observ}}]",
        f"{HEAD}rules: [{{name: a, when: {{tier: x}}, then: deny, since: yesterday}}]",
        f"{HEAD}rules: [{{name: a, when: {{tier: x}}, then: allow, message: no}}]",
        f"{HEAD}rules: [{{name: a, when: {{tier: x}}, then: deny, mesage: no}}]",
        *(
            RULE_OF.format(when)
            for when in (
                "{}",
                "{contry: PL}",
                "{country: pl}",
                "{country: Poland}",
                "{country: []}",
                "{country: }",
                "{country: [PL, null]}",
                "{country: [[PL]]}",
                "{continent: Europe}",
                "{region: Mazovia}",
                "{asn: AS64496}",
                "{asn: 0}",
                "{network: hostng}",
                "{ip: somewhere}",
                "{method: POST}",
                "{tier: ''}",
                "{tier: {a: b}}",
                "{time: {}}",
                "{time: {zone: UTC}}",
                "{time: {day: mon}}",
                "{time: {days: monday}}",
                "{time: {hours: 8-18}}",
                "{before: tomorrow}",
                "{after: '2026-12-24'}",
                "{any: {country: PL}}",
                "{any: []}",
                "{all: [{}]}",
                "{not: [{country: PL}]}",
                "{not: {contry: PL}}",
            )
        ),
    ],
)
def test_it_refuses_what_a_schema_can_see(tmp_path: Path, written: str) -> None:
    assert complaints(written)
    (tmp_path / "rules.yaml").write_text(written)
    with pytest.raises(SettingsError):
        read_rules(tmp_path / "rules.yaml", None)


def test_every_word_of_a_rules_file_is_in_it_and_says_what_it_is() -> None:
    rule, when = SCHEMA["$defs"]["rule"]["properties"], SCHEMA["$defs"]["when"]["properties"]
    assert set(SCHEMA["properties"]) == set(TOP)
    assert set(rule) == set(RULE)
    assert list(when) == list(CONDITIONS)
    assert set(ABOUT) == set(ACTIONS)
    words, limit = rule["then"]["anyOf"]
    assert {*(each["const"] for each in words["oneOf"]), *limit["properties"]} == set(ACTIONS)
    assert set(limit["properties"]["limit"]["properties"]) == set(BY_NAME)
    described = [
        *SCHEMA["properties"].values(),
        *(rule[key] for key in RULE if key not in ("when", "then")),
        *when.values(),
    ]
    assert all(each["description"] for each in described)


# What the gateway takes: rules as people could write them, with every scalar as YAML would have it.

WORDS: Mapping[str, list[object]] = {
    "ip": ["203.0.113.9", "203.0.113.0/24", "2001:db8::/32", "::", "::ffff:203.0.113.9", "$nets"],
    "country": ["PL", "NO", "XK", "unknown", "$lands"],
    "continent": ["EU", "NA", "unknown"],
    "region": ["PL-14", "DE-BE", "GB-ENG", "FR-1", "unknown"],
    "asn": [1, 64496, "64496", 2**32 - 1, "unknown"],
    "network": ["hosting", "anonymous", "unknown"],
    "file": ["masters/**", "**/*.wav", "https://*.example.com/**", 5, "a", "$globs"],
    "tier": ["gold", 5, True, 1.5, "null", "Żółw"],
    "plan": ["standard"],
    "order": [10001, "10001", 1e21],
    "customer": ["c-1", -1],
    "user_agent": ["*bot*", "", 7],
    "method": ["GET", "HEAD"],
    "days": ["mon", "mon-fri", "sat-mon"],
    "hours": ["08:00-18:00", "22:00-06:00", "00:00-24:00"],
}
VALUES = {
    key: st.sampled_from(words) | st.lists(st.sampled_from(words), min_size=1, max_size=3)
    for key, words in WORDS.items()
}
TIMES = st.fixed_dictionaries({"days": VALUES["days"]}, optional={"hours": VALUES["hours"], "zone": st.just("UTC")})
MOMENTS = st.sampled_from(["2026-12-24T00:00:00+01:00", "2026-12-24 00:00:00Z", "2026-12-24t23:59:59.123456789z"])
LEAVES = {
    **{key: VALUES[key] for key in WORDS if key in CONDITIONS},
    "time": TIMES,
    "before": MOMENTS,
    "after": MOMENTS,
}


def whens(inner: st.SearchStrategy[object] | None = None) -> st.SearchStrategy[object]:
    several = None if inner is None else st.lists(inner, min_size=1, max_size=3)
    more = {} if inner is None else {"any": several, "all": several, "not": inner}
    options = {**LEAVES, **more}
    keys = st.lists(st.sampled_from(sorted(options)), min_size=1, max_size=3, unique=True)
    return keys.flatmap(lambda chosen: st.fixed_dictionaries({key: options[key] for key in chosen}))


WHENS = st.recursive(whens(), whens, max_leaves=4)
FORMS = {
    "rate": ["2MB/s", "500KB/s", "1MiB/s", "1234/s"],
    "valid_after_first": ["72h", "90s", "1y"],
}
LIMITS = {name: st.sampled_from(FORMS.get(name, [5, "5", 10**12])) for name in BY_NAME}
PLANS = st.fixed_dictionaries(
    {},
    optional={
        **LIMITS,
        "valid_for": st.sampled_from(["30d", "15m"]),
        "view": st.sampled_from([True, False, "true"]),
        "bind_ip": st.just("order"),
        "new_device": st.just("code"),
        "renewals": st.sampled_from([1, "2", 100]),
    },
)
SOME_LIMITS = st.sampled_from(sorted(LIMITS)).flatmap(lambda name: st.fixed_dictionaries({name: LIMITS[name]}))
THENS = st.sampled_from(["allow", "deny", "require_account"]) | SOME_LIMITS.map(lambda limits: {"limit": limits})
RULES = st.fixed_dictionaries(
    {"when": WHENS, "then": THENS},
    optional={"mode": st.sampled_from(["enforce", "observe"]), "since": st.just("2026-11-01")},
).flatmap(lambda rule: st.just(rule) | st.just({**rule, "then": "deny", "message": 404}))


@settings(max_examples=100, deadline=None)
@given(st.lists(RULES, min_size=1, max_size=4), PLANS, st.sampled_from([1, "1"]), st.sampled_from(["allow", "deny"]))
def test_it_refuses_nothing_that_the_gateway_takes(
    rules: list[dict[str, object]], plan: object, version: object, otherwise: str
) -> None:
    document = {
        "version": version,
        "plans": {"standard": plan, "x" * 80: {}},
        "default_plan": "standard",
        "lists": {"nets": ["192.0.2.1"], "lands": ["PL"], "globs": [5, "a/**"], "": ["", "x"], "n" * 99: ["a"]},
        "rules": [{"name": at or "Nr. 0", **rule} for at, rule in enumerate(rules)],
        "otherwise": otherwise,
    }
    assert is_taken(json.dumps(document))
    assert [error.message for error in CHECKED.iter_errors(document)] == []
