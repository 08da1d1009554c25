"""Only the one spelling of the right signature over the very bytes is genuine, for every kind of shop."""

from __future__ import annotations

import hashlib
import json
import time
from base64 import b64decode, b64encode, urlsafe_b64encode
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.shops import SHOPS
from gateway.shops.base import Headers
from gateway.shops.genuine import BODY_MAX, only, word
from gateway.shops.samples import Wanted, sample

KINDS = tuple(SHOPS)
SECRET, OTHER = b"test-secret", b"the secret before it"
NAMES = {
    "shopify": "x-shopify-hmac-sha256",
    "woocommerce": "x-wc-webhook-signature",
    "shoper": "x-webhook-sha1",
    "signed": "x-gateway-signature",
}


def made(kind: str, secret: bytes = SECRET) -> tuple[dict[str, tuple[str, ...]], bytes]:
    """A genuine sample, with its headers as the gateway's door hands them on."""
    webhook = sample(kind, Wanted("10001", 1_700_000_000_000, "d1", "SEA", "ada@example.com"), secret)
    return {name.lower(): (value,) for name, value in webhook.headers.items()}, webhook.body


def verify(kind: str, headers: Headers, body: bytes, *secrets: bytes) -> str:
    return SHOPS[kind].verify(headers, body, secrets or (SECRET,))


@pytest.mark.parametrize("kind", KINDS)
def test_a_genuine_webhook_by_any_secret(kind: str) -> None:
    headers, body = made(kind)
    assert verify(kind, headers, body) == ""
    assert verify(kind, headers, body, b"new", OTHER, SECRET) == ""
    assert verify(kind, headers, body, b"new", OTHER) != ""
    assert SHOPS[kind].verify(headers, body, []) != ""


def base64_spellings(text: str) -> list[str]:
    raw = b64decode(text)
    return [raw.hex(), text.rstrip("="), urlsafe_b64encode(raw).decode().rstrip("="), f"{text}=", text[::-1]]


def spoilt(value: str) -> list[str]:
    """Other spellings and other signatures."""
    return [
        *("", " ", "=", "a", f" {value}", f"{value} ", f"{value}\n", f"{value},{value}", value.swapcase(), value[:-1]),
        *(f"{value}a", "ł", "\udcff", value.replace("=", "\uff1d") + "\u200b", "A" * 1_000_000, value * 40),
        *(value[:-2] + letter + value[-1] for letter in "0A" if value[-2] != letter),
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_no_other_spelling_and_no_other_number_of_headers(kind: str) -> None:
    headers, body = made(kind)
    name = NAMES[kind]
    (right,) = headers[name]
    others = spoilt(right) + (base64_spellings(right) if kind in ("shopify", "woocommerce") else [])
    for wrong in others:
        said = verify(kind, {**headers, name: (wrong,)}, body)
        assert said, repr(wrong)[:80]
        assert right not in said
        assert wrong.strip(" =a\n") == "" or wrong not in said
    for values in ((), (right, right), (right, "x"), ("", right)):
        assert verify(kind, {**headers, name: values}, body)
    assert verify(kind, {each: values for each, values in headers.items() if each != name}, body)


@pytest.mark.parametrize("kind", KINDS)
def test_the_very_bytes_are_signed(kind: str) -> None:
    headers, body = made(kind)
    again = json.dumps(json.loads(body)).encode()
    assert again != body
    for other in (
        again,
        body + b"\n",
        b" " + body,
        body[:-1],
        b"",
        b"\xef\xbb\xbf" + body,
        body.decode().encode("utf-16"),
    ):
        assert verify(kind, headers, other), other[:20]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_compressed_or_huge_is_refused_whatever_its_signature(kind: str) -> None:
    headers, body = made(kind)
    assert "compressed" in verify(kind, {**headers, "content-encoding": ("gzip",)}, body)
    assert verify(kind, {**headers, "content-encoding": ("identity",)}, body) == ""
    huge, taken = b" " * (5 * BODY_MAX), []
    for _ in range(3):
        began = time.thread_time()
        assert "larger" in verify(kind, headers, huge)
        taken.append(time.thread_time() - began)
    # To hash it would take longer, and anybody could ask for that.
    assert min(taken) < 0.002


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=100, deadline=None)
@given(st.data())
def test_no_headers_and_no_body_raise(kind: str, data: st.DataObject) -> None:
    headers, body = made(kind)
    names = st.sampled_from([*headers, *SHOPS[kind].kept])
    values = st.lists(st.text(st.characters(), max_size=60), max_size=3).map(tuple)
    given_headers = {**headers, **data.draw(st.dictionaries(names, values, max_size=3))}
    given_body = data.draw(st.just(body) | st.binary(max_size=60))
    shop = SHOPS[kind]
    genuine = verify(kind, given_headers, given_body) == ""
    untouched = given_body == body and given_headers[NAMES[kind]] == headers[NAMES[kind]]
    assert not genuine or untouched
    signed_at = shop.signed_at(given_headers)
    assert signed_at is None or 0 < signed_at < 10**12
    delivery_id = shop.delivery_id(given_headers, given_body)
    assert 1 <= len(delivery_id) <= 200
    assert delivery_id.isprintable()
    with suppress(ValueError):
        shop.read(given_headers, given_body, 0)


def test_the_formulas_by_hand() -> None:
    """The formulas once more, by the standard library alone."""
    headers, body = made("shoper")
    (webhook,) = headers["x-webhook-id"]
    assert headers["x-webhook-sha1"] == (hashlib.sha1(webhook.encode() + b":" + SECRET + b":" + body).hexdigest(),)  # noqa: S324  # Shoper's formula
    headers, body = made("shopify")
    inner = hashlib.sha256(bytes(b ^ 0x36 for b in SECRET.ljust(64, b"\0")) + body).digest()
    outer = hashlib.sha256(bytes(b ^ 0x5C for b in SECRET.ljust(64, b"\0")) + inner).digest()
    assert headers["x-shopify-hmac-sha256"] == (b64encode(outer).decode(),)


@pytest.mark.parametrize(
    ("values", "value"),
    [((), None), (("",), None), (("a", "a"), None), (("a",), "a"), (("ł",), "ł"), (("a" * 513,), None)],
)
def test_a_header_that_is_there_once(values: tuple[str, ...], value: str | None) -> None:
    assert only({"a": values}, "a") == value


@pytest.mark.parametrize("value", ["", "a b", "ł", "a\n", "a" * 101, "\udcff", "\x7f"])
def test_what_is_no_plain_word(value: str) -> None:
    assert word({"a": (value,)}, "a") == ""


@pytest.mark.parametrize("kind", KINDS)
def test_when_it_was_signed(kind: str) -> None:
    headers, _ = made(kind)
    assert SHOPS[kind].signed_at(headers) == (1_700_000_000 if kind == "signed" else None)
    assert SHOPS[kind].signed_at({}) is None
