"""The listener for ops, served by the supervisor, so that it answers while workers are down.

Health and readiness are open; metrics and the API ask for the bearer token of a user (RFC 6750 §2.1), and where the
settings name none they are shut.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from html import escape
from typing import Protocol

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from gateway.web.api.calls import ROOT
from gateway.web.api.problems import Problem
from gateway.web.api.routes import USER, Api
from gateway.web.api.users import User, identify
from gateway.web.status import WorkerView, in_front

_PLAIN = "text/plain"
_PROMETHEUS = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
_PAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"


class Supervised(Protocol):
    """What the listener asks the supervisor."""

    def views(self) -> Sequence[WorkerView]:
        """Every worker as it is now."""

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format."""


def build_management(supervised: Supervised, users: Sequence[User], api: Api | None = None) -> web.Application:
    """The application behind `management.listen`; without an `api` only its own pages."""
    pages = _Pages(supervised)
    app = web.Application(middlewares=[_guard(users)])
    app.router.add_get("/", pages.status_page)
    app.router.add_get("/healthz", pages.healthz)
    app.router.add_get("/readyz", pages.readyz)
    app.router.add_get("/metrics", pages.metrics)
    app.router.add_get("/api/workers", pages.workers)
    if api is not None:
        api.add_to(app)
    return app


def _guard(users: Sequence[User]) -> Middleware:
    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        response = await _guarded(request, handler, users)
        response.headers.setdefault("Cache-Control", "no-store")
        response.headers.setdefault("Server", "download-gateway")
        response.headers.setdefault("X-Content-Type-Options", "nosniff")
        return response

    return guard


async def _guarded(request: web.Request, handler: Handler, users: Sequence[User]) -> web.StreamResponse:
    # As the router reads it, with %2F and the like undone: what leads to a handler is guarded, however it is spelt.
    path = request.rel_url.path
    # Before routing's 404, so that a stranger does not learn which addresses exist.
    if path != "/metrics" and not path.startswith("/api/"):
        return await handler(request)
    user = identify(users, request.headers.get("Authorization", ""))
    if user is None:
        return _refusal(path, is_shut=not users)
    USER.set(user)
    try:
        return await handler(request)
    except web.HTTPNotFound:
        if not path.startswith(f"{ROOT}/"):
            raise
        return Problem(404, "call.unknown", f"There is no such call; GET {ROOT}/openapi.json lists them.").response()
    except web.HTTPMethodNotAllowed as error:
        if not path.startswith(f"{ROOT}/"):
            raise
        methods = ", ".join(sorted(error.allowed_methods))
        return Problem(405, "method.not_allowed", f"Use {methods} here.", {"Allow": methods}).response()


def _refusal(path: str, *, is_shut: bool) -> web.Response:
    if is_shut:
        text = "No management.token and no management.users are configured, so metrics and the API are off: set one."
        refused = Problem(403, "management.shut", text)
    else:
        headers = {"WWW-Authenticate": 'Bearer realm="download-gateway"'}
        refused = Problem(401, "token.wrong", "Send the token of a management user as a bearer token.", headers)
    if path.startswith("/api/"):
        return refused.response()
    return web.Response(status=refused.status, text=f"{refused}\n", headers=refused.headers, content_type=_PLAIN)


class _Pages:
    def __init__(self, supervised: Supervised) -> None:
        self._supervised = supervised

    async def healthz(self, _request: web.Request) -> web.Response:
        return web.json_response({"alive": True})

    async def readyz(self, _request: web.Request) -> web.Response:
        views = self._supervised.views()
        ready = any(view.ready for view in in_front(views))
        workers = [{"slot": view.slot, "ready": view.ready, "missing": list(view.missing)} for view in views]
        told = {"ready": ready, "frozen": _frozen(views) or None, "workers": workers}
        return web.json_response(told, status=200 if ready else 503)

    async def metrics(self, _request: web.Request) -> web.Response:
        return web.Response(body=self._supervised.exposition(), headers=_PROMETHEUS)

    async def workers(self, _request: web.Request) -> web.Response:
        return web.json_response({"workers": [_worker(view) for view in self._supervised.views()]})

    async def status_page(self, _request: web.Request) -> web.Response:
        views = self._supervised.views()
        headers = {"Content-Security-Policy": _PAGE_POLICY}
        return web.Response(text=_page(views), content_type="text/html", charset="utf-8", headers=headers)


