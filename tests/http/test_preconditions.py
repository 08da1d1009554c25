from __future__ import annotations

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http.preconditions import Evaluation, Verdict, evaluate, http_date, parse_http_date

ETAG = '"abc,d"'
MODIFIED = 784_111_777
DATE = "Sun, 06 Nov 1994 08:49:37 GMT"
EARLIER = "Sun, 06 Nov 1994 08:49:36 GMT"
LATER = "Sun, 06 Nov 1994 08:49:38 GMT"
NOW = 1_700_000_000

PROCEED, NOT_MODIFIED, FAILED = Verdict.PROCEED, Verdict.NOT_MODIFIED, Verdict.FAILED


def verdict(method: str = "GET", **headers: str) -> Verdict:
    return evaluate(method, ETAG, MODIFIED, now=NOW, **headers).verdict


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, PROCEED),
        ({"if_match": ETAG}, PROCEED),
        ({"if_match": f'"x", {ETAG}'}, PROCEED),
        ({"if_match": "*"}, PROCEED),
        ({"if_match": f"W/{ETAG}"}, FAILED),
        ({"if_match": '"x"'}, FAILED),
        ({"if_match": ""}, FAILED),
        ({"if_match": "abc,d"}, FAILED),
        ({"if_match": f'{ETAG}, "open'}, FAILED),
        ({"if_match": f"{ETAG}, *"}, FAILED),
        ({"if_unmodified_since": DATE}, PROCEED),
        ({"if_unmodified_since": LATER}, PROCEED),
        ({"if_unmodified_since": EARLIER}, FAILED),
        ({"if_unmodified_since": "yesterday"}, PROCEED),
        ({"if_none_match": ETAG}, NOT_MODIFIED),
        ({"if_none_match": f'"x",W/{ETAG},'}, NOT_MODIFIED),
        ({"if_none_match": " * "}, NOT_MODIFIED),
        ({"if_none_match": '"x"'}, PROCEED),
        ({"if_none_match": '"abc", "d"'}, PROCEED),
        ({"if_none_match": "abc,d"}, PROCEED),
        ({"if_modified_since": DATE}, NOT_MODIFIED),
        ({"if_modified_since": LATER}, NOT_MODIFIED),
        ({"if_modified_since": EARLIER}, PROCEED),
        ({"if_modified_since": "yesterday"}, PROCEED),
        ({"if_modified_since": f"{DATE}, {DATE}"}, PROCEED),
        # the order of RFC 9110 §13.2.2
        ({"if_match": ETAG, "if_unmodified_since": EARLIER}, PROCEED),
        ({"if_match": '"x"', "if_none_match": ETAG}, FAILED),
        ({"if_match": ETAG, "if_none_match": ETAG}, NOT_MODIFIED),
        ({"if_none_match": '"x"', "if_modified_since": LATER}, PROCEED),
        ({"if_none_match": "broken", "if_modified_since": LATER}, PROCEED),
        ({"if_unmodified_since": EARLIER, "if_modified_since": LATER}, FAILED),
    ],
)
def test_verdict(headers: dict[str, str], expected: Verdict) -> None:
    assert verdict("GET", **headers) is expected
    assert verdict("HEAD", **headers) is expected


def test_other_methods() -> None:
    assert verdict("DELETE", if_none_match=ETAG) is FAILED
    assert verdict("DELETE", if_modified_since=LATER) is PROCEED


@pytest.mark.parametrize(
    ("if_range", "allowed"),
    [
        (None, True),
        (ETAG, True),
        (f" {ETAG}\t", True),
        (f"W/{ETAG}", False),
        ('"other"', False),
        ("abc,d", False),
        (f"{ETAG}, {ETAG}", False),
        ("*", False),
        ("", False),
        (DATE, True),
        ("Sunday, 06-Nov-94 08:49:37 GMT", True),
        (EARLIER, False),
        (LATER, False),
    ],
)
def test_if_range(if_range: str | None, allowed: bool) -> None:
    assert evaluate("GET", ETAG, MODIFIED, now=NOW, if_range=if_range) == Evaluation(PROCEED, allowed)


def test_a_range_is_for_get_only() -> None:
    assert not evaluate("HEAD", ETAG, MODIFIED, now=NOW).range_allowed


def test_a_weak_etag_never_matches_strongly() -> None:
    weak = 'W/"x"'
    assert evaluate("GET", weak, MODIFIED, now=NOW, if_match=weak).verdict is FAILED
    assert not evaluate("GET", weak, MODIFIED, now=NOW, if_range=weak).range_allowed
    assert evaluate("GET", weak, MODIFIED, now=NOW, if_none_match='"x"').verdict is NOT_MODIFIED


@pytest.mark.parametrize(("age", "allowed"), [(-5, False), (0, False), (59, False), (60, True)])
def test_a_fresh_date_is_no_strong_validator(age: int, allowed: bool) -> None:
    assert evaluate("GET", ETAG, MODIFIED, now=MODIFIED + age, if_range=DATE).range_allowed is allowed


@pytest.mark.parametrize(
    "text",
    [DATE, "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994", "Sun Nov 06 08:49:37 1994", f" {DATE} "],
)
def test_the_three_forms_of_a_date(text: str) -> None:
    assert parse_http_date(text, NOW) == MODIFIED


@pytest.mark.parametrize(("year", "full"), [("73", 2073), ("74", 1974), ("00", 2000)])
def test_a_two_digit_year_is_never_more_than_50_years_ahead(year: str, full: int) -> None:
    assert http_date(parse_http_date(f"Monday, 01-Jan-{year} 00:00:00 GMT", NOW) or 0).split()[3] == str(full)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "784111777",
        "Sun, 06 Nov 1994 08:49:37",
        "Sun, 06 Nov 1994 08:49:37 +0100",
        "Sun, 31 Feb 1994 08:49:37 GMT",
        "Sun, 06 Nov 0000 08:49:37 GMT",
        "Sun, 06 Nov 1994 25:49:37 GMT",
        "sun, 06 nov 1994 08:49:37 gmt",
        "Sun, ٠٦ Nov 1994 08:49:37 GMT",
        DATE + "\n",
        DATE * 1000,
    ],
)
def test_what_is_no_date(text: str) -> None:
    assert parse_http_date(text, NOW) is None


@given(st.integers(0, 253_402_300_799))
def test_dates_round_trip(seconds: int) -> None:
    assert http_date(seconds) == formatdate(seconds, usegmt=True)
    assert parse_http_date(http_date(seconds), NOW) == seconds


HEADERS = ("if_match", "if_none_match", "if_modified_since", "if_unmodified_since", "if_range")


@given(st.dictionaries(st.sampled_from(HEADERS), st.text(alphabet='W/"*,abc 0169:SunNov GMT\x00\udcff', max_size=40)))
def test_hostile_values_never_raise(headers: dict[str, str]) -> None:
    evaluate("GET", ETAG, MODIFIED, now=NOW, **headers)
