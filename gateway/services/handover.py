"""The shop hands its customer over: a JWT that its own page signs, good once, for shops without OpenID Connect.

Law: a hand-over is good for the sign-in that this very browser has begun, and for no other: else anybody could sign a
stranger in with an account of his own.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import urlencode

import jwt

from gateway.account_ports import SignIn
from gateway.errors import SignInRefused
from gateway.policy.customers import customer_id
from gateway.services.identifiers import new_id

AUDIENCE = "download-gateway-account"
"""Not that of links or sessions: what is signed for one must be worth nothing for another."""
LEEWAY = 60
LASTS = 300
"""Seconds from `iat` to `exp`, at most."""
TOKEN_MAX = 4096
_JTI_MAX = 128
_REQUIRED = ["iss", "aud", "sub", "iat", "exp", "jti"]


class Once(Protocol):
    """Remembers what was begun under a name."""

    async def first(self, name: str, begun: str, seconds: int) -> str:
        """What was begun under this name by who came first: `begun`, where nobody came before. Raises LedgerDown."""


@dataclass(frozen=True, slots=True)
class Shop:
    """The shop's page, and how what it signs is known. `key`: a secret, or a public key as PEM."""

    login_url: str
    return_to: str
    issuer: str
    alg: str
    key: str = field(repr=False)


class Handover:
    """An IdentityProvider. `clock` in Unix seconds."""

    def __init__(self, shop: Shop, once: Once, *, clock: Callable[[], float] = time.time) -> None:
        self._shop = shop
        self._once = once
        self._clock = clock

    async def address(self, begun: SignIn, *, anew: bool = False) -> str:
        """See IdentityProvider.address."""
        more = {"prompt": "login"} if anew else {}
        asked = urlencode({"state": begun.state, "return_to": self._shop.return_to, **more})
        return f"{self._shop.login_url}{'&' if '?' in self._shop.login_url else '?'}{asked}"

    async def customer(self, answer: Mapping[str, str], begun: SignIn) -> str:
        """See IdentityProvider.customer. Raises LedgerDown, too."""
        if "error" in answer:
            raise SignInRefused("the shop signed nobody in")
        claims = self._read(answer.get("handover", ""))
        nonce = claims.get("nonce")
        if not isinstance(nonce, str) or not hmac.compare_digest(
            nonce.encode("utf-8", "replace"), begun.state.encode()
        ):
            raise SignInRefused("the hand-over belongs to another sign-in")
        return await self._take(claims)

    def _read(self, token: str) -> Mapping[str, object]:
        try:
            if len(token) > TOKEN_MAX:
                raise SignInRefused("the hand-over is too long")
            claims: dict[str, object] = jwt.decode(
                token,
                self._shop.key,
                algorithms=[self._shop.alg],
                audience=AUDIENCE,
                issuer=self._shop.issuer,
                options={"require": _REQUIRED, "strict_aud": True, "verify_exp": False, "verify_iat": False},
            )
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            # The library's own text may quote what the token says.
            raise SignInRefused(f"the hand-over is not good ({type(error).__name__})") from None
        return claims

    async def _take(self, claims: Mapping[str, object]) -> str:
        now = self._clock()
        issued, ends, name = claims["iat"], claims["exp"], claims["jti"]
        # bool is an int; PyJWT takes it, and texts of digits, for a time.
        if type(issued) is not int or type(ends) is not int:
            raise SignInRefused("iat and exp of the hand-over are not both whole Unix seconds")
        if not issued <= ends <= issued + LASTS:
            raise SignInRefused(f"the hand-over is good for longer than {LASTS} seconds")
        if not issued - LEEWAY <= now < ends:
            raise SignInRefused("the hand-over is over, or the clocks of the shop and this machine differ")
        if not isinstance(name, str) or not 0 < len(name) <= _JTI_MAX:
            raise SignInRefused("the hand-over has no usable jti")
        customer = customer_id(claims["sub"])
        if customer is None:
            raise SignInRefused("sub of the hand-over names no customer")
        mine = new_id()
        if await self._once.first(f"handover {self._shop.issuer} {name}", mine, ends - int(now) + LEEWAY) != mine:
            raise SignInRefused("the hand-over was used before")
        return customer
