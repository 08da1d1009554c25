"""Forms that browsers send (`application/x-www-form-urlencoded`), read within bounds."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from urllib.parse import parse_qsl

from aiohttp import web

FORM_MAX = 8192
"""Bytes of a form: some fields, and nothing that is uploaded."""
PATIENCE = 10.0
"""Seconds for all of it."""
_FIELDS_MAX = 20
_TYPE = "application/x-www-form-urlencoded"


async def read_form(request: web.Request) -> Mapping[str, str] | None:
    """The form's fields, each with its first value; None for what is no such form, too long, or too slow."""
    if request.content_type != _TYPE or (request.content_length or 0) > FORM_MAX:
        return None
    body = b""
    try:
        async with asyncio.timeout(PATIENCE):
            async for piece in request.content.iter_any():
                body += piece
                if len(body) > FORM_MAX:
                    return None
    except TimeoutError:
        return None
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=_FIELDS_MAX, errors="strict")
    except ValueError:
        return None
    return dict(reversed(pairs))
