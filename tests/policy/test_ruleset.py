"""Verdicts: what rules say in their order, and all of it again against a naive reading of the written form."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from ipaddress import ip_address, ip_network
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.document import Mistakes
from gateway.policy.conditions import CONDITIONS, INDEXED
from gateway.policy.conditions.base import Reader
from gateway.policy.limits import read_limit
from gateway.policy.model import NETWORK_TYPES, Claims, Facts, FileEntry, Limits, Place, Plan
from gateway.policy.rules_reader import MISTAKES_MAX, read_ruleset
from gateway.policy.ruleset import NO_RULES, RuleSet, Verdict
from gateway.policy.trace import walk
from gateway.yaml_file import Bounds, parse


def read(written: str) -> tuple[RuleSet, list[str]]:
    mistakes = Mistakes()
    tree = parse(written, lambda line: f"r:{line}", mistakes, Bounds("rules", 0, 100_000))
    assert tree is not None, mistakes.report()
    lists = tree.value.get("lists") if isinstance(tree.value, dict) else None
    named = {} if lists is None else {name: node.value for name, node in lists.value.items()}
    rules = read_ruleset(tree, Reader(CONDITIONS, mistakes, named, (), ZoneInfo), "v")
    return rules, mistakes.report().splitlines()


def rules(written: str) -> RuleSet:
    found, mistakes = read(written)
    assert mistakes == []
    return found


def facts(**changes: object) -> Facts:
    claims = {"issuer": "s", "token_id": "t", "expires_at": 1, "files": ()}
    given: dict[str, object] = {
        "claims": Claims(**{**claims, **{name: changes.pop(name) for name in ("tier", "order_id") if name in changes}}),
        "file": FileEntry(key="a.bin"),
        "plan": None,
        "address": ip_address("203.0.113.9"),
        "place": Place(),
        "method": "GET",
        "user_agent": "",
        "now": 0,
    }
    return Facts(**{**given, **changes})


def test_no_rules_allow() -> None:
    assert NO_RULES.judge(facts()) == Verdict(True, "otherwise")


@pytest.mark.parametrize(("otherwise", "allowed"), [("allow", True), ("deny", False)])
def test_otherwise_decides_what_no_rule_does(otherwise: str, allowed: bool) -> None:
    assert rules(f"version: 1\notherwise: {otherwise}").judge(facts()) == Verdict(allowed, "otherwise")


def test_mistakes_without_end_are_told_in_short_order() -> None:
    """Each unknown name was compared with every list, and every list named: 300 of each took five seconds."""
    lists = "".join(f"  {'l' * 20}{n:04}: [192.0.2.1]\n" for n in range(300))
    lines = "".join(f"  - {{name: r{n}, when: {{ip: ${'l' * 20}x{n:04}}}, then: deny}}\n" for n in range(300))
    _, mistakes = read(f"version: 1\notherwise: allow\nlists:\n{lists}rules:\n{lines}")
    assert len(mistakes) == MISTAKES_MAX + 2
    assert mistakes[-1].endswith(": and what follows is not looked at; correct the others first")
    assert max(map(len, mistakes)) < 1000


def test_a_mistake_shows_no_control_character_of_a_list_s_name() -> None:
    _, (mistake,) = read(
        'version: 1\notherwise: allow\nlists: {"o\\e[2Jffice": [192.0.2.1]}\n'
        "rules: [{name: a, when: {ip: $ffi}, then: deny}]"
    )
    assert mistake.isprintable()


MIXED = """
version: 1
rules:
  - {name: slow, when: {method: GET}, then: {limit: {rate: 2MB/s, concurrent: 4}}}
  - {name: slower, when: {tier: free}, then: {limit: {rate: 1MB/s, networks: 3}}}
  - {name: new-block, mode: observe, when: {tier: free}, then: deny, message: Not yet said.}
  - {name: new-account, mode: observe, when: {method: GET}, then: require_account}
  - {name: new-office, mode: observe, when: {method: GET}, then: allow}
  - {name: new-limit, mode: observe, when: {method: GET}, then: {limit: {rate: 1B/s}}}
  - {name: masters, when: {file: "masters/**"}, then: require_account}
  - {name: masters-too, when: {file: "**/*.wav"}, then: require_account}
  - {name: embargo, mode: enforce, when: {tier: banned}, then: deny, message: "Nie. \u2620"}
  - {name: office, when: {ip: 203.0.113.0/24}, then: allow}
  - {name: never, when: {method: GET}, then: {limit: {rate: 1B/s}}}
