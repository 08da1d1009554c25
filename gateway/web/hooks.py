"""`POST /hooks/{shop}`: the body as it came over the wire, to the intake; bounded in size and time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

from aiohttp import hdrs, web

from gateway.services.intake import BODY_MAX, Heard, Intake
from gateway.web.metrics import HOOKS

HELD_MAX = 16 * 1024 * 1024
"""Bytes of bodies that one worker holds at a time; who comes beyond is asked to come again, as shops do."""
WITHIN = 8.0
"""Seconds for the whole body: shops wait for ten at most, and call again."""


class Hooks:
    """A worker's ear for shops. `has_room`: whether there is memory for one more body."""

    def __init__(self, intake: Intake | None, has_room: Callable[[], bool]) -> None:
        self._intake = intake
        self._has_room = has_room
        self._held = 0

    async def answer(self, request: web.Request, shop: str, request_id: str) -> web.Response:
        """The answer to a shop, as JSON."""
        heard = await self._hear(request, shop)
        HOOKS.labels(heard.outcome).inc()
        body = json.dumps({"outcome": heard.outcome, "detail": heard.text, "request_id": request_id})
        headers = {"X-Request-Id": request_id, "Cache-Control": "no-store", **_MORE.get(heard.status, {})}
        response = web.Response(status=heard.status, text=body + "\n", content_type="application/json", headers=headers)
        if not request.content.at_eof():
            response.force_close()
        return response

    async def _hear(self, request: web.Request, shop: str) -> Heard:
        if self._intake is None or not self._intake.knows(shop):
            return Heard(404, "shop.unknown", "No shop of this name is in the settings.")
        if request.method != hdrs.METH_POST:
            return Heard(405, "method.not_allowed", "Webhooks are sent with POST.")
        if request.headers.getall(hdrs.CONTENT_ENCODING, []) not in ([], ["identity"]):
            # aiohttp would unpack it: what is signed is what came over the wire.
            return Heard(415, "hook.encoding", "Send it without Content-Encoding.")
        if (request.content_length or 0) > BODY_MAX:
            return _TOO_LARGE
        try:
            async with asyncio.timeout(WITHIN):
                body = await self._body(request)
        except TimeoutError:
            return Heard(408, "hook.slow", "It did not arrive in time; please send it again.")
        except ConnectionError:
            return Heard(400, "hook.broken_off", "It did not arrive whole.")
        if isinstance(body, Heard):
            return body
        headers: dict[str, list[str]] = {}
        for name, value in request.headers.items():
            headers.setdefault(name.lower(), []).append(value)
        return await self._intake.take(shop, headers, body)

    async def _body(self, request: web.Request) -> bytes | Heard:
        """All of it, or why not."""
        chunks, size = [], 0
        try:
            while chunk := await request.content.readany():
                size += len(chunk)
                self._held += len(chunk)
                if size > BODY_MAX:
                    return _TOO_LARGE
                if self._held > HELD_MAX or not self._has_room():
                    return Heard(503, "overload", "Too much at once; please send it again.")
                chunks.append(chunk)
        finally:
            self._held -= size
        return b"".join(chunks)


_MORE = {405: {"Allow": "POST"}, 503: {"Retry-After": "5"}}
_TOO_LARGE = Heard(413, "hook.too_large", f"It is larger than {BODY_MAX} bytes.")
