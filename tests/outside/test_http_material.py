"""The tables that other projects test themselves with, driven through our pure HTTP functions.

Where we differ, the case stands in a table here with the reason; an entry that no longer differs fails too.
"""

from __future__ import annotations

import json
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from aiohttp.multipart import content_disposition_filename, parse_content_disposition

from gateway.http.disposition import content_disposition, file_name
from gateway.http.forwarded import client_address, parse_address
from gateway.http.preconditions import Verdict, evaluate, parse_http_date
from gateway.http.ranges import Parts, Unsatisfiable, Whole, parse

MATERIAL = Path(__file__).parents[2] / ".." / "shared" / "material"

pytestmark = pytest.mark.skipif(not MATERIAL.is_dir(), reason="the outside material is not on this machine")


def load(path: str) -> Any:
    file = MATERIAL / path
    return json.loads(file.read_text("utf-8")) if file.exists() else {}


# --- Range -----------------------------------------------------------------------------------------------------------

SORTED = "several ranges are sent sorted, so that the store is read forwards"
MERGED = "neighbours and overlaps are merged, so that no byte is sent twice"
MALFORMED = "RFC 9110 §14.2: a Range that is not valid is ignored"
RANGE_DIFFERENCES: dict[tuple[str, str], tuple[object, str]] = {
    ("go", "bytes=-2 , 7-"): ([[7, 10]], MERGED),
    ("go", "bytes=500-600,601-999"): ([[500, 999]], MERGED),
    ("go", "bytes=500-700,601-999"): ([[500, 999]], MERGED),
    ("jshttp/range-parser", "bytes=500-20"): (200, MALFORMED),
    ("nginx-tests", "bytes=10-alpha"): (200, MALFORMED),
    ("nginx-tests", "bytes=10"): (200, MALFORMED),
    ("nginx-tests", "bytes=10-11 12-"): (200, MALFORMED),
    ("nginx-tests", "bytes=0-10001, 0-0"): ([[0, 999]], MERGED + "; nginx counts before it merges"),
    ("apache", "bytes=1000-1100,100-200"): ([[100, 200], [1000, 1100]], SORTED),
    ("apache", "bytes=1000-1100,100-200,2000-"): ([[100, 200], [1000, 1100], [2000, 7999]], SORTED),
    ("apache", "bytes=3000-,100-200,2000-2200"): ([[100, 200], [2000, 2200], [3000, 7999]], SORTED),
    ("starlette", "bytes=abc-def, 0-50"): (200, MALFORMED + ", as a whole (Apache too)"),
    ("aiohttp", "bytes=10-9"): (200, MALFORMED),
    ("aiohttp", "bytes=a-f"): (200, MALFORMED),
    ("aiohttp", "bytes=0--10"): (200, MALFORMED),
    ("aiohttp", "bytes=-"): (200, MALFORMED),
}
RANGE_WORDS: dict[str, tuple[object, ...]] = {
    "invalid": (200,),
    "invalid-or-empty": (200, 416),
    "other-unit": (200,),
    "400": (200,),
    "conflict": ([[0, 5]],),
}


def range_answer(case: dict[str, Any]) -> object:
    """200, 416 or the inclusive ranges of our 206."""
    answer = parse(case["header"], case["size"], cap=case.get("max_ranges", 16))
    if isinstance(answer, Parts):
        return [[span.start, span.stop - 1] for span in answer.ranges]
    return 200 if isinstance(answer, Whole) else 416


def range_expected(case: dict[str, Any]) -> tuple[object, ...]:
    status = str(case["status"])
    if status in RANGE_WORDS:
        return RANGE_WORDS[status]
    return tuple(case["ranges"] if word == "206" else int(word) for word in status.split("-or-"))


