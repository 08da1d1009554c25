"""A provider that this project did not write, as a client of it sees it, and a browser that keeps its cookies."""

from __future__ import annotations

import re
from dataclasses import dataclass
from http.cookies import SimpleCookie

from aiohttp import ClientResponse, ClientSession, CookieJar
from yarl import URL

PASSWORD = "correct horse battery staple"
STEPS_MAX = 12
_CSRF = re.compile(r'name="csrf_token"[^>]*value="([^"]+)"')


@dataclass(frozen=True)
class Registered:
    """A client of the provider's."""

    issuer: str
    client_id: str
    secret: str
    redirect_uri: str


@dataclass(frozen=True)
class Provider:
    issuer: str

    async def register(self, redirect_uri: str, method: str = "client_secret_basic") -> Registered:
        """A new client (OpenID Connect Dynamic Client Registration)."""
        asked = {
            "client_name": "Downloads",
            "redirect_uris": [redirect_uri],
            "grant_types": ["authorization_code"],
            "response_types": ["code"],
            "scope": "openid profile",
            "token_endpoint_auth_method": method,
        }
        async with ClientSession() as client, client.post(f"{self.issuer}/oauth/register", json=asked) as answer:
            said = await answer.json()
        return Registered(self.issuer, said["client_id"], said["client_secret"], redirect_uri)


class _Jar(CookieJar):
    """Browsers take this very machine for secure (Secure Contexts §3.1); aiohttp must be told each port."""

    def filter_cookies(self, request_url: URL) -> SimpleCookie:
        return super().filter_cookies(request_url.with_scheme("https") if request_url.scheme == "http" else request_url)


class Browser:
    """Keeps cookies, also Secure ones from this very machine, as browsers do; follows no redirect by itself."""

    def __init__(self) -> None:
        self.jar = _Jar(unsafe=True)
        self.client = ClientSession(cookie_jar=self.jar, headers={"Accept": "text/html"})

    def cookies(self, prefix: str) -> dict[str, str]:
        """Those whose names begin so."""
        return {cookie.key: cookie.value for cookie in self.jar if cookie.key.startswith(prefix)}

    async def get(self, url: str, **headers: str) -> ClientResponse:
        answer = await self.client.get(URL(url, encoded=True), allow_redirects=False, headers=headers)
        await answer.read()
        return answer

    async def post(self, url: str, form: dict[str, str]) -> ClientResponse:
        answer = await self.client.post(URL(url, encoded=True), data=form, allow_redirects=False)
        await answer.read()
        return answer

    async def sign_in_at(self, address: str, customer: str, until: str, *, says: str = "accept") -> str:
        """What a person does at the provider, from `address` until it sends the browser to `until`…; that address."""
        url = address
        for _ in range(STEPS_MAX):
            if url.startswith(until):
                return url
            answer = await self.get(url)
            if "Location" not in answer.headers:
                text = await answer.text()
                csrf = _CSRF.search(text)
                form = {"csrf_token": csrf[1]} if csrf else {}
                form |= {"login": customer} if 'name="login"' in text else {}
                form |= {"password": PASSWORD} if 'type="password"' in text else {}
                answer = await self.post(url, form | {"answer": says})
            url = str(answer.url.join(URL(answer.headers["Location"], encoded=True)))
        raise AssertionError(f"the provider does not lead back, but to {url}")