def _frozen(views: Sequence[WorkerView]) -> str:
    """Since when all downloads are stopped, by any worker's word, or ""."""
    return max((view.report.frozen for view in in_front(views) if view.report), default="")


def _worker(view: WorkerView) -> dict[str, object]:
    report = view.report
    return {
        "slot": view.slot,
        "pid": view.pid,
        "starts": view.starts,
        "ready": view.ready,
        "missing": list(view.missing),
        "draining": report.draining if report else False,
        "redis_ok": report.redis_ok if report else None,
        "origin_ok": report.origin_ok if report else None,
        "connections": report.connections if report else 0,
        "downloads": report.downloads if report else 0,
        "loop_lag_ms": report.loop_lag_ms if report else None,
        "files": {what: asdict(loaded) for what, loaded in report.files.items()} if report else {},
    }


def _page(views: Sequence[WorkerView]) -> str:
    ready = sum(view.ready for view in views)
    rows = "\n".join(_row(view) for view in views)
    frozen = (
        f"<p><strong>Frozen since {escape(since)}: every download is refused.</strong>"
        if (since := _frozen(views))
        else ""
    )
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta http-equiv="refresh" content="5">
<title>{ready} of {len(views)} workers ready – download-gateway</title>
<style>
:root {{ color-scheme: light dark }}
body {{ font: 1rem/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 50rem; padding: 0 1rem }}
table {{ border-collapse: collapse; width: 100% }}
th, td {{ border-bottom: 1px solid; padding: .3rem .5rem; text-align: left }}
</style>
<h1>download-gateway</h1>
<p>{ready} of {len(views)} workers ready.</p>
{frozen}
<table>
<thead><tr><th>Worker<th>Process<th>State<th>Redis<th>Origin<th>Connections<th>Downloads<th>Starts</tr></thead>
<tbody>
{rows}
</tbody>
</table>
{_files(views)}
<p>Metrics at <code>/metrics</code> and data at <code>/api/workers</code>, both with a bearer token.</p>
</html>
"""


def _row(view: WorkerView) -> str:
    state = "ready" if view.ready else ", ".join(view.missing)
    report = view.report
    cells = (
        view.slot,
        view.pid or "–",
        state,
        _word(report.redis_ok if report else None),
        _word(report.origin_ok if report else None),
        report.connections if report else "–",
        report.downloads if report else "–",
        view.starts,
    )
    return "<tr>" + "".join(f"<td>{escape(str(cell))}" for cell in cells) + "</tr>"


def _files(views: Sequence[WorkerView]) -> str:
    """What is in force, and on how many workers. What is wrong may quote a file, so this open page leaves it out."""
    found = [(what, file) for view in views if view.report for what, file in view.report.files.items()]
    loaded = Counter((what, file.version, bool(file.wrong)) for what, file in found)
    if not loaded:
        return ""
    rows = "\n".join(
        f"<tr><td>{escape(what)}<td>{escape(version)}<td>{workers}"
        f"<td>{'wrong now: the last good ones stay' if is_wrong else 'good'}"
        for (what, version, is_wrong), workers in sorted(loaded.items())
    )
    return f"""<table>
<thead><tr><th>In force<th>Version<th>Workers<th>Files</tr></thead>
<tbody>
{rows}
</tbody>
</table>"""


def _word(ok: bool | None) -> str:
    return {True: "up", False: "down", None: "–"}[ok]
