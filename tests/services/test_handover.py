"""What a shop's page may sign, and what it may not: every way in which a hand-over can be wrong is refused."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway.account_ports import SignIn
from gateway.errors import LedgerDown, SignInRefused
from gateway.services.handover import Handover, Shop

NOW = 1_795_228_200
SECRET = "a secret shared with the shop, 40 long!!"
STATE = "s" * 24
BEGUN = SignIn(STATE, "n" * 24, "v" * 43, "/account", NOW)
PRIVATE = Ed25519PrivateKey.generate()
PUBLIC = PRIVATE.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
GOOD: dict[str, object] = {
    "iss": "shop.example.com",
    "aud": "download-gateway-account",
    "sub": "c-7",
    "iat": NOW,
    "exp": NOW + 60,
    "jti": "h1",
    "nonce": STATE,
}


class Once:
    def __init__(self) -> None:
        self.known: dict[str, str] = {}
        self.seconds = 0

    async def first(self, name: str, begun: str, seconds: int) -> str:
        self.seconds = seconds
        return self.known.setdefault(name, begun)


def handover(alg: str = "HS256", key: str = SECRET, once: Once | None = None) -> Handover:
    shop = Shop("https://shop.example.com/in?a=b", "https://dl.example.com/account/enter", "shop.example.com", alg, key)
    return Handover(shop, once or Once(), clock=lambda: NOW)


def signed(claims: dict[str, object], key: object = SECRET, alg: str = "HS256") -> dict[str, str]:
    return {"state": STATE, "handover": jwt.encode(claims, key, algorithm=alg)}


async def test_where_the_browser_is_sent() -> None:
    address = urlsplit(await handover().address(BEGUN))
    assert dict(parse_qsl(address.query)) == {
        "a": "b",
        "state": STATE,
        "return_to": "https://dl.example.com/account/enter",
    }
    assert "prompt=login" in await handover().address(BEGUN, anew=True)


@pytest.mark.parametrize(("sub", "customer"), [("c-7", "c-7"), ("żółw 7", "żółw 7")])
async def test_who_is_handed_over(sub: str, customer: str) -> None:
    assert await handover().customer(signed({**GOOD, "sub": sub}), BEGUN) == customer
    assert await handover("EdDSA", PUBLIC).customer(signed(GOOD, PRIVATE, "EdDSA"), BEGUN) == "c-7"


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "other.example.com"},
        {"aud": "download-gateway"},
        {"aud": "download-gateway-session"},
        {"aud": ["download-gateway-account", "x"]},
        {"sub": ""},
        {"sub": " c-7"},
        {"sub": "c\n7"},
        {"sub": "x" * 256},
        {"sub": None},
        {"iat": NOW + 61},
        {"iat": None},
        {"iat": True},
        {"iat": NOW + 0.5},
        {"exp": NOW},
        {"exp": NOW + 301},
        {"exp": 10**50},
        {"exp": None},
        {"exp": str(NOW + 60)},
        {"jti": ""},
        {"jti": "x" * 129},
        {"jti": None},
        {"nonce": "t" * 24},
        {"nonce": None},
        {"nonce": ""},
    ],
    ids=str,
)
async def test_what_is_wrong_in_it(changes: dict[str, object]) -> None:
    claims = {name: value for name, value in {**GOOD, **changes}.items() if value is not None}
    once = Once()
    with pytest.raises(SignInRefused) as refused:
        await handover(once=once).customer(signed(claims), BEGUN)
    assert not once.known
    assert "c-7" not in str(refused.value)


async def test_who_signed_it() -> None:
    none = {"state": STATE, "handover": jwt.encode(GOOD, None, algorithm="none")}
    for wrong in (signed(GOOD, "o" * 40), signed(GOOD, SECRET * 2, "HS512"), none, {"handover": "x"}, {}):
        with pytest.raises(SignInRefused):
            await handover().customer(wrong, BEGUN)
    # The public key is known to everybody: it must not do as a secret.
    header, payload = jwt.encode(GOOD, "x" * 40).split(".")[:2]
    forged = jwt.api_jws.PyJWS()._algorithms["HS256"].sign(f"{header}.{payload}".encode(), PUBLIC.encode())
    token = f"{header}.{payload}.{jwt.utils.base64url_encode(forged).decode()}"
    with pytest.raises(SignInRefused):
        await handover("EdDSA", PUBLIC).customer({"handover": token}, BEGUN)


async def test_it_is_good_once() -> None:
    once = Once()
    assert await handover(once=once).customer(signed(GOOD), BEGUN) == "c-7"
    assert once.seconds >= 60
    with pytest.raises(SignInRefused, match="before"):
        await handover(once=once).customer(signed(GOOD), BEGUN)


async def test_it_is_good_for_five_minutes_at_most() -> None:
    assert await handover().customer(signed({**GOOD, "exp": NOW + 300}), BEGUN) == "c-7"
    with pytest.raises(SignInRefused, match="longer than 300"):
        await handover().customer(signed({**GOOD, "exp": NOW + 301}), BEGUN)


async def test_without_redis_nobody_gets_in() -> None:
    class Down(Once):
        async def first(self, name: str, begun: str, seconds: int) -> str:
            raise LedgerDown("it is away")

    with pytest.raises(LedgerDown):
        await handover(once=Down()).customer(signed(GOOD), BEGUN)
