"""Sign-ins that have begun, each in a cookie of its own: no worker has to remember them, and two tabs may both sign in.

Law: what comes back without the cookie of its state did not begin in this browser.
"""

from __future__ import annotations

import hmac
import re
import secrets
import time
from collections.abc import Callable

import jwt

from gateway.account_ports import SignIn

COOKIE = "__Host-gw_sign_in"
AUDIENCE = "download-gateway-sign-in"
SECONDS = 600
AT_ONCE = 4
TOGETHER_MAX = 6000
"""Of one browser: how many, and the bytes of their cookies. One more takes the place of all that have begun: servers
and proxies take a Cookie header of 8 KiB, and answer 400 to everything while it is longer.
"""
CLOCKS = 60
"""Seconds that the clock of the machine where it began may run ahead of ours."""
COOKIE_MAX = 3900
"""Bytes of name and value; browsers keep 4096 with the attributes (RFC 6265 §6.1)."""
STATE_BYTES = 18
VERIFIER_BYTES = 32
_ALGORITHM = "HS256"
_ID = 12
_STATE = re.compile(r"[A-Za-z0-9_-]{24}")
_EACH = re.compile(rf"(?:^|;[ \t]*)({COOKIE}_[A-Za-z0-9_-]{{{_ID}}})=([A-Za-z0-9_.-]{{1,4096}})(?=;|$)")
_ATTRIBUTES = "Path=/; Secure; HttpOnly; SameSite=Lax"
_MINE = re.compile(r"/(?:l/[A-Za-z0-9_-][A-Za-z0-9_.-]{0,4095}|o/[A-Za-z0-9_~%-][A-Za-z0-9_.~%-]{0,511}|account)")


class SignIns:
    """Begins them and knows them again. `key` signs the cookies; `clock` in Unix seconds."""

    def __init__(self, key: bytes, *, clock: Callable[[], float] = time.time) -> None:
        self._key = key
        self._clock = clock

    def begin(self, to: str, cookies: str | None) -> tuple[SignIn, list[str]]:
        """A new one that returns to the path `to`, and the Set-Cookie values that keep it."""
        begun = SignIn(
            state=secrets.token_urlsafe(STATE_BYTES),
            nonce=secrets.token_urlsafe(STATE_BYTES),
            verifier=secrets.token_urlsafe(VERIFIER_BYTES),
            to=returning(to),
            begun_at=int(self._clock()),
        )
        value = self._write(begun)
        if len(_name(begun.state)) + len(value) >= COOKIE_MAX:
            # So long is a token of dozens of files; the list of the orders leads to it as well.
            begun = SignIn(begun.state, begun.nonce, begun.verifier, HOME, begun.begun_at)
            value = self._write(begun)
        mine = f"{_name(begun.state)}={value}"
        earlier = dict(_EACH.findall(cookies or ""))
        together = len(mine) + sum(len(name) + len(each) for name, each in earlier.items())
        surplus = earlier if len(earlier) >= AT_ONCE or together > TOGETHER_MAX else {}
        return begun, [f"{mine}; Max-Age={SECONDS}; {_ATTRIBUTES}", *map(_dropped, surplus)]

    def find(self, state: str, cookies: str | None) -> SignIn | None:
        """The one with this state, where this browser began it and not too long ago."""
        if not _STATE.fullmatch(state):
            return None
        for name, value in _EACH.findall(cookies or ""):
            begun = self._read(value) if name == _name(state) else None
            if begun is not None and hmac.compare_digest(begun.state.encode(), state.encode()):
                return begun
        return None

    @staticmethod
    def end(begun: SignIn) -> str:
        """The Set-Cookie value that takes it away."""
        return _dropped(_name(begun.state))

    def _write(self, begun: SignIn) -> str:
        claims = {
            "aud": AUDIENCE,
            "state": begun.state,
            "nonce": begun.nonce,
            "verifier": begun.verifier,
            "to": begun.to,
            "iat": begun.begun_at,
        }
        return jwt.encode(claims, self._key, algorithm=_ALGORITHM)

    def _read(self, value: str) -> SignIn | None:
        try:
            claims = jwt.decode(
                value, self._key, algorithms=[_ALGORITHM], audience=AUDIENCE, options={"verify_iat": False}
            )
        except jwt.PyJWTError:
            return None
        begun = SignIn(claims["state"], claims["nonce"], claims["verifier"], claims["to"], claims["iat"])
        return begun if -CLOCKS <= self._clock() - begun.begun_at < SECONDS else None


HOME = "/account"


def returning(to: str) -> str:
    """The path, where it is one of ours that somebody may return to, else HOME: an address may never lead elsewhere."""
    return to if _MINE.fullmatch(to) else HOME


def _name(state: str) -> str:
    return f"{COOKIE}_{state[:_ID]}"


def _dropped(name: str) -> str:
    return f"{name}=; Max-Age=0; {_ATTRIBUTES}"
