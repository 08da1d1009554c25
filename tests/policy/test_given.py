"""What people give of a request: each fact in its place, each mistake with its line, and all of it there and back."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.document import Mistakes
from gateway.policy.accounts import Account
from gateway.policy.conditions import CONDITIONS, INDEXED
from gateway.policy.conditions.base import Asks
from gateway.policy.given import KEYS, NOON, NOWHERE, Given, GivenReader, nothing_known, written
from gateway.policy.model import NETWORK_TYPES, Claims, Facts, FileEntry, Place
from gateway.yaml_file import Bounds, parse


def read(text: str) -> tuple[Given, list[str]]:
    mistakes = Mistakes()
    tree = parse(text, lambda line: f"t:{line}", mistakes, Bounds("tests", 0, 1000))
    assert tree is not None
    found = GivenReader(("standard", "preview"), mistakes).given(tree, "given")
    return found, mistakes.report().splitlines()


def test_nothing_is_known_of_what_is_left_out() -> None:
    found, mistakes = read("{}")
    assert (found, mistakes) == (nothing_known(), [])
    assert found.facts.place == Place()
    assert datetime.fromtimestamp(NOON, UTC) == datetime(2000, 1, 3, 12, tzinfo=UTC)


def test_every_fact_in_its_place() -> None:
    found, mistakes = read("""
        {ip: "::ffff:203.0.113.9", country: PL, continent: EU, region: PL-14, asn: 64496, network: [tor, vpn],
         file: masters/a.wav, tier: gold, plan: preview, order: "10001", customer: c-1, user_agent: "", method: HEAD,
         time: 2026-11-20T12:00:00.5+01:00, account: true, signed_in: c-2, view: true,
         front: nginx}""")
    assert mistakes == []
    claims = Claims("", "", 0, (), customer_id="c-1", order_id="10001", plan="preview", tier="gold", account=True)
    place = Place("PL", "EU", "PL-14", asn=64496, network=frozenset(("tor", "vpn")))
    moment = datetime(2026, 11, 20, 11, tzinfo=UTC).timestamp() + 0.5
    address = ip_address("203.0.113.9")
    expected = Facts(claims, FileEntry("masters/a.wav"), "preview", address, place, "HEAD", "", moment)
    assert found == Given(expected, view=True, front="nginx", account=Account("c-2"))
    assert set(KEYS).difference(written(found)) <= {kind.key for kind in INDEXED}
    assert len(written(found)) == 18


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{network: []}", frozenset()),
        ("{network: none}", frozenset()),
        ("{network: unknown}", None),
        ("{network: [unknown]}", None),
        ("{network: vpn}", frozenset(["vpn"])),
        ("{country: unknown}", None),
    ],
    ids=str,
)
def test_networks_that_are_known_to_be_none_are_not_unknown(text: str, expected: object) -> None:
    found, mistakes = read(text)
    assert (found.facts.place.network, mistakes) == (expected, [])


def test_an_address_is_an_external_file() -> None:
    assert read("{file: 'https://cdn.example.com/a.zip'}")[0].facts.file == FileEntry(
        None, "https://cdn.example.com/a.zip"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *(
            (
                f"{{file: '{text}'}}",
                [f"1: given.file: '{text}' is no address; write one such as https://cdn.example.com/a.zip"],
            )
            for text in ("http://[x/a.zip", "https://[::1", "https://a\u2100b/c")
        ),
        ("[]", ["1: given: is no mapping; write {country: PL, file: masters/a.wav}, or {} for nothing"]),
        ("{contry: PL}", ["1: given.contry: contry is no fact of a request; did you mean country?"]),
        ("{country: pl}", ["1: given.country: 'pl' is no country code; write PL"]),
        ("{country: }", ["1: given.country: has no value; write one value, or leave it out"]),
        ("{country: [PL]}", ["1: given.country: is not one single value; write one value, or leave it out"]),
        ("{ip: 203.0.113.0/24}", ["1: given.ip: '203.0.113.0/24' is no address; write one such as 203.0.113.9 or "]),
        ("{network: [vpn, unknown]}", ["1: given.network: is no type beside others; write unknown or none alone"]),
        ("{network: [vnp]}", ["1: given.network: is no network type; write one of hosting, vpn,"]),
        ("{file: /a.wav}", ["1: given.file: '/a.wav' is no file's key; write it without a slash at its ends"]),
        ("{plan: standart}", ["1: given.plan: standart is no plan of the rules file; did you mean standard?"]),
        ("{order: ''}", ["1: given.order: '' is an empty text; write one or remove it"]),
        ("{method: POST}", ["1: given.method: 'POST' is no method of a download; write GET or HEAD"]),
        ("{time: 2026-11-20}", ["1: given.time: '2026-11-20' has no seconds or no offset from UTC; write it like "]),
        *(
            (f"{{time: '{time}'}}", [f"1: given.time: '{time}' is no time that a request can have; write one between"])
            for time in ("9999-12-31T23:59:59Z", "1969-12-31T23:59:59Z", "0001-01-01T00:00:00+14:00")
        ),
        ("{view: yes}", ["1: given.view: 'yes' is not what can stand here; write true or false"]),
        ("{asn: AS1,\n tier: [a]}", ["1: given.asn: 'AS1' is no AS number; write 1", "2: given.tier: is not one"]),
    ],
)
def test_what_is_wrong_and_what_would_be_right(text: str, expected: list[str]) -> None:
    found = [line.removeprefix("t:") for line in read(text)[1]]
    assert len(found) == len(expected)
    assert [line[: len(start)] for line, start in zip(found, expected, strict=True)] == expected


WORD = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=9)
MAYBE = st.none() | WORD
GIVENS = st.builds(
    Given,
    st.builds(
        Facts,
        claims=st.builds(
            Claims,
            *map(st.just, ("", "", 0, ())),
            customer_id=MAYBE,
            order_id=MAYBE,
            plan=st.sampled_from([None, "standard", "preview"]),
            tier=MAYBE,
            account=st.booleans(),
        ),
        file=st.sampled_from([FileEntry("a b/c.wav"), FileEntry(None, "https://cdn.example.com/a.zip"), FileEntry("")]),
        plan=st.none(),
        address=st.sampled_from(["203.0.113.9", "2001:db8::1", str(NOWHERE)]).map(ip_address),
        place=st.builds(
            Place,
            country=st.sampled_from([None, "PL", "XK"]),
            continent=st.sampled_from([None, "EU"]),
            region=st.sampled_from([None, "PL-14"]),
            asn=st.none() | st.integers(1, 2**32 - 1),
            network=st.none() | st.frozensets(st.sampled_from(NETWORK_TYPES)),
        ),
        method=st.sampled_from(["GET", "HEAD"]),
        user_agent=st.just("") | WORD,
        now=st.integers(0, 10**10).map(float),
    ),
    view=st.booleans(),
)


@given(GIVENS)
def test_what_is_written_of_a_request_reads_as_that_request(request: Given) -> None:
    found, mistakes = read(json.dumps(written(request)))
    assert mistakes == []
    assert replace(found, facts=replace(found.facts, plan=None)) == request


def test_everything_that_a_condition_looks_at_can_be_given() -> None:
    asked = {key for key, kind in CONDITIONS.items() if issubclass(kind, Asks)} - {"before", "after"}
    assert asked <= set(KEYS)
