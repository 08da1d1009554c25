"""The form for any other shop: all of it, and nothing beside it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from ipaddress import ip_address

import pytest

from gateway.policy.orders import Buyer, Line, Notice, Refund
from gateway.shops import SHOPS
from gateway.shops.genuine import hmac_sha256

SHOP = SHOPS["signed"]
LEAST: dict[str, object] = {"id": "n1", "at": "2026-11-20T20:02:14Z", "order": "1042"}
AT = 1_795_204_934_000


def read(**members: object) -> Notice:
    notice = SHOP.read({}, json.dumps({**LEAST, **members}).encode(), 0)
    assert isinstance(notice, Notice)
    return notice


def test_a_recorded_notice(payload: Callable[[str], bytes]) -> None:
    assert SHOP.read({}, payload("signed_order"), 0) == Notice(
        shop_order_id="1042",
        at=AT + 250,
        reference="#1042",
        paid=True,
        confirmed=True,
        buyer=Buyer("ada@example.com", "Ada Żółć", "7", "pl"),
        address=ip_address("2001:db8::9"),
        lines=(
            Line("1", 1, "SEA-EPUB", title="The Sea"),
            Line("2", 2, product_id="102", variant_id="112", title="Songs of the Sea"),
        ),
    )


def test_what_is_left_out_is_not_said() -> None:
    assert read() == Notice("1042", AT)
    nothing = (
        "paid",
        "confirmed",
        "cancelled",
        "refunded",
        "charged_back",
        "ends_at",
        "buyer",
        "ip",
        "lines",
        "refunds",
    )
    assert read(**dict.fromkeys(nothing)) == Notice("1042", AT)


def test_every_word_of_it() -> None:
    notice = read(
        paid=False,
        confirmed=False,
        cancelled=True,
        refunded=True,
        charged_back=True,
        ends_at="2027-01-01T00:00:00Z",
        buyer={},
        lines=[],
        refunds=[{"id": "r1"}, {"id": 2, "lines": [{"id": "1", "quantity": 3}]}],
    )
    assert notice == Notice(
        *("1042", AT, ""),
        *(False, False, True, True, True),
        ends_at=1_798_761_600,
        buyer=Buyer(),
        lines=(),
        refunds=(Refund("r1"), Refund("2", (("1", 3),))),
    )


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"id": ""}, "^id is no text of 1 to 100"),
        ({"ip": ""}, "^ip is no IP address; write it like"),
        ({"ip": "203.0.113.0/24"}, "^ip is no IP address"),
        ({"ip": 3405803785}, "^ip is no IP address"),
        ({"id": "a b"}, "^id is no text"),
        ({"id": 1}, "^id is no text"),
        ({"at": "2026-11-20T20:02:14"}, "^at is no time; write it like"),
        ({"at": 1_795_204_934}, "^at is no time"),
        ({"order": "*"}, "^order is no id"),
        ({"order": "a\nb"}, "^order is no id"),
        ({"order": "x" * 201}, "^order is no id"),
        ({"reference": 1}, "^reference is no text"),
        ({"reference": " #1"}, "^reference is no text"),
        ({"payed": True}, "^payed is no field of this form$"),
        ({"paid": "true"}, "^paid is neither true nor false$"),
        ({"paid": 1}, "^paid is neither"),
        ({"ends_at": "never"}, "^ends_at is no time"),
        ({"buyer": {"email": "ada"}}, r"^buyer\.email is no mail address"),
        ({"buyer": {"e_mail": "a@b"}}, r"^buyer\.e_mail is no field"),
        ({"buyer": {"language": "?"}}, r"^buyer\.language is no language"),
        ({"buyer": []}, "^buyer is no object$"),
        ({"lines": {}}, "^lines is no list$"),
        ({"lines": [{}]}, r"^lines\.0\.id is missing$"),
        ({"lines": [{"id": "1", "sku": ""}]}, r"^lines\.0\.sku is empty"),
        ({"lines": [{"id": "1", "quantity": 0}]}, r"^lines\.0\.quantity is no whole number from 1"),
        ({"lines": [{"id": "1", "quantity": 1.0}]}, r"^lines\.0\.quantity"),
        ({"lines": [{"id": "1", "price": 1}]}, r"^lines\.0\.price is no field"),
        ({"lines": [{"id": "1"}, {"id": 1}]}, "^two lines"),
        ({"lines": [{"id": str(number)} for number in range(1001)]}, "^lines has more than 1000 entries$"),
        ({"refunds": [{"lines": []}]}, r"^refunds\.0\.id is missing$"),
        ({"refunds": [{"id": "1"}, {"id": "1"}]}, "^two refunds"),
        ({"refunds": [{"id": "1", "lines": [{"id": "1"}]}]}, r"^refunds\.0\.lines\.0\.quantity is missing$"),
        ({"refunds": [{"id": "1", "lines": [{"id": "1", "quantity": 1}] * 2}]}, "^a refund names one line twice$"),
    ],
)
def test_what_is_not_of_the_form_is_named(members: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read(**members)


@pytest.mark.parametrize("name", ["id", "at", "order"])
def test_what_must_be_there(name: str) -> None:
    without = {each: value for each, value in LEAST.items() if each != name}
    with pytest.raises(ValueError, match=f"^{name} is missing$"):
        SHOP.read({}, json.dumps(without).encode(), 0)


def test_a_used_id_does_not_silence_news() -> None:
    paid, refunded = (json.dumps({**LEAST, word: True}).encode() for word in ("paid", "refunded"))
    assert SHOP.delivery_id({}, paid) == SHOP.delivery_id({}, paid)
    assert SHOP.delivery_id({}, paid) != SHOP.delivery_id({}, refunded)
    assert SHOP.delivery_id({}, paid).startswith("n1:")
    assert SHOP.delivery_id({}, b"no JSON").startswith(":")


@pytest.mark.parametrize(
    "header",
    [
        "v1={hex},t={t}",
        "t={t}, v1={hex}",
        "t={t},v1={hex},v1={hex}",
        "t=0{t},v1={hex}",
        "t=+{t},v1={hex}",
        "t={t}.0,v1={hex}",
        "t=\u0661,v1={hex}",
        "t={t},v0={hex}",
        "T={t},V1={hex}",
        "t=,v1={hex}",
        "t={t}",
        "{hex}",
    ],
)
def test_one_spelling_of_the_header(header: str) -> None:
    right = "7e20f4d04901c5d68deb886cfd7eec01a01825b08d20aeffeb37820a7ee2c068"
    body, secrets = b'{"id":1}', [b"test-secret"]
    assert SHOP.verify({"x-gateway-signature": (f"t=1700000000,v1={right}",)}, body, secrets) == ""
    assert SHOP.verify({"x-gateway-signature": (f"t=1700000001,v1={right}",)}, body, secrets) != ""
    # Signed just as it is written, so that nothing but the spelling is wrong.
    text = re.search(r"t=([^,]*)", header.format(t=1_700_000_000, hex=""), re.IGNORECASE)
    at = text[1].encode() if text else b""
    written = header.format(t=1_700_000_000, hex=hmac_sha256(secrets[0], at + b"." + body).hex())
    assert SHOP.verify({"x-gateway-signature": (written,)}, body, secrets) != ""
