"""The listener for ops, served by the supervisor, so that it answers while workers are down.

Health and readiness are open; metrics and the API ask for the bearer token (RFC 6750 §2.1), and without one configured
they are shut.
"""

from __future__ import annotations

import hmac
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from html import escape
from typing import Protocol

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from gateway.web.status import WorkerView

_PLAIN = "text/plain"
_PROMETHEUS = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
_PAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"


class Supervised(Protocol):
    """What the listener asks the supervisor."""

    def views(self) -> Sequence[WorkerView]:
        """Every worker as it is now."""

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format."""


def build_management(supervised: Supervised, token: str | None) -> web.Application:
    """The application behind `management.listen`."""
    pages = _Pages(supervised)
    app = web.Application(middlewares=[_guard(token)])
    app.router.add_get("/", pages.status_page)
    app.router.add_get("/healthz", pages.healthz)
    app.router.add_get("/readyz", pages.readyz)
    app.router.add_get("/metrics", pages.metrics)
    app.router.add_get("/api/workers", pages.workers)
    return app


def _guard(token: str | None) -> Middleware:
    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        # Before routing's 404, so that a stranger does not learn which addresses exist.
        if request.path == "/metrics" or request.path.startswith("/api/"):
            refusal = _refusal(token, request.headers.get("Authorization", ""))
            if refusal is not None:
                return refusal
        response = await handler(request)
        response.headers.setdefault("Cache-Control", "no-store")
        response.headers.setdefault("Server", "download-gateway")
        response.headers.setdefault("X-Content-Type-Options", "nosniff")
        return response

    return guard


def _refusal(token: str | None, authorization: str) -> web.Response | None:
    if not token:
        text = "No management.token is configured, so metrics and the API are off: set one.\n"
        return web.Response(status=403, text=text, content_type=_PLAIN)
    scheme, _, given = authorization.partition(" ")
    # Bytes, because compare_digest refuses text that is not ASCII; headers arrive with surrogate escapes.
    same = hmac.compare_digest(given.strip().encode("utf-8", "surrogateescape"), token.encode())
    if scheme.lower() == "bearer" and same:
        return None
    headers = {"WWW-Authenticate": 'Bearer realm="download-gateway"'}
    return web.Response(status=401, text="Send the management token as a bearer token.\n", headers=headers)


class _Pages:
    def __init__(self, supervised: Supervised) -> None:
        self._supervised = supervised

    async def healthz(self, _request: web.Request) -> web.Response:
        return web.json_response({"alive": True})

    async def readyz(self, _request: web.Request) -> web.Response:
        views = self._supervised.views()
        ready = any(view.ready for view in views)
        workers = [{"slot": view.slot, "ready": view.ready, "missing": list(view.missing)} for view in views]
        return web.json_response({"ready": ready, "workers": workers}, status=200 if ready else 503)

    async def metrics(self, _request: web.Request) -> web.Response:
        return web.Response(body=self._supervised.exposition(), headers=_PROMETHEUS)

    async def workers(self, _request: web.Request) -> web.Response:
        return web.json_response({"workers": [_worker(view) for view in self._supervised.views()]})

    async def status_page(self, _request: web.Request) -> web.Response:
        views = self._supervised.views()
        headers = {"Content-Security-Policy": _PAGE_POLICY}
        return web.Response(text=_page(views), content_type="text/html", charset="utf-8", headers=headers)


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
<table>
<thead><tr><th>Worker<th>Process<th>State<th>Redis<th>Origin<th>Connections<th>Downloads<th>Starts</tr></thead>
<tbody>
{rows}
</tbody>
</table>
{_files(views)}
<p>Metrics at <code>/metrics</code> and data at <code>/api/workers</code>, both with the bearer token.</p>
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
