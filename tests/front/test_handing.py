"""Where another program finds the bytes: in headers for a proxy alone, each with what makes it that version's part."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from urllib.parse import unquote

import pytest

from gateway.front.handing import Handing
from gateway.policy.model import Claims, DownloadRequest, FileEntry, StoredObject
from gateway.services.gatekeeper import Admitted
from gateway.services.responding import plan_response
from gateway.store_ports import Local, Remote

REQUEST = DownloadRequest("r1", "", 1, "GET", ip_address("203.0.113.9"), "203.0.113.0/24", front="nginx")
STORED = StoredObject("a.pdf", 1000, '"e"', 1_700_000_000, "application/pdf")
SIGNED = "https://bucket.example.com/a%20b.pdf?X-Amz-Signature=0123"


def admitted(where: Local | Remote, **changes: object) -> Admitted:
    request = replace(REQUEST, **changes)
    plan = plan_response(request, STORED, "a.pdf", now=1_800_000_000, boundary="", handed=True)
    return Admitted(request, Claims("s", "t", 1, ()), FileEntry("a.pdf"), STORED, plan, None, located=where)


@pytest.mark.parametrize(
    "key",
    ["a.pdf", "with space.pdf", "plus+sign%2F.pdf", "zażółć/\N{SMILING FACE WITH SUNGLASSES}.mp3", "a?b#c&d;e\"f'.pdf",
     "line\nbreak\r.txt"],
)  # fmt: skip
def test_a_file_is_a_path_below_the_location_in_ascii(key: str) -> None:
    told = Handing("/_gateway/").to_nginx(admitted(Local(key), range="bytes=0-9"), {})
    assert set(told) - {"X-Gateway-Path"} == {"X-Accel-Redirect", "X-Gateway-File"}
    path = told["X-Accel-Redirect"].removeprefix("/_gateway/file/")
    assert path == told["X-Gateway-File"]
    assert unquote(path) == key
    assert path.isascii()
    assert path.isprintable()
    assert not set(path) & set(" ?#\"'\\")


@pytest.mark.parametrize(
    ("changes", "ranged"),
    [
        ({}, None),
        ({"range": "bytes=10-19"}, "bytes=10-19"),
        ({"range": "bytes=-5"}, "bytes=995-999"),
        ({"range": "bytes=990-5000"}, "bytes=990-999"),
        ({"range": "bytes=0-"}, "bytes=0-999"),
        ({"range": "bytes=0-9,20-29"}, None),
        ({"range": "bytes=10-19", "if_range": '"x"'}, None),
    ],
)
def test_an_object_is_asked_for_just_the_planned_part_of_that_version(changes, ranged) -> None:
    told = Handing("/_gateway/").to_nginx(admitted(Remote(SIGNED, check=print), **changes), {})
    assert told["X-Accel-Redirect"] == "/_gateway/bucket"
    assert (told["X-Gateway-Origin"], told["X-Gateway-If-Match"]) == (SIGNED, '"e"')
    assert told.get("X-Gateway-Range") == ranged


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("a b.pdf", True),
        ("\xa0a.pdf", True),
        ("a.pdf ", False),
        (" a.pdf", False),
        ("a\n.pdf", False),
        ("a\x7f", False),
    ],
)
def test_a_plain_path_is_told_only_where_it_arrives_as_it_is(key: str, said: bool) -> None:
    told = Handing(None).told(admitted(Local(key)))
    assert told.get("X-Gateway-Path") == (key if said else None)
    assert unquote(told["X-Gateway-File"]) == key


def test_who_only_asks_is_given_no_redirect() -> None:
    assert "X-Accel-Redirect" not in Handing(None).told(admitted(Remote(SIGNED, check=print)))
