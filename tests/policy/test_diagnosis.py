from __future__ import annotations

import shlex

import pytest

from gateway.policy.diagnosis import Finding, LinkNow, diagnosis
from gateway.policy.events import new_event
from gateway.policy.explanations import CUT, INTERNAL, LEFT_OFTEN, LEFT_ONCE, LOST, REFUSED, Explanation
from gateway.policy.links import Link
from gateway.policy.model import Claims, FileEntry, Limits
from gateway.policy.reasons import Reason

DAY = 86_400
MADE = 1_795_228_200
NOW = MADE + DAY
FILE = "ebooks/sea.pdf"
Event = dict[str, str]


def link(
    *,
    token: str = "t1",
    expires: int = MADE + 30 * DAY,
    used: int = 0,
    revoked: bool = False,
    not_before: int | None = None,
    first: float | None = None,
    **limits: int,
) -> LinkNow:
    claims = Claims(
        "shop", token, expires, (FileEntry(FILE),), issued_at=MADE, order_id="10 001", not_before=not_before
    )
    return LinkNow(Link(claims, MADE * 1000), Limits(**limits), expires, {FILE: used}, revoked, first)


def event(kind: str, at: int, **fields: str) -> Event:
    """`at`: seconds after the link was made."""
    told = {"token.id": "t1", "order.id": "10 001", **{name.replace("__", "."): text for name, text in fields.items()}}
    if kind.startswith("download."):
        told = {"file.key": FILE, "file.size": "12000000", "client.address": "203.0.113.9", **told}
    return new_event(kind, f"{kind}-{at}", (MADE + at) * 1000, told)


OPENED = event("link.opened", 60, client__address="203.0.113.9")


def download(
    at: int, outcome: str = "complete", delivered: int = 12_000_000, transfer: str = "", **fields: str
) -> list[Event]:
    request, transfer = f"r{at}", transfer or f"x{at}"
    begun = event("download.allowed", at, request__id=request, transfer__id=transfer, counted="1")
    kind = "download.lost" if outcome == "lost" else "download.finished"
    ended = {} if outcome == "lost" else {"outcome": outcome}
    ending = event(
        kind, at + 9, request__id=request, transfer__id=transfer, bytes__delivered=str(delivered), **ended, **fields
    )
    return [begun, ending]


def denied(at: int, reason: Reason, **fields: str) -> Event:
    return event("download.denied", at, reason=reason.text, request__id=f"r{at}", **fields)


def sides(found: list[Finding]) -> list[tuple[str | None, bool]]:
    return [(each.side, each.now) for each in found]


def test_nothing_is_known() -> None:
    assert diagnosis([], [], NOW) == []


def test_a_scanner_is_not_the_buyer() -> None:
    scan = {"signal": "suspected_scanner", "signal__why": "soon,network.hosting"}
    told = [event("link.created", 0), event("link.opened", 9, client__address="192.0.2.44", **scan)]
    unopened, scanned = diagnosis([link()], told, NOW)
    assert unopened.text.startswith("the link t1 was made at 2026-11-21 02:30:00 UTC and never opened by a person")
    assert scanned.text == (
        "what seems to be a mail scanner was at the link t1 at 2026-11-21 02:30:09 UTC from 192.0.2.44: "
        "soon after it was sent, hosting network"
    )
    assert sides([unopened, scanned]) == [("mail", True), (None, False)]


def test_a_link_that_nobody_opened_is_the_mails_matter() -> None:
    (found,) = diagnosis([link()], [event("link.created", 0)], NOW)
    assert (found.side, found.now) == ("mail", True)
    assert found.text.startswith("the link t1 was made at 2026-11-21 02:30:00 UTC and never opened")
    assert "`gateway link create --order '10 001' --file ebooks/sea.pdf`" in found.todo


def test_a_link_that_is_over_is_not_to_be_sent_again() -> None:
    (found,) = diagnosis([link(expires=NOW)], [event("link.created", 0)], NOW)
    assert found.text.endswith("expired at 2026-11-22 02:30:00 UTC; it was never opened")
    (found,) = diagnosis([link(expires=NOW)], [OPENED], NOW)
    assert found.text.endswith("expired at 2026-11-22 02:30:00 UTC")


def test_what_is_no_longer_kept_is_not_taken_for_what_never_was() -> None:
    (found,) = diagnosis([link()], [event("link.extended", 5)], NOW)
    assert (found.side, found.now) == (None, False)
    assert "no download and no opening is known, as far back as events are kept" in found.text
    (found,) = diagnosis([link(used=5, downloads=5)], [], NOW)
    assert found.text == "the link t1 has used 5 of 5 downloads of ebooks/sea.pdf"


def test_a_link_that_was_opened_and_nothing_more() -> None:
    (found,) = diagnosis([link()], [OPENED, {**OPENED, "id": "2"}], NOW)
    assert (found.side, found.now, found.facts["count"]) == ("buyer", True, "2")
    assert "was opened 2 times, last at 2026-11-21 02:31:00 UTC from 203.0.113.9, and no download" in found.text


