"""JSON that could mean two things, or that no later reader could write down, is refused, and never quoted."""

from __future__ import annotations

import time
from typing import Annotated

import pytest
from pydantic import BaseModel

from gateway.shops.fields import (
    AtMostLines,
    Day,
    Email,
    Id,
    IdOrNone,
    Language,
    Moment,
    Quantity,
    StrictEmail,
    StrictLanguage,
    StrictQuantity,
    StrictText,
    Text,
    UtcMoment,
    is_email,
)
from gateway.shops.genuine import BODY_MAX
from gateway.shops.payload import DEPTH_MAX, Payload, read_as, read_json


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "no JSON"),
        (b"[]", "no JSON object"),
        (b"1", "no JSON object"),
        (b'{"a":1', "no JSON"),
        (b'{"a":1}x', "no JSON"),
        (b"{'a':1}", "no JSON"),
        (b'{"a":1,}', "no JSON"),
        (b'{"a":1,"a":1}', "same name twice"),
        (b'{"b":{"a":1,"\\u0061":2}}', "same name twice"),
        (b'{"a":NaN}', "NaN"),
        (b'{"a":-Infinity}', "NaN"),
        (b'{"a":"\\ud800"}', "surrogate"),
        (b'{"a":["\\udc00\\ud800"]}', "surrogate"),
        (b'{"\\uDfff":1}', "surrogate"),
        (b'{"a":"\x01"}', "no JSON"),
        (b'{"a":"\xff"}', "no UTF-8"),
        (b'{"a":"\xed\xa0\x80"}', "no UTF-8"),
        ('{"a":"ż"}'.encode("iso-8859-2"), "no UTF-8"),
        (b'\xef\xbb\xbf{"a":1}', "no JSON"),
        (b"\x1f\x8b\x08\x00", "no UTF-8"),
        (b'{"a":9223372036854775809}', "2^63"),
        (b'{"a":' + b"9" * 5000 + b"}", "2^63"),
        (b'{"a":1e9999999999999999999999}', "beyond every use"),
        (b'{"a":' + b"[" * 1_000_000, "nested"),
        (b'{"a":' + b"[" * DEPTH_MAX + b"]" * DEPTH_MAX + b"}", "nested deeper"),
        (b" " * (BODY_MAX + 1), "larger"),
        (b"webhook_id=1", "no JSON"),
    ],
)
def test_what_is_refused(body: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said.replace("^", r"\^")) as refused:
        read_json(body)
    assert len(str(refused.value)) < 100


def test_what_is_read() -> None:
    assert read_json(b'{"a":9223372036854775808,"b":"\\ud83d\\ude00","c":[{"a":null}]}') == {
        "a": 2**63,
        "b": "😀",
        "c": [{"a": None}],
    }
    deep = b'{"a":' + b"[" * (DEPTH_MAX - 2) + b"]" * (DEPTH_MAX - 2) + b"}"
    assert read_json(deep)


@pytest.mark.parametrize("body", [b'{"a":[' + b"0," * 900_000 + b"0]}", b'{"a":"' + b"\\u0041" * 300_000 + b'"}'])
def test_the_largest_bodies_are_read_quickly(body: bytes) -> None:
    began = time.thread_time()
    read_json(body)
    assert time.thread_time() - began < 1.5


class Every(Payload):
    id: Id = ""
    other: IdOrNone = ""
    text: Text = ""
    strict: StrictText = ""
    email: Email = ""
    strict_email: StrictEmail = ""
    language: Language = ""
    strict_language: StrictLanguage = ""
    quantity: Quantity = 1
    strict_quantity: StrictQuantity = 1
    at: Moment = 0
    utc: UtcMoment = 0
    day: Day = 0
    flag: bool | None = None
    lines: Annotated[list[Text] | None, AtMostLines] = None


def one(name: str, written: str) -> object:
    body = f'{{"{name}":{written}}}'.encode("utf-8", "surrogatepass")
    return getattr(read_as(Every, body), name)


