"""`POST /hooks/{shop}`: the body as it came over the wire, to the intake; bounded in size and time."""

from __future__ import annotations

import asyncio
import json

from aiohttp import hdrs, web

from gateway.services.intake import BODY_MAX, Heard, Intake
from gateway.web.metrics import HOOKS

WITHIN = 8.0
"""Seconds for the whole body: shops wait for ten at most, and call again."""


async def answer_hook(request: web.Request, intake: Intake | None, shop: str, request_id: str) -> web.Response:
    """The answer to a shop, as JSON."""
    heard = await _heard(request, intake, shop)
    HOOKS.labels(heard.outcome).inc()
    body = json.dumps({"outcome": heard.outcome, "detail": heard.text, "request_id": request_id})
    headers = {"X-Request-Id": request_id, "Cache-Control": "no-store"}
    if heard.status == web.HTTPMethodNotAllowed.status_code:
        headers["Allow"] = "POST"
    response = web.Response(status=heard.status, text=body + "\n", content_type="application/json", headers=headers)
    if not request.content.at_eof():
        response.force_close()
    return response


async def _heard(request: web.Request, intake: Intake | None, shop: str) -> Heard:
    if intake is None:
        return Heard(404, "shop.unknown", "No shops are in the settings.")
    if request.method != hdrs.METH_POST:
        return Heard(405, "method.not_allowed", "Webhooks are sent with POST.")
    if request.headers.getall(hdrs.CONTENT_ENCODING, []) not in ([], ["identity"]):
        # aiohttp would unpack it: what is signed is what came over the wire.
        return Heard(415, "hook.encoding", "Send it without Content-Encoding.")
    try:
        async with asyncio.timeout(WITHIN):
            body = await _body(request)
    except TimeoutError:
        return Heard(408, "hook.slow", "It did not arrive in time; please send it again.")
    if body is None:
        return Heard(413, "hook.too_large", f"It is larger than {BODY_MAX} bytes.")
    headers: dict[str, list[str]] = {}
    for name, value in request.headers.items():
        headers.setdefault(name.lower(), []).append(value)
    return await intake.take(shop, headers, body)


async def _body(request: web.Request) -> bytes | None:
    """All of it, or None where it is too large."""
    length = request.content_length
    if length is not None and length > BODY_MAX:
        return None
    chunks, size = [], 0
    while chunk := await request.content.readany():
        size += len(chunk)
        if size > BODY_MAX:
            return None
        chunks.append(chunk)
    return b"".join(chunks)
