"""Orders as documents: what is read is what was written, and whatever else stands there is refused."""

from __future__ import annotations

import json
from dataclasses import is_dataclass
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.backends.order_documents import read_order, read_texts, write_order, write_texts
from gateway.policy.model import Limits
from gateway.policy.orders import Entitlement, Order, Told

TEXT = st.text(st.characters(), max_size=8)
"""Also NUL, and halves of surrogate pairs."""
NUMBER = st.integers(-(2**70), 2**70)
LIMITS = st.dictionaries(st.sampled_from(["downloads", "networks", "rate"]), NUMBER).map(lambda each: Limits(**each))


def every(shape: Any) -> st.SearchStrategy[Any]:
    """All values of a noun's shape, defaults or not."""
    origin, of = get_origin(shape) or shape, get_args(shape)
    if origin in (Union, UnionType):
        return st.none() | every(of[0])
    if origin is tuple:
        return st.lists(every(of[0]), max_size=2).map(tuple) if of[-1] is ... else st.tuples(*map(every, of))
    if not is_dataclass(origin) or origin is Limits:
        return {bool: st.booleans(), int: NUMBER, str: TEXT, Limits: LIMITS}[origin]
    hints = get_type_hints(origin).items()
    return st.builds(origin, **{name: every(of[0] if isinstance(hint, TypeVar) else hint) for name, hint in hints})


ORDERS = every(Order)
PLAIN = Order("main-1", "main", "1", ends_at=Told(9, 5), entitlements=(Entitlement("1", "", (), 5),))


@given(ORDERS)
def test_what_is_read_is_what_was_written(order: Order) -> None:
    text = write_order(order)
    assert text.isascii()
    assert "\0" not in text
    assert read_order(text) == order
    assert write_order(read_order(text)) == text


@given(st.dictionaries(TEXT, TEXT))
def test_texts_come_back(texts: dict[str, str]) -> None:
    assert write_texts(texts).isascii()
    assert read_texts(write_texts(texts)) == texts


def test_a_document_without_what_has_a_default_is_read() -> None:
    """So a field that a later gateway adds is no new version."""
    document = json.loads(write_order(PLAIN))
    del document["order"]["charged_back"], document["order"]["entitlements"][0]["plan"]
    assert read_order(json.dumps(document)) == PLAIN


@pytest.mark.parametrize("version", [0, 2, 1.0, True, "1", None])
def test_another_version_is_refused(version: object) -> None:
    document = json.loads(write_order(PLAIN)) | {"v": version}
    with pytest.raises(ValueError, match="is of another version than 1; run the gateway that wrote it"):
        read_order(json.dumps(document))


@pytest.mark.parametrize(
    ("path", "value", "where"),
    [
        (("ends_at", "value"), "1", "order.ends_at.value"),
        (("ends_at", "at"), True, "order.ends_at.at"),
        (("ends_at",), None, "order.ends_at"),
        (("entitlements", 0, "account"), 1, "order.entitlements.account"),
        (("shop",), None, "order.shop"),
        (("surprise",), "secret", "order"),
        (("buyer", "value", "email"), ["secret"], "order.buyer.value.email"),
        (("refunds",), [[{"refund_id": "1"}]], r"order.refunds"),
        (("entitlements", 0, "granted_at"), 1.5, "order.entitlements.granted_at"),
        (("entitlements", 0, "files"), "secret", "order.entitlements.files"),
        (("links",), [{"token_id": "secret"}], "order.links"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place_and_nothing_of_it(
    path: tuple[str | int, ...], value: object, where: str
) -> None:
    document = json.loads(write_order(PLAIN))
    place = document["order"]
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(ValueError, match=rf"cannot be read at {where};") as caught:
        read_order(json.dumps(document))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "no", "[]", "{}", "null", '{"v": 1}', '{"v": 1, "order": []}'])
def test_what_is_no_order_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="the order's document"):
        read_order(text)