otherwise: deny
"""
SAID_OF_ALL = (("slow", "limit"), *((name, "observe") for name in ("new-account", "new-office", "new-limit")))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {},
            Verdict(True, "office", None, None, Limits(rate=2_000_000, concurrent=4), ("new-account",), SAID_OF_ALL),
        ),
        (
            {"tier": "free", "file": FileEntry(key="masters/a.wav")},
            Verdict(
                allowed=True,
                rule="office",
                account_rule="masters",
                limits=Limits(rate=1_000_000, concurrent=4, networks=3),
                would_deny=("new-block", "new-account"),
                beside=(("slow", "limit"), ("slower", "limit"), ("new-block", "observe"), *SAID_OF_ALL[1:]),
            ),
        ),
        (
            {"tier": "banned"},
            Verdict(
                allowed=False,
                rule="embargo",
                message="Nie. \u2620",
                limits=Limits(rate=2_000_000, concurrent=4),
                would_deny=("new-account",),
                beside=SAID_OF_ALL,
            ),
        ),
        (
            {"address": ip_address("192.0.2.1"), "method": "HEAD", "file": FileEntry(key="a.wav")},
            Verdict(False, "otherwise", None, "masters-too"),
        ),
    ],
)
def test_the_first_allow_or_deny_decides_and_the_rest_adds_up_before_it(
    changes: dict[str, object], expected: Verdict
) -> None:
    if expected.rule == "otherwise":
        written = MIXED.replace(
            "{name: never, when: {method: GET}", "{name: never, when: {method: [GET, HEAD], tier: x}"
        )
    else:
        written = MIXED
    assert rules(written).judge(facts(**changes)) == expected


def test_rules_that_ask_the_same_are_each_asked() -> None:
    alike = "{ip: $office, tier: [gold], file: [masters/**, a.bin], method: GET}"
    lines = "".join(f"  - {{name: r{at}, mode: observe, when: {alike}, then: deny}}\n" for at in range(100))
    found = rules(f"version: 1\nlists: {{office: [203.0.113.0/24]}}\nrules:\n{lines}otherwise: allow")
    assert found.judge(facts(tier="gold")).would_deny == tuple(f"r{at}" for at in range(100))
    assert found.judge(facts(tier="free")).would_deny == ()
    assert found.judge(facts(tier="gold", address=ip_address("192.0.2.1"))).would_deny == ()


def test_a_network_inside_another_is_asked_for_by_both() -> None:
    networks = ("203.0.113.9", "203.0.113.0/24", "203.0.0.0/16", "198.51.100.0/24")
    lines = "".join(f"  - {{name: {n}, mode: observe, when: {{ip: {n}}}, then: deny}}\n" for n in networks)
    found = rules(f"version: 1\nrules:\n{lines}otherwise: allow")
    assert found.judge(facts()).would_deny == networks[:3]


def test_the_day_from_which_a_rule_stands_there() -> None:
    (rule,) = rules(f"{HEAD}rules: [{{{GOOD}, then: deny, since: 2026-11-01}}]").rules
    assert rule.since == date(2026, 11, 1)


def test_plans_and_what_is_asked_of_geo_data() -> None:
    found = rules("""
        version: 1
        plans:
          standard: {valid_for: 30d, downloads: 5, networks: 3, devices: 4, concurrent: 2, rate: 20MB/s,
                     valid_after_first: 72h}
          preview: {valid_for: 1y, view: true}
          free: {view: false}
          guests: {bind_ip: order, new_device: code, renewals: 2}
          all: {}
        default_plan: standard
        rules:
          - {name: a, when: {any: [{country: PL}, {tier: x}]}, then: deny}
          - {name: b, mode: observe, when: {asn: 1}, then: deny}
        otherwise: allow
        """)
    limits = Limits(downloads=5, networks=3, devices=4, concurrent=2, rate=20_000_000, valid_after_first=259_200)
    assert found.plans == {
        "standard": Plan("standard", limits, 30 * 86_400),
        "preview": Plan("preview", Limits(), 365 * 86_400, True),
        "guests": Plan("guests", bind_ip=True, new_device=True, renewals=2),
        "free": Plan("free"),
        "all": Plan("all"),
    }
    assert (found.default_plan, found.needs, found.version) == ("standard", {"city", "asn"}, "v")


HEAD = "version: 1\notherwise: allow\n"
GOOD = "name: a, when: {tier: x}"


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (
            "",
            [
                "1: otherwise: is missing; write otherwise: allow, or otherwise: deny",
                "1: version: is missing; write version: 1",
            ],
        ),
        ("version: 2\notherwise: allow", ["1: version: '2' is not what can stand here; write 1"]),
        ("version: 1.0\notherwise: allow", ["1: version: '1.0' is not what can stand here; write 1"]),
        ("version: 1\notherwise: perhaps", ["2: otherwise: 'perhaps' is not what can stand here; write allow or deny"]),
        ("version: 1\notherwise: [allow]", ["2: otherwise: is not one single value; write allow or deny"]),
        ("version: 1\notherwise:", ["2: otherwise: has no value; write allow or deny"]),
        (f"{HEAD}rule: []", ["3: rule: rule is no key of a rules file; did you mean rules?"]),
        (f"{HEAD}rules:", ["3: rules: is no list; write one `- name: …` a rule, or remove the line"]),
        (f"{HEAD}rules: []", ["3: rules: is an empty list; write one `- name: …` a rule, or remove the line"]),
        (f"{HEAD}rules: {{a: b}}", ["3: rules: is no list; write one `- name: …` a rule, or remove the line"]),
        (f"{HEAD}rules: [a]", ["3: rules[0]: is no rule; write {name: …, when: {…}, then: …}"]),
        (f"{HEAD}rules: [null]", ["3: rules[0]: is no rule; write {name: …, when: {…}, then: …}"]),
        (
            f"{HEAD}rules: [{{}}]",
            [
                "3: rules[0].name: is missing; give the rule a name, which events will show",
                "3: rules[0].then: is missing; write allow, deny, require_account or {limit: {rate: 2MB/s}}",
                "3: rules[0].when: is missing; say whom it means, such as when: {country: PL}",
            ],
        ),
        (
            f"{HEAD}rules:\n  - {{{GOOD}, then: deny}}\n  - {{{GOOD}, then: deny}}",
            ["5: rules[1].name: 'a' is there twice, first at r:4; give each rule a name of its own"],
        ),
        (
            f"{HEAD}rules: [{{name: otherwise, when: {{tier: x}}, then: deny}}]",
            ["3: rules[0].name: otherwise is kept; choose another name"],
        ),
        (
            f"{HEAD}rules: [{{name: {'n' * 81}, when: {{tier: x}}, then: deny}}]",
            [f"3: rules[0].name: '{'n' * 20}…' is a text of more than 80 characters; write a shorter one"],
        ),
        (
            f'{HEAD}rules: [{{name: "a\\u0007", when: {{tier: x}}, then: deny}}]',
            ["3: rules[0].name: 'a?' has a control character; type it anew"],
        ),
        (
            f"{HEAD}rules: [{{name: ' ', when: {{tier: x}}, then: deny}}]",
            ["3: rules[0].name: ' ' is empty; write a short text"],
        ),
        (
            f"{HEAD}rules: [{{name: , when: {{tier: x}}, then: deny}}]",
            ["3: rules[0].name: has no value; write a short text"],
        ),
        (
            f"{HEAD}rules: [{{{GOOD}, then: deny, mod: observe}}]",
            ["3: rules[0].mod: mod is no key of a rule; did you mean mode?"],
        ),
        (
            f"{HEAD}rules: [{{{GOOD}, then: deny, mode: on}}]",
            ["3: rules[0].mode: 'on' is not what can stand here; write enforce or observe"],
        ),
        (
            f"{HEAD}rules: [{{{GOOD}, then: deny, since: 1.11.2026}}]",
            ["3: rules[0].since: '1.11.2026' is no day; write a day, such as 2026-11-01"],
        ),
        (
            f"{HEAD}rules: [{{{GOOD}, then: deny, since: 2026-11-31}}]",
            ["3: rules[0].since: '2026-11-31' is no day that exists; write a day, such as 2026-11-01"],
        ),
        (
            f"{HEAD}rules: [{{{GOOD}, then: {{limt: {{rate: 2MB/s}}}}}}]",
            ["3: rules[0].then.limt: limt is no action; did you mean limit?"],
        ),
        (f"{HEAD}rules: [{{{GOOD}, then: allow, message: hi}}]", ["3: rules[0].message: is for deny only; remove it"]),
        (
            f"{HEAD}rules: [{{{GOOD}, then: deny, message: {'m' * 501}}}]",
            [f"3: rules[0].message: '{'m' * 20}…' is a text of more than 500 characters; write a shorter one"],
        ),
        *(
            (f"{HEAD}rules: [{{{GOOD}, then: {then}}}]", [f"3: rules[0].then: {said}"])
            for then, said in {
                "alow": "alow is no action; did you mean allow?",
                "x": "x is no action; write allow, deny, require_account or {limit: {rate: 2MB/s}}",
                "limit": "limit has no limits; write allow, deny, require_account or {limit: {rate: 2MB/s}}",
                "null": "has no value; write allow, deny, require_account or {limit: {rate: 2MB/s}}",
                "[deny]": "is no single action; write allow, deny, require_account or {limit: {rate: 2MB/s}}",
                "{limit: {rate: 1MB/s}, deny: x}": (
                    "is no single action; write allow, deny, require_account or {limit: {rate: 2MB/s}}"
                ),
                "{deliver: redirect}": (
                    "deliver is no action of this release; write allow, deny, require_account or {limit: {rate: 2MB/s}}"
                ),
            }.items()
        ),
        *(
            (f"{HEAD}rules: [{{{GOOD}, then: {{limit: {limits}}}}}]", [f"3: rules[0].then.limit{said}"])
            for limits, said in {
                "{}": ": is empty; name at least one limit, such as {rate: 2MB/s}",
                "null": ": has no value; write {rate: 2MB/s}",
                "2MB/s": ": is no mapping; write {rate: 2MB/s} or one `limit: value` a line",
                "{rte: 1MB/s}": ".rte: rte is no limit; did you mean rate?",
                "{view: true}": (
                    ".view: view is no limit; "
                    "write one of concurrent, devices, downloads, networks, rate, valid_after_first"
                ),
            }.items()
        ),
        *(
            (f"{HEAD}plans: {{p: {{{limit}}}}}", [f"3: plans.p.{said}"])
            for limit, said in {
                "rate: 2MB": "rate: '2MB' is no rate; write a size per second, such as 2MB/s",
                "rate: 1e999": "rate: '1e999' is no rate; write a size per second, such as 2MB/s",
                "valid_after_first: 72": (
                    "valid_after_first: '72' is no valid_after_first; "
                    "write a number and a unit, such as 30d (units: s m h d y)"
                ),
                "rate: 0B/s": (
                    "rate: '0B/s' is not a whole number from 1 to 1000000000000; "
                    "write one in between, or remove the line for no limit"
                ),
                "downloads: ": "downloads: has no value; give it a value or remove the line",
                "downloads: [5]": "downloads: is not one single value; give it a value or remove the line",
                "download: 5": "download: download is no limit; did you mean downloads?",
                "valid_for: 30": (
                    "valid_for: '30' is no duration; write a number and a unit, such as 30d (units: s m h d y)"
                ),
                "valid_for: 0s": "valid_for: '0s' is no time at all; write a longer one, such as 30d",
                "view: yes": "view: 'yes' is not what can stand here; write true or false",
                "bind_ip: true": "bind_ip: 'true' is not what can stand here; write order",
                "new_device: true": "new_device: 'true' is not what can stand here; write code",
                "renewals: 0": (
                    "renewals: '0' is not a whole number from 1 to 100; write how often, such as 2, "
                    "or remove the line for none"
                ),
                "renewals: 101": (
                    "renewals: '101' is not a whole number from 1 to 100; write how often, such as 2, "
                    "or remove the line for none"
                ),
            }.items()
        ),
        *(
            (
                f"{HEAD}plans: {{p: {{downloads: '{number}'}}}}",
                [
                    (
                        f"3: plans.p.downloads: '{number}' is not a whole number from 1 to 1000000000000; "
                        "write one in digits alone, such as 5, or remove the line for no limit"
                    )
                ],
            )
            for number in ("0", "-1", "true", "1.0", ".nan", "005", "0x5", "\u0665", "1000000000001", "9" * 30)
        ),
        (f"{HEAD}plans:", ["3: plans: has no value; write {standard: {valid_for: 30d, downloads: 5}}"]),
        (
            f"{HEAD}plans: {{}}",
            ["3: plans: is empty; name at least one plan, such as {standard: {valid_for: 30d, downloads: 5}}"],
        ),
        (
            f"{HEAD}plans: {{p: }}",
            ["3: plans.p: is no plan; write {valid_for: 30d, downloads: 5}, or {} for no limits"],
        ),
        (f"{HEAD}plans: {{p: {{}}}}\ndefault_plan: q", ["4: default_plan: q is no plan; add it under plans"]),
        (f"{HEAD}plans: {{free: {{}}}}\ndefault_plan: fre", ["4: default_plan: fre is no plan; did you mean free?"]),
        (f"{HEAD}default_plan: [q]", ["3: default_plan: is not one single value; name a plan"]),
    ],
)
def test_what_is_wrong_and_what_would_be_right(written: str, expected: list[str]) -> None:
    assert [line.removeprefix("r:") for line in read(written)[1]] == expected


# The naive reading: the written form itself, rule by rule, with nothing prepared.

COUNTRIES = ("PL", "DE", "NO", "US")
NETWORKS = (
    "203.0.113.0/24",
    "203.0.113.9",
    "203.0.0.0/16",
    "0.0.0.0/0",
    "2001:db8::/32",
    "2001:db8::1",
    "::ffff:203.0.113.9",
)
FILES = ("masters/a.wav", "masters/x/b.wav", "ebooks/sea.pdf", "a.wav", "https://cdn.example.com/big.zip")
GLOBS = ("masters/**", "**/*.wav", "*", "ebooks/sea.pdf", "e*/s?a.*", "https://*.example.com/**", "a.wav", "m**v")
AGENTS = ("", "Wget/1.21", "Mozilla/5.0 (bot)", "curl/8")
AGENT_GLOBS = ("*bot*", "wget/*", "curl/?", "*")
MOMENTS = [datetime(2026, 3, 27, tzinfo=UTC).timestamp() + 1800 * step for step in range(200)]
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def some(values: tuple[str, ...], names: tuple[str, ...] = ()) -> st.SearchStrategy[object]:
    either = st.sampled_from(values + names)
    return either | st.lists(either, min_size=1, max_size=3)


def mappings(options: Mapping[str, st.SearchStrategy[object]]) -> st.SearchStrategy[dict[str, object]]:
    """One to three of these, drawn evenly."""
    keys = st.lists(st.sampled_from(sorted(options)), min_size=1, max_size=3, unique=True)
    return keys.flatmap(lambda chosen: st.fixed_dictionaries({key: options[key] for key in chosen}))


HOURS = st.tuples(st.integers(0, 23), st.integers(0, 24)).filter(lambda pair: pair[0] != pair[1])
TIMES = mappings(
    {
        "days": some((*DAYS, "mon-fri", "sat-mon", "fri-fri")),
        "hours": HOURS.map(lambda pair: f"{pair[0]:02}:00-{pair[1]:02}:00"),
    }
).flatmap(lambda written: st.sampled_from([written, {**written, "zone": "Europe/Warsaw"}]))
INSTANTS = st.sampled_from(MOMENTS).map(lambda now: datetime.fromtimestamp(now, UTC).isoformat())
LEAVES: dict[str, st.SearchStrategy[object]] = {
    "ip": some(NETWORKS, ("$nets",)),
    "country": some((*COUNTRIES, "unknown"), ("$lands",)),
    "continent": some(("EU", "NA", "unknown")),
    "region": some(("PL-14", "DE-BE", "unknown")),
    "asn": some(("64496", "64497", "unknown")),
    "network": some((*NETWORK_TYPES, "unknown")),
    "file": some(GLOBS, ("$globs",)),
    "tier": some(("gold", "free")),
    "plan": some(("standard", "preview")),
    "order": some(("1", "2")),
    "customer": some(("c", "d")),
    "user_agent": some(AGENT_GLOBS),
    "method": some(("GET", "HEAD")),
    "time": TIMES,
    "before": INSTANTS,
    "after": INSTANTS,
}
WHENS = st.recursive(
    mappings(LEAVES),
    lambda inner: mappings(
        {
            **LEAVES,
            "any": st.lists(inner, min_size=1, max_size=3),
            "all": st.lists(inner, min_size=1, max_size=2),
            "not": inner,
        }
    ),
    max_leaves=4,
)
THENS = st.sampled_from(["allow", "deny", "require_account"]) | mappings(
    {"rate": st.sampled_from(["1MB/s", "2MB/s"]), "downloads": st.sampled_from(["1", "9"]), "networks": st.just("3")}
).map(lambda limits: {"limit": limits})
LISTS = {"nets": ["198.51.100.0/24", "203.0.113.8/31"], "lands": ["NO", "US"], "globs": ["**/b.*", "ebooks/**"]}
RULES = st.lists(
    st.fixed_dictionaries({"when": WHENS, "then": THENS, "mode": st.sampled_from(["enforce", "enforce", "observe"])}),
    max_size=8,
)
FACTS = st.builds(
    Facts,
    claims=st.builds(
        Claims,
        issuer=st.just("s"),
        token_id=st.just("t"),
        expires_at=st.just(1),
        files=st.just(()),
        tier=st.sampled_from([None, "gold", "free"]),
        order_id=st.sampled_from([None, "1", "2"]),
        customer_id=st.sampled_from([None, "c", "d"]),
    ),
    file=st.sampled_from(FILES).map(lambda name: FileEntry(None, name) if ":" in name else FileEntry(name)),
    plan=st.sampled_from([None, "standard", "preview"]),
    address=st.sampled_from(
        ["203.0.113.9", "203.0.113.8", "203.0.114.1", "198.51.100.1", "2001:db8::1", "::ffff:203.0.113.9", "2001:db9::"]
    ).map(ip_address),
    place=st.builds(
        Place,
        country=st.sampled_from([None, *COUNTRIES]),
        continent=st.sampled_from([None, "EU", "NA"]),
        region=st.sampled_from([None, "PL-14", "DE-BE"]),
        asn=st.sampled_from([None, 64496, 64497]),
        network=st.none() | st.frozensets(st.sampled_from(NETWORK_TYPES), max_size=2),
    ),
    method=st.sampled_from(["GET", "HEAD"]),
    user_agent=st.sampled_from(AGENTS),
    now=st.sampled_from(MOMENTS),
)


def naive_values(written: object) -> list[str]:
    found: list[str] = []
    for value in written if isinstance(written, list) else [written]:
        found += LISTS[value[1:]] if value.startswith("$") else [value]
    return found


def naive_glob(pattern: str, text: str, separator: str) -> bool:
    """By trying every way."""
    if not pattern:
        return not text
    if separator and pattern.startswith("**"):
        return any(naive_glob(pattern[2:], text[at:], separator) for at in range(len(text) + 1))
    if pattern[0] == "*":
        reach = text.find(separator) if separator and separator in text else len(text)
        return any(naive_glob(pattern[1:], text[at:], separator) for at in range(reach + 1))
    return bool(text) and pattern[0] in ("?", text[0]) and naive_glob(pattern[1:], text[1:], separator)


def naive_file(pattern: str, name: str) -> bool:
    return naive_glob(pattern, name, "/") or (pattern.startswith("**/") and naive_glob(pattern[3:], name, "/"))


def naive_time(written: Mapping[str, object], now: float) -> bool:
    local = datetime.fromtimestamp(now, ZoneInfo(str(written.get("zone", "UTC")))).replace(tzinfo=None)
    days: set[str] = set()
    for value in naive_values(written.get("days", list(DAYS))):
        first, _, last = value.partition("-")
        position = DAYS.index(first)
        days.add(first)
        while last and DAYS[position] != last:
            position = (position + 1) % 7
            days.add(DAYS[position])
    for span in naive_values(written.get("hours", "00:00-24:00")):
        start, stop = (int(end.split(":")[0]) for end in span.split("-"))
        for ago in (0, 1):
            day = (local - timedelta(days=ago)).replace(hour=0, minute=0, second=0, microsecond=0)
            begin, end = day + timedelta(hours=start), day + timedelta(hours=stop if stop > start else stop + 24)
            if begin <= local < end and DAYS[day.weekday()] in days:
                return True
    return False


def naive_condition(key: str, written: object, facts: Facts) -> bool:  # noqa: C901  a row a condition
    place, claims = facts.place, facts.claims
    if key == "any":
        return any(naive_when(when, facts) for when in written)
    if key == "all":
        return all(naive_when(when, facts) for when in written)
    if key == "not":
        return not naive_when(written, facts)
    if key == "time":
        return naive_time(written, facts.now)
    if key in ("before", "after"):
        moment = datetime.fromisoformat(str(written)).timestamp()
        return facts.now < moment if key == "before" else facts.now >= moment
    values = naive_values(written)
    if key == "ip":
        address = str(facts.address).removeprefix("::ffff:")
        found = ip_address(address if "." in address else str(getattr(facts.address, "ipv4_mapped", None) or address))
        return any(found in ip_network(value.removeprefix("::ffff:")) for value in values)
    if key == "file":
        name = facts.file.key or facts.file.url
        return any(naive_file(value, str(name)) for value in values)
    if key == "user_agent":
        return any(naive_glob(value.lower(), facts.user_agent.lower(), "") for value in values)
    if key == "network":
        return "unknown" in values if place.network is None else any(value in place.network for value in values)
    fact = {
        "country": place.country,
        "continent": place.continent,
        "region": place.region,
        "asn": place.asn,
        "tier": claims.tier,
        "plan": facts.plan,
        "order": claims.order_id,
        "customer": claims.customer_id,
        "method": facts.method,
    }[key]
    if fact is None:
        return "unknown" in values and key in ("country", "continent", "region", "asn")
    return str(fact) in values


def naive_when(when: Mapping[str, object], facts: Facts) -> bool:
    return all(naive_condition(key, written, facts) for key, written in when.items())


def naive_verdict(document: Mapping[str, object], facts: Facts) -> Verdict:
    limits: dict[str, int] = {}
    account, would_deny, beside = None, [], []
    for rule in document["rules"]:
        name, then = rule["name"], rule["then"]
        if not naive_when(rule["when"], facts):
            continue
        if rule["mode"] == "observe":
            beside.append((name, "observe"))
            if then in ("deny", "require_account"):
                would_deny.append(name)
        elif isinstance(then, dict):
            beside.append((name, "limit"))
            for limit, written in then["limit"].items():
                number = read_limit(limit, int(written) if written.isdigit() else written)
                limits[limit] = min(number, limits.get(limit, number))
        elif then == "require_account":
            account = account or name
        else:
            break
    else:
        name, then = "otherwise", document["otherwise"]
    return Verdict(then == "allow", name, None, account, Limits(**limits), tuple(would_deny), tuple(beside))


def by_steps(compiled: RuleSet, request: Facts) -> Verdict:
    """What the rules say by their trace alone."""
    steps = list(walk(compiled, request))
    met = [step.rule for step in steps if step.matches]
    assert [bool(step.failed) for step in steps] == [not step.matches for step in steps]
    enforced = [rule for rule in met if not rule.observe]
    limits = Limits()
    for rule in enforced:
        limits = limits.tightened(rule.limits)
    account = next((rule.name for rule in enforced if rule.then == "require_account"), None)
    would_deny = tuple(rule.name for rule in met if rule.observe and rule.then in ("deny", "require_account"))
    beside = tuple(
        (rule.name, "observe" if rule.observe else "limit") for rule in met if rule.observe or rule.then == "limit"
    )
    last = steps[-1].rule if steps and steps[-1].decides else None
    if last is None:
        return Verdict(compiled.otherwise, "otherwise", None, account, limits, would_deny, beside)
    return Verdict(last.then == "allow", last.name, last.message, account, limits, would_deny, beside)


@settings(max_examples=300, deadline=None)
@given(RULES, st.sampled_from(["allow", "deny"]), st.lists(FACTS, min_size=1, max_size=12))
def test_compiled_rules_and_their_trace_say_what_the_written_ones_do(
    written: list[dict[str, object]], otherwise: str, requests: list[Facts]
) -> None:
    numbered = [{"name": f"r{index}", **rule} for index, rule in enumerate(written)]
    document = {"version": "1", "lists": LISTS, "rules": numbered, "otherwise": otherwise}
    shown = {key: value for key, value in document.items() if value}
    compiled = rules(json.dumps(shown))
    for request in requests:
        verdict = naive_verdict(document, request)
        assert compiled.judge(request) == verdict
        assert by_steps(compiled, request) == verdict


def test_the_naive_reading_knows_every_condition_that_is_not_read_and_asked_by_oneof_alone() -> None:
    plain = {kind.key for kind in INDEXED}
    assert set(LEAVES) | {"any", "all", "not"} | plain == set(CONDITIONS)
    assert len(plain & set(LEAVES)) > 5
    assert all(re.fullmatch(r"[a-z_]+", key) for key in CONDITIONS)
