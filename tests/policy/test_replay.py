"""Recorded requests decided again: which come out otherwise, what flips them, and which cannot be told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from types import MappingProxyType

import pytest

from gateway.policy.conditions.places import Country
from gateway.policy.conditions.requests import OfOrder, Patterns, UserAgent
from gateway.policy.counting import CountingRules
from gateway.policy.flips import Flips
from gateway.policy.fronts import FRONTS
from gateway.policy.model import Limits, Place, Plan
from gateway.policy.replay import Replay
from gateway.policy.replay_changes import Change, Outcome
from gateway.policy.ruleset import Rule, RuleSet

NOON = "2026-11-20T12:00:{:02d}.000Z"
SIZE = 1_000_000
GEO = {"geo.version": "GeoLite2-City 2026-11-01", "geo.country.iso_code": "PL"}
ASKED = {
    "request.id": "r1",
    "http.request.method": "GET",
    "client.address": "203.0.113.9",
    "client.network": "203.0.113.0/24",
    "device.id": "d1",
    "file.use": "download",
    "file.key": "a.bin",
    "token.id": "t1",
    "token.expires_at": "4000000000",
    "order.id": "10001",
    "rule": "otherwise",
}
OPEN = RuleSet(version="new")


def named(fields: dict[str, str], more: Mapping[str, str | None]) -> dict[str, str]:
    """Without what is None; `file__key` is `file.key`."""
    told = {**fields, **{key.replace("__", "."): text for key, text in more.items()}}
    return {name: text for name, text in told.items() if text}


def allowed(second: int = 0, request: str = "r1", **more: str | None) -> list[dict[str, str]]:
    """A download and its end."""
    told = {**ASKED, "request.id": request, "file.size": str(SIZE), "file.etag": '"e"', "bytes.asked": str(SIZE)}
    told = named(
        {**told, "time": NOON.format(second), "transfer.id": request, "http.response.status_code": "200"}, more
    )
    return [
        {**told, "type": "download.allowed", "counted": "1"},
        {**told, "type": "download.finished", "counted": "0", "bytes.delivered": str(SIZE)},
    ]


def denied(reason: str, second: int = 0, **more: str | None) -> list[dict[str, str]]:
    return [named({**ASKED, "type": "download.denied", "reason": reason, "time": NOON.format(second)}, more)]


def replayed(rules: RuleSet, events: Iterable[Mapping[str, str]], **more: object) -> tuple[Replay, list[Change]]:
    replay = Replay(rules, counting=CountingRules(), **more)
    changes = [change for event in events for change in replay.take(event)]
    return replay, [*changes, *replay.finish()]


def with_plan(plan: Plan, *rules: Rule) -> RuleSet:
    return RuleSet("new", MappingProxyType({plan.name: plan}), plan.name, rules=rules)


NO_ORDER = Rule("none-of-it", (OfOrder(frozenset({"10001"})),), "deny")
ACCOUNT = Rule("account", (OfOrder(frozenset({"10001"})),), "require_account")


@pytest.mark.parametrize(
    ("rules", "events", "after", "cause"),
    [
        (RuleSet(rules=(NO_ORDER,)), allowed(), ("rule.denied", "none-of-it"), "rule none-of-it"),
        (RuleSet(otherwise=False), allowed(), ("rule.denied", "otherwise"), "rule otherwise"),
        (RuleSet(rules=(ACCOUNT,)), allowed(), ("account.required", "account"), "rule account"),
        (OPEN, denied("rule.denied", rule="old"), ("", "otherwise"), "rule old no longer refuses it"),
        (OPEN, denied("limit.downloads", limits="downloads=5"), ("", "otherwise"), "downloads=5 no longer refuses it"),
        (OPEN, denied("rule.denied", token__plan="gone"), ("token.claims", ""), "plan gone is not in the file"),
        (OPEN, denied("token.ip", token__plan="gone", rule=None), ("token.claims", ""), "plan gone is not in the file"),
        (with_plan(Plan("p")), allowed(file__use="view"), ("view.not_allowed", ""), "plan p: no view"),
        (with_plan(Plan("p", valid_for=60)), allowed(), ("token.claims", ""), "plan p: valid_for"),
        (
            with_plan(Plan("p", valid_for=60)),
            allowed(token__issued_at="1000000000"),
            ("token.expired", "otherwise"),
            "plan p: valid_for",
        ),
        (
            with_plan(Plan("p", Limits(downloads=1))),
            [*allowed(), *allowed(1, "r2", client__network="n2", device__id="d2")],
            ("limit.downloads", "otherwise"),
            "plan p: downloads=1",
        ),
        (
            RuleSet(rules=(Rule("two", (), "limit", limits=Limits(networks=1)),)),
            [*allowed(), *allowed(1, "r2", client__network="n2", device__id="d2")],
            ("limit.networks", "otherwise"),
            "rule two: networks=1",
        ),
        (
            OPEN,
            [*allowed(token__limits="devices=1"), *allowed(1, "r2", client__network="n2", device__id="d2",
                                                          token__limits="devices=1")],
            ("limit.devices", "otherwise"),
            "the link: devices=1",
        ),
    ],
)  # fmt: skip
def test_what_flips_and_what_flips_it(rules, events, after, cause) -> None:
    _, changes = replayed(rules, events)
    assert [(change.after, change.cause) for change in changes] == [(Outcome(*after), cause)]


def test_the_rule_that_is_named_is_one_that_meant_the_request() -> None:
    def limit(name: str, order: str, *, observe: bool = False) -> Rule:
        return Rule(name, (OfOrder(frozenset({order})),), "limit", limits=Limits(networks=1), observe=observe)

    ends = Rule("ends", (OfOrder(frozenset({"10001"})),), "allow")
    rules = RuleSet(
        rules=(
            limit("other", "x"),
            limit("trial", "10001", observe=True),
            limit("it", "10001"),
            ends,
            limit("after", "10001"),
        )
    )
    _, changes = replayed(rules, [*allowed(), *allowed(1, "r2", client__network="n2", device__id="d2")])
    assert [change.cause for change in changes] == ["rule it: networks=1"]


EXTERNAL = "url:https://cdn.example/a.zip"


@pytest.mark.parametrize(
    ("hosts", "reasons"), [(None, []), (("cdn.example",), []), (("other.example",), ["token.claims"])]
)
def test_an_external_host_is_asked_where_the_settings_say_which_there_are(hosts, reasons) -> None:
    _, changes = replayed(
        with_plan(Plan("p", valid_for=60)), allowed(file__key=EXTERNAL, token__issued_at="1795176000"), hosts=hosts
    )
    assert [(change.after.reason, change.cause) for change in changes] == [
        (reason, "the file's host is not in external_hosts of the settings") for reason in reasons
    ]


def test_external_files_that_differ_in_their_query_are_counted_by_themselves() -> None:
    rules = with_plan(Plan("p", Limits(downloads=1)))
    second = allowed(1, "r2", file__key=EXTERNAL, file__id="bbbbbbbbbbbb", client__network="n2", device__id="d2")
    _, changes = replayed(rules, [*allowed(file__key=EXTERNAL, file__id="aaaaaaaaaaaa"), *second])
    assert changes == []
    _, changes = replayed(
        rules,
        [*allowed(file__key=EXTERNAL), *allowed(9, "r3", file__key=EXTERNAL, client__network="n2", device__id="d2")],
    )
    assert [change.after.reason for change in changes] == ["limit.downloads"]


def test_a_link_refused_for_what_it_says_is_not_let_in_for_want_of_the_hosts() -> None:
    found, changes = replayed(OPEN, denied("token.claims", file__key=EXTERNAL, rule=None))
    assert (changes, found.counts.not_redecidable.total()) == ([], 1)


CLOCK = {"token__limits": "valid_after_first=60", "limits": "valid_after_first=60"}


def test_too_late_after_a_first_download_that_left_no_event_stays() -> None:
    found, changes = replayed(OPEN, denied("token.expired", **CLOCK))
    assert (changes, found.counts.unchanged) == ([], 1)


def test_who_was_too_late_for_an_older_plan_is_let_in_where_no_clock_runs() -> None:
    _, changes = replayed(OPEN, denied("token.expired"))
    assert [change.kind for change in changes] == ["allowed"]


@pytest.mark.parametrize(
    ("more", "cause"),
    [
        ({"token__expires_at": "1795176000"}, "the link: exp"),
        ({"token__expires_at": "1795175000", "token__extended_to": "1795176000"}, "the link: its extension"),
        ({"token__issued_at": "1795175940"}, "plan p: valid_for"),
        ({"token__issued_at": "1795175940", **CLOCK}, "plan p: valid_for"),
    ],
)
def test_what_ended_a_link_is_named(more, cause) -> None:
    _, changes = replayed(with_plan(Plan("p", valid_for=60)), allowed(1, **more))
    assert [(change.after.reason, change.cause) for change in changes] == [("token.expired", cause)]


@pytest.mark.parametrize(
    "events",
    [
        allowed(),
        denied("token.ip", rule=None),
        denied("token.revoked", rule=None),
        denied("order.unpaid", rule=None),
        denied("token.expired", rule=None),
        denied("orders.down", rule=None),
        denied("origin.down", rule=None),
        denied("file.missing", rule=None),
        denied("file.unknown", rule=None, file__key=None),
        denied("token.signature", rule=None, file__key=None, token__id=None),
        denied("limit.devices", token__limits="devices=1", limits="devices=1"),
    ],
)
def test_what_no_rules_file_changes_stays(events) -> None:
    replay, changes = replayed(OPEN, events)
    assert (changes, replay.counts.unchanged, replay.counts.redecided) == ([], 1, 1)


@pytest.mark.parametrize(
    ("events", "why"),
    [
        (denied("rule.denied", file__key=None), "link's page"),
        (denied("rule.denied", token__expires_at=None), "no token.expires_at"),
        (denied("rule.denied"), "geo.city"),
        (denied("rule.denied", client__address="here", **GEO), "address"),
        ([{**allowed(**GEO)[0], "time": "noon"}], "time"),
    ],
)
def test_what_cannot_be_decided_again_is_counted_with_its_reason(events, why) -> None:
    rules = RuleSet(rules=(Rule("x", (Country(frozenset({"CU"})),), "deny"),), needs=frozenset({"city"}))
    replay, changes = replayed(rules, events)
    assert changes == []
    assert (replay.counts.read, replay.counts.redecided, replay.counts.unchanged) == (1, 0, 0)
    assert [why in text for text in replay.counts.not_redecidable] == [True]


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("time", "2026-11-20T12:00:00"),
        ("file.size", None),
        ("file.size", "1e3"),
        ("bytes.asked", "-"),
        ("token.extended_to", "9" * 5000),
        ("file.key", "url:http://[::1"),
    ],
)
def test_one_strange_event_ends_nothing(field, text) -> None:
    strange, end = allowed()
    strange[field] = text
    found, changes = replayed(
        OPEN, [{name: text for name, text in strange.items() if text is not None}, end, *allowed(5)]
    )
    assert (found.counts.read, found.counts.not_redecidable.total(), found.counts.unchanged) == (2, 1, 1)
    assert changes == []


@pytest.mark.parametrize(("field", "text"), [("time", "noon"), ("bytes.delivered", "abc"), ("counted", "x")])
def test_an_end_that_cannot_be_read_is_counted_by_itself(field, text) -> None:
    begun, end = allowed()
    found, changes = replayed(OPEN, [begun, {**end, field: text}, *allowed(1, "r2")])
    assert (found.counts.unchanged, found.counts.ends_unread, changes) == (2, 1, [])


@pytest.mark.parametrize("reason", ["", "limit.unheard-of"])
def test_a_refusal_without_a_reason_that_is_known_cannot_be_decided_again(reason) -> None:
    event = denied("limit.devices", token__limits="devices=1", limits="devices=1")[0]
    event["reason"] = reason
    found, _ = replayed(OPEN, [event])
    assert found.counts.not_redecidable.total() == 1


def test_who_waited_is_told_of_also_where_the_next_request_cannot_be_decided() -> None:
    rules = with_plan(
        Plan("p", Limits(concurrent=1)), Rule("agent", (UserAgent(Patterns(frozenset({"x"}), ())),), "deny")
    )
    other = allowed(0, "r2", client__network="n2", device__id="d2")[0]
    late = allowed(9, "r3", user_agent__original="x" * 512)[0]
    found, changes = replayed(rules, [allowed()[0], other, late])
    assert [(change.fields["request.id"], change.after.reason) for change in changes] == [("r2", "limit.concurrent")]
    assert (found.counts.now_refused, found.counts.not_redecidable.total()) == (1, 1)


def test_an_address_is_looked_up_where_its_event_has_no_place() -> None:
    rules = RuleSet(rules=(Rule("x", (Country(frozenset({"CU"})),), "deny"),), needs=frozenset({"city"}))
    places = {ip_address("203.0.113.9"): Place(country="CU", version="v")}
    _, changes = replayed(rules, allowed(), look_up=places.__getitem__, databases=("city",))
    assert [change.cause for change in changes] == ["rule x"]


def test_a_part_of_a_file_whose_size_is_told_later_is_one_download_with_what_goes_on() -> None:
    rules = with_plan(Plan("p", Limits(downloads=1)))
    first = denied("rule.denied", rule="old", http__request__range="bytes=1000-", request__id="r0")
    other = allowed(1, "r1", token__id="t2", order__id="2")[0]
    again = denied("rule.denied", 4, rule="old", request__id="r4") + denied(
        "rule.denied", 5, rule="old", request__id="r5"
    )
    small = {"file.size": "300000", "bytes.asked": "300000"}
    _, changes = replayed(rules, [*first, {**other, **small}, *again])
    assert [(change.fields["request.id"], change.after.reason) for change in changes] == [
        ("r0", ""),
        ("r4", ""),
        ("r5", ""),
    ]


def test_what_is_before_since_is_counted_but_not_told() -> None:
    rules = with_plan(Plan("p", Limits(downloads=1)))
    events = [*allowed(), *allowed(30, "r2", client__network="n2", device__id="d2")]
    replay, changes = replayed(rules, events, since=1_763_640_010.0 + 31_536_000)
    assert [change.fields["request.id"] for change in changes] == ["r2"]
    assert replay.counts.read == 1


def test_a_join_of_a_refused_opener_opens_it_itself() -> None:
    robots = Rule("first", (OfOrder(frozenset({"10001"})),), "deny")
    rules = RuleSet("new", MappingProxyType({"p": Plan("p", Limits(downloads=1))}), "p", rules=(robots,))
    first = allowed()
    joins = allowed(1, "r2", order__id="x", transfer__id="r1")
    joins[0]["counted"] = "0"
    later = allowed(2, "r3", order__id="x", client__network="n3", device__id="d3", limits="downloads=9")
    _, changes = replayed(rules, [*first, *joins, *later])
    assert [(change.fields["request.id"], change.after.reason) for change in changes] == [
        ("r1", "rule.denied"),
        ("r3", "limit.downloads"),
    ]


def test_who_waits_for_a_place_gets_it_when_one_ends_soon_enough() -> None:
    rules = with_plan(Plan("p", Limits(concurrent=1)))
    begun, ended = allowed()
    other, its_end = allowed(0, "r2", client__network="n2", device__id="d2")
    ended["time"] = its_end["time"] = "2026-11-20T12:00:00.300Z"
    assert replayed(rules, [begun, other, ended, its_end])[1] == []
    ended["time"] = its_end["time"] = "2026-11-20T12:00:00.500Z"
    changes = replayed(rules, [begun, other, ended, its_end])[1]
    assert [(change.fields["request.id"], change.after.reason) for change in changes] == [("r2", "limit.concurrent")]
    assert [change.fields["request.id"] for change in replayed(rules, [begun, other])[1]] == ["r2"]


def test_flips_are_gathered_by_order_customer_and_cause_most_first() -> None:
    flips = Flips()
    events = [
        *allowed(),
        *allowed(1, "r2", order__id="2", token__id="t2"),
        *allowed(2, "r3", order__id="2", token__id="t3"),
    ]
    events += denied("rule.denied", 3, rule="x", order__id="3", token__id="t4", customer__id="c")
    flips.add(replayed(RuleSet(otherwise=False), events)[1])
    assert [(group.buyer, group.requests) for group in flips.now("refused")] == [("order 2", 2), ("order 10001", 1)]
    assert flips.now("allowed") == []
    assert flips.now("refused")[0].document()["example"]["file"] == "a.bin"


RATED = with_plan(Plan("p", Limits(rate=1_000_000)))
RATE_WAIVED = {"limits": "rate=1000000", "limits__waived": "rate"}
SPARED = {"nginx": frozenset({"rate"})}


@pytest.mark.parametrize(
    ("rules", "events", "waived", "expected"),
    [
        (RATED, allowed(), None, []),
        (RATED, allowed(front="http"), None, []),
        (RATED, allowed(front="nginx"), None, ["limit.unkept"]),
        (RATED, allowed(front="mitm"), SPARED, ["limit.unkept"]),
        (RATED, allowed(front="nginx"), SPARED, []),
        # Without settings, what was waived then is waived; with settings they say it.
        (RATED, allowed(front="nginx", **RATE_WAIVED), None, []),
        (RATED, allowed(front="nginx", **RATE_WAIVED), SPARED, []),
        (RATED, allowed(front="nginx", **RATE_WAIVED), {}, ["limit.unkept"]),
        (RATED, denied("limit.unkept", front="nginx"), None, []),
        (RATED, denied("limit.unkept", front="nginx"), SPARED, [""]),
        (OPEN, denied("limit.unkept", front="nginx"), None, [""]),
        (RuleSet(rules=(NO_ORDER,)), denied("limit.unkept", front="nginx"), None, ["rule.denied"]),
        (RATED, denied("file.missing", front="nginx"), None, ["limit.unkept"]),
    ],
)
def test_a_request_is_decided_by_what_its_door_can_keep(rules, events, waived, expected) -> None:
    found, changes = replayed(rules, events, waived=waived)
    assert [change.after.reason for change in changes] == expected
    assert found.counts.unchanged == 1 - len(changes)


@pytest.mark.parametrize(
    ("rules", "more", "cause"),
    [
        (RATED, {}, "plan p: rate=1MB/s"),
        (OPEN, {"token__limits": "rate=2000000"}, "the link: rate=2MB/s"),
        (RuleSet(rules=(Rule("one", (), "limit", limits=Limits(concurrent=1)),)), {}, "rule one: concurrent=1"),
    ],
)
def test_who_asked_what_the_door_cannot_keep_is_named(rules, more, cause) -> None:
    _, changes = replayed(rules, allowed(front="nginx", **more))
    assert [(each.after, each.cause) for each in changes] == [
        (Outcome("limit.unkept", "otherwise"), f"{cause}, which the door nginx cannot keep")
    ]


def test_whom_a_door_need_not_refuse_any_more_is_named() -> None:
    _, changes = replayed(OPEN, denied("limit.unkept", front="nginx"))
    assert [(change.kind, change.cause) for change in changes] == [("allowed", "limit.unkept no longer refuses it")]


@pytest.mark.parametrize(
    ("front", "clock", "reason"),
    [("http", "12:01:01", ""), ("nginx", "12:00:59", ""), ("nginx", "12:01:01", "limit.downloads")],
)
def test_where_others_send_the_bytes_a_resume_is_free_for_the_repeat_window_alone(front, clock, reason) -> None:
    """A rule that is gone refused the second half: what would have been had of it is the ledger's to say."""
    half = SIZE // 2
    delivered = {} if FRONTS[front].hands_over else {"bytes.delivered": str(half)}
    opening, closing = allowed(front=front)
    closing |= {"bytes.delivered": "0", **delivered}
    (resumed,) = denied("rule.denied", request__id="r2", front=front, http__request__range=f"bytes={half}-", rule="old")
    resumed["time"] = f"2026-11-20T{clock}.000Z"
    _, changes = replayed(with_plan(Plan("p", Limits(downloads=1))), [opening, closing, resumed])
    assert [change.after.reason for change in changes] == [reason]


