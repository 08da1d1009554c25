"""A provider that is broken, slow, hostile, or changes its keys: bounded, explained, and never believed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import jwt
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from gateway.backends import oidc as module
from gateway.backends.oidc import ANSWER_MAX, Client, OidcProvider
from gateway.errors import ProviderDown, SignInRefused
from gateway.services.sign_ins import SignIns

RETURN = "https://dl.example.com/account/return"
BEGUN = SignIns(b"k" * 32).begin("/account", None)[0]


class Fake:
    """Says what the test wants said."""

    def __init__(self) -> None:
        self.issuer = ""
        self.changes: dict[str, object] = {}
        self.keys = {"one": ec.generate_private_key(ec.SECP256R1())}
        self.signs = "one"
        self.asked: list[str] = []
        self.instead: dict[str, Callable[[], web.StreamResponse]] = {}

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path)
        if request.path in self.instead:
            return self.instead[request.path]()
        if request.path == "/slow":
            await asyncio.sleep(60)
        says: dict[str, Any] = {
            "/.well-known/openid-configuration": {
                "issuer": self.issuer,
                "authorization_endpoint": f"{self.issuer}/authorize",
                "token_endpoint": f"{self.issuer}/token",
                "jwks_uri": f"{self.issuer}/keys",
                **self.changes,
            },
            "/keys": {
                "keys": [
                    {**ECAlgorithm.to_jwk(key.public_key(), as_dict=True), "kid": kid} for kid, key in self.keys.items()
                ]
            },
            "/token": {"id_token": self._token()},
        }
        return web.json_response(says[request.path])

    def _token(self) -> str:
        now = int(time.time())
        claims = {"iss": self.issuer, "aud": "us", "sub": "c-7", "nonce": BEGUN.nonce, "iat": now, "exp": now + 60}
        return jwt.encode(claims, self.keys[self.signs], algorithm="ES256", headers={"kid": self.signs})


@pytest.fixture
async def fake() -> AsyncIterator[Fake]:
    said = Fake()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", said.handle)
    async with TestServer(app) as server:
        said.issuer = f"http://127.0.0.1:{server.port}"
        yield said


def provider(fake: Fake) -> OidcProvider:
    return OidcProvider(Client(fake.issuer, "us", RETURN, "secret"), timeout=0.3)


async def test_it_is_asked_once_for_what_stays(fake: Fake) -> None:
    async with provider(fake) as asked:
        await asyncio.gather(*(asked.address(BEGUN) for _ in range(20)))
        for _ in range(3):
            assert await asked.customer({"code": "c"}, BEGUN) == "c-7"
    assert sorted(fake.asked) == ["/.well-known/openid-configuration", "/keys", "/token", "/token", "/token"]


async def test_a_new_key_is_fetched_and_an_unknown_one_not_again_and_again(
    fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with provider(fake) as asked:
        await asked.customer({"code": "c"}, BEGUN)
        fake.keys["two"] = ec.generate_private_key(ec.SECP256R1())
        fake.signs = "two"
        with pytest.raises(SignInRefused):
            await asked.customer({"code": "c"}, BEGUN)
        assert fake.asked.count("/keys") == 1
        monkeypatch.setattr(module, "AGAIN_AFTER", -1.0)
        assert await asked.customer({"code": "c"}, BEGUN) == "c-7"
        assert fake.asked.count("/keys") == 2


async def test_what_it_said_is_kept_while_it_is_silent(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FRESH", -1.0)
    async with provider(fake) as asked:
        await asked.address(BEGUN)
        fake.instead["/.well-known/openid-configuration"] = lambda: web.Response(status=500)
        assert (await asked.address(BEGUN)).startswith(fake.issuer)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"issuer": "https://evil.example"}, "calls itself 'https://evil.example', another name"),
        ({"issuer": None}, "another name"),
        ({"token_endpoint": "http://evil.example/token"}, "token_endpoint"),
        ({"token_endpoint": None}, "token_endpoint"),
        ({"jwks_uri": "file:///etc/passwd"}, "jwks_uri"),
        ({"jwks_uri": ["https://a.example"]}, "jwks_uri"),
        ({"authorization_endpoint": "javascript:alert(1)"}, "authorization_endpoint"),
        ({"authorization_endpoint": "javascript://127.0.0.1/%0aalert(1)"}, "authorization_endpoint"),
        ({"authorization_endpoint": "https://[x"}, "authorization_endpoint"),
    ],
)
async def test_what_it_says_of_itself_is_looked_at(fake: Fake, changes: dict[str, object], said: str) -> None:
    fake.changes = changes
    async with provider(fake) as asked:
        with pytest.raises(ProviderDown, match=said):
            await asked.address(BEGUN)


@pytest.mark.parametrize("path", ["/.well-known/openid-configuration", "/keys", "/token"])
@pytest.mark.parametrize(
    "answer",
    [
        lambda: web.Response(text="x" * (ANSWER_MAX + 1)),
        lambda: web.Response(text="not json"),
        lambda: web.Response(text="[" * 100_000),
        lambda: web.json_response(["a", "list"]),
        lambda: web.json_response({"error": "secret-in-error"}, status=500),
        lambda: web.HTTPFound("/elsewhere"),
        lambda: web.json_response({}),
    ],
)
async def test_an_answer_that_is_none(fake: Fake, path: str, answer: Callable[[], web.StreamResponse]) -> None:
    fake.instead[path] = answer
    async with provider(fake) as asked:
        with pytest.raises(ProviderDown) as down:
            await asked.customer({"code": "the-code"}, BEGUN)
    assert "/elsewhere" not in fake.asked
    for secret in ("the-code", "secret-in-error", BEGUN.verifier):
        assert secret not in str(down.value)


async def test_an_answer_that_does_not_come(fake: Fake) -> None:
    fake.changes = {"token_endpoint": f"{fake.issuer}/slow"}
    began = time.monotonic()
    async with provider(fake) as asked:
        with pytest.raises(ProviderDown, match="in time"):
            await asked.customer({"code": "c"}, BEGUN)
    assert time.monotonic() - began < 1


@pytest.mark.parametrize("iss", ["https://evil.example", ""])
async def test_an_answer_of_another_provider(fake: Fake, iss: str) -> None:
    async with provider(fake) as asked:
        with pytest.raises(SignInRefused, match="another provider"):
            await asked.customer({"code": "c", "iss": iss}, BEGUN)
    fake.changes = {"authorization_response_iss_parameter_supported": True}
    async with provider(fake) as asked:
        with pytest.raises(SignInRefused, match="another provider"):
            await asked.customer({"code": "c"}, BEGUN)
        assert await asked.customer({"code": "c", "iss": fake.issuer}, BEGUN) == "c-7"


async def test_who_waits_for_its_keys_does_not_wait_in_a_row(fake: Fake) -> None:
    fake.changes = {"jwks_uri": f"{fake.issuer}/slow"}
    async with provider(fake) as asked:
        began = time.monotonic()
        back = (asked.customer({"code": "c"}, BEGUN) for _ in range(8))
        told = await asyncio.gather(*back, return_exceptions=True)
        assert time.monotonic() - began < 1
    assert all(isinstance(each, ProviderDown) and "in time" in str(each) for each in told)
    assert fake.asked.count("/slow") == 1


async def test_who_waits_for_a_silent_provider_does_not_wait_in_a_row(fake: Fake) -> None:
    fake.instead["/.well-known/openid-configuration"] = lambda: web.Response(status=500)
    async with provider(fake) as asked:
        told = await asyncio.gather(*(asked.address(BEGUN) for _ in range(20)), return_exceptions=True)
    assert [str(each) for each in told] == ["answers 500 at /.well-known/openid-configuration"] * 20
    assert len(fake.asked) == 1
