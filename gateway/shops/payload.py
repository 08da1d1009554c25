"""JSON from a shop, strictly: one meaning, bounded in size and depth, nothing that no later reader could write down.

Law: `read_as` raises ValueError and nothing else, and its text names fields, never values.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Final, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from gateway.shops.genuine import BODY_MAX

DEPTH_MAX = 32
INT_MAX = 2**63
_DIGITS_MAX = 20  # of INT_MAX, with its sign
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,40}")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class Payload(BaseModel):
    """What is read of a shop's JSON. Shops add fields as they like, so those that are not read are passed over."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", hide_input_in_errors=True)


P = TypeVar("P", bound=Payload)


def read_as(model: type[P], body: bytes) -> P:
    """The body as `model`. Raises ValueError, which says which field is wrong and what would be right."""
    tree = read_json(body)
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        raise ValueError(_explained(error.errors(include_url=False, include_input=False)[0])) from None


def read_json(body: bytes) -> dict[str, object]:
    """The JSON object in `body` (RFC 8259, names distinct). Fractions are Decimals. Raises ValueError."""
    if len(body) > BODY_MAX:
        raise ValueError(f"the body is larger than {BODY_MAX} bytes")
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise ValueError("the body is no UTF-8") from None
    try:
        tree = _STRICT_JSON.decode(text)
    except _Refused:
        raise
    except (ValueError, RecursionError):
        raise ValueError("the body is no JSON, or nested too deep") from None
    if not isinstance(tree, dict):
        raise ValueError("the body is no JSON object")
    _check(tree, texts=_SURROGATE.search(body) is not None)
    return tree


class _Refused(ValueError):
    """JSON that a lenient reader would take."""


def _distinct(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _Refused("the body has an object with the same name twice")
    return members


def _refuse_constant(_: str) -> NoReturn:
    raise _Refused("the body has NaN or Infinity in it, which JSON has not")


def _whole(text: str) -> int:
    if len(text) > _DIGITS_MAX or not -INT_MAX <= int(text) <= INT_MAX:
        raise _Refused("the body has a whole number beyond 2^63")
    return int(text)


def _fraction(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        raise _Refused("the body has a number that is beyond every use") from None


_STRICT_JSON: Final = json.JSONDecoder(
    object_pairs_hook=_distinct, parse_constant=_refuse_constant, parse_int=_whole, parse_float=_fraction
)


def _check(tree: dict[str, object], *, texts: bool) -> None:
    """Level by level, so that no depth of it can exhaust anything."""
    level: list[object] = [tree]
    for _ in range(DEPTH_MAX):
        below: list[object] = []
        for value in level:
            if isinstance(value, dict):
                below += value.values()
                below += value if texts else ()
            elif isinstance(value, list):
                below += value
            elif texts and isinstance(value, str) and not _is_unicode(value):
                raise ValueError("the body has half a surrogate pair in it, which no text can hold")
        if not below:
            return
        level = below
    raise ValueError(f"the body is nested deeper than {DEPTH_MAX}")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _explained(error: ErrorDetails) -> str:
    field = _field(error["loc"])
    context = error.get("ctx", {})
    match error["type"]:
        case "value_error":
            return f"{field} {context['error']}"
        case "missing":
            return f"{field} is missing"
        case "extra_forbidden":
            return f"{field} is no field of this form"
        case "bool_type":
            return f"{field} is neither true nor false"
        case "list_type":
            return f"{field} is no list"
        case "model_type":
            return f"{field} is no object"
        case "too_long":
            return f"{field} has more than {context['max_length']} entries"
        case _:
            return f"{field} is of a wrong type"


def _field(location: Sequence[str | int]) -> str:
    """Where it is, with the sender's own names only where they are plain words."""
    steps = (step if isinstance(step, int) or _NAME.fullmatch(step) else "…" for step in location)
    return ".".join(str(step) for step in steps) or "the body"
