"""Keys that sign and verify tokens: one algorithm per key, chosen by the settings, never by a token's header.

All checks happen when a key is made. No key material is in a repr or in an error's text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from jwt.algorithms import Algorithm, get_default_algorithms
from jwt.exceptions import InvalidKeyError

PrivateKey = RSAPrivateKey | EllipticCurvePrivateKey | Ed25519PrivateKey
PublicKey = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey

SECRET_BYTES = {"HS256": 32, "HS384": 48, "HS512": 64}
"""The shortest secret: "a key of the same size as the hash output or larger MUST be used" (RFC 7518 §3.2)."""
ALGORITHMS = (*SECRET_BYTES, "RS256", "ES256", "EdDSA")
USES = ("sign", "verify")
RSA_BITS = 2048

_PAIRS: dict[str, tuple[type[PrivateKey], type[PublicKey], str]] = {
    "RS256": (RSAPrivateKey, RSAPublicKey, f"an RSA key of {RSA_BITS} bits or more"),
    "ES256": (EllipticCurvePrivateKey, EllipticCurvePublicKey, "an EC key on the curve P-256"),
    "EdDSA": (Ed25519PrivateKey, Ed25519PublicKey, "an Ed25519 key"),
}
_KID = re.compile(r"[!-~]{1,128}")


@dataclass(frozen=True, slots=True, eq=False)
class VerificationKey:
    """Checks signatures of one algorithm, whatever a token says of itself."""

    kid: str
    alg: str
    _algorithm: Algorithm = field(repr=False)
    _material: bytes | PublicKey = field(repr=False)

    def verify(self, message: bytes, signature: bytes) -> bool:
        """Whether `signature` is this key's over `message`; compared in constant time by the library."""
        # Not PyJWS.decode: it prepares the key anew for each token, which costs 70 µs where this costs 4.
        return self._algorithm.verify(message, self._material, signature)


@dataclass(frozen=True, slots=True, eq=False)
class SigningKey:
    """Makes signatures that `verification` checks. ES256 draws randomness inside the library; the others draw none."""

    verification: VerificationKey
    _algorithm: Algorithm = field(repr=False)
    _material: bytes | PrivateKey = field(repr=False)

    @property
    def kid(self) -> str:
        return self.verification.kid

    @property
    def alg(self) -> str:
        return self.verification.alg

    def sign(self, message: bytes) -> bytes:
        """The signature over `message`, in the form of RFC 7518 §3 or RFC 8037 §3.1."""
        return self._algorithm.sign(message, self._material)


Key = SigningKey | VerificationKey


class KeySet:
    """Keys by their id. Raises ValueError when there is none, when an id repeats, or when two are to sign."""

    def __init__(self, keys: Iterable[Key]) -> None:
        self._by_kid: dict[str, VerificationKey] = {}
        self.signing: SigningKey | None = None
        """The key with `use: sign`; None where the gateway only verifies what the shop signs."""
        for key in keys:
            if key.kid in self._by_kid:
                raise ValueError(f"the kid {key.kid} is there twice: give every key its own")
            if isinstance(key, SigningKey):
                if self.signing is not None:
                    raise ValueError(f"the keys {self.signing.kid} and {key.kid} both have use: sign; choose one")
                self.signing = key
            self._by_kid[key.kid] = key.verification if isinstance(key, SigningKey) else key
        if not self._by_kid:
            raise ValueError("there is no key: make one with gateway keys new")

    def get(self, kid: str) -> VerificationKey | None:
        """The key with exactly this id (RFC 7515 §4.1.4: case-sensitive), or None."""
        return self._by_kid.get(kid)


def load_key(
    *,
    kid: str,
    alg: str,
    use: str = "verify",
    secret: str | None = None,
    private_key: str | None = None,
    public_key: str | None = None,
) -> Key:
    """One key from its settings: `secret` for HS256/384/512, else a PEM `private_key` or (to verify) `public_key`.

    A secret is used as its text's UTF-8 bytes just as they are; it is never base64-decoded. A private key with
    `use: verify` lends only its public half. Raises ValueError with a text that says what would be right.
    """
    if not _KID.fullmatch(kid):
        raise ValueError("kid: write 1 to 128 visible ASCII characters, such as 2026-11")
    if alg not in ALGORITHMS:
        raise ValueError(f"key {kid}: alg is one of {' '.join(ALGORITHMS)}")
    if use not in USES:
        raise ValueError(f"key {kid}: use is sign or verify")
    if alg in SECRET_BYTES:
        if secret is None or private_key is not None or public_key is not None:
            raise ValueError(f"key {kid}: {alg} takes a secret and no private_key or public_key")
        return _from_secret(kid, alg, use, secret)
    if secret is not None or (private_key is None) == (public_key is None):
        raise ValueError(f"key {kid}: {alg} takes either a private_key or a public_key, and no secret")
    if use == "sign" and private_key is None:
        raise ValueError(f"key {kid}: use: sign needs the private_key")
    return _from_pem(kid, alg, use, private_key, public_key)


def _from_secret(kid: str, alg: str, use: str, secret: str) -> Key:
    algorithm = get_default_algorithms()[alg]
    try:
        material: bytes = algorithm.prepare_key(secret.encode())
    except UnicodeEncodeError:
        raise ValueError(f"key {kid}: the secret is not valid Unicode text") from None
    except InvalidKeyError:
        # A public key used as a secret is known to everyone (RFC 8725 §2.1).
        raise ValueError(
            f"key {kid}: the secret is a PEM, DER, SSH or JWK key; write random text (gateway keys new)"
        ) from None
    if len(material) < SECRET_BYTES[alg]:
        raise ValueError(f"key {kid}: a secret for {alg} is {SECRET_BYTES[alg]} bytes or more (gateway keys new)")
    verification = VerificationKey(kid, alg, algorithm, material)
    return SigningKey(verification, algorithm, material) if use == "sign" else verification


def _from_pem(kid: str, alg: str, use: str, private_pem: str | None, public_pem: str | None) -> Key:
    algorithm = get_default_algorithms()[alg]
    private_type, public_type, right = _PAIRS[alg]
    try:
        private = None if private_pem is None else load_pem_private_key(private_pem.encode(), password=None)
        public = private.public_key() if private is not None else load_pem_public_key((public_pem or "").encode())
    except (ValueError, TypeError, UnsupportedAlgorithm):
        which = "private" if private_pem is not None else "public"
        raise ValueError(f"key {kid}: {which}_key is no readable PEM of {right}, without a password") from None
    if not isinstance(public, public_type) or not _strong(public):
        raise ValueError(f"key {kid}: {alg} takes {right}")
    verification = VerificationKey(kid, alg, algorithm, public)
    if use == "sign" and isinstance(private, private_type):
        return SigningKey(verification, algorithm, private)
    return verification


def _strong(public: PublicKey) -> bool:
    if isinstance(public, RSAPublicKey):
        return public.key_size >= RSA_BITS
    if isinstance(public, EllipticCurvePublicKey):
        return isinstance(public.curve, SECP256R1)
    return True
