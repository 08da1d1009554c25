"""ID tokens that a provider, or somebody in its place, might send: one is good, and all others are refused."""

from __future__ import annotations

import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from gateway.backends.oidc_tokens import IdTokens
from gateway.errors import SignInRefused

ISSUER, US, NONCE = "https://accounts.example.com", "us", "n" * 24
SECRET = "the secret of a client, 32 or more long"
RSA = rsa.generate_private_key(65537, 2048)
OTHER = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP256R1())
RSA_JWK = {**RSAAlgorithm.to_jwk(RSA.public_key(), as_dict=True), "kid": "r", "use": "sig"}
EC_JWK = {**ECAlgorithm.to_jwk(EC.public_key(), as_dict=True), "kid": "e"}
KEYS: list[dict[str, Any]] = [RSA_JWK, EC_JWK]
GOOD = {"iss": ISSUER, "aud": US, "sub": "c-7", "nonce": NONCE, "shop_id": 7, "email": "a@b.example"}


def token(key: Any = RSA, alg: str = "RS256", kid: str | None = "r", **changes: object) -> str:
    now = int(time.time())
    claims = {**GOOD, "iat": now, "exp": now + 300, **changes}
    return jwt.encode(
        {name: value for name, value in claims.items() if value is not None},
        key,
        algorithm=alg,
        headers=None if kid is None else {"kid": kid},
    )


def tokens(claim: str = "sub", *, secret_signs: bool = False) -> IdTokens:
    return IdTokens(ISSUER, US, claim, SECRET, secret_signs=secret_signs)


@pytest.mark.parametrize(
    ("good", "claim", "customer"),
    [
        (token, "sub", "c-7"),
        (lambda: token(alg="PS256"), "sub", "c-7"),
        (lambda: token(EC, "ES256", "e"), "sub", "c-7"),
        (token, "shop_id", "7"),
        (lambda: token(aud=[US]), "sub", "c-7"),
        (lambda: token(aud=[US, "them"], azp=US), "sub", "c-7"),
        (lambda: token(exp=int(time.time()) - 50), "sub", "c-7"),
        (lambda: token(iat=int(time.time()) + 50), "sub", "c-7"),
    ],
)
def test_who_is_named(good: Any, claim: str, customer: str) -> None:
    assert tokens(claim).customer(good(), KEYS, NONCE) == customer


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": ISSUER + "/"},
        {"iss": "https://evil.example"},
        {"iss": None},
        {"aud": "them"},
        {"aud": None},
        {"aud": [US, "them"]},
        {"aud": [US, "them"], "azp": "them"},
        {"azp": "them"},
        {"nonce": "o" * 24},
        {"nonce": None},
        {"nonce": 7},
        {"exp": 1},
        {"exp": None},
        {"iat": 9_999_999_999},
        {"iat": None},
        {"sub": None},
        {"sub": ""},
        {"sub": "c-7\n"},
        {"sub": "x" * 256},
    ],
    ids=str,
)
def test_what_is_wrong_in_it(changes: dict[str, object]) -> None:
    with pytest.raises(SignInRefused) as refused:
        tokens().customer(token(**changes), KEYS, NONCE)
    assert "c-7" not in str(refused.value)


def public_key_as_a_secret() -> str:
    """PyJWT refuses to make one, so it is made by hand."""
    head = jwt.encode(GOOD, "x" * 40, headers={"kid": "r"}).rpartition(".")[0]
    pem = RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    signature = jwt.api_jws.PyJWS()._algorithms["HS256"].sign(head.encode(), pem)
    return f"{head}.{jwt.utils.base64url_encode(signature).decode()}"


@pytest.mark.parametrize(
    "forged",
    [
        lambda: token(OTHER),
        lambda: token(kid="unknown"),
        lambda: token(kid="e"),
        lambda: token(None, "none"),
        lambda: token("o" * 40, "HS256"),
        lambda: token(SECRET, "HS256"),
        lambda: token(SECRET * 2, "HS512"),
        public_key_as_a_secret,
        lambda: token()[:-4],
        lambda: "x.y.z",
        lambda: "",
        lambda: token() + ".x",
    ],
)
def test_who_signed_it(forged: Any) -> None:
    with pytest.raises(SignInRefused):
        tokens().customer(forged(), KEYS, NONCE)


def test_a_secret_signs_only_where_the_provider_says_so() -> None:
    signed = token(SECRET, "HS256", None)
    assert tokens(secret_signs=True).customer(signed, KEYS, NONCE) == "c-7"
    for wrong in (tokens(), IdTokens(ISSUER, US, "sub", None, secret_signs=True)):
        with pytest.raises(SignInRefused):
            wrong.customer(signed, KEYS, NONCE)
    with pytest.raises(SignInRefused):
        tokens(secret_signs=True).customer(public_key_as_a_secret(), KEYS, NONCE)


def test_without_a_kid_only_one_key_may_fit() -> None:
    assert tokens().customer(token(kid=None), KEYS, NONCE) == "c-7"
    second = {**RSAAlgorithm.to_jwk(OTHER.public_key(), as_dict=True), "kid": "r2"}
    with pytest.raises(SignInRefused):
        tokens().customer(token(kid=None), [*KEYS, second], NONCE)


@pytest.mark.parametrize(
    "spoilt", [{"use": "enc"}, {"alg": "RS512"}, {"kty": "oct", "k": "eA"}, {"n": "!"}, {"e": None}]
)
def test_a_key_that_is_for_something_else_is_none(spoilt: dict[str, object]) -> None:
    with pytest.raises(SignInRefused):
        tokens().customer(token(), [{**RSA_JWK, **spoilt}], NONCE)


@pytest.mark.parametrize("claim", ["groups", "missing", "flag"])
def test_a_claim_that_names_nobody(claim: str) -> None:
    with pytest.raises(SignInRefused, match=claim):
        tokens(claim).customer(token(groups=["a"], flag=True), KEYS, NONCE)
