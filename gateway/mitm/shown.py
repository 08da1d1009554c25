"""What people may see of a flow in mitmweb: the decision in its comment, and no token, cookie or signed address."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mitmproxy import http

from gateway.front.addresses import FileAddress, LinkAddress, ZipAddress, parse_path
from gateway.policy.model import Claims

PATH = "gateway.path"
"""In a flow's metadata: its path, without secrets."""
HIDDEN = ("Cookie", "Authorization")
SHOWN_OF_REQUEST = frozenset(
    [
        "accept",
        "accept-encoding",
        "accept-language",
        "connection",
        "host",
        "if-match",
        "if-modified-since",
        "if-none-match",
        "if-range",
        "if-unmodified-since",
        "range",
        "user-agent",
        "x-forwarded-for",
    ]
)
"""All others may hold the link: a browser's Referer, what a proxy in front calls the first address."""
HIDDEN_OF_RESPONSE = frozenset(("location", "set-cookie"))
YES, NO = ":white_check_mark:", ":no_entry:"


def hide(flow: http.HTTPFlow) -> None:
    """Put a path without secrets in place of the flow's own. Once the request is on its way it only shows."""
    path = flow.metadata.get(PATH)
    if path is None:
        path = flow.metadata[PATH] = _without_token(flow.request.path)
        for name in HIDDEN:
            flow.request.headers.pop(name, None)
    flow.request.path = path


def note(decision: str, reason: str = "", rule: str | None = None, claims: Claims | None = None) -> str:
    """One line on a decision. The token stands there by its id only."""
    parts = [decision, reason]
    if rule:
        parts.append(f"rule {rule}")
    if claims is not None:
        parts += [f"order {claims.order_id}"] if claims.order_id else []
        parts.append(f"token {claims.token_id}")
    return " · ".join(part for part in parts if part)


def tell(flow: http.HTTPFlow, text: str, *, allowed: bool) -> None:
    """Write a decision onto the flow."""
    flow.comment = text
    flow.marked = YES if allowed else NO


def redacting(to_json: Callable[[Any], dict[str, Any]]) -> Callable[[Any], dict[str, Any]]:
    """mitmweb's own view of a flow without secrets, also while the request that is shown has the signed address."""

    def redacted(flow: Any) -> dict[str, Any]:
        shown = to_json(flow)
        if "request" in shown:
            shown["request"]["path"] = flow.metadata.get(PATH, "/…")
            shown["request"]["headers"] = [
                each for each in shown["request"]["headers"] if each[0].lower() in SHOWN_OF_REQUEST
            ]
        if "response" in shown:
            shown["response"]["headers"] = [
                each for each in shown["response"]["headers"] if each[0].lower() not in HIDDEN_OF_RESPONSE
            ]
        return shown

    return redacted


def without_contents(routes: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """mitmweb's own addresses without those that give a flow whole: a link page's body has the links."""
    return [route for route in routes if not any(name in route[0] for name in ("/content", "/dump", "/(?P<cmd>"))]


def _without_token(path: str) -> str:
    match parse_path(path.partition("?")[0]):
        case FileAddress(number=number):
            return f"/d/…/{number}"
        case LinkAddress():
            return "/l/…"
        case ZipAddress():
            return "/z/…"
    return "/…"
