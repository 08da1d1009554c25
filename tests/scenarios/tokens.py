"""The tokens of the scenarios: genuine ones by their claims, and forged ones by name."""

from __future__ import annotations

import hashlib
import hmac
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping

from scenarios.stage import SECRET

KID = "2026-11"
HEADER = {"alg": "HS256", "kid": KID, "typ": "JWT"}
SMALL_ORDER = b"\x01" + bytes(63)


def sign(claims: Mapping[str, object] | bytes, header: Mapping[str, object] | bytes = HEADER, **more: object) -> str:
    """A token of these claims and this header, written as they are, with an HMAC of `secret` and `digest`."""
    secret, digest = str(more.get("secret", SECRET)), str(more.get("digest", "sha256"))
    message = f"{b64(_bytes(header))}.{b64(_bytes(claims))}"
    return f"{message}.{b64(hmac.new(secret.encode(), message.encode(), getattr(hashlib, digest)).digest())}"


def b64(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def _bytes(value: Mapping[str, object] | bytes) -> bytes:
    return value if isinstance(value, bytes) else json.dumps(value).encode()


def _claims(token: str) -> dict[str, object]:
    part = token.split(".")[1]
    return dict(json.loads(urlsafe_b64decode(part + "=" * (-len(part) % 4))))


def _claiming(**changes: object) -> Callable[[str], str]:
    """Signed well, with these claims in place of the good ones; None: without it."""
    return lambda token: sign({n: v for n, v in {**_claims(token), **changes}.items() if v is not None})


def _headed(**changes: object) -> Callable[[str], str]:
    return lambda token: sign(_claims(token), {n: v for n, v in {**HEADER, **changes}.items() if v is not None})


def _written(old: str, new: str) -> Callable[[str], str]:
    """Signed well, with this text of the payload in place of that one."""

    def forge(token: str) -> str:
        payload = json.dumps(_claims(token))
        assert payload.count(old) == 1
        return sign(payload.replace(old, new).encode())

    return forge


def _parts(join: Callable[[str, str, str], str]) -> Callable[[str], str]:
    return lambda token: join(*token.split("."))


FORGED: Mapping[str, Callable[[str], str]] = {
    # Not one signed token in the one spelling.
    "one-segment": _parts(lambda head, body, mark: head),
    "two-segments": _parts(lambda head, body, mark: f"{head}.{body}"),
    "four-segments": _parts(lambda head, body, mark: f"{head}.{body}.{mark}.{mark}"),
    "no-signature": _parts(lambda head, body, mark: f"{head}.{body}."),
    "alg-none-unsigned": _parts(lambda head, body, mark: f"{b64(_bytes({**HEADER, 'alg': 'none'}))}.{body}."),
    "padding": lambda token: f"{token}=",
    "unused-bits": lambda token: token[:-1] + chr(ord(token[-1]) + 1),
    "percent-dots": lambda token: token.replace(".", "%2E"),
    "percent-letter": lambda token: token.replace("e", "%65", 1),
    "percent-blank": lambda token: f"{token}%20",
    "percent-slash": lambda token: f"{token}%2F1",
    "percent-nul": lambda token: f"{token}%00",
    "semicolon": lambda token: f"{token};x=1",
    "bearer": lambda token: f"Bearer%20{token}",
    "too-long": lambda token: sign({**_claims(token), "x": "x" * 3200}),
    "header-twice": lambda token: sign(_claims(token), b'{"alg":"none","alg":"HS256","kid":"2026-11"}'),
    "header-nan": lambda token: sign(_claims(token), b'{"alg":"HS256","kid":"2026-11","x":NaN}'),
    "header-list": lambda token: sign(_claims(token), b'["HS256"]'),
    "typ-other": _headed(typ="at+jwt"),
    "claim-twice": _written('"jti"', '"exp": 9999999999, "jti"'),
    "claim-twice-escaped": _written('"jti"', '"\\u0065xp": 9999999999, "jti"'),
    "payload-list": lambda token: sign(b"[" + _bytes(_claims(token)) + b"]"),
    "payload-utf16": lambda token: sign(json.dumps(_claims(token)).encode("utf-16")),
    # Not signed with the key that its header names.
    "alg-none": _headed(alg="none"),
    "alg-missing": _headed(alg=None),
    "alg-list": _headed(alg=["HS256", "none"]),
    "alg-lowercase": _headed(alg="hs256"),
    "alg-hs512": lambda token: sign(_claims(token), {**HEADER, "alg": "HS512"}, digest="sha512"),
    "alg-rs256": _headed(alg="RS256"),
    "kid-missing": _headed(kid=None),
    "kid-other": _headed(kid="2025-01"),
    "kid-path": _headed(kid="../../dev/null"),
    "kid-list": _headed(kid=[KID]),
    "other-secret": lambda token: sign(_claims(token), secret="another secret of another shop, 40 long."),
    "empty-secret": lambda token: sign(_claims(token), secret=""),
    "payload-swapped": _parts(lambda head, body, mark: f"{head}.{b64(_bytes({'jti': 'x'}))}.{mark}"),
    "header-swapped": _parts(lambda head, body, mark: f"{b64(_bytes(HEADER) + b' ')}.{body}.{mark}"),
    "signature-cut": _parts(lambda head, body, mark: f"{head}.{body}.{b64(bytes(16))}"),
    "signature-zero": _parts(lambda head, body, mark: f"{head}.{body}.{b64(bytes(32))}"),
    "signature-of-eddsa": _parts(lambda head, body, mark: f"{head}.{body}.{b64(SMALL_ORDER)}"),
    "crit": _headed(crit=["exp"]),
    "b64-false": _headed(b64=False),
    "zip": _headed(zip="DEF"),
    "jku": _headed(jku="https://evil.example/keys"),
    "own-jwk": _headed(jwk={"kty": "oct", "k": "AAAA"}),
    # Signed, and still not a token that may count.
    "aud-other": _claiming(aud="another-gateway"),
    "aud-several": _claiming(aud=["download-gateway", "another-gateway"]),
    "aud-missing": _claiming(aud=None),
    "iss-other": _claiming(iss="other.example.com"),
    "jti-missing": _claiming(jti=None),
    "jti-number": _claiming(jti=1),
    "exp-missing": _claiming(exp=None),
    "exp-text": _claiming(exp="4102444800"),
    "exp-true": _claiming(exp=True),
    "exp-float": _claiming(exp=4102444800.0),
    "exp-huge": _claiming(exp=10**50),
    "exp-negative": _claiming(exp=-1),
    "files-none": _claiming(files=[]),
    "files-climb": _claiming(files=["../secret"]),
    "files-climb-encoded": _claiming(files=["%2e%2e/secret"]),
    "files-control": _claiming(files=["a\r\nX: y"]),
    "limit-unknown": _claiming(limits={"download": 1}),
    "limit-negative": _claiming(limits={"downloads": -1}),
    "limit-zero": _claiming(limits={"downloads": 0}),
    "limit-text": _claiming(limits={"downloads": "1"}),
    "ip-host-bits": _claiming(ip=["127.0.1.1/8"]),
    "account-text": _claiming(account="true"),
}
