from __future__ import annotations

import json

import pytest

from gateway.http.problem import pick_language, problem, wants_html


def test_problem() -> None:
    body = problem(410, "token.expired", "Wygasł \ud800", "…", "id-1", rule=None, retry_after=30)
    assert json.loads(body) == {
        "type": "about:blank",
        "title": "Wygasł \ud800",
        "status": 410,
        "detail": "…",
        "reason": "token.expired",
        "request_id": "id-1",
        "retry_after": 30,
    }
    assert body.isascii()


def test_an_extra_member_never_replaces_one_of_the_rfc() -> None:
    assert json.loads(problem(410, "r", "t", "d", "i", type="https://evil.example"))["type"] == "about:blank"


CHROME = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (CHROME, True),
        ("TEXT/HTML", True),
        ("application/json, text/html;level=1;q=0.1", True),
        ("text/html; q=1.000", True),
        (None, False),
        ("", False),
        ("*/*", False),
        ("text/*", False),
        ("application/json", False),
        ("text/html;q=0", False),
        ("text/html;q=0.000", False),
        ("text/html;q=nan", False),
        ("text/html;q=-1", False),
        ("text/html;q=1e9", False),
        ("text/htmlx", False),
        ("a/b," * 100_000 + "text/html", False),
    ],
)
def test_wants_html(accept: str | None, expected: bool) -> None:
    assert wants_html(accept) is expected


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, "en"),
        ("", "en"),
        ("pl-PL,pl;q=0.9,en;q=0.8", "pl"),
        ("en;q=0.5, de-AT", "de"),
        ("PT-br", "pt-BR"),
        ("pt", "en"),
        ("fr, *;q=0.5", "en"),
        ("*, pl;q=0.5", "en"),
        ("pl;q=0, de", "de"),
        ("pl;q=x", "en"),
        ("en;q=0, *", "pl"),
        ("en;q=0", "en"),
        ("en-US, en;q=0, de;q=0.1", "de"),
        ("pl_PL", "en"),
        (";;,,=q, \x00;q=1, pl;q=0.001", "pl"),
        ("*;q=0", "en"),
        ("zh-Hant-TW-" + "x-" * 5000, "en"),
    ],
)
def test_pick_language(header: str | None, expected: str) -> None:
    assert pick_language(header, ["en", "pl", "de", "pt-BR"]) == expected
