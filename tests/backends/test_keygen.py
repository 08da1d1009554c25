"""New keys are ones that the settings accept, and never the same twice."""

from __future__ import annotations

import pytest

from gateway.backends.keygen import generate, verification_fields
from gateway.policy.keys import ALGORITHMS, SigningKey, VerificationKey, load_key


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_a_new_key_signs_and_its_other_half_verifies(alg: str) -> None:
    fields = generate("2026-11", alg)
    assert list(fields) == ["kid", "alg", "secret" if alg.startswith("HS") else "private_key", "use"]
    signing, verifying = load_key(**fields), load_key(**verification_fields(fields))
    assert isinstance(signing, SigningKey)
    assert isinstance(verifying, VerificationKey)
    assert verifying.verify(b"message", signing.sign(b"message"))
    assert "private_key" not in verification_fields(fields)


def test_new_keys_differ() -> None:
    assert len({generate("k", "HS256")["secret"] for _ in range(10)}) == 10


@pytest.mark.parametrize(("kid", "alg"), [("k", "none"), ("k", "RS512"), ("", "HS256"), ("a b", "EdDSA")])
def test_what_the_settings_would_refuse_is_not_made(kid: str, alg: str) -> None:
    with pytest.raises(ValueError, match=r"alg is one of|visible ASCII"):
        generate(kid, alg)
