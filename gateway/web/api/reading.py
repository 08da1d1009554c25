"""What a request holds, checked: its path, its query and its body, each mistake named in words."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping
from typing import TypeVar

from aiohttp import hdrs, web
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from gateway.policy.claims import TEXT_MAX
from gateway.policy.standing import is_order_id
from gateway.web.api.call import Call
from gateway.web.api.problems import Problem

BODY_MAX = 64 * 1024
WITHIN = 8.0
"""Seconds for a whole body."""
KEY = "Idempotency-Key"
KEY_PATTERN = "^[!-~]{1,128}$"
TOKEN_ID_PATTERN = "^[!-z|~]{1,128}$"  # noqa: S105  what an id looks like
_PASTED = re.compile(r"[@%]|(?<![0-9A-Za-z])ey[^.]*\.[^.]*\.|[\w-]{20,}\.[\w-]{20,}")
"""An address, also one that is encoded twice, or a token (RFC 7519) or most of one, alone or in its link."""

M = TypeVar("M", bound=BaseModel)


def path_of(request: web.Request) -> Mapping[str, str]:
    """The ids in the path. Raises Problem for what no id can be."""
    ids = dict(request.match_info)
    if not re.fullmatch(TOKEN_ID_PATTERN.strip("^$"), ids.get("token_id", "-")):
        raise Problem(404, "link.unknown", "No link has such an id: it is 1 to 128 visible ASCII characters.")
    order_id = ids.get("order_id", "-")
    # What no UTF-8 can carry comes as a lone surrogate.
    if len(order_id) > TEXT_MAX or not order_id.isprintable():
        raise Problem(404, "order.unknown", f"No order has such an id: it is 1 to {TEXT_MAX} printable characters.")
    return ids


def recordable(ids: Mapping[str, str]) -> dict[str, str | None]:
    """The `order_id` and the `token_id` of a path, as far as they may go on record: whatever can be no id, or may be a
    token or an address that was pasted in the place of one, is None.
    """
    order_id, token_id = ids.get("order_id", ""), ids.get("token_id", "")
    is_order = len(order_id) <= TEXT_MAX and order_id.isprintable() and is_order_id(order_id)
    is_token = re.fullmatch(TOKEN_ID_PATTERN.strip("^$"), token_id) is not None
    return {
        "order_id": order_id if is_order and not _PASTED.search(order_id) else None,
        "token_id": token_id if is_token and not _PASTED.search(token_id) else None,
    }


def query_of(request: web.Request, call: Call) -> BaseModel:
    """The query. Raises Problem."""
    given = request.query
    twice = sorted({name for name in given if len(given.getall(name)) > 1})
    if twice:
        raise Problem(400, "query.wrong", f"{twice[0]} is given twice; give it once.")
    try:
        return call.query.model_validate(dict(given))
    except ValidationError as error:
        raise Problem(400, "query.wrong", _explained(error, call.query)) from None


def key_of(request: web.Request, call: Call) -> str:
    """The Idempotency-Key, or "". Raises Problem."""
    given = request.headers.getall(KEY, []) if call.keyed else []
    if not given:
        return ""
    if len(given) > 1 or not re.fullmatch(KEY_PATTERN.strip("^$"), given[0]):
        raise Problem(400, "key.wrong", f"{KEY} is 1 to 128 visible ASCII characters, once.")
    return given[0]


async def body_of(request: web.Request, call: Call) -> BaseModel:
    """The body. Raises Problem."""
    if not call.takes_body:
        return call.body()
    raw = await _read(request)
    if not raw and not call.needs_body:
        return call.body()
    if request.content_type != "application/json":
        raise Problem(415, "body.type", "Send JSON, with Content-Type: application/json.")
    try:
        return call.body.model_validate_json(raw)
    except ValidationError as error:
        if any(each["type"] == "json_invalid" for each in error.errors(include_url=False)):
            raise Problem(400, "body.no_json", "The body is no JSON in UTF-8.") from None
        raise Problem(422, "body.wrong", _explained(error, call.body)) from None


async def _read(request: web.Request) -> bytes:
    if request.headers.getall(hdrs.CONTENT_ENCODING, []) not in ([], ["identity"]):
        raise Problem(415, "body.encoding", "Send it without Content-Encoding.")
    chunks, size = [], 0
    try:
        async with asyncio.timeout(WITHIN):
            while chunk := await request.content.readany():
                size += len(chunk)
                if size > BODY_MAX:
                    raise Problem(413, "body.too_large", f"The body is larger than {BODY_MAX} bytes.")
                chunks.append(chunk)
    except TimeoutError:
        raise Problem(408, "body.slow", "The body did not arrive in time; send it again.") from None
    return b"".join(chunks)


def _explained(error: ValidationError, model: type[BaseModel]) -> str:
    """Every mistake in one sentence each; values are not repeated."""
    return "; ".join(_sentences(error.errors(include_url=False, include_input=False), model)) + "."


def _sentences(errors: list[ErrorDetails], model: type[BaseModel]) -> Iterator[str]:
    for each in errors:
        steps = each["loc"]
        name = ".".join(str(step) for step in steps)
        if each["type"] == "extra_forbidden":
            known = ", ".join(model.model_fields) if len(steps) == 1 else ""
            hint = f"write one of {known}" if known else "leave it out"
            yield f"{name} is no member that is known here; {hint}"
        elif each["type"] == "missing":
            yield f"{name} is missing; add it"
        elif each["type"] == "value_error":
            yield f"{name} {each['ctx']['error']}".strip()
        else:
            yield f"{name}: {each['msg'][:1].lower()}{each['msg'][1:]}".removeprefix(": ")
