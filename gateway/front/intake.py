"""From a request's head to our DownloadRequest: what the client says, and who it is behind trusted proxies."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence

from gateway.front.head import Head
from gateway.http.forwarded import client_address
from gateway.policy.device import KNOWN_MAX
from gateway.policy.model import Address, DownloadRequest, Network
from gateway.policy.networks import network_of
from gateway.policy.scanners import manner_of
from gateway.services.sessions import Sessions

DEVICE_COOKIE = "gw_device"
DEVICE_COOKIE_AGE = 365 * 86_400
DEVICE_COOKIE_BYTES = 16
PERSON_COOKIE = "gw_person"
"""Set where the page saw a gesture. Who forges it only makes himself be charged."""

KNOWN_COOKIE = "gw_known"

_COOKIE = re.compile(rf"(?:^|;[ \t]*){DEVICE_COOKIE}=([A-Za-z0-9_-]{{22}})(?=;|$)")
_KNOWN = re.compile(rf"(?:^|;[ \t]*){KNOWN_COOKIE}=([0-9a-f]{{44}}(?:\.[0-9a-f]{{44}}){{0,{KNOWN_MAX - 1}}})(?=;|$)")
_PERSON = re.compile(rf"(?:^|;[ \t]*){PERSON_COOKIE}=1(?=;|$)")
_CLIENT_HINTS = ("Sec-CH-UA", "Sec-CH-UA-Mobile", "Sec-CH-UA-Platform")
_CAMPAIGN_MAX = 256


def client_of(head: Head, trusted: Sequence[Network]) -> Address | None:
    """The client's address: the rightmost hop that is no trusted proxy; None where a trusted proxy names none.

    Falling back to the proxy's own address would let a client that breaks the header pass for an inside one.
    """
    return client_address(head.peer, list(head.headers.items()) if trusted else [], trusted)


def read_request(
    head: Head,
    *,
    token: str,
    number: int,
    request_id: str,
    trusted: Sequence[Network],
    sessions: Sessions | None = None,
    front: str = "http",
) -> DownloadRequest | None:
    """The download request in an HTTP request, None without a client address; `token` and `number` are the path's.

    `sessions`: who reads whose sign-in it brings, None where nobody can sign in.
    """
    address = client_of(head, trusted)
    if address is None:
        return None
    cookies = head.header("Cookie")
    cookie = _COOKIE.search(cookies or "")
    known = _KNOWN.search(cookies or "")
    session = None if sessions is None else sessions.read(cookies)
    # No mail scanner can sign in.
    person = session is not None or _PERSON.search(cookies or "") is not None
    return DownloadRequest(
        request_id=request_id,
        token=token,
        file_number=number,
        method=head.method,
        client_address=address,
        client_network=network_of(address),
        range=head.header("Range"),
        if_range=head.header("If-Range"),
        if_match=head.header("If-Match"),
        if_none_match=head.header("If-None-Match"),
        if_modified_since=head.header("If-Modified-Since"),
        if_unmodified_since=head.header("If-Unmodified-Since"),
        user_agent=head.header("User-Agent") or "",
        accept_language=head.header("Accept-Language") or "",
        client_hints="\n".join(head.header(name) or "" for name in _CLIENT_HINTS),
        device_cookie=cookie[1] if cookie else None,
        offered_cookie=None if cookie else secrets.token_urlsafe(DEVICE_COOKIE_BYTES),
        known_cookie=known[1] if known else None,
        view=head.query.get("view") == "1",
        campaign="&".join(f"{k}={v}" for k, v in head.query.items() if k.startswith("utm_"))[:_CAMPAIGN_MAX],
        front=front,
        manner=manner_of(head.header, person=person),
        account=None if session is None else session.account,
    )