def test_range_cases() -> None:
    unexpected, differing = [], set()
    cases = load("range_cases.json")["cases"]
    for case in cases:
        if "if_range" in case:
            continue
        answer = range_answer(case)
        key = (case["origin"].split()[0], case["header"])
        if answer in range_expected(case):
            continue
        differing.add(key)
        if answer != RANGE_DIFFERENCES.get(key, ("unlisted", ""))[0]:
            unexpected.append((key, case["size"], case["status"], case["ranges"], answer))
    assert len(cases) > 200
    assert unexpected == []
    assert differing == set(RANGE_DIFFERENCES)


ETAG = '"5f2b-1c"'
MODIFIED = 784_111_777
NOW = MODIFIED + 86_400


def test_if_range_cases() -> None:
    cases = [case for case in load("range_cases.json")["cases"] if "if_range" in case]
    assert cases
    for case in cases:
        value = {"wrong": '"wrong"', "etag cut by one char": ETAG[:-1]}[case["if_range"]]
        evaluation = evaluate("GET", ETAG, MODIFIED, now=NOW, if_range=value)
        assert (evaluation.verdict, evaluation.range_allowed) == (Verdict.PROCEED, case["status"] == 206)


def test_behaviour_matrix() -> None:
    listed = {row["case"] for row in load("range_cases.json")["behaviour_matrix_own"]}
    answers = {
        "HEAD + Range": evaluate("HEAD", ETAG, MODIFIED, now=NOW).range_allowed is False,
        'If-Range with weak ETag W/"x"': not evaluate(
            "GET", ETAG, MODIFIED, now=NOW, if_range=f"W/{ETAG}"
        ).range_allowed,
        "If-Range date with Last-Modified < 60 s before Date": not evaluate(
            "GET", ETAG, MODIFIED, now=MODIFIED + 59, if_range="Sun, 06 Nov 1994 08:49:37 GMT"
        ).range_allowed,
        "If-None-Match matches + Range": evaluate("GET", ETAG, MODIFIED, now=NOW, if_none_match=ETAG).verdict
        is Verdict.NOT_MODIFIED,
        "If-Range ETag of the old object after replacement": not evaluate(
            "GET", '"new"', MODIFIED, now=NOW, if_range=ETAG
        ).range_allowed,
    }
    assert set(answers) <= listed
    assert [case for case, holds in answers.items() if not holds] == []


# --- preconditions ---------------------------------------------------------------------------------------------------

CONDITIONAL_DIFFERENCES = {
    "Fri, 25 Feb 2174 09:42:23 GMT": (304, "RFC 9110 §13.1.3 sets no upper bound; nginx guards 32-bit times"),
}
STATUS = {Verdict.PROCEED: 200, Verdict.NOT_MODIFIED: 304, Verdict.FAILED: 412}


def test_conditional_cases() -> None:
    cases = load("http/conditional_cases.json")["cases"]
    assert cases
    for case in cases:
        header = case["header"].split()[0].lower().replace("-", "_")
        value = case["value"].replace("=etag", ETAG)
        expected = CONDITIONAL_DIFFERENCES.get(value, (case["status"],))[0]
        assert STATUS[evaluate("GET", ETAG, MODIFIED, now=NOW, **{header: value}).verdict] == expected, case


def test_every_date_in_the_cases_is_read() -> None:
    dated = [case["value"] for case in load("http/conditional_cases.json")["cases"] if "GMT" in case["value"]]
    assert dated
    assert all(parse_http_date(value, NOW) for value in dated)


# --- Content-Disposition ---------------------------------------------------------------------------------------------


def disposition_parameters(header: str) -> tuple[str | None, str, str | None]:
    """Kind, filename and decoded filename*, as aiohttp's parser reads them."""
    kind, parameters = parse_content_disposition(header)
    return kind, parameters["filename"], content_disposition_filename(parameters)