def test_all_is_well() -> None:
    events = [OPENED, *download(100), *download(200), *download(300)]
    (found,) = diagnosis([link()], events, NOW)
    assert (found.side, found.now, found.todo) == (None, False, "")
    assert found.text == (
        "ebooks/sea.pdf was downloaded completely 3 times, last at 2026-11-21 02:35:09 UTC from 203.0.113.9"
    )


@pytest.mark.parametrize(
    ("standing", "side", "said", "todo"),
    [
        (link(revoked=True), "rule", "was revoked at 2026-11-21 03:30:00 UTC; refused", "gateway link create"),
        (link(expires=NOW), "buyer", "expired at 2026-11-22 02:30:00 UTC", "`gateway link extend t1 --expires 7d`"),
        (link(not_before=NOW + 9), "rule", "is not valid before 2026-11-22 02:30:09 UTC", "wait"),
        (
            link(valid_after_first=3600, first=MADE + 100),
            "buyer",
            "was valid for 1h after its first download at 2026-11-21 02:31:40 UTC",
            "`gateway link extend t1 --expires 7d`",
        ),
        (
            link(used=5, downloads=5),
            "buyer",
            "has used 5 of 5 downloads of ebooks/sea.pdf, the last at 2026-11-21 02:31:40 UTC from 203.0.113.9",
            "create",
        ),
    ],
)
def test_what_the_link_itself_refuses_comes_first(standing: LinkNow, side: str, said: str, todo: str) -> None:
    events = [
        *download(100),
        event("link.revoked", 3600),
        denied(4000, Reason.TOKEN_REVOKED),
        denied(4100, Reason.LIMIT_CONCURRENT),
    ]
    first, *others = diagnosis([standing], events, NOW)
    assert (first.side, first.now) == (side, True)
    assert first.text.startswith("the link t1 ")
    assert said in first.text
    assert todo in first.todo
    assert not any(other.text == first.text for other in others)


def test_a_used_up_link_that_its_buyer_renewed_stands_in_nobodys_way() -> None:
    events = [
        *download(60),
        event("download.denied", 120, reason="limit.downloads"),
        event("buyer.acted", 180, buyer__action="link.renew", buyer__at="link"),
        event("link.revoked", 181),
        event("download.denied", 300, reason="token.revoked"),
    ]
    [over, well] = diagnosis([link(used=1, revoked=True, downloads=1)], events, NOW)
    assert (over.side, over.now, "had it renewed at" in over.text) == ("buyer", False, True)
    assert "was downloaded completely" in well.text


def test_what_the_link_refuses_is_told_once_and_with_its_refusals() -> None:
    refusals = [denied(NOW - MADE + at, Reason.TOKEN_EXPIRED, client__address="2001:db8::1") for at in (5, 6)]
    (found,) = diagnosis([link(expires=NOW)], refusals, NOW + 10)
    assert found.text.endswith("; refused for that 2 times, last at 2026-11-22 02:30:06 UTC from 2001:db8::1")


@pytest.mark.parametrize("reason", Reason, ids=lambda reason: reason.text)
def test_every_reason_is_told_with_its_side_and_what_to_do(reason: Reason) -> None:
    refusal = denied(50, reason, rule="embargo", geo__country__iso_code="PL")
    (found,) = diagnosis([link(networks=3)], [refusal, {**refusal, "id": "2"}], NOW)
    assert found.side == REFUSED[reason].side
    assert found.now is REFUSED[reason].lasts or reason is Reason.TOKEN_NOT_YET
    assert found.text.startswith(
        "ebooks/sea.pdf was refused 2 times, last at 2026-11-21 02:30:50 UTC from 203.0.113.9 (PL)"
    )
    assert f"({reason.text})" in found.text
    assert found.facts["reason"] == reason.text
    assert found.todo or not found.now
    assert "{" not in found.text + found.todo


def test_a_rule_is_named_and_a_limit_numbered() -> None:
    refusals = [denied(50, Reason.RULE_DENIED, rule="embargo"), denied(60, Reason.LIMIT_NETWORKS)]
    networks, rule = diagnosis([link(networks=3)], refusals, NOW)
    assert "the rule embargo of the rules file refuses it" in rule.text
    assert "as many networks as it allows (3)" in networks.text


ENDS: list[tuple[str, dict[str, str], Explanation]] = [
    ("client_left", {}, LEFT_ONCE),
    ("origin_failed", {"reason": "origin.timeout"}, REFUSED[Reason.ORIGIN_TIMEOUT]),
    ("origin_failed", {}, REFUSED[Reason.ORIGIN_DOWN]),
    ("origin_failed", {"reason": "file.missing"}, REFUSED[Reason.FILE_MISSING]),
    *(("cut", {"reason": reason}, words) for reason, words in CUT.items()),
    ("cut", {"reason": "internal"}, INTERNAL),
    ("cut", {"reason": "something new"}, INTERNAL),
    ("lost", {}, LOST),
]


