"""ID tokens of the shop's provider, checked as OpenID Connect Core §3.1.3.7 says; PyJWT does the signatures.

Law: the key decides which algorithms are possible. A public key is never a secret, and nothing is unsigned.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import jwt
from jwt.exceptions import PyJWTError

from gateway.errors import SignInRefused
from gateway.policy.customers import customer_id

LEEWAY = 60
"""Seconds that the provider's clock may be away from ours."""
_FAMILIES = {
    "RSA": ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    "EC": ("ES256", "ES384", "ES512"),
    "OKP": ("EdDSA",),
}
_ASYMMETRIC = frozenset(alg for family in _FAMILIES.values() for alg in family)
_SYMMETRIC = "HS256"
_REQUIRED = ["iss", "sub", "aud", "exp", "iat"]

Jwk = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class IdTokens:
    """What one client expects of one provider. `claim` names the customer; `secret_signs`: also `secret` may sign."""

    issuer: str
    client_id: str
    claim: str
    secret: str | None = field(default=None, repr=False)
    secret_signs: bool = False

    def key_id(self, token: str) -> str | None:
        """The `kid` of the key that is needed; None where none is named. Raises SignInRefused."""
        kid = _header(token).get("kid")
        return kid if isinstance(kid, str) else None

    def customer(self, token: str, keys: Sequence[Jwk], nonce: str) -> str:
        """The customer that the token names. Raises SignInRefused."""
        header = _header(token)
        alg = header.get("alg")
        key = self._key(alg, header.get("kid"), keys)
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=[str(alg)],
                audience=self.client_id,
                issuer=self.issuer,
                leeway=LEEWAY,
                options={"require": _REQUIRED},
            )
        except (PyJWTError, ValueError, TypeError) as error:
            # The library's own text may quote what the token says.
            raise SignInRefused(f"the ID token is not good ({type(error).__name__})") from None
        return self._read(claims, nonce)

    def _key(self, alg: object, kid: object, keys: Sequence[Jwk]) -> jwt.PyJWK | str:
        if alg == _SYMMETRIC and self.secret_signs and self.secret:
            return self.secret
        if alg not in _ASYMMETRIC:
            raise SignInRefused("the ID token is signed in a way that is not taken")
        fitting = [key for key in keys if _fits(key, str(alg)) and (kid is None or key.get("kid") == kid)]
        if len(fitting) != 1:
            raise SignInRefused("the ID token names no key of the provider's")
        try:
            return jwt.PyJWK(dict(fitting[0]), algorithm=str(alg))
        except (PyJWTError, ValueError, TypeError, KeyError):
            raise SignInRefused("the provider's key cannot be read") from None

    def _read(self, claims: Mapping[str, object], nonce: str) -> str:
        given = claims.get("nonce")
        if not isinstance(given, str) or not hmac.compare_digest(given.encode("utf-8", "replace"), nonce.encode()):
            raise SignInRefused("the ID token belongs to another sign-in")
        audience = claims["aud"]
        authorized = claims.get("azp")
        several = isinstance(audience, list) and len(audience) > 1
        if (several or authorized is not None) and authorized != self.client_id:
            raise SignInRefused("the ID token was made for another client")
        customer = customer_id(claims.get(self.claim))
        if customer is None:
            raise SignInRefused(f"the claim {self.claim} names no customer")
        return customer


def _header(token: str) -> Mapping[str, object]:
    try:
        return jwt.get_unverified_header(token)
    except (PyJWTError, ValueError, TypeError):
        raise SignInRefused("the ID token cannot be read") from None


def _fits(key: Jwk, alg: str) -> bool:
    """Whether the key says that it verifies this algorithm (RFC 7517 §4)."""
    kind = key.get("kty")
    return (
        isinstance(kind, str)
        and alg in _FAMILIES.get(kind, ())
        and key.get("use", "sig") == "sig"
        and key.get("alg", alg) == alg
    )
