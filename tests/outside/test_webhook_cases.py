"""Webhook signatures collected elsewhere: each vector is genuine, and each class of forgery and repetition is met.

What a class asks of the door or the order book (connections, chunks, sizes on the wire) is tested there.
"""

from __future__ import annotations

import gzip
import json
from base64 import b64decode, b64encode
from collections.abc import Callable
from itertools import permutations
from pathlib import Path

import pytest

from gateway.policy.orders import Notice, Order
from gateway.shops import SHOPS, shopify, woocommerce
from gateway.shops.base import Headers, Ignored
from gateway.shops.samples import Wanted, sample

MATERIAL = Path(__file__).parents[2] / ".." / "shared" / "material" / "http" / "webhook_cases.json"
pytestmark = pytest.mark.skipif(not MATERIAL.exists(), reason="the outside material is not here")

DATA = json.loads(MATERIAL.read_text()) if MATERIAL.exists() else {"vectors": [], "negative_classes": []}
VECTORS: list[dict[str, str]] = DATA["vectors"]
KINDS = tuple(SHOPS)
Forged = Callable[[dict[str, tuple[str, ...]], bytes, str], tuple[Headers, bytes]]

SIGNATURES = {
    "shopify": "x-shopify-hmac-sha256",
    "woocommerce": "x-wc-webhook-signature",
    "shoper": "x-webhook-sha1",
    "signed": "x-gateway-signature",
}


def headers_of(kind: str, vector: dict[str, str]) -> dict[str, tuple[str, ...]]:
    match kind:
        case "shopify":
            return {SIGNATURES[kind]: (vector["shopify_X-Shopify-Hmac-Sha256"],)}
        case "woocommerce":
            return {SIGNATURES[kind]: (vector["woocommerce_X-WC-Webhook-Signature"],)}
        case "shoper":
            return {
                SIGNATURES[kind]: (vector["shoper_X-Webhook-SHA1"],),
                "x-webhook-id": (vector["shoper_X-Webhook-Id"],),
            }
        case _:
            return {SIGNATURES[kind]: (f"t=1700000000,v1={vector['stripe_style_t=1700000000,v1']}",)}


@pytest.mark.parametrize("vector", VECTORS, ids=[vector["body_b64"] or "empty" for vector in VECTORS])
@pytest.mark.parametrize("kind", KINDS)
def test_every_vector_is_genuine_and_nothing_near_it(kind: str, vector: dict[str, str]) -> None:
    shop, body, secret = SHOPS[kind], b64decode(vector["body_b64"]), vector["secret"].encode()
    headers = headers_of(kind, vector)
    assert shop.verify(headers, body, [secret]) == ""
    assert shop.verify(headers, body, [b"another", secret]) == ""
    assert shop.verify(headers, body, [b"another"]) != ""
    signature = headers[SIGNATURES[kind]][0]
    assert shop.verify({**headers, SIGNATURES[kind]: (url_alphabet(signature),)}, body, [secret]) != ""
    for other in VECTORS:
        if other is not vector:
            assert shop.verify(headers, b64decode(other["body_b64"]), [secret]) != ""
            assert shop.verify(headers_of(kind, other), body, [secret]) != ""


def test_our_own_signatures_are_those_of_the_vectors() -> None:
    for vector in VECTORS:
        body, secret = b64decode(vector["body_b64"]), vector["secret"].encode()
        assert shopify.sign(secret, body)[shopify.SIGNATURE] == vector["shopify_X-Shopify-Hmac-Sha256"]
        assert woocommerce.sign(secret, body)[woocommerce.SIGNATURE] == vector["woocommerce_X-WC-Webhook-Signature"]


def respelt(change: Callable[[str], str]) -> Forged:
    return lambda headers, body, name: ({**headers, name: (change(headers[name][0]),)}, body)


def hex_digits(text: str) -> str:
    """The same bytes in the other writing: hex for base64, base64 for hex."""
    try:
        return b64encode(bytes.fromhex(text.rpartition("=")[2])).decode()
    except ValueError:
        return b64decode(text).hex()


def url_alphabet(text: str) -> str:
    changed = text.translate(str.maketrans("+/", "-_"))
    return changed if changed != text else f"{text[:-2]}-_"