@pytest.mark.parametrize(
    ("name", "written", "value"),
    [
        ("id", "5678901234567", "5678901234567"),
        ("id", '"ZAM/2026-11"', "ZAM/2026-11"),
        ("id", "0", "0"),
        ("other", "0", ""),
        ("other", "null", ""),
        ("other", '"0"', ""),
        ("other", "7", "7"),
        ("text", "null", ""),
        ("text", '"  a\\u0000b\\u2028 "', "a\ufffdb"),
        ("text", f'"{"x" * 300}"', "x" * 255),
        ("email", '"ada@example.com"', "ada@example.com"),
        ("email", '"ada@example.com\\r\\nBcc: eve@example.com"', ""),
        ("email", '"Ada <ada@example.com>"', ""),
        ("email", "null", ""),
        ("language", '"pl_PL"', "pl-PL"),
        ("language", '"no language at all"', ""),
        ("quantity", "0", 0),
        ("quantity", "1.5", 2),
        ("quantity", "2.0", 2),
        ("quantity", "1000000", 1_000_000),
        ("at", '"1970-01-01T00:00:01.250Z"', 1250),
        ("at", '"2026-11-20T21:02:14+01:00"', 1_795_204_934_000),
        ("at", '"2026-11-20t20:02:14.1239z"', 1_795_204_934_123),
        ("utc", '"2026-11-20T20:02:14"', 1_795_204_934_000),
        ("day", '"2026-11-20"', 1_795_132_800_000),
        ("flag", "true", True),
        ("flag", "null", None),
    ],
)
def test_fields_that_are_taken(name: str, written: str, value: object) -> None:
    assert one(name, written) == value


@pytest.mark.parametrize(
    ("name", "written"),
    [
        *(("id", written) for written in ("-1", "1.5", "true", "null", '""', '" a"', '"a\\n"', '"*"', "[]", "{}")),
        ("id", f'"{"x" * 201}"'),
        ("text", "1"),
        ("strict", '" a"'),
        ("strict", '"a\\u0085"'),
        ("strict", f'"{"x" * 256}"'),
        ("strict_email", '"ada"'),
        ("strict_email", '"a@b@example.com"'),
        ("strict_language", '"!"'),
        *(("quantity", written) for written in ("-1", "1000001", "1e30", "true", '"1"', "null")),
        *(("strict_quantity", written) for written in ("0", "1.0", "-1")),
        *(("at", f'"{written}"') for written in ("2026-11-20T21:02:14", "2026-11-20", "2026-13-01T00:00:00Z", "now")),
        *(
            ("at", f'"{written}"')
            for written in ("1969-12-31T23:59:59Z", "2026-11-20T24:00:00Z", "٢٠٢٦-11-20T20:02:14Z")
        ),
        ("at", '"0001-01-01T00:00:00+01:00"'),
        ("at", '"9999-12-31T23:59:59-01:00"'),
        ("at", '"2026-11-20T20:02:60Z"'),
        ("at", "1795204934"),
        ("flag", "1"),
        ("flag", '"true"'),
        ("lines", "{}"),
        ("lines", "[" + ",".join(['""'] * 1001) + "]"),
    ],
)
def test_fields_that_are_refused_are_named_and_not_quoted(name: str, written: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name}(\.\d+)? ") as refused:
        one(name, written)
    assert len(written) < 8 or written.strip('"') not in str(refused.value)


def test_a_name_that_is_no_word_is_not_repeated() -> None:
    class Closed(BaseModel, extra="forbid"):
        pass

    class Root(Payload):
        a: Closed | None = None

    with pytest.raises(ValueError, match=r"^a\.surplus is no field of this form$"):
        read_as(Root, b'{"a":{"surplus":1}}')
    for name in (b"ada@example.com", b"a b", b"x" * 41, b"\\n"):
        with pytest.raises(ValueError, match=r"^a\.… is no field of this form$"):
            read_as(Root, b'{"a":{"%s":1}}' % name)


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("a@b", True),
        ("ada+books@example.co.uk", True),
        ("ądą@exämple.com", True),
        ("@b", False),
        ("a@", False),
        ("a@b@c", False),
        ("a b@c", False),
        ("a@b\u200b", False),
        ("a@b,c@d", False),
        ("a@b>", False),
        ("x" * 65 + "@b", False),
        ("a@" + "x" * 190, False),
    ],
)
def test_what_a_mail_can_be_sent_to(text: str, good: bool) -> None:
    assert is_email(text) is good
