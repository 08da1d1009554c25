"""Every condition as tables: whom it means, and what is said of everything that it cannot mean."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from ipaddress import ip_address
from zoneinfo import ZoneInfo

import pytest

from gateway.document import Mistakes, Node
from gateway.policy.conditions import CONDITIONS, INDEXED
from gateway.policy.conditions.base import Asks, Reader, When, holds
from gateway.policy.conditions.combined import leaves
from gateway.policy.model import Claims, Facts, FileEntry, Place
from gateway.yaml_file import Bounds, parse

NOON = datetime(2026, 11, 20, 12, 0, tzinfo=UTC).timestamp()
"""A Friday."""
FACTS = Facts(
    claims=Claims(issuer="s", token_id="t", expires_at=1, files=(), tier="gold", order_id="10001", customer_id="c-1"),
    file=FileEntry(key="masters/2026/a.wav"),
    plan="standard",
    address=ip_address("203.0.113.9"),
    place=Place(country="PL", continent="EU", region="PL-14", asn=64496, network=frozenset({"vpn", "anonymous"})),
    method="GET",
    user_agent="Wget/1.21 (Linux)",
    now=NOON,
)
NOWHERE = replace(FACTS, place=Place())
NOBODY = replace(FACTS, claims=Claims(issuer="s", token_id="t", expires_at=1, files=()), plan=None, user_agent="")
LISTS = {
    "office": [Node("f:1", "203.0.113.0/24"), Node("f:2", "2001:db8:42::/48")],
    "near": [Node("f:3", "DE"), Node("f:4", "PL")],
    "bad": [Node("list.txt:7", "pl")],
}


def zone(name: str) -> tzinfo:
    try:
        return ZoneInfo(name)
    except LookupError:
        raise ValueError("is no time zone; write another") from None


def read(written: str, databases: tuple[str, ...] | None = None) -> tuple[When, list[str], set[str]]:
    mistakes = Mistakes()
    node = parse(written, lambda line: f"r:{line}", mistakes, Bounds("rules", 0, 10_000))
    assert node is not None, mistakes.report()
    reader = Reader(CONDITIONS, mistakes, LISTS, ("standard", "preview"), zone, databases)
    when = reader.when(node, "when")
    return when, mistakes.report().splitlines(), reader.needs


def matches(written: str, facts: Facts = FACTS) -> bool:
    when, mistakes, _ = read(written)
    assert not mistakes
    assert [each.matches(facts) for each in leaves(when)] == [each.meets(each.fact(facts)) for each in leaves(when)]
    return holds(when, facts)


def wrong(written: str) -> list[str]:
    return [line.removeprefix("r:1: ") for line in read(written)[1]]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("{ip: 203.0.113.9}", True),
        ("{ip: [198.51.100.0/24, 203.0.113.0/24]}", True),
        ("{ip: [203.0.113.8, 203.0.113.10, 203.0.112.0/24]}", False),
        ("{ip: 0.0.0.0/0}", True),
        ("{ip: '::/0'}", False),
        ("{ip: '::ffff:203.0.113.9'}", True),
        ("{ip: '::ffff:203.0.113.0/120'}", True),
        ("{ip: $office}", True),
        ("{ip: [$office]}", True),
        ("{ip: [192.0.2.1, $office]}", True),
        ("{country: PL}", True),
        ("{country: [DE, FR]}", False),
        ("{country: [FR, $near]}", True),
        ("{country: unknown}", False),
        ("{continent: EU}", True),
        ("{continent: [AS, AF]}", False),
        ("{region: [PL-14, DE-BE]}", True),
        ("{region: PL-12}", False),
        ("{asn: [1, 64496]}", True),
        ("{asn: 4294967295}", False),
        ("{network: [hosting, vpn]}", True),
        ("{network: [hosting, tor, proxy]}", False),
        ("{network: unknown}", False),
        ("{file: masters/2026/a.wav}", True),
        ("{file: Masters/2026/a.wav}", False),
        ("{file: masters}", False),
        ("{file: [ebooks/**, masters/**]}", True),
        ("{file: masters/*}", False),
        ("{file: '**/*.wav'}", True),
        ("{tier: gold}", True),
        ("{tier: Gold}", False),
        ("{plan: [preview, standard]}", True),
        ("{plan: preview}", False),
        ("{order: '10001'}", True),
        ("{order: 10001}", True),
        ("{order: 1000}", False),
        ("{customer: c-1}", True),
        ("{customer: c-2}", False),
        ("{user_agent: 'wget*'}", True),
        ("{user_agent: '*LINUX?'}", True),
        ("{user_agent: wget}", False),
        ("{user_agent: ''}", False),
        ("{method: GET}", True),
        ("{method: HEAD}", False),
        ("{method: [GET, HEAD]}", True),
        ("{before: 2026-11-20T12:00:00Z}", False),
        ("{before: 2026-11-20T12:00:00.001Z}", True),
        ("{after: 2026-11-20T12:00:00Z}", True),
        ("{after: 2026-11-20T13:00:00+01:00}", True),
        ("{after: 2026-11-20t13:00:01+01:00}", False),
        ("{after: 2026-11-20T00:00:00Z, before: 2026-11-21T00:00:00Z}", True),
        ("{any: [{country: DE}, {tier: gold}]}", True),
        ("{any: [{country: DE}, {tier: lead}]}", False),
        ("{all: [{country: PL}, {tier: gold}]}", True),
        ("{all: [{country: PL}, {tier: lead}]}", False),
        ("{not: {country: DE}}", True),
        ("{not: {country: PL, tier: lead}}", True),
        ("{not: {country: PL, tier: gold}}", False),
        ("{not: {not: {any: [{all: [{country: PL}]}]}}}", True),
        ("{country: PL, tier: lead}", False),
        ("{country: PL, tier: gold, method: GET}", True),
    ],
)
def test_whom_a_condition_means(written: str, expected: bool) -> None:
    assert matches(written) is expected


@pytest.mark.parametrize("key", ["country", "continent", "region", "asn", "network"])
def test_what_geo_data_do_not_know_is_unknown_and_nothing_else(key: str) -> None:
    known = {"country": "PL", "continent": "EU", "region": "PL-14", "asn": "64496", "network": "vpn"}[key]
    assert matches(f"{{{key}: unknown}}", NOWHERE)
    assert matches(f"{{{key}: [{known}, unknown]}}", NOWHERE)
    assert not matches(f"{{{key}: {known}}}", NOWHERE)
    assert matches(f"{{not: {{{key}: {known}}}}}", NOWHERE)
    assert not matches(f"{{{key}: unknown}}")


def test_a_network_that_is_known_to_be_none_of_the_types_is_not_unknown() -> None:
    plain = replace(FACTS, place=Place(network=frozenset()))
    assert not matches("{network: unknown}", plain)
    assert not matches("{network: [hosting, vpn, proxy, tor, anonymous]}", plain)


@pytest.mark.parametrize("key", ["tier", "order", "customer", "plan"])
def test_an_absent_claim_matches_nothing(key: str) -> None:
    for value in ("unknown", "None", "null-ish", "standard"):
        if key != "plan" or value == "standard":
            assert not matches(f"{{{key}: {value}}}", NOBODY)


def test_no_user_agent_is_an_empty_one() -> None:
    assert matches("{user_agent: ''}", NOBODY)
    assert matches("{user_agent: '*'}", NOBODY)
    assert not matches("{user_agent: '?*'}", NOBODY)


@pytest.mark.parametrize(
    "word", ["NO", "no", "yes", "on", "off", "true", "22:00", "0x1F", "1e3", "007", "1_000", ".inf"]
)
def test_a_word_is_a_word_whatever_other_readers_of_yaml_make_of_it(word: str) -> None:
    assert matches(f"{{tier: {word}}}", replace(FACTS, claims=replace(FACTS.claims, tier=word)))
    if word == "NO":
        assert matches(f"{{country: {word}}}", replace(FACTS, place=Place(country="NO")))


@pytest.mark.parametrize("address", ["::ffff:203.0.113.9", "2001:db8:42::1", "2001:db8:42:ffff:ffff:ffff:ffff:ffff"])
def test_addresses_of_both_kinds(address: str) -> None:
    assert matches("{ip: $office}", replace(FACTS, address=ip_address(address)))
    assert not matches("{ip: [203.0.112.0/24, '2001:db8:43::/48']}", replace(FACTS, address=ip_address(address)))


@pytest.mark.parametrize("written", ["::ffff:203.0.113.9", "::ffff:203.0.113.0/120", "203.0.113.9"])
def test_a_mapped_network_means_the_ipv4_one(written: str) -> None:
    for address in ("203.0.113.9", "::ffff:203.0.113.9"):
        assert matches(f"{{ip: '{written}'}}", replace(FACTS, address=ip_address(address)))


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("https://cdn.example.com/**", True),
        ("**/*.zip", True),
        ("url:**", False),
        ("https://other.example.com/**", False),
    ],
)
def test_an_external_file_is_meant_by_its_address(pattern: str, expected: bool) -> None:
    external = replace(FACTS, file=FileEntry(key=None, url="https://cdn.example.com/big/a.zip"))
    assert matches(f"{{file: '{pattern}'}}", external) is expected
    signed = replace(FACTS, file=FileEntry(key=None, url="https://cdn.example.com/big/a.zip?sig=x/y.tmp#z"))
    assert matches(f"{{file: '{pattern}'}}", signed) is expected


@pytest.mark.parametrize(
    ("written", "moment", "expected"),
    [
        ("{days: fri}", "2026-11-20T00:00:00Z", True),
        ("{days: fri}", "2026-11-19T23:59:59Z", False),
        ("{days: fri, zone: Europe/Warsaw}", "2026-11-19T23:00:00Z", True),
        ("{days: [mon-wed, sat]}", "2026-11-20T12:00:00Z", False),
        ("{days: fri-mon}", "2026-11-22T12:00:00Z", True),
        ("{days: fri-mon}", "2026-11-24T12:00:00Z", False),
        ("{days: fri-fri}", "2026-11-20T12:00:00Z", True),
        ('{hours: "08:00-18:00"}', "2026-11-20T08:00:00Z", True),
        ('{hours: "08:00-18:00"}', "2026-11-20T17:59:59Z", True),
        ('{hours: "08:00-18:00"}', "2026-11-20T18:00:00Z", False),
        ('{hours: ["00:00-01:00", "18:00-24:00"]}', "2026-11-20T23:59:59Z", True),
        ('{hours: ["00:00-01:00", "18:00-24:00"]}', "2026-11-20T01:00:00Z", False),
        ("{hours: 22:00-06:00}", "2026-11-20T21:59:59Z", False),
        ("{hours: 22:00-06:00}", "2026-11-20T22:00:00Z", True),
        ("{hours: 22:00-06:00}", "2026-11-20T23:00:00Z", True),
        ("{hours: 22:00-06:00}", "2026-11-20T05:59:59Z", True),
        ("{hours: 22:00-06:00}", "2026-11-20T06:00:00Z", False),
        ("{hours: 22:00-00:00}", "2026-11-20T00:00:00Z", False),
        # The night of Friday ends on Saturday morning; Friday's morning is Thursday's night.
        ("{days: fri, hours: 22:00-06:00}", "2026-11-21T05:00:00Z", True),
        ("{days: fri, hours: 22:00-06:00}", "2026-11-20T05:00:00Z", False),
        ("{days: sun, hours: 22:00-06:00}", "2026-11-23T05:00:00Z", True),
        ("{days: mon-fri, hours: 08:00-18:00, zone: Europe/Warsaw}", "2026-07-20T06:00:00Z", True),
        ("{days: mon-fri, hours: 08:00-18:00, zone: Europe/Warsaw}", "2026-11-20T06:30:00Z", False),
    ],
)
def test_times(written: str, moment: str, expected: bool) -> None:
    now = datetime.fromisoformat(moment).timestamp()
    assert matches(f"{{time: {written}}}", replace(FACTS, now=now)) is expected


def test_the_hour_that_comes_twice_and_the_one_that_never_comes() -> None:
    summer_ends = datetime(2026, 10, 25, 2, 30, tzinfo=timezone(timedelta(hours=2))).timestamp()
    written = "{time: {hours: 02:00-03:00, zone: Europe/Warsaw}}"
    assert matches(written, replace(FACTS, now=summer_ends))
    assert matches(written, replace(FACTS, now=summer_ends + 3600))
    summer_begins = datetime(2026, 3, 29, 1, 59, 59, tzinfo=timezone(timedelta(hours=1))).timestamp()
    assert not any(matches(written, replace(FACTS, now=summer_begins + step)) for step in (0, 1, 1800))


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("{}", "when: is empty; name at least one condition, such as {country: PL}"),
        ("~", "when: is empty; name at least one condition, such as {country: PL}"),
        ("[{country: PL}]", "when: is no mapping; write {country: PL} or one `condition: value` a line"),
        ("PL", "when: is no mapping; write {country: PL} or one `condition: value` a line"),
        ("{contry: PL}", "when.contry: contry is no condition; did you mean country?"),
        ("{Country: PL}", "when.Country: Country is no condition; did you mean country?"),
        ("{country: }", "when.country: has no value; give it one or remove the line"),
        ("{country: null}", "when.country: has no value; give it one or remove the line"),
        ("{country: []}", "when.country: is an empty list; give it a value or remove the line"),
        ("{country: [PL, null]}", "when.country[1]: has no value; write one value"),
        ("{country: [[PL]]}", "when.country[0]: is not one single value; write one value"),
        ("{country: {is: PL}}", "when.country: is not one single value; write one value, or a list of them: [a, b]"),
        ("{country: $ner}", "when.country: $ner is no list; did you mean $near?"),
        ("{country: [PL, $xyz]}", "when.country[1]: $xyz is no list; add it under lists"),
        ("{country: pl}", "when.country: 'pl' is no country code; write PL"),
        ("{country: ' PL'}", "when.country: ' PL' is no country code; write PL"),
        ("{country: UK}", "when.country: 'UK' is no country code; write GB"),
        ("{country: EU}", "when.country: 'EU' is a continent; write continent: EU"),
        ("{country: Unknown}", "when.country: 'Unknown' is no country code; write unknown"),
        (
            "{country: XX}",
            "when.country: 'XX' is no country of ISO 3166-1; write two letters such as PL, or unknown",
        ),
        (
            "{country: \u0420U}",
            (
                "when.country: '\u0420U' is no country of ISO 3166-1; it has a character that is not plain A to Z; "
                "write two letters such as PL, or unknown"
            ),
        ),
        (
            "{country: \u201cRU\u201d}",
            (
                "when.country: '\u201cRU\u201d' is no country of ISO 3166-1; "
                "it has a character that is not plain A to Z; write two letters such as PL, or unknown"
            ),
        ),
        ("{continent: eu}", "when.continent: 'eu' is no continent; write EU"),
        (
            "{continent: PL}",
            "when.continent: 'PL' is no continent; write one of AF, AN, AS, EU, NA, OC, SA, or unknown",
        ),
        ("{region: pl-14}", "when.region: 'pl-14' is no region code; write PL-14"),
        (
            "{region: XX-14}",
            (
                "when.region: 'XX-14' begins with no country of ISO 3166-1; "
                "write country, hyphen and region, such as PL-14"
            ),
        ),
        (
            "{region: Mazowieckie}",
            (
                "when.region: 'Mazowieckie' is no region of ISO 3166-2; "
                "write country, hyphen and region, such as PL-14, or unknown"
            ),
        ),
        ("{asn: AS64496}", "when.asn: 'AS64496' is no AS number; write 64496"),
        *(
            (
                f"{{asn: '{number}'}}",
                (
                    f"when.asn: '{number}' is no AS number; "
                    "write a number from 1 to 4294967295 in digits alone, such as 64496, or unknown"
                ),
            )
            for number in ("013335", "0x10", "1e3", "1_000", "+1", "0", "-1", "4294967296", "1.0", "\u0661", "")
        ),
        ("{network: VPN}", "when.network: 'VPN' is no network type; write vpn"),
        (
            "{network: cloud}",
            "when.network: 'cloud' is no network type; write one of hosting, vpn, proxy, tor, anonymous, or unknown",
        ),
        (
            "{ip: 10.0.0.1/8}",
            "when.ip: '10.0.0.1/8' has host bits set; write 10.0.0.0/8, or 10.0.0.1 for one address",
        ),
        (
            "{ip: 2001:db8::1/32}",
            "when.ip: '2001:db8::1/32' has host bits set; write 2001:db8::/32, or 2001:db8::1 for one address",
        ),
        (
            "{ip: 'fe80::1%eth0'}",
            (
                "when.ip: 'fe80::1%eth0' has a zone (%\u2026); "
                "write an address or a network, such as 203.0.113.9 or 203.0.113.0/24"
            ),
        ),
        *(
            (
                f"{{ip: '{text}'}}",
                (
                    f"when.ip: '{text}' is no address or network; "
                    "write an address or a network, such as 203.0.113.9 or 203.0.113.0/24"
                ),
            )
            for text in (
                *("10", "3405803785", "10.0.0.0/255.0.0.0", "10.0.0.0/0.0.0.255", "10.0.0.0/33", "10.0.0.0/08"),
                *(
                    "010.0.0.1",
                    "10.0.0",
                    "10.0.0.0/",
                    "10.0.0.0/8/8",
                    " 10.0.0.1",
                    "::1/129",
                    "1.2.3.4.5",
                    "office",
                    "",
                ),
            )
        ),
        ("{file: ''}", "when.file: '' is an empty pattern; write one or remove it"),
        (
            "{file: /masters/**}",
            "when.file: '/masters/**' has a slash in front or two in a row, which no key has; write masters/**",
        ),
        (
            "{file: masters//a}",
            "when.file: 'masters//a' has a slash in front or two in a row, which no key has; write masters/a",
        ),
        (
            "{file: masters/}",
            "when.file: 'masters/' ends with a slash, which no key does; write masters/** for all below it",
        ),
        ('{tier: "a\\tb"}', "when.tier: 'a?b' has a control character; type it anew"),
        ("{tier: ''}", "when.tier: '' is an empty text; write one or remove it"),
        (
            "{tier: {a: b}}",
            "when.tier: is not one single value; write one value, or a list of them: [a, b]",
        ),
        (
            f"{{order: {'1' * 256}}}",
            f"when.order: '{'1' * 20}…' is a text of more than 255 characters; write a shorter one",
        ),
        ("{plan: standart}", "when.plan: standart is no plan of this file; did you mean standard?"),
        ("{method: get}", "when.method: 'get' is no method of a download; write GET"),
        ("{method: POST}", "when.method: 'POST' is no method of a download; write GET or HEAD"),
        (
            "{time: {}}",
            'when.time: is empty; name at least one part of a time, such as {days: mon-fri, hours: "08:00-18:00"}',
        ),
        (
            "{time: {zone: UTC}}",
            'when.time: has neither days nor hours; write {days: mon-fri}, {hours: "08:00-18:00"} or both',
        ),
        ("{time: {days: mon, hour: 08:00-09:00}}", "when.time.hour: hour is no part of a time; did you mean hours?"),
        ("{time: {days: Monday}}", "when.time.days: 'Monday' is no day; write mon"),
        ("{time: {days: Mon-Fri}}", "when.time.days: 'Mon-Fri' is no day; write mon-fri"),
        ("{time: {days: work}}", "when.time.days: 'work' is no day; write mon, or a range such as mon-fri"),
        ("{time: {days: mon-}}", "when.time.days: 'mon-' is no day; write mon, or a range such as mon-fri"),
        *(
            (
                f"{{time: {{hours: '{hours}'}}}}",
                f"when.time.hours: '{hours}' are no hours; write them like \"08:00-18:00\", from 00:00 to 24:00",
            )
            for hours in (
                "8-18",
                "8:00-18:00",
                "24:00-02:00",
                "08:00-24:01",
                "08:60-09:00",
                "08:00",
                "1320",
                "25:00-26:00",
            )
        ),
        (
            "{time: {hours: 08:00-08:00}}",
            "when.time.hours: '08:00-08:00' begin and end at the same time; write \"00:00-24:00\" for the whole day",
        ),
        ("{time: {days: mon, zone: CEST5}}", "when.time.zone: 'CEST5' is no time zone; write another"),
        (
            "{before: 2026-12-24}",
            "when.before: '2026-12-24' has no seconds or no offset from UTC; write it like 2026-12-24T00:00:00+01:00",
        ),
        (
            "{after: 2026-12-24T18:30:00}",
            (
                "when.after: '2026-12-24T18:30:00' has no seconds or no offset from UTC; "
                "write it like 2026-12-24T18:30:00+01:00"
            ),
        ),
        (
            "{after: 2026-12-24 18:30Z}",
            "when.after: '2026-12-24 18:30Z' has no seconds or no offset from UTC; write it like 2026-12-24T18:30:00Z",
        ),
        (
            "{after: 2026-02-30T00:00:00Z}",
            "when.after: '2026-02-30T00:00:00Z' is no time that exists; write one such as 2026-12-24T00:00:00+01:00",
        ),
        (
            "{after: 2026-02-30}",
            "when.after: '2026-02-30' is no time that exists; write one such as 2026-12-24T00:00:00+01:00",
        ),
        (
            "{before: christmas}",
            "when.before: 'christmas' is no time; write RFC 3339, such as 2026-12-24T00:00:00+01:00",
        ),
        (
            "{before: [2026-12-24T00:00:00Z]}",
            "when.before: is not one single value; write one time, such as 2026-12-24T00:00:00+01:00",
        ),
        ("{any: {country: PL}}", "when.any: is no list; write [{country: PL}, {tier: gold}]"),
        ("{all: []}", "when.all: is an empty list; give it a value or remove the line"),
        ("{any: [{}]}", "when.any[0]: is empty; name at least one condition, such as {country: PL}"),
        ("{any: [null]}", "when.any[0]: has no value; write {country: PL}"),
        ("{not: [{country: PL}]}", "when.not: is no mapping; write {country: PL} or one `condition: value` a line"),
        ("{not: {}}", "when.not: is empty; name at least one condition, such as {country: PL}"),
        ("{not: {any: [{tier: []}]}}", "when.not.any[0].tier: is an empty list; give it a value or remove the line"),
    ],
)
def test_what_is_wrong_and_what_would_be_right(written: str, expected: str) -> None:
    assert wrong(written) == [expected]


def test_a_wrong_entry_of_a_list_is_reported_where_it_is_written() -> None:
    assert read("{country: $bad}")[1] == ["list.txt:7: when.country: 'pl' is no country code; write PL"]


def test_a_list_that_is_wrong_throughout_does_not_flood_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LISTS, "junk", [Node(f"junk.txt:{line}", "?") for line in range(1, 1001)])
    found = read("{ip: $junk}")[1]
    assert len(found) == 51
    assert found[-1] == "junk.txt:51: when.ip: and what follows is not looked at; correct the others first"


@pytest.mark.parametrize(
    ("written", "needs"),
    [
        *((f"{{{key}: unknown}}", "city") for key in ("country", "continent", "region")),
        ("{asn: 1}", "asn"),
        ("{not: {any: [{network: vpn}]}}", "anonymous"),
    ],
)
def test_a_condition_says_which_database_it_asks(written: str, needs: str) -> None:
    assert set(read(written)[2]) == {needs}
    assert read(written, ("city", "asn", "anonymous"))[1] == []
    (line,) = read(written, tuple({"city", "asn", "anonymous"} - {needs}))[1]
    assert line.endswith(f": needs geo.{needs} in the settings; name the database there")


def test_what_the_index_answers_is_what_the_conditions_say() -> None:
    assert {kind.key for kind in INDEXED} >= {
        *("country", "continent", "region", "asn", "tier", "plan", "order", "customer", "method"),
    }


def test_every_condition_has_a_row_here_unless_oneof_reads_and_asks_it() -> None:
    rows = test_whom_a_condition_means.pytestmark[0].args[1]
    shown = " ".join(written for written, _ in rows) + " time:"
    # Those of one fact among values have theirs in docs/rules.md, which tests/test_docs_rules.py runs.
    assert {key for key, kind in CONDITIONS.items() if f"{key}:" not in shown and kind not in INDEXED} == set()


def test_what_no_look_up_answers_is_answered_in_one_call() -> None:
    """With 300 such rules, a call for the fact and one for the answer took a ninth of the decision."""
    slow = [kind.key for kind in CONDITIONS.values() if kind not in INDEXED and kind.matches is Asks.matches]
    assert slow == []
