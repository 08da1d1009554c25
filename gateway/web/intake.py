"""From aiohttp's request to our DownloadRequest: what the client says, and who it is behind trusted proxies."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence

from aiohttp import web

from gateway.http.forwarded import client_address, network_of
from gateway.policy.model import Address, DownloadRequest, Network

DEVICE_COOKIE = "gw_device"
DEVICE_COOKIE_AGE = 365 * 86_400
DEVICE_COOKIE_BYTES = 16

_COOKIE = re.compile(rf"(?:^|;[ \t]*){DEVICE_COOKIE}=([A-Za-z0-9_-]{{22}})(?=;|$)")
_CLIENT_HINTS = ("Sec-CH-UA", "Sec-CH-UA-Mobile", "Sec-CH-UA-Platform")
_CAMPAIGN_MAX = 256


def peer_address(request: web.BaseRequest, trusted: Sequence[Network]) -> Address | None:
    """The client's address: the rightmost hop that is no trusted proxy; None where a trusted proxy names none.

    Falling back to the proxy's own address would let a client that breaks the header pass for an inside one.
    """
    peername = request.transport.get_extra_info("peername") if request.transport is not None else None
    peer = str(peername[0]) if isinstance(peername, tuple) else ""
    headers = list(request.headers.items()) if trusted else []
    return client_address(peer, headers, trusted)


def read_request(
    request: web.BaseRequest, *, token: str, number: int, request_id: str, trusted: Sequence[Network]
) -> DownloadRequest | None:
    """The download request in an HTTP request, None without a client address; `token` and `number` are the path's."""
    address = peer_address(request, trusted)
    if address is None:
        return None
    cookie = _COOKIE.search(_header(request, "Cookie") or "")
    return DownloadRequest(
        request_id=request_id,
        token=token,
        file_number=number,
        method=request.method,
        client_address=address,
        client_network=network_of(address),
        range=_header(request, "Range"),
        if_range=_header(request, "If-Range"),
        if_match=_header(request, "If-Match"),
        if_none_match=_header(request, "If-None-Match"),
        if_modified_since=_header(request, "If-Modified-Since"),
        if_unmodified_since=_header(request, "If-Unmodified-Since"),
        user_agent=_header(request, "User-Agent") or "",
        accept_language=_header(request, "Accept-Language") or "",
        client_hints="\n".join(_header(request, name) or "" for name in _CLIENT_HINTS),
        device_cookie=cookie[1] if cookie else None,
        offered_cookie=None if cookie else secrets.token_urlsafe(DEVICE_COOKIE_BYTES),
        view=request.query.get("view") == "1",
        campaign="&".join(f"{k}={v}" for k, v in request.query.items() if k.startswith("utm_"))[:_CAMPAIGN_MAX],
    )


def _header(request: web.BaseRequest, name: str) -> str | None:
    """A header's value, several lines of it joined as RFC 9110 §5.3 says; None where it is absent."""
    values = request.headers.getall(name, [])
    return ", ".join(values) if values else None
