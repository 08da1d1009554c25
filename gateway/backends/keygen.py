"""New signing keys, from the operating system's randomness: the one place that makes key material."""

from __future__ import annotations

import secrets

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from gateway.policy.keys import ALGORITHMS, RSA_BITS, SECRET_BYTES, PrivateKey, load_key


def generate(kid: str, alg: str) -> dict[str, str]:
    """The settings fields of a new key that signs, to paste under `keys:`.

    An HS* secret is base64url text of as many random bytes as the hash is long, and is used as that text.
    Raises ValueError for an unknown `alg` or a `kid` that the settings would refuse.
    """
    if alg not in ALGORITHMS:
        raise ValueError(f"alg is one of {' '.join(ALGORITHMS)}")
    fields = {"kid": kid, "alg": alg}
    if alg in SECRET_BYTES:
        fields["secret"] = secrets.token_urlsafe(SECRET_BYTES[alg])
    else:
        pem = _new_private_key(alg).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        fields["private_key"] = pem.decode()
    fields["use"] = "sign"
    load_key(**fields)
    return fields


def verification_fields(fields: dict[str, str]) -> dict[str, str]:
    """The settings fields for a gateway that only verifies what the key of `fields` (from `generate`) signs."""
    shared = {"kid": fields["kid"], "alg": fields["alg"], "use": "verify"}
    if "secret" in fields:
        return {**shared, "secret": fields["secret"]}
    public = load_pem_private_key(fields["private_key"].encode(), password=None).public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return {**shared, "public_key": pem.decode()}


def _new_private_key(alg: str) -> PrivateKey:
    if alg == "EdDSA":
        return Ed25519PrivateKey.generate()
    if alg == "ES256":
        return generate_private_key(SECP256R1())
    return generate_rsa_key(public_exponent=65537, key_size=RSA_BITS)
