"""Attacks on JWTs collected elsewhere: none gets past the layer it is meant for, and none raises.

They are minted for another shape (aud `gw`, `file`, `max`), so each is tried twice: as it is, where even a good one
must stop at the claims; and with its payload rewritten to our shape and signed anew, so that only the attack is left.
"""

from __future__ import annotations

import json
import re
import socket
from base64 import urlsafe_b64decode, urlsafe_b64encode
from pathlib import Path
from typing import NoReturn

import pytest
from jwt.algorithms import HMACAlgorithm

from gateway.policy.keys import KeySet, SigningKey, VerificationKey, load_key
from gateway.policy.model import Claims, Deny
from gateway.policy.reasons import Reason
from gateway.policy.tokens import verify

MATERIAL = Path(__file__).parents[2] / ".." / "shared" / "material" / "jose" / "jwt_attack_cases.json"
pytestmark = pytest.mark.skipif(not MATERIAL.exists(), reason="the outside material is not here")

Case = dict[str, str]
ISSUER = "shop"
NOW = 1_750_000_000
DATA = json.loads(MATERIAL.read_text()) if MATERIAL.exists() else {"keys": {}, "cases": []}
CASES: list[Case] = DATA["cases"]

STOPPED_BEFORE = {"alg-none", "signature", "key-confusion", "header-injection", "kid-injection", "crit", "b64"}
STOPPED_BEFORE |= {"compressed", "encoding", "typ"}
"""Classes whose attack is in the encoding, header or signature: refused before a claim is looked at."""

DECIDED: dict[str, tuple[Reason | None, str]] = {
    # verdict "policy"
    "es256-malleable-n-minus-s": (None, "both spellings share one counter, by iss + jti: nothing is won"),
    "jku-but-valid-sig": (Reason.TOKEN_SIGNATURE, "a header that names its own key is refused, and never fetched"),
    "claim-missing-nbf": (None, "nbf is optional"),
    "claim-iat-future": (Reason.TOKEN_NOT_YET, "iat is a promise like nbf, with the same leeway"),
    "claim-exp-float": (Reason.TOKEN_CLAIMS, "times are whole numbers"),
    "claim-aud-list-incl": (Reason.TOKEN_CLAIMS, "one audience only, or another recipient could replay the token"),
    "enc-padding": (Reason.TOKEN_MALFORMED, "one spelling (RFC 7515 §2)"),
    "enc-newline": (Reason.TOKEN_MALFORMED, "one spelling"),
    "enc-leading-sp": (Reason.TOKEN_MALFORMED, "one spelling"),
    "enc-bearer": (Reason.TOKEN_MALFORMED, "one spelling"),
    "enc-unused-bits": (Reason.TOKEN_MALFORMED, "one spelling (RFC 4648 §3.5)"),
    "typ-other": (Reason.TOKEN_MALFORMED, "explicit typing (RFC 8725 §3.11): this is another kind of token"),
    "header-2000-deep": (Reason.TOKEN_MALFORMED, "over 4 KiB"),
    # verdict "reject", decided otherwise
    "claim-missing-sub": (None, "sub is optional here: a customer need not be known"),
    "claim-expired": (None, "handed on with its exp: the ledger refuses it, which knows what has begun"),
    "claim-exp-zero": (None, "handed on with its exp, as above"),
}


def material_keys() -> tuple[KeySet, bytes]:
    keys = DATA["keys"]
    secret = unb64(keys["hs_secret_b64url"])
    hmac_key = VerificationKey("hs", "HS256", HMACAlgorithm(HMACAlgorithm.SHA256), secret)
    pairs = (("ed", "EdDSA"), ("es", "ES256"), ("rs", "RS256"))
    return KeySet([hmac_key, *(load_key(kid=k, alg=a, public_key=keys[f"{k}_public_pem"]) for k, a in pairs)]), secret


def unb64(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def b64(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def reshaped(payload: str) -> str:
    """The same payload, mutation and all, in our shape. Done on the text, for many of them are no JSON."""
    payload = payload.replace('"gw"', '"download-gateway"').replace('"GW"', '"DOWNLOAD-GATEWAY"')
    payload = re.sub(r'"file":\s*("(?:[^"\\]|\\.)*"|\[[^]]*\])', r'"files":[\1]', payload)
    return re.sub(r'"max":\s*(-?\d+|null)', r'"limits":{"downloads":\1}', payload)


def reminted(case: Case, secret: bytes) -> str:
    """This case's header and reshaped payload, signed with the key that its kid stands for."""
    header, payload, _ = case["token"].split(".")
    raw = unb64(payload)
    if raw.startswith(b"\xff\xfe"):
        raw = reshaped(raw.decode("utf-16")).encode("utf-16")
    else:
        raw = reshaped(raw.decode("latin-1")).encode("latin-1")
    message = f"{header}.{b64(raw)}"
    if case["key"] == "ed":
        key = load_key(kid="ed", alg="EdDSA", private_key=DATA["keys"]["ed_private_pem"], use="sign")
        assert isinstance(key, SigningKey)
        return f"{message}.{b64(key.sign(message.encode()))}"
    assert case["key"] == "hs"
    return f"{message}.{b64(HMACAlgorithm(HMACAlgorithm.SHA256).sign(message.encode(), secret))}"


def resigned(case: Case) -> bool:
    """Whether a good signature leaves the attack in place: it is in the claims, or in the rest of the header."""
    in_rest_of_header = (
        case["cls"] in {"kid-injection", "header-injection", "crit", "typ"} and case["token"].count(".") == 2
    )
    return case["cls"] == "claims" or (case["cls"] == "control" and case["key"] != "es") or in_rest_of_header


@pytest.fixture(autouse=True)
def no_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing in a header may be fetched (RFC 8725 §3.10)."""

    def refuse(*_: object) -> NoReturn:
        pytest.fail("something was fetched")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_every_case_is_known() -> None:
    assert len(CASES) == 118
    assert {case["id"] for case in CASES if case["verdict"] == "policy"} <= set(DECIDED)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_as_it_is(case: Case) -> None:
    keys, _ = material_keys()
    answer = verify(case["token"], keys, ISSUER, NOW)
    assert isinstance(answer, Deny)
    malleable = case["id"] == "es256-malleable-n-minus-s"
    if case["cls"] == "control" or malleable:
        assert answer.reason is Reason.TOKEN_CLAIMS
    elif case["cls"] in STOPPED_BEFORE or case["cls"] == "psychic":
        assert answer.reason in (Reason.TOKEN_MALFORMED, Reason.TOKEN_SIGNATURE)


@pytest.mark.parametrize("case", [case for case in CASES if resigned(case)], ids=lambda case: case["id"])
def test_in_our_shape_and_signed(case: Case) -> None:
    keys, secret = material_keys()
    answer = verify(reminted(case, secret), keys, ISSUER, NOW)
    expected, _ = DECIDED.get(case["id"], (None, ""))
    if expected is not None:
        assert isinstance(answer, Deny)
        assert answer.reason is expected
    elif case["verdict"] == "accept" or case["id"] in DECIDED:
        assert isinstance(answer, Claims)
    else:
        assert isinstance(answer, Deny)
        assert answer.reason in (Reason.TOKEN_MALFORMED, Reason.TOKEN_SIGNATURE, Reason.TOKEN_CLAIMS)
