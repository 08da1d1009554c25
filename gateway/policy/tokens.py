"""Link tokens: JWS compact serialization (RFC 7515 §3.1) over JSON claims, one spelling each, nothing lenient.

The key decides the algorithm; the header may only agree. Time plays a part in `timely` alone, so `parse` can be
cached. One signed payload may have several ES256 signatures; counters go by iss + jti, so that wins nothing.
"""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import NamedTuple, NoReturn

from gateway.policy.claims import read_claims, write_claims
from gateway.policy.keys import KeySet, SigningKey, VerificationKey
from gateway.policy.model import Claims, Deny
from gateway.policy.reasons import Reason

TOKEN_MAX = 4096
"""Longest token in bytes; it must fit into a request line with room to spare."""
LEEWAY = 60
"""Seconds that the signer's clock may be ahead of ours, for nbf and iat (RFC 7519 §4.1.5); none for exp."""

_COMPACT = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")
# What changes how a token is processed, or names a key in another way than kid (RFC 7515 §4.1, 7516 §4.1, 7797 §3).
# Other unknown header members are ignored, as RFC 7515 §4 demands.
_REFUSED_HEADERS = frozenset({"crit", "b64", "zip", "enc", "jku", "jwk", "x5u", "x5c", "x5t", "x5t#S256"})


def verify(token: str, keys: KeySet, issuer: str, now: int) -> Claims | Deny:
    """The claims of a token that is genuine and whose time has begun (`now` in Unix seconds), or why not.

    An expired token is handed on with its claims: the ledger refuses it, which knows what has begun.
    """
    claims = parse(token, keys, issuer)
    if isinstance(claims, Deny):
        return claims
    return timely(claims, now) or claims


def parse(token: str, keys: KeySet, issuer: str) -> Claims | Deny:
    """The part of `verify` that depends on no clock: the same arguments always give the same answer. Never raises."""
    jws = _open(token)
    if isinstance(jws, Deny):
        return jws
    key = _key_for(jws.header, keys)
    if isinstance(key, Deny):
        return key
    if not key.verify(jws.signing_input, jws.signature):
        return _unsigned("the signature does not verify")
    claims = _object(jws.payload)
    if claims is None:
        return _malformed("the payload is not a JSON object with distinct members")
    return read_claims(claims, issuer)


def timely(claims: Claims, now: int) -> Deny | None:
    """`token.not_yet` where nbf or iat lies more than the leeway ahead of `now` (Unix seconds), else None."""
    if max(claims.not_before or 0, claims.issued_at or 0) > now + LEEWAY:
        return Deny(Reason.TOKEN_NOT_YET, message="the claim nbf or iat is in the future")
    return None


def encode(claims: Claims, key: SigningKey) -> str:
    """The token that `parse` reads as `claims`. Raises ValueError for claims that it would refuse, or over 4 KiB."""
    payload = write_claims(claims)
    read = read_claims(payload, claims.issuer)
    if read != claims:
        raise ValueError(read.message if isinstance(read, Deny) else "these claims cannot be written as a token")
    header = {"alg": key.alg, "kid": key.kid, "typ": "JWT"}
    message = f"{_encode(_json(header))}.{_encode(_json(payload))}"
    token = f"{message}.{_encode(key.sign(message.encode()))}"
    if len(token) > TOKEN_MAX:
        raise ValueError(f"the link would be longer than {TOKEN_MAX} bytes: name fewer files, or make several links")
    return token


class _Jws(NamedTuple):
    """A token taken apart, nothing of it verified."""

    signing_input: bytes
    header: dict[str, object]
    payload: bytes
    signature: bytes


def _open(token: str) -> _Jws | Deny:
    if len(token) > TOKEN_MAX:
        return _malformed(f"the token is longer than {TOKEN_MAX} bytes")
    segments = _COMPACT.fullmatch(token)
    if segments is None:
        return _malformed("the token is not three base64url segments")
    header, payload, signature = (_decode(segment) for segment in segments.groups())
    if header is None or payload is None or signature is None:
        return _malformed("a segment of the token is not canonical base64url")
    members = _object(header)
    if members is None:
        return _malformed("the header is not a JSON object with distinct members")
    return _Jws(token[: segments.end(2)].encode(), members, payload, signature)


def _key_for(header: dict[str, object], keys: KeySet) -> VerificationKey | Deny:
    if not _REFUSED_HEADERS.isdisjoint(header):
        return _unsigned("the header asks for processing or a key that is not supported")
    typ = header.get("typ", "JWT")
    if not isinstance(typ, str) or typ.upper() != "JWT":
        return _malformed("the header's typ is not JWT")
    kid = header.get("kid")
    key = keys.get(kid) if isinstance(kid, str) else None
    if key is None:
        return _unsigned("the header's kid names no key of the settings")
    if header.get("alg") != key.alg:
        return _unsigned("the header's alg is not the one of the key")
    return key


def _decode(segment: str) -> bytes | None:
    """None unless this is the one way to write these bytes (RFC 7515 §2; unused bits are zero, RFC 4648 §3.5)."""
    if len(segment) % 4 == 1:
        return None
    decoded = urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    return decoded if _encode(decoded) == segment else None


def _encode(value: bytes) -> str:
    return urlsafe_b64encode(value).rstrip(b"=").decode()


def _json(value: dict[str, object] | dict[str, str]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _object(raw: bytes) -> dict[str, object] | None:
    """The JSON object in `raw`; None for other JSON or encodings, duplicate members (RFC 7519 §4), NaN, Infinity."""
    try:
        value = _STRICT_JSON.decode(raw.decode())
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _distinct(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("duplicate member")
    return members


def _refuse_constant(_: str) -> NoReturn:
    raise ValueError("not JSON")


_STRICT_JSON = json.JSONDecoder(object_pairs_hook=_distinct, parse_constant=_refuse_constant)


def _malformed(message: str) -> Deny:
    return Deny(Reason.TOKEN_MALFORMED, message=message)


def _unsigned(message: str) -> Deny:
    return Deny(Reason.TOKEN_SIGNATURE, message=message)