@pytest.mark.parametrize(("outcome", "fields", "words"), ENDS)
def test_a_download_that_broke_off(outcome: str, fields: dict[str, str], words: Explanation) -> None:
    events = download(100, outcome, 3_400_000, **fields)
    (found,) = diagnosis([link()], events, NOW)
    assert (found.side, found.now) == (words.side, words.lasts)
    assert found.text.startswith(
        "ebooks/sea.pdf was broken off at 2026-11-21 02:31:49 UTC from 203.0.113.9, after 3.4 MB of 12.0 MB: "
    )
    assert found.todo


def test_a_connection_that_closes_again_and_again_is_the_networks_matter() -> None:
    events = [each for at in (100, 200, 300) for each in download(at, "client_left", 1_000_000, "one-transfer")]
    (found,) = diagnosis([link()], events, NOW)
    assert found.side == LEFT_OFTEN.side == "network"
    assert "after 3.0 MB of 12.0 MB" in found.text


def test_what_was_resumed_to_the_end_is_well() -> None:
    events = [*download(100, "client_left", 5_000_000, "x"), *download(200, "complete", 7_000_000, "x")]
    assert sides(diagnosis([link()], events, NOW)) == [(None, False)]


def test_what_a_later_download_made_up_for_is_over_and_told_last_but_one() -> None:
    events = [
        *download(50, "client_left", 5),
        denied(60, Reason.RULE_DENIED, rule="embargo"),
        *download(100),
        denied(9000, Reason.LIMIT_CONCURRENT),
    ]
    found = diagnosis([link()], events, NOW)
    assert sides(found) == [("buyer", False), ("rule", False), ("buyer", False), (None, False)]
    assert [each.todo == "" for each in found] == [False, True, True, True]
    assert "it was downloaded after that, at 2026-11-21 02:31:49 UTC" in found[1].text


def test_what_lasts_is_told_before_what_passes() -> None:
    refusals = [denied(50, Reason.RULE_DENIED, rule="embargo"), denied(60, Reason.REDIS_DOWN)]
    assert sides(diagnosis([link()], refusals, NOW)) == [("rule", True), ("gateway", False)]


def test_an_extended_link_is_no_longer_expired() -> None:
    events = [denied(50, Reason.TOKEN_EXPIRED), event("link.extended", 100)]
    (found,) = diagnosis([link()], events, NOW)
    assert not found.now
    assert "it was extended after that, at 2026-11-21 02:31:40 UTC" in found.text


def test_a_download_that_goes_on() -> None:
    (found,) = diagnosis([link()], download(100)[:1], NOW)
    assert (found.side, found.now) == (None, False)
    assert "is being downloaded since 2026-11-21 02:31:40 UTC from 203.0.113.9" in found.text


def test_links_that_the_shop_signed_itself_are_told_from_their_events() -> None:
    found = diagnosis([], [denied(50, Reason.TOKEN_EXPIRED), *download(100)], NOW)
    assert sides(found) == [("buyer", False), (None, False)]
    (found_revoked,) = diagnosis([], [new_event("link.revoked", "1", MADE * 1000, {"order.id": "10 001"})], NOW)
    assert (found_revoked.side, found_revoked.now) == ("rule", True)


def test_several_links_of_an_order_are_told_together() -> None:
    other = event("download.denied", 700, token__id="t2", reason="file.missing")
    found = diagnosis([link(expires=NOW), link(token="t2")], [*download(100), other], NOW)
    assert sides(found) == [("buyer", True), ("bucket", True), (None, False)]


def test_an_external_product_is_had_when_its_buyer_was_sent_there() -> None:
    away = {"file.key": "url:https://cdn.example.com/a", "transfer.id": "", "bytes.delivered": "0"}
    events = [{name: text for name, text in {**each, **away}.items() if name != "file.size"} for each in download(100)]
    assert sides(diagnosis([link()], events, NOW)) == [(None, False)]


def test_commands_can_be_pasted_whatever_the_names_are() -> None:
    nasty = "a b; rm -rf $(pwd) `id` {x}.pdf"
    (found,) = diagnosis([], [denied(50, Reason.FILE_MISSING, file__key=nasty)], NOW)
    assert f"gateway doctor --file {shlex.quote(nasty)}" in found.todo


def test_events_that_lack_everything_are_told_without_a_crash() -> None:
    bare = [{"type": kind, "token.id": "t"} for kind in ("download.denied", "download.finished", "download.lost")]
    assert len(diagnosis([], bare, NOW)) == 2


def test_a_door_that_cannot_keep_the_links_limit_is_the_gateways_matter() -> None:
    (found,) = diagnosis([link()], [denied(50, Reason.LIMIT_UNKEPT, front="nginx")], NOW)
    assert (found.side, found.now) == ("gateway", True)
    assert "a limit that the door it was used at (nginx) cannot keep" in found.text
    assert "`gateway rules explain --event r50`" in found.todo
    assert "`gateway doors` shows which" in found.todo
    assert "waive" in found.todo


def test_who_came_by_another_door_afterwards_is_well() -> None:
    found = diagnosis([link()], [denied(50, Reason.LIMIT_UNKEPT, front="nginx"), *download(100)], NOW)
    assert [each for each in found if each.now] == []
