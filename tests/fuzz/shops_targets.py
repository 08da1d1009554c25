"""Webhooks: only what was signed is genuine, what is read can be kept, and nothing but ValueError comes of the rest."""

from __future__ import annotations

import json

from engine import Target
from mutate import Value

from gateway.policy.claims import TEXT_MAX
from gateway.policy.events import clean
from gateway.policy.orders import Buyer, Notice, Order, order_id_of
from gateway.policy.standing import is_order_id
from gateway.shops import SHOPS, shoper, shopify, signed, woocommerce
from gateway.shops.base import Ignored
from gateway.shops.fields import LINES_MAX, QUANTITY_MAX, is_email
from gateway.shops.samples import Wanted, sample

KINDS = tuple(SHOPS)
SECRETS = [b"newest", b"a made-up secret"]
NOW = 1_795_204_934_000
_SIGNATURES = {
    "shopify": shopify.SIGNATURE,
    "woocommerce": woocommerce.SIGNATURE,
    "shoper": shoper.SIGNATURE,
    "signed": signed.SIGNATURE,
}
_TOPICS = {
    "shopify": ("orders/paid", "orders/cancelled", "refunds/create", "disputes/update"),
    "woocommerce": ("order.updated", "order.deleted"),
    "shoper": ("order.paid", "order.create", "order.delete"),
    "signed": ("",),
}


def _made(kind: str, topic: str, *, refund: bool = False) -> tuple[dict[str, str], str]:
    wanted = Wanted("10001", NOW, "d1", "SEA-1", "ada@example.com", refund=refund, topic=topic)
    webhook = sample(kind, wanted, SECRETS[1])
    return {name.lower(): value for name, value in webhook.headers.items()}, webhook.body.decode()


MADE = [(number, *_made(kind, topic)) for number, kind in enumerate(KINDS) for topic in _TOPICS[kind]]
MADE.append((KINDS.index("signed"), *_made("signed", "", refund=True)))
_GENUINE = {(number, headers[_SIGNATURES[KINDS[number]]], body) for number, headers, body in MADE}


def check_verify(value: tuple[int, list[tuple[str, str]], str]) -> str:
    """Each header as often as it is listed; the body as text, since texts are what is mutated best."""
    number, pairs, text = value
    kind = KINDS[number % len(KINDS)]
    shop, body = SHOPS[kind], text.encode("utf-8", "surrogatepass")
    headers: dict[str, list[str]] = {}
    for name, each in pairs:
        headers.setdefault(name, []).append(each)
    said = shop.verify(headers, body, SECRETS)
    delivery_id = shop.delivery_id(headers, body)
    assert 1 <= len(delivery_id) <= 200
    assert delivery_id.isprintable()
    signed_at = shop.signed_at(headers)
    assert signed_at is None or 0 < signed_at < 10**12
    signature = headers.get(_SIGNATURES[kind], [])
    if said:
        assert said.isascii()
        assert said.isprintable()
        return "refused"
    if not signature:
        assert kind == "woocommerce"
        assert isinstance(shop.read(headers, body, NOW), Ignored), "an unsigned body says something"
        return "ping"
    assert (number % len(KINDS), signature[0], text) in _GENUINE, "a body that nobody signed is genuine"
    assert len(signature) == 1
    return "genuine"


def check_read(value: tuple[int, int, Value]) -> str:
    """A body that was signed, whatever is in it, under any topic."""
    number, place, tree = value
    kind = KINDS[number % len(KINDS)]
    topic = (*_TOPICS[kind], "products/update")[place % (len(_TOPICS[kind]) + 1)]
    headers = dict.fromkeys(("x-shopify-topic", "x-wc-webhook-topic", "x-webhook-name"), (topic,))
    text = tree if isinstance(tree, str) else json.dumps(tree)
    try:
        notice = SHOPS[kind].read(headers, text.encode("utf-8", "surrogatepass"), NOW)
    except ValueError as error:
        return _quiet(str(error))
    if isinstance(notice, Ignored):
        return "ignored"
    _can_be_kept(notice)
    order = Order("main-1", "main", "1")
    assert order.heard(notice).heard(notice) == order.heard(notice)
    return "read"


def _quiet(said: str) -> str:
    assert said.isprintable()
    assert len(said) < _SAID_MAX, "a refusal quotes a body"
    return "refused"


_SAID_MAX = 250


def _can_be_kept(notice: Notice) -> None:
    assert is_order_id(order_id_of("s" * 31, notice.shop_order_id))
    assert 0 <= notice.at < 253_402_300_800_000
    buyer = notice.buyer or Buyer()
    assert not buyer.email or is_email(buyer.email)
    texts = [notice.reference, buyer.email, buyer.name, buyer.customer_id, buyer.language]
    lines = notice.lines or ()
    assert len(lines) <= LINES_MAX
    assert len({line.line_id for line in lines}) == len(lines)
    for line in lines:
        assert 1 <= line.quantity <= QUANTITY_MAX
        assert line.line_id not in ("", "*")
        texts += [line.line_id, line.sku, line.product_id, line.variant_id, line.title]
    for refund in notice.refunds:
        texts.append(refund.refund_id)
        texts += [line_id for line_id, _ in refund.quantities]
        assert len(dict(refund.quantities)) == len(refund.quantities)
        assert all(1 <= quantity <= QUANTITY_MAX * LINES_MAX for _, quantity in refund.quantities)
    # A name is put together from two fields.
    assert all(text == clean(text, 2 * TEXT_MAX + 1) == text.strip() for text in texts)
    assert all(text.encode().decode() == text for text in texts)


_WORDS = (
    *(
        "id",
        "order_id",
        "line_items",
        "refunds",
        "refund_line_items",
        "lines",
        "products",
        "quantity",
        "status",
        "paid",
    ),
    *("paid", "refunded", "trash", "completed", "chargeback", "won", "inquiry", "webhook_id=1", "null", "true", "1.5"),
    *("2026-11-20T20:02:14Z", "2026-11-20", "1e999999999999999999", "\\ud800", "*", "ada@example.com", "a\nb"),
    *(topic for topics in _TOPICS.values() for topic in topics),
)
_HEADER_WORDS = (
    *_SIGNATURES.values(),
    "content-encoding",
    "gzip",
    "t=1,v1=",
    "webhook_id=1",
    "=",
    "==",
    "x-webhook-id",
)

TARGETS = (
    Target(
        "webhook",
        check_verify,
        [*((n, list(headers.items()), body) for n, headers, body in MADE), (1, [], "webhook_id=1")],
        _HEADER_WORDS,
        ("genuine", "refused", "ping"),
    ),
    Target(
        "order of a shop",
        check_read,
        [(n, place, json.loads(body)) for n, _, body in MADE for place in range(len(_TOPICS[KINDS[n]]) + 1)],
        _WORDS,
        ("read", "refused", "ignored"),
    ),
    Target(
        "order of a shop as text",
        check_read,
        [(n, place, body) for n, _, body in MADE for place in range(len(_TOPICS[KINDS[n]]) + 1)],
        _WORDS,
        ("read", "refused", "ignored"),
    ),
)
