"""Who a request seems to come from: hashes, so that events and keys hold no cookie and no raw fingerprint."""

from __future__ import annotations

import hashlib
import hmac

from gateway.policy.model import Device, DownloadRequest


def identify(request: DownloadRequest, secret: bytes) -> Device:
    """The device of a request: by our cookie, else by a keyed hash of what tells browsers apart, and the network.

    Two people with one browser model on one network look alike; one person on two networks without the cookie does not.
    """
    brought = _digest(secret, "cookie", request.device_cookie) if request.device_cookie else None
    offered = _digest(secret, "cookie", request.offered_cookie) if request.offered_cookie else None
    agent = _digest(secret, "agent", request.user_agent) if request.user_agent else None
    told = (request.user_agent, request.accept_language, request.client_hints, request.client_network)
    return Device(
        cookie=brought or offered,
        network=request.client_network,
        user_agent=agent,
        id=brought or _digest(secret, "headers", *told),
    )


def _digest(secret: bytes, *parts: str) -> str:
    text = "\x00".join(parts).encode("utf-8", "surrogatepass")
    return hmac.digest(secret, text, hashlib.sha256).hex()[:20]
