"""Who a request seems to come from: hashes, so that events and keys hold no cookie and no raw fingerprint."""

from __future__ import annotations

import hashlib
import hmac

from gateway.policy.model import Claims, Device, DownloadRequest

KNOWN_MAX = 20
"""Tokens for which one device may be known at once; the one that was confirmed first is forgotten first."""
_NAME = 12
_PROOF = 32


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


def is_confirmed(request: DownloadRequest, claims: Claims, secret: bytes) -> bool:
    """Whether the device of the request has entered a code for this token. Neither of its cookies proves it alone."""
    if not request.known_cookie or not request.device_cookie:
        return False
    own = _confirmation(request.device_cookie, claims, secret)
    return any(hmac.compare_digest(own, each.encode()) for each in request.known_cookie.split("."))


def confirmed_cookie(request: DownloadRequest, claims: Claims, secret: bytes) -> str:
    """What the device is to show from now on, which brought its cookie and has entered the code."""
    own = _confirmation(request.device_cookie or "", claims, secret).decode()
    others = (request.known_cookie or "").split(".")
    return ".".join([own, *(each for each in others if each and each[:_NAME] != own[:_NAME])][:KNOWN_MAX])


def _confirmation(cookie: str, claims: Claims, secret: bytes) -> bytes:
    """Which token, shortly, and the proof for it and this device cookie."""
    text = "\x00".join(("confirmed", claims.token_key, cookie)).encode()
    proof = hmac.digest(secret, text, hashlib.sha256).hex()[:_PROOF]
    return f"{claims.token_key[:_NAME]}{proof}".encode()


def _digest(secret: bytes, *parts: str) -> str:
    text = "\x00".join(parts).encode("utf-8", "surrogatepass")
    return hmac.digest(secret, text, hashlib.sha256).hex()[:20]
