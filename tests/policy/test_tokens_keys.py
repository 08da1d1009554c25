"""Keys: one algorithm each, strong enough, and silent about their material."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from gateway.policy.keys import KeySet, SigningKey, VerificationKey, load_key

SECRET = "correct-horse-battery-staple-and-a-few-more-words-to-reach-64-bytes"


def pem(key: PrivateKeyTypes, password: bytes | None = None) -> str:
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption).decode()


def public_pem(key: PrivateKeyTypes) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


ED = ed25519.Ed25519PrivateKey.generate()
EC = ec.generate_private_key(ec.SECP256R1())
RSA = rsa.generate_private_key(65537, 2048)
WEAK_RSA = rsa.generate_private_key(65537, 1024)  # noqa: S505 (too weak, for the test)
PAIRS = {"EdDSA": ED, "ES256": EC, "RS256": RSA}


@pytest.mark.parametrize("alg", ["HS256", "HS384", "HS512"])
def test_a_secret_is_used_as_its_utf8_text(alg: str) -> None:
    key = load_key(kid="k", alg=alg, secret=SECRET, use="sign")
    assert isinstance(key, SigningKey)
    assert key.verification.verify(b"message", key.sign(b"message"))
    assert not key.verification.verify(b"other", key.sign(b"message"))


@pytest.mark.parametrize(("alg", "private"), PAIRS.items())
def test_pem_keys_sign_and_verify(alg: str, private: PrivateKeyTypes) -> None:
    signing = load_key(kid="k", alg=alg, private_key=pem(private), use="sign")
    assert isinstance(signing, SigningKey)
    signature = signing.sign(b"message")
    for key in (
        signing.verification,
        load_key(kid="k", alg=alg, public_key=public_pem(private)),
        load_key(kid="k", alg=alg, private_key=pem(private), use="verify"),
    ):
        assert isinstance(key, VerificationKey)
        assert key.verify(b"message", signature)
        assert not key.verify(b"message", signature[:-1])
        assert not key.verify(b"message", b"")


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"alg": "HS256", "secret": "x" * 31}, "a secret for HS256 is 32 bytes or more"),
        ({"alg": "HS384", "secret": "x" * 47}, "a secret for HS384 is 48 bytes or more"),
        ({"alg": "HS512", "secret": "x" * 63}, "a secret for HS512 is 64 bytes or more"),
        ({"alg": "HS256", "secret": ""}, "random text"),
        ({"alg": "HS256", "secret": "\ud800" * 40}, "not valid Unicode"),
        ({"alg": "HS256", "secret": pem(ED)}, "is a PEM"),
        ({"alg": "HS256", "secret": public_pem(RSA)}, "is a PEM"),
        ({"alg": "HS256", "secret": '{"kty":"oct","k":"' + "A" * 60 + '"}'}, "JWK"),
        ({"alg": "HS256"}, "takes a secret"),
        ({"alg": "HS256", "secret": SECRET, "public_key": public_pem(ED)}, "takes a secret and no"),
        ({"alg": "none"}, "alg is one of HS256"),
        ({"alg": "hs256", "secret": SECRET}, "alg is one of HS256"),
        ({"alg": "PS256", "private_key": pem(RSA)}, "alg is one of HS256"),
        ({"alg": "EdDSA", "secret": SECRET}, "either a private_key or a public_key"),
        ({"alg": "EdDSA"}, "either a private_key or a public_key"),
        (
            {"alg": "EdDSA", "private_key": pem(ED), "public_key": public_pem(ED)},
            "either a private_key or a public_key",
        ),
        ({"alg": "EdDSA", "public_key": public_pem(ED), "use": "sign"}, "needs the private_key"),
        ({"alg": "EdDSA", "private_key": public_pem(ED), "use": "sign"}, "no readable PEM"),
        ({"alg": "EdDSA", "public_key": pem(ED)}, "no readable PEM"),
        ({"alg": "EdDSA", "private_key": pem(ED, b"password"), "use": "sign"}, "without a password"),
        ({"alg": "EdDSA", "private_key": SECRET}, "no readable PEM"),
        ({"alg": "EdDSA", "private_key": pem(ed448.Ed448PrivateKey.generate())}, "takes an Ed25519 key"),
        ({"alg": "EdDSA", "public_key": public_pem(EC)}, "takes an Ed25519 key"),
        ({"alg": "ES256", "private_key": pem(ec.generate_private_key(ec.SECP384R1()))}, "curve P-256"),
        ({"alg": "ES256", "private_key": pem(ec.generate_private_key(ec.SECP256K1()))}, "curve P-256"),
        ({"alg": "ES256", "public_key": public_pem(ED)}, "curve P-256"),
        ({"alg": "RS256", "private_key": pem(WEAK_RSA), "use": "sign"}, "2048 bits or more"),
        ({"alg": "RS256", "public_key": public_pem(WEAK_RSA)}, "2048 bits or more"),
        ({"alg": "RS256", "public_key": public_pem(EC)}, "2048 bits or more"),
        ({"alg": "HS256", "secret": SECRET, "use": "encrypt"}, "use is sign or verify"),
        ({"alg": "HS256", "secret": SECRET, "kid": ""}, "visible ASCII"),
        ({"alg": "HS256", "secret": SECRET, "kid": "a b"}, "visible ASCII"),
        ({"alg": "HS256", "secret": SECRET, "kid": "k\n"}, "visible ASCII"),
        ({"alg": "HS256", "secret": SECRET, "kid": "k" * 129}, "visible ASCII"),
    ],
)
def test_a_wrong_key_is_refused_with_what_would_be_right(fields: dict[str, str], text: str) -> None:
    with pytest.raises(ValueError, match=text) as caught:
        load_key(**{"kid": "k", **fields})
    material = [fields[name] for name in ("secret", "private_key", "public_key") if fields.get(name)]
    assert not any(part[:40] in str(caught.value) for part in material)
    assert caught.value.__cause__ is None


def test_no_material_in_reprs() -> None:
    for key in (
        load_key(kid="k", alg="HS256", secret=SECRET, use="sign"),
        load_key(kid="k", alg="HS256", secret=SECRET),
        load_key(kid="k", alg="EdDSA", private_key=pem(ED), use="sign"),
    ):
        assert "correct" not in repr(key)
        assert "_material" not in repr(key)
        assert "correct" not in repr(vars(KeySet([key])))


def test_a_key_set_has_distinct_kids_and_at_most_one_signer() -> None:
    new = load_key(kid="new", alg="HS256", secret=SECRET, use="sign")
    old = load_key(kid="old", alg="HS256", secret=SECRET[::-1])
    keys = KeySet([new, old])
    assert keys.signing is new
    assert keys.get("old") is old
    assert isinstance(keys.get("new"), VerificationKey)
    assert keys.get("NEW") is None
    assert KeySet([old]).signing is None
    with pytest.raises(ValueError, match="twice"):
        KeySet([old, old])
    with pytest.raises(ValueError, match="choose one"):
        KeySet([new, load_key(kid="other", alg="HS256", secret=SECRET, use="sign")])
    with pytest.raises(ValueError, match="no key"):
        KeySet([])
