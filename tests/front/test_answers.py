"""What every door answers alike, without any door's library: refusals for people and programs, and heads."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import ip_address

import pytest
from multidict import CIMultiDict, MultiDict

from gateway.front.answers import SAFE, Answers, DoorSettings
from gateway.front.head import Head
from gateway.mail.letter import Brand
from gateway.policy.fronts import FRONTS
from gateway.policy.model import Claims, Deny, DownloadRequest, FileEntry, StoredObject
from gateway.policy.reasons import Reason
from gateway.services.gatekeeper import Admitted
from gateway.services.responding import plan_redirect, plan_response

SETTINGS = DoorSettings(
    (), "https://x.example/shop", "/shop", secure_cookie=True, repeat_window=60, brand=Brand("Sea Shop")
)
REQUEST = DownloadRequest("r1", "", 1, "GET", ip_address("203.0.113.9"), "203.0.113.0/24", offered_cookie="c" * 22)
STORED = StoredObject("a.pdf", 1000, '"e"', 1_700_000_000, "application/pdf")


def answers(settings: DoorSettings = SETTINGS) -> Answers:
    return Answers(settings, store=None, ledger=None)


def head(**headers: str) -> Head:
    return Head("GET", "/d/x/1", MultiDict(), CIMultiDict({k.replace("_", "-"): v for k, v in headers.items()}), "")


def admitted(stored: StoredObject = STORED, **changes: object) -> Admitted:
    request = replace(REQUEST, **changes)
    handed = FRONTS[request.front].hands_over
    plan = plan_response(request, stored, "Sea.pdf", now=1_800_000_000, boundary="b", handed=handed)
    return Admitted(request, Claims("s", "t", 1, ()), FileEntry("a.pdf"), stored, plan, None)


BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@pytest.mark.parametrize("reason", list(Reason), ids=lambda reason: reason.text)
def test_a_refusal_is_a_page_for_people_and_a_problem_for_programs(reason: Reason) -> None:
    page = answers().refusal(head(**BROWSER), "r-1", Deny(reason, retry_after=7))
    assert page.status == reason.status
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert b"r-1" in page.body
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    problem = answers().refusal(head(Accept="*/*"), "r-1", Deny(reason, rule="the-rule", retry_after=7))
    told = json.loads(problem.body)
    assert problem.status == told["status"] == reason.status
    assert problem.headers["Content-Type"] == "application/problem+json"
    assert (told["reason"], told["request_id"], told["rule"]) == (reason.text, "r-1", "the-rule")
    for answer in (page, problem):
        assert answer.headers.items() >= {**SAFE, "X-Request-Id": "r-1", "Retry-After": "7"}.items()
        assert answer.headers["Vary"] == "Accept, Accept-Language"
        assert "Set-Cookie" not in answer.headers
        assert "Location" not in answer.headers


@pytest.mark.parametrize(
    ("accepted", "language"), [("pl,en;q=0.5", "pl"), ("en", "en"), ("xx", "en"), ("", "en"), ("*", "en")]
)
def test_it_speaks_the_buyers_language(accepted: str, language: str) -> None:
    for wants in (BROWSER, {}):
        answer = answers().refusal(head(**wants, Accept_Language=accepted), "r", Deny(Reason.TOKEN_EXPIRED))
        assert answer.headers["Content-Language"] == language
    assert f'lang="{language}"' in answers().refusal(
        head(**BROWSER, Accept_Language=accepted), "r", Deny(Reason.TOKEN_EXPIRED)
    ).body.decode()  # fmt: skip


@pytest.mark.parametrize(
    ("reason", "on_the_page"),
    [(Reason.RULE_DENIED, True), (Reason.FROZEN, True), (Reason.LIMIT_UNKEPT, False), (Reason.TOKEN_CLAIMS, False)],
)
def test_people_read_the_shops_words_and_not_ours_about_its_settings(reason: Reason, on_the_page: bool) -> None:
    deny = Deny(reason, message="Those very words.")
    assert (b"Those very words." in answers().refusal(head(**BROWSER), "r", deny).body) is on_the_page
    assert b"Those very words." in answers().refusal(head(), "r", deny).body


def test_what_is_not_the_policys_to_refuse() -> None:
    answer = answers().explained(head(), "r", "method.not_allowed", 405, detail="Not so.", more={"Allow": "GET, HEAD"})
    assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")
    assert "Retry-After" not in answer.headers
    assert b"Not so." in answer.body


def test_the_cookie_that_names_the_device() -> None:
    one = answers()
    said = one.device_cookie(REQUEST)["Set-Cookie"]
    assert said.startswith(f"gw_device={'c' * 22}; Path=/shop; Max-Age=")
    assert said.endswith("; HttpOnly; SameSite=Lax; Secure")
    assert one.device_cookie(replace(REQUEST, offered_cookie=None)) == {}
    plain = answers(replace(SETTINGS, prefix="", secure_cookie=False)).device_cookie(REQUEST)["Set-Cookie"]
    assert "; Path=/; " in plain
    assert "Secure" not in plain


@pytest.mark.parametrize(
    ("changes", "status", "length"),
    [
        ({"method": "HEAD"}, 200, 1000),
        ({"if_none_match": '"e"'}, 304, None),
        ({"if_match": '"x"'}, 412, 0),
        ({"range": "bytes=1000-"}, 416, 0),
    ],
)
@pytest.mark.parametrize("front", FRONTS)
def test_answers_without_a_body_are_the_same_at_every_door(front: str, changes, status: int, length) -> None:
    one = admitted(**changes, front=front)
    answer = answers().bodiless(one)
    assert (answer.status, answer.length, answer.body) == (status, length, b"")
    assert answer.headers["X-Request-Id"] == "r1"
    assert "Set-Cookie" in answer.headers
    assert answer.headers == answers().headers(admitted(**changes))
    assert not [name for name in answer.headers if name.startswith(("X-Accel", "X-Gateway"))]


def test_an_empty_file_and_one_that_is_elsewhere() -> None:
    empty = answers().bodiless(admitted(replace(STORED, size=0)))
    assert (empty.status, empty.length, empty.headers["ETag"]) == (200, 0, '"e"')
    away = replace(admitted(), plan=plan_redirect("GET", "https://cdn.example.com/a b"))
    answer = answers().bodiless(away)
    assert (answer.status, answer.headers["Location"]) == (302, "https://cdn.example.com/a%20b")