def names_from_the_material() -> list[str]:
    data = load("names_urls_ips/content_disposition.json")
    names = [case["name"] for case in data.get("hostile_filenames", [])]
    names += [case["in"] for case in data.get("jshttp_create", []) if isinstance(case["in"], str)]
    for case in data.get("tc2231", []):
        names += [case["header"], *map(str, case["aiohttp_params"].values())]
    for case in data.get("jshttp_parse", []):
        names += [value for value in (case["in"], case["expect"]) if isinstance(value, str)]
        if isinstance(case["expect"], dict):
            names += map(str, case["expect"].get("parameters", {}).values())
    for case in data.get("jshttp_format", []):
        names.append(json.dumps(case["in"], ensure_ascii=False))
    return names


def test_every_name_makes_a_header_that_keeps_our_invariants() -> None:
    names = names_from_the_material()
    assert len(names) > 200
    for name in names:
        header = content_disposition(name)
        assert header.isascii(), ascii(name)
        assert header.isprintable(), ascii(name)
        assert len(header) <= 1000, ascii(name)
        kind, fallback, full = disposition_parameters(header)
        assert kind == "attachment"
        assert fallback, ascii(name)
        assert not set('"\\%/') & set(fallback), ascii(name)
        assert full == file_name(name), ascii(name)
        assert not set("/\\") & set(file_name(name)), ascii(name)


def test_the_hostile_names_become_what_a_buyer_expects() -> None:
    cases = load("names_urls_ips/content_disposition.json")["hostile_filenames"]
    changed = {
        "\u202efdp.exe": "fdp.exe",
        "a\x7f.pdf": "a_.pdf",
        "C:\\x.exe": "x.exe",
        "NUL": "_NUL",
        "a.pdf.": "a.pdf",
        "": "download",
        ".": "download",
        "..": "download",
        "\ud800.pdf": "_.pdf",
        "a\u2028b.pdf": "a_b.pdf",
    }
    for name in (case["name"] for case in cases):
        if len(name.encode("utf-8", "replace")) > 230:
            assert file_name(name).endswith(".pdf")
            assert file_name(name)[:50] == name[:50]
        else:
            assert file_name(name) == changed.get(name, name), ascii(name)


# --- addresses -------------------------------------------------------------------------------------------------------


def test_forwarded_cases() -> None:
    data = load("names_urls_ips/forwarded_cases.json")
    trusted = [ip_network(network) for network in data["trusted"]]
    assert data["cases"]
    for case in data["cases"]:
        headers = [(name, value) for name, value in case["headers"]]
        client = client_address(case["peer"], headers, trusted)
        allowed = case["client"].split("|")
        assert ("deny" if client is None else str(client)) in allowed, (case["why"], client)


def test_ip_cases() -> None:
    cases = load("names_urls_ips/ip_cases.json")["python"]
    assert cases
    for case in cases:
        address = parse_address(case["in"])
        if not case["ok"]:
            assert address is None, case
            continue
        expected = ip_address(case.get("ipv4_mapped", case["canon"].partition("%")[0]))
        assert address == expected, case
        assert "%" not in str(address)


def test_no_browser_spelling_of_an_address_is_taken() -> None:
    for case in load("names_urls_ips/ip_cases.json")["wpt_hosts"]:
        host = case["in"].split("://", 1)[1].rstrip("/")
        address = parse_address(host)
        if address is not None:
            assert host in (case["host"], str(address), f"[{address}]"), case


LEFTMOST = {"192.168.10.50, 10.0.0.1, 1.2.3.4": ("1.2.3.4", "oauth2-proxy takes the leftmost, which the client writes")}


def test_oauth2_proxy_cases() -> None:
    trusted = [ip_network("127.0.0.1")]
    for value, listed in load("names_urls_ips/ip_cases.json")["oauth2_proxy"]:
        expected = {None: "127.0.0.1", "error": "None"}.get(listed, listed)
        expected = LEFTMOST.get(value, (expected,))[0]
        assert str(client_address("127.0.0.1", [("X-Forwarded-For", value)], trusted)) == expected, value


def test_range_answers_are_the_three_values() -> None:
    kinds = {type(parse(case["header"], case["size"])) for case in load("range_cases.json")["cases"]}
    assert kinds == {Whole, Unsatisfiable, Parts}
