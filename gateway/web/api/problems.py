"""How the API refuses: problem documents (RFC 9457), each with a sentence that helps."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from aiohttp import web

from gateway.http.problem import CONTENT_TYPE, problem
from gateway.services.identifiers import new_id


class Problem(Exception):
    """A refusal on its way to the client; raised by handlers, caught where they are called."""

    def __init__(self, status: int, reason: str, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.reason = reason
        self.headers = dict(headers or {})

    def response(self) -> web.Response:
        """As it is sent."""
        body = problem(self.status, self.reason, HTTPStatus(self.status).phrase, str(self), new_id())
        return web.Response(body=body, status=self.status, content_type=CONTENT_TYPE, headers=self.headers)
