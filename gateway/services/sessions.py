"""Who has signed in, kept in the browser alone: a signed cookie, so that no worker has to remember anybody.

Law: a cookie that is not ours to the last byte, or whose time is over, is none.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import jwt

from gateway.policy.model import Account

COOKIE = "__Host-gw_session"
"""Browsers take a `__Host-` cookie over https alone (or from this very machine), for this host and all its paths."""
AUDIENCE = "download-gateway-session"
ID_BYTES = 12
_ALGORITHM = "HS256"
_VALUE = re.compile(rf"(?:^|;[ \t]*){COOKIE}=([A-Za-z0-9_.-]{{1,4096}})(?=;|$)")


@dataclass(frozen=True, slots=True)
class Session:
    """One sign-in. `session_id` is random, and never shown to anybody; `expires_at` in Unix seconds."""

    account: Account
    session_id: str = field(repr=False)
    expires_at: int


class Sessions:
    """Reads and writes the cookie. `seconds`: how long a sign-in lasts; `clock` in Unix seconds."""

    def __init__(
        self,
        secret: str,
        *,
        seconds: int,
        shops: Sequence[str] = (),
        others: Sequence[str] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`shops`, `others`: see Account."""
        self._secret = secret.encode()
        self._key = self.key("session")
        self._form_key = self.key("form")
        self._seconds = seconds
        self._shops = tuple(shops)
        self._others = tuple(others)
        self._clock = clock

    def key(self, purpose: str) -> bytes:
        """A key of its own for each purpose, so that what is signed for one is worth nothing for another."""
        return hmac.digest(self._secret, f"download-gateway {purpose}".encode(), hashlib.sha256)

    def read(self, cookies: str | None) -> Session | None:
        """The session in a Cookie header; None where there is none that is genuine and not over."""
        found = _VALUE.findall(cookies or "")
        # Of two cookies of one name nobody can say which is ours (RFC 6265 §4.2.2).
        if len(found) != 1:
            return None
        try:
            claims = jwt.decode(
                found[0],
                self._key,
                algorithms=[_ALGORITHM],
                audience=AUDIENCE,
                options={"require": ["exp", "sub", "jti"], "verify_exp": False, "verify_iat": False},
            )
        except jwt.InvalidTokenError:
            return None
        subject, session_id, expires_at = claims["sub"], claims["jti"], claims["exp"]
        if type(expires_at) is not int or expires_at <= self._clock():
            return None
        return Session(Account(subject, self._shops, self._others), session_id, expires_at)

    def begin(self, customer_id: str) -> str:
        """The Set-Cookie value of a new session of this customer."""
        now = int(self._clock())
        claims = {
            "aud": AUDIENCE,
            "sub": customer_id,
            "jti": secrets.token_urlsafe(ID_BYTES),
            "iat": now,
            "exp": now + self._seconds,
        }
        value = jwt.encode(claims, self._key, algorithm=_ALGORITHM)
        return f"{COOKIE}={value}; Path=/; Max-Age={self._seconds}; Secure; HttpOnly; SameSite=Lax"

    @staticmethod
    def end() -> str:
        """The Set-Cookie value that takes a session away."""
        return f"{COOKIE}=; Path=/; Max-Age=0; Secure; HttpOnly; SameSite=Lax"

    def form_key(self, session: Session) -> str:
        """What each form of this session carries, so that no other site can send it (OWASP: signed double submit)."""
        return hmac.digest(self._form_key, session.session_id.encode(), hashlib.sha256).hex()[:32]

    def is_form_of(self, session: Session, shown: str) -> bool:
        """Whether a form that came carries this session's key. Takes as long for each answer."""
        return hmac.compare_digest(self.form_key(session).encode(), shown.encode("utf-8", "surrogatepass"))
