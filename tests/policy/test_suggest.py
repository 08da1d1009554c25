"""The tightest numbers and blocks: by themselves, and loosened until together they keep to the budget."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from fractions import Fraction
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.events import rfc3339
from gateway.policy.model import Limits, Plan
from gateway.policy.ruleset import Rule, RuleSet
from gateway.policy.suggest import NO_PLAN, Block, Download, Number, Suggested, suggest, tightest
from gateway.policy.suggest_history import NUMBERS, History, Tried, origin_of
from gateway.policy.suggest_words import evidence

DAY = 86_400
NOON_MS = 1_795_000_000_000
ONES = (1, 1, 1, 1, 0)
needs_of = st.tuples(*[st.integers(1, 9)] * 4, st.integers(0, 30))


def download(number: int, *needs: int, plan: str = "a", **origin: str) -> Download:
    return Download(f"d{number}", f"t{number}", plan, needs or ONES, (frozenset(origin.items()),))


def rules_of(**limits: int) -> RuleSet:
    return RuleSet(plans=MappingProxyType({"a": Plan("a", Limits(**limits))}))


def suggested(
    downloads: Iterable[Download],
    tried: Mapping[frozenset[tuple[str, str]], Tried] | None = None,
    rules: RuleSet | None = None,
    at_most: Fraction = Fraction(1, 1000),
    least: int = 1,
    databases: frozenset[str] | None = None,
) -> Suggested:
    return suggest(
        [*downloads], tried or {}, rules or rules_of(), at_most=at_most, least=least, span=90 * DAY, databases=databases
    )


@given(st.lists(st.integers(0, 50), min_size=1), st.integers(0, 60))
def test_the_tightest_number_keeps_to_what_is_spare_and_one_less_does_not(needs, spare) -> None:
    number = tightest(sorted(needs), spare)
    assert sum(need > number for need in needs) <= spare
    assert number == 1 or sum(need > number - 1 for need in needs) > spare


@given(st.lists(needs_of, min_size=1, max_size=60), st.sampled_from([Fraction(0), Fraction(1, 20), Fraction(1, 3)]))
def test_all_together_keep_to_the_budget_and_are_never_looser_than_the_plan(needs, at_most) -> None:
    rules = rules_of(downloads=5, networks=2)
    found = suggested([download(number, *each) for number, each in enumerate(needs)], rules=rules, at_most=at_most)
    limits = {each.limit: each.at_most // (3600 if each.limit == "valid_after_first" else 1) for each in found.of}
    refused = [each for each in needs if any(each[NUMBERS.index(limit)] > number for limit, number in limits.items())]
    assert len(refused) <= int(at_most * len(needs)) == found.spare
    assert limits.get("downloads", 1) < 5
    assert limits.get("networks", 1) < 2


def test_the_costliest_is_loosened_first() -> None:
    own = [download(1, 9, 1, 1, 1, 0), download(2, 8, 1, 1, 1, 0), download(3, 1, 2, 1, 1, 0)]
    found = suggested([*own, *map(download, range(4, 31))], at_most=Fraction(2, 30))
    assert {each.limit: each.at_most for each in found.numbers} == {
        "downloads": 8, "networks": 1, "devices": 1, "concurrent": 1, "valid_after_first": 3600,
    }  # fmt: skip


def test_a_replay_that_says_more_loosens_more_and_at_last_takes_out_what_it_names() -> None:
    found = suggested([download(1, 9, 1, 1, 1, 0), *map(download, range(2, 2001))])
    number = found.numbers[0]
    assert (number.limit, number.at_most, len(number.refused)) == ("downloads", 1, 1)
    found.loosen(3, Counter())
    assert (number.at_most, number.refused) == (9, [])
    found.loosen(3, Counter({"plan a: networks=1": 3}))
    assert "networks" not in [each.limit for each in found.numbers]


def test_what_comes_back_later_than_could_be_seen_is_no_suggestion() -> None:
    late = [download(number, 1, 1, 1, 1, 24 * 50) for number in range(9)]
    assert "valid_after_first" not in [each.limit for each in suggested(late).numbers]


def test_plans_with_too_few_downloads_and_those_that_are_gone_are_left_alone() -> None:
    own = [*map(download, range(9)), *[download(20 + number, plan="gone") for number in range(9)]]
    own += [download(40, plan="")]
    found = suggested(own, least=5)
    assert {each.plan for each in found.numbers} == {"a"}
    assert found.unjudged == {"": 1}
    assert {each.plan for each in suggested([download(1, plan="")]).numbers} == {NO_PLAN}


def tried(count: int, networks: int = 5, **origin: str) -> dict[frozenset[tuple[str, str]], Tried]:
    return {frozenset(origin.items()): Tried(count, {f"n{number}" for number in range(networks)})}


@pytest.mark.parametrize(
    ("what", "served", "names"),
    [
        (tried(20, network="tor"), {}, ["suggested-network-tor"]),
        (tried(19, network="tor"), {}, []),
        (tried(500, networks=2, network="tor"), {}, []),
        (tried(500, network="tor"), {"network": "tor"}, ["suggested-network-tor"]),
        (tried(19, network="tor"), {"network": "tor"}, []),
        (tried(99, network="tor", country="CU", continent="NA"), {}, ["suggested-network-tor"]),
        (tried(99, country="CU", continent="NA"), {}, ["suggested-country-CU"]),
        (
            tried(30, country="CU", continent="NA")
            | tried(31, country="HT", continent="NA")
            | tried(32, country="JM", continent="NA"),
            {},
            ["suggested-continent-NA"],
        ),
        (tried(30, user_agent="curl/*"), {}, ["suggested-user-agent-curl"]),
        (tried(30, user_agent=""), {}, ["suggested-user-agent-none"]),
    ],
)  # fmt: skip
def test_what_is_blocked_is_where_hardly_a_download_came_from(what, served, names) -> None:
    own = [download(0, **served), *map(download, range(1, 1001))]
    assert [each.name for each in suggested(own, what).blocks] == names


def test_no_place_is_blocked_that_buyers_come_from_or_that_cannot_be_asked_or_is_blocked_already() -> None:
    what = tried(5000, network="tor")
    own = [*map(download, range(1000))]
    assert suggested([download(1000 + number, network="tor") for number in range(2)] + own, what).blocks == []
    assert suggested(own, what, databases=frozenset({"city"})).blocks == []
    there = RuleSet(rules=(Rule("suggested-network-tor", (), "deny", observe=True),), plans=rules_of().plans)
    assert suggested(own, what, there).blocks == []


def test_few_blocks_are_suggested() -> None:
    what = {key: value for each in range(9) for key, value in tried(30 + each, user_agent=f"x{each}/*").items()}
    assert [each.name[-2:] for each in suggested(map(download, range(1000)), what).blocks] == [
        "x8", "x7", "x6", "x5", "x4",
    ]  # fmt: skip


def test_enforced_are_the_suggested_rules_alone() -> None:
    found = Suggested([Block("network", "tor", 30, 4, 1, [])], 1, 0, {})
    rules = RuleSet(
        rules=(Rule("own", (), "deny", observe=True), Rule("suggested-network-tor", (), "deny", observe=True))
    )
    assert [each.observe for each in found.enforced(rules).rules] == [True, False]


def test_the_evidence_of_a_number() -> None:
    number = Number("a", "networks", 5, 2, 4, [1, 1, 2, 3], [download(each) for each in range(4)])
    assert evidence(number, 30 * DAY) == (
        "of 4 completed downloads in 30d 1 (25.00%) came from a third network of its link or a later one, of 1 link; "
        "the most that one needed is 3"
    )


def allowed(request: str, at: int = 0, **more: str) -> dict[str, str]:
    """A request that opens a transfer at this second, of link t for file f."""
    fields = {
        "type": "download.allowed", "time": rfc3339(NOON_MS + at * 1000), "token.id": "t", "file.key": "f",
        "request.id": request, "transfer.id": request, "counted": "1", "token.expires_at": "4000000000",
        "client.network": "n1", "device.id": "d1", "user_agent.original": "Mozilla/5.0",
    }  # fmt: skip
    return fields | {name.replace("__", "."): text for name, text in more.items()}


def ended(begun: dict[str, str], outcome: str = "complete", **more: str) -> dict[str, str]:
    told = {name.replace("__", "."): text for name, text in more.items()}
    return {**begun, "type": "download.finished", "counted": "0", "outcome": outcome, **told}


def needs(*events: dict[str, str], since: float = 0.0) -> list[tuple[str, tuple[int, ...]]]:
    history = History(since, RuleSet())
    for each in events:
        history.take(each)
    return [(each.id, each.needs) for each in history.downloads()]


A, B = allowed("a"), allowed("b", 60, client__network="n2", device__id="d2")
JOIN = allowed("c", 90, transfer__id="a", counted="0")


@pytest.mark.parametrize(
    ("events", "found"),
    [
        ([A], []),
        ([A, ended(A)], [("a", (1, 1, 1, 1, 0))]),
        ([A, ended(A, "client_left")], []),
        ([A, ended(A, "client_left"), JOIN, ended(JOIN)], [("a", (1, 1, 1, 1, 0))]),
        ([A, B, ended(A), ended(B)], [("a", (1, 1, 1, 1, 0)), ("b", (2, 2, 2, 2, 1))]),
        ([A, ended(A), B, ended(B)], [("a", (1, 1, 1, 1, 0)), ("b", (2, 2, 2, 1, 1))]),
        ([A, ended(A, counted="-1"), B, ended(B)], [("b", (1, 1, 1, 1, 0))]),
        ([A, ended(A, transfer__id="m", counted="1")], [("m", (2, 1, 1, 0, 0))]),
        ([A, ended(A), b := allowed("b", 7200, token__extended_to="9"), ended(b)],
         [("a", (1, 1, 1, 1, 0)), ("b", (2, 1, 1, 1, 0))]),
        ([A, ended(A), b := allowed("b", 7201, device__id="x", device__cookie="d1"), ended(b)],
         [("a", (1, 1, 1, 1, 0)), ("b", (2, 1, 2, 1, 3))]),
        ([A, ended(A), b := allowed("b", file__key="other"), ended(b)],
         [("a", (1, 1, 1, 1, 0)), ("b", (1, 1, 1, 1, 0))]),
        ([{**A, "time": "noon"}, ended(A)], []),
    ],
)  # fmt: skip
def test_what_a_download_would_have_needed(events, found) -> None:
    assert needs(*events) == found


def test_earlier_downloads_count_and_are_not_told() -> None:
    assert needs(A, ended(A), B, ended(B), since=NOON_MS / 1000 + 30) == [("b", (2, 2, 2, 1, 1))]


def test_what_the_plan_would_not_let_in_is_left_out_whatever_was_recorded() -> None:
    history = History(0.0, RuleSet(default_plan="a", plans=rules_of(networks=1).plans))
    for each in (A, ended(A), B, ended(B)):
        history.take(each)
    assert [each.id for each in history.downloads()] == ["a"]
    assert history.left_out == 1
    late = allowed("b", 5000)
    history = History(0.0, RuleSet(default_plan="a", plans=rules_of(valid_after_first=5400).plans))
    for each in (A, ended(A), late, ended(late)):
        history.take(each)
    assert [each.id for each in history.downloads()] == ["a", "b"]


@pytest.mark.parametrize(
    ("event", "counts"),
    [
        ({"reason": "token.expired"}, True),
        ({"reason": "limit.downloads"}, True),
        ({"reason": "rule.denied"}, False),
        ({"reason": "account.required"}, False),
        ({"reason": "redis.down"}, False),
        ({"reason": "of.tomorrow"}, False),
    ],
)
def test_refusals_that_are_the_clients_own_tell_of_a_place(event, counts) -> None:
    history = History(0.0, RuleSet())
    history.take({**A, "type": "download.denied", **event})
    assert [each.requests for each in history.tried().values()] == [1] * counts


@pytest.mark.parametrize(
    ("fields", "origin"),
    [
        ({"user_agent.original": "Mozilla/5.0 (X11)"}, set()),
        ({"user_agent.original": "curl/8.5.0"}, {("user_agent", "curl/*")}),
        ({"user_agent.original": "Evil*/1 {}"}, set()),
        ({}, {("user_agent", "")}),
        ({"user_agent.original": "x", "geo.country.iso_code": "CU, x: y", "geo.continent.code": "unknown"}, set()),
        (
            {"user_agent.original": "x", "geo.country.iso_code": "CU", "client.network.type": "vpn,tor,anonymous"},
            {("country", "CU"), ("network", "vpn"), ("network", "tor")},
        ),
    ],
)
def test_where_a_request_came_from(fields, origin) -> None:
    assert origin_of(fields) == origin