def test_a_door_that_this_version_has_not_is_not_guessed_at() -> None:
    found, changes = replayed(OPEN, allowed(front="side"))
    assert changes == []
    assert found.counts.not_redecidable == {"its front door is none of this version": 1}


BINDS, ASKS = with_plan(Plan("p", bind_ip=True)), with_plan(Plan("p", new_device=True))


@pytest.mark.parametrize(
    ("rules", "events", "unchanged", "unknown"),
    [
        (BINDS, allowed(), 0, 1),
        (BINDS, allowed(plan__guests="new_device"), 0, 1),
        (BINDS, allowed(plan__guests="bind_ip,new_device"), 1, 0),
        (BINDS, denied("token.ip", rule=None), 1, 0),
        (ASKS, allowed(), 0, 1),
        (ASKS, allowed(plan__guests="new_device"), 1, 0),
        (ASKS, denied("device.code", plan__guests="new_device"), 1, 0),
        (ASKS, denied("rule.denied", rule="old"), 0, 1),
        (OPEN, allowed(plan__guests="bind_ip,new_device"), 1, 0),
    ],
)
def test_what_is_asked_of_guests_is_decided_again_where_it_was_asked_then(rules, events, unchanged, unknown) -> None:
    replay, changes = replayed(rules, events)
    assert (changes, replay.counts.unchanged, replay.counts.not_redecidable.total()) == ([], unchanged, unknown)


def test_where_no_code_is_asked_for_any_more_who_was_asked_is_let_in() -> None:
    _, changes = replayed(OPEN, denied("device.code", plan__guests="new_device"))
    assert [change.after for change in changes] == [Outcome("", "otherwise")]