FORGED: dict[str, Forged] = {
    "wrong secret": lambda headers, body, name: (headers, body),
    "hex instead of base64": respelt(hex_digits),
    "base64 without padding": respelt(lambda text: text.rstrip("=") if text.endswith("=") else text[:-1]),
    "base64url alphabet": respelt(url_alphabet),
    "signature of re-serialised JSON": lambda headers, body, _: (headers, json.dumps(json.loads(body)).encode()),
    "header twice": lambda headers, body, name: ({**headers, name: headers[name] * 2}, body),
    "header empty": respelt(lambda _: ""),
    "header missing": lambda headers, body, name: ({each: headers[each] for each in headers if each != name}, body),
    "right signature, body + trailing newline": lambda headers, body, _: (headers, body + b"\n"),
    "right signature, gzip Content-Encoding": lambda headers, body, _: (
        {**headers, "content-encoding": ("gzip",)},
        gzip.compress(body),
    ),
    "body 10 MB": lambda headers, body, _: (headers, body.ljust(10 * 1024**2)),
    "signature 1 MB": respelt(lambda text: text * (1024**2 // len(text))),
}

ELSEWHERE = {
    "lower/upper-case header name": "the door gives every name in small letters",
    "chunked body": "the door reads the body whole",
    "same event id twice at once from 20 connections": "the order book keeps a delivery once",
}
BELOW = {
    "same event id twice",
    "same order, other event id",
    "order.paid before order.created",
    "refund before paid",
    "timestamp one day old",
    "charset ISO-8859-2",
    "JSON duplicate keys",
    "webhook ping (WooCommerce sends webhook_id=1 form body)",
}


def test_every_class_is_met() -> None:
    assert set(DATA["negative_classes"]) == set(FORGED) | set(ELSEWHERE) | BELOW


def genuine(kind: str, **wanted: object) -> tuple[dict[str, tuple[str, ...]], bytes]:
    asked = {"order": "1", "at": 1_700_000_000_000, "delivery": "d1", "sku": "SEA", "email": "a@b"} | wanted
    webhook = sample(kind, Wanted(**asked), b"test-secret")  # type: ignore[arg-type]  # a row of the test
    return {name.lower(): (value,) for name, value in webhook.headers.items()}, webhook.body


@pytest.mark.parametrize("name", FORGED)
@pytest.mark.parametrize("kind", KINDS)
def test_a_forgery_is_refused(kind: str, name: str) -> None:
    headers, body = genuine(kind)
    assert SHOPS[kind].verify(headers, body, [b"test-secret"]) == ""
    forged_headers, forged_body = FORGED[name](headers, body, SIGNATURES[kind])
    secret = b"wrong" if name == "wrong secret" else b"test-secret"
    assert SHOPS[kind].verify(forged_headers, forged_body, [secret]) != ""


def test_copies_and_news() -> None:
    shop = SHOPS["shopify"]
    headers, body = genuine("shopify")
    again = {**headers, "x-shopify-webhook-id": ("another",)}
    other = {**headers, "x-shopify-event-id": ("another",)}
    assert shop.delivery_id(headers, body) == shop.delivery_id(again, body)
    assert shop.delivery_id(headers, body) != shop.delivery_id(other, body)


@pytest.mark.parametrize("kind", KINDS)
def test_in_whichever_sequence_an_order_is_told_it_is_the_same(kind: str) -> None:
    notices = []
    for number, asked in enumerate(({"paid": False}, {}, {"refund": True})):
        headers, body = genuine(kind, at=1_700_000_000_000 + number * 60_000, **asked)
        notice = SHOPS[kind].read(headers, body, 1_700_000_000_000 + number * 60_000)
        assert isinstance(notice, Notice)
        notices.append(notice)
    orders = []
    for sequence in permutations([*notices, notices[1]]):
        order = Order("main-1", "main", "1")
        for notice in sequence:
            order = order.heard(notice)
        orders.append(order)
    assert all(order == orders[0] for order in orders)
    assert orders[0].paid.value
    assert orders[0].taken_back("1") in ("refunded", "cancelled")


def test_a_timestamp_one_day_old() -> None:
    headers, body = genuine("signed")
    assert SHOPS["signed"].verify(headers, body, [b"test-secret"]) == ""
    # Genuine it is: how old it may be is judged at the door, which has a clock.
    assert SHOPS["signed"].signed_at(headers) == 1_700_000_000
    older = {**headers, "x-gateway-signature": (headers["x-gateway-signature"][0].replace("t=17000", "t=16999"),)}
    assert SHOPS["signed"].verify(older, body, [b"test-secret"]) != ""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("body", ['{"name":"Zażółć"}'.encode("iso-8859-2"), b'{"id":1,"id":2}'])
def test_json_that_could_mean_two_things(kind: str, body: bytes) -> None:
    headers, _ = genuine(kind)
    with pytest.raises(ValueError, match=r"UTF-8|same name twice"):
        SHOPS[kind].read(headers, body, 0)


def test_the_ping_means_nothing() -> None:
    assert isinstance(SHOPS["woocommerce"].read({}, b"webhook_id=1", 0), Ignored)
