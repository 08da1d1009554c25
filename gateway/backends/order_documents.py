"""Orders as the documents that the order book keeps: JSON, with the version of its shape beside it.

What is read is exactly what was written; a document that cannot be read so is refused, never guessed at.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from gateway.policy.model import Limits
from gateway.policy.orders import Order

VERSION = 1

Shape = Any
"""A type hint of the nouns: a class, `tuple[…]`, `X | None`, or a type variable of a generic one."""


def write_order(order: Order) -> str:
    """The order as text: ASCII alone, so that any database takes it, whatever a shop put into its fields."""
    return _dumped({"v": VERSION, "order": _written(order)})


def read_order(text: str) -> Order:
    """The order as it was written. Raises ValueError, without any value of the document in its text."""
    try:
        document = json.loads(text)
    except ValueError:
        raise ValueError("the order's document is no JSON") from None
    if not isinstance(document, dict) or "v" not in document:
        raise ValueError("the order's document has no version")
    if type(version := document["v"]) is not int or version != VERSION:
        raise ValueError(f"the order's document is of another version than {VERSION}; run the gateway that wrote it")
    return cast(Order, _read(document.get("order"), Order, "order"))


def write_texts(texts: Mapping[str, str]) -> str:
    """Names and texts (an event's fields, a delivery's headers) as ASCII."""
    return _dumped(dict(texts))


def read_texts(text: str) -> dict[str, str]:
    """What `write_texts` was given. Raises ValueError."""
    texts = json.loads(text)
    if not isinstance(texts, dict) or not all(isinstance(value, str) for value in texts.values()):
        raise ValueError("is no mapping of names to texts")
    return texts


def _dumped(value: object) -> str:
    return json.dumps(value, ensure_ascii=True, separators=(",", ":"), sort_keys=True)


def _written(value: object) -> object:
    if isinstance(value, Limits):
        return dict(value.values)
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: _written(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, tuple):
        return [_written(each) for each in value]
    return value


def _read(value: object, shape: Shape, where: str) -> object:
    """The value as the noun that the shape names. Raises ValueError with the place of what does not fit."""
    origin: Shape = get_origin(shape)
    if origin in (Union, UnionType):
        return _read_optional(value, shape, where)
    if origin is tuple:
        return _read_tuple(value, get_args(shape), where)
    if shape is Limits:
        return _read_limits(value, where)
    if is_dataclass(origin or shape):
        return _read_noun(value, origin or shape, get_args(shape), where)
    # Exactly this type: to Python True is a number too.
    if type(value) is not shape:
        raise _unfit(where)
    return value


def _read_optional(value: object, shape: Shape, where: str) -> object:
    (kind,) = (each for each in get_args(shape) if each is not NoneType)
    return None if value is None else _read(value, kind, where)


def _read_tuple(value: object, kinds: tuple[Shape, ...], where: str) -> object:
    if not isinstance(value, list):
        raise _unfit(where)
    if kinds[-1] is Ellipsis:
        kinds = kinds[:1] * len(value)
    if len(kinds) != len(value):
        raise _unfit(where)
    return tuple(_read(each, kind, where) for each, kind in zip(value, kinds, strict=True))


def _read_limits(value: object, where: str) -> object:
    if not isinstance(value, dict) or not all(type(number) is int for number in value.values()):
        raise _unfit(where)
    return Limits(**value)


def _read_noun(value: object, noun: type, of: tuple[Shape, ...], where: str) -> object:
    shapes, required = _members(noun)
    if not isinstance(value, dict) or not required <= value.keys() <= shapes.keys():
        raise _unfit(where)
    # Told[bool] has one type variable, which stands for bool.
    known = {name: of[0] if isinstance(shape, TypeVar) else shape for name, shape in shapes.items()}
    return noun(**{name: _read(each, known[name], f"{where}.{name}") for name, each in value.items()})


@cache
def _members(noun: Any) -> tuple[Mapping[str, Shape], frozenset[str]]:
    """The noun's fields with their shapes, and the names of those without a default."""
    required = {each.name for each in fields(noun) if each.default is MISSING and each.default_factory is MISSING}
    return get_type_hints(noun), frozenset(required)


def _unfit(where: str) -> ValueError:
    return ValueError(f"the order's document cannot be read at {where}; was it written by another gateway?")
