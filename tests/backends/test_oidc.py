"""The code flow with a provider that this project did not write."""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import parse_qsl, urlsplit

import pytest
from accounts.people import Browser, Provider

from gateway.account_ports import SignIn
from gateway.backends.oidc import Client, OidcProvider
from gateway.errors import ProviderDown, SignInRefused
from gateway.services.sign_ins import SignIns

RETURN = "http://127.0.0.1:9/account/return"


def begun() -> SignIn:
    return SignIns(b"k" * 32).begin("/account", None)[0]


async def back(browser: Browser, asked: OidcProvider, sign_in: SignIn, *, says: str = "accept") -> dict[str, str]:
    """The query with which the browser comes back."""
    url = await browser.sign_in_at(await asked.address(sign_in), "c-7", RETURN, says=says)
    return dict(parse_qsl(urlsplit(url).query))


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post", "none"])
async def test_who_signs_in_is_named(provider: Provider, browser: Browser, method: str) -> None:
    known = await provider.register(RETURN, method)
    client = Client(known.issuer, known.client_id, RETURN, None if method == "none" else known.secret)
    async with OidcProvider(client) as asked:
        sign_in = begun()
        answer = await back(browser, asked, sign_in)
        assert await asked.customer(answer, sign_in) == "c-7"
        with pytest.raises(SignInRefused, match="any more"):
            await asked.customer(answer, sign_in)


async def test_a_code_is_worth_nothing_in_another_browser(provider: Provider, browser: Browser) -> None:
    known = await provider.register(RETURN)
    async with OidcProvider(Client(known.issuer, known.client_id, RETURN, known.secret)) as asked:
        for spoilt in ("verifier", "nonce"):
            sign_in = begun()
            answer = await back(browser, asked, sign_in)
            with pytest.raises(SignInRefused):
                await asked.customer(answer, replace(sign_in, **{spoilt: "o" * 43}))


async def test_who_says_no_is_refused(provider: Provider, browser: Browser) -> None:
    known = await provider.register(RETURN)
    client = Client(known.issuer, known.client_id, RETURN, known.secret, scopes=("openid", "profile"))
    async with OidcProvider(client) as asked:
        sign_in = begun()
        answer = await back(browser, asked, sign_in, says="deny")
        with pytest.raises(SignInRefused, match="access_denied"):
            await asked.customer(answer, sign_in)


async def test_a_wrong_client_secret_is_the_ops_mistake(provider: Provider, browser: Browser) -> None:
    known = await provider.register(RETURN)
    async with OidcProvider(Client(known.issuer, known.client_id, RETURN, "another")) as asked:
        sign_in = begun()
        answer = await back(browser, asked, sign_in)
        with pytest.raises(ProviderDown, match="client_secret"):
            await asked.customer(answer, sign_in)


async def test_the_issuer_is_compared_exactly(provider: Provider) -> None:
    async with OidcProvider(Client(provider.issuer + "/", "us", RETURN)) as asked:
        with pytest.raises(ProviderDown, match="issuer"):
            await asked.address(begun())
