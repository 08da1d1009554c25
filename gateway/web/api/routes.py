"""The API behind the listener's guard: each call is understood, allowed, done, and answered as JSON or as a problem.

Law: nothing a call does takes longer than 10 s, and nothing that breaks reaches the supervisor.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import ContextVar
from functools import cache
from http import HTTPStatus

from aiohttp import hdrs, web

from gateway.errors import GatewayError, LedgerDown, OrdersDown, SettingsError
from gateway.services.desk import Refused
from gateway.services.faults import describe
from gateway.services.staff import acted, record
from gateway.web.api.call import Asked, Call
from gateway.web.api.calls import CALLS, ROOT
from gateway.web.api.office import OfficeClosed, Offices
from gateway.web.api.openapi import describe_api
from gateway.web.api.problems import Problem
from gateway.web.api.reading import body_of, key_of, path_of, query_of, recordable
from gateway.web.api.users import User

log = logging.getLogger(__name__)

USER: ContextVar[User] = ContextVar("user")
"""Whoever the guard let in with this request."""
READ_WITHIN = 2.0
CHANGE_WITHIN = 10.0
RECORD_WITHIN = 1.0
_UNSAID = frozenset({400, 408, 413, 415})
"""What was not understood is nobody's act."""


@cache
def _description() -> str:
    """Made when it is first asked for: it takes as long as a fortieth of a start, and few who start ask."""
    return json.dumps(describe_api(), ensure_ascii=False)


class Api:
    """All calls, on whatever `offices` opens."""

    def __init__(self, offices: Offices) -> None:
        self._offices = offices

    def add_to(self, app: web.Application) -> None:
        """Serve it there; the guard has set USER."""
        app.router.add_get(f"{ROOT}/openapi.json", self._describe, allow_head=False)
        for call in CALLS:
            path = f"{ROOT}{call.path}".replace("_id}", "_id:[^/]+}")
            app.router.add_route(call.method, path, self._handler(call))

        async def close(_: web.Application) -> None:
            await self._offices.close()

        app.on_cleanup.append(close)

    async def _describe(self, _request: web.Request) -> web.Response:
        return web.Response(text=_description(), content_type="application/json")

    def _handler(self, call: Call) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(request: web.Request) -> web.Response:
            try:
                return await self._answer(request, call)
            except Problem as refused:
                problem = refused
            if call.changes and problem.status not in _UNSAID:
                await self._record_refusal(request, call, problem.status)
            response = problem.response()
            if not request.content.at_eof():
                response.force_close()
            return response

        return handle

    async def _answer(self, request: web.Request, call: Call) -> web.Response:
        user = USER.get()
        if not user.may(call.role):
            text = f"Your role is {user.role}; this takes the role {call.role}, which management.users gives."
            raise Problem(403, "role.not_enough", text)
        path, query, key = path_of(request), query_of(request, call), key_of(request, call)
        body = await body_of(request, call)
        try:
            async with self._offices.visit() as office, asyncio.timeout(CHANGE_WITHIN if call.changes else READ_WITHIN):
                await asyncio.to_thread(office.refresh)
                answer = await call.does(Asked(user, call.name, call.status, path, body, query, key, office))
        except TimeoutError:
            raise Problem(503, "down", "It took too long; see GET /readyz, and try again.", _RETRY) from None
        except SettingsError as error:
            log.error("the API cannot be used: %s", error)
            text = "The settings, or the rules or products file, are wrong; the gateway's log says where."
            raise Problem(503, "down", text, _RETRY) from None
        except (LedgerDown, OrdersDown, OfficeClosed) as error:
            raise Problem(503, "down", f"Try again later: {error}.", _RETRY) from None
        except Refused as refused:
            status = 422 if refused.member else 409
            raise Problem(status, "refused", _sentence(str(refused))) from None
        except GatewayError as error:
            raise Problem(409, "refused", _sentence(str(error))) from None
        except Problem:
            raise
        except Exception as error:  # noqa: BLE001  a fault of ours is the caller's to know and the log's to tell
            log.error("%s failed: %s", call.name, describe(error))
            raise Problem(500, "fault", "This is a fault of the gateway's; its log tells more.") from None
        headers = {hdrs.LOCATION: f"{ROOT}/links/{_token_id(answer)}"} if call.status == HTTPStatus.CREATED else {}
        return web.Response(
            text=answer.model_dump_json(), status=call.status, content_type="application/json", headers=headers
        )

    async def _record_refusal(self, request: web.Request, call: Call, status: int) -> None:
        """That somebody tried is told where it can be: nothing came of it, so nothing waits for it."""
        event = acted(USER.get().name, call.name, status=status, **recordable(request.match_info))
        with suppress(GatewayError, TimeoutError):
            async with asyncio.timeout(RECORD_WITHIN), self._offices.visit() as office:
                await record(event, office.tools.events, office.settings.shards)


_RETRY = {"Retry-After": "5"}


def _token_id(answer: object) -> str:
    return str(getattr(answer, "token_id", ""))


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
