"""The shop's OpenID provider: code flow with PKCE (OpenID Connect Core §3.1, RFC 7636). See IdentityProvider.

Law: whatever the provider answers is bounded in time and size, and no error's text has a code or a token in it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self
from urllib.parse import quote_plus, urlencode, urlsplit

from aiohttp import ClientError, ClientSession, ClientTimeout, DummyCookieJar, TCPConnector

from gateway.account_ports import SignIn
from gateway.backends.oidc_tokens import IdTokens, Jwk
from gateway.errors import ProviderDown, SignInRefused
from gateway.settings_accounts import is_safe

TIMEOUT = 5.0
ANSWER_MAX = 256 * 1024
FRESH = 3600.0
"""Seconds for which what the provider says of itself is believed."""
SILENT_FOR = 3.0
"""Seconds for which a provider that could not be asked is not asked the same again."""
AT_ONCE = 16
AGAIN_AFTER = 10.0
"""Seconds between two looks at its keys: an ID token may name any key."""
WELL_KNOWN = "/.well-known/openid-configuration"
_KNOWN_ERRORS = frozenset(
    {
        "access_denied",
        "account_selection_required",
        "consent_required",
        "interaction_required",
        "invalid_request",
        "invalid_scope",
        "login_required",
        "server_error",
        "temporarily_unavailable",
        "unauthorized_client",
        "unsupported_response_type",
    }
)
BASIC, POST = "client_secret_basic", "client_secret_post"
_OK = 200
_NAME_SHOWN = 200


@dataclass(frozen=True, slots=True)
class Client:
    """How we are known to the provider. `claim` of its ID tokens is the shop's customer id."""

    issuer: str
    client_id: str
    redirect_uri: str
    secret: str | None = field(default=None, repr=False)
    scopes: tuple[str, ...] = ("openid",)
    claim: str = "sub"


@dataclass(frozen=True, slots=True)
class Discovered:
    """What the provider says of itself (OpenID Connect Discovery §3)."""

    authorization: str
    token: str
    jwks: str
    secret_signs: bool
    ways: tuple[str, ...]
    """In which it may take our secret, the likeliest first."""
    names_itself: bool
    """Whether each of its answers says who it is (RFC 9207)."""


class OidcProvider:
    """One provider, asked by one worker."""

    def __init__(self, client: Client, *, timeout: float = TIMEOUT) -> None:
        """Nothing is asked yet. `timeout` in seconds, for each answer as a whole."""
        self._client = client
        self._timeout = timeout
        self._session: ClientSession | None = None
        self._asking = asyncio.Lock()
        self._discovered: Discovered | None = None
        self._discovered_at = 0.0
        self._failures: dict[str, tuple[str, float]] = {}
        self._keys: tuple[Jwk, ...] = ()
        self._keys_at = 0.0
        self._ways: tuple[str, ...] = ()

    async def __aenter__(self) -> Self:
        self._session = ClientSession(
            connector=TCPConnector(limit=AT_ONCE),
            cookie_jar=DummyCookieJar(),
            timeout=ClientTimeout(total=self._timeout),
            headers={"User-Agent": "download-gateway", "Accept": "application/json"},
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def address(self, begun: SignIn, *, anew: bool = False) -> str:
        """See IdentityProvider.address."""
        found = await self.discover()
        asked = {
            "response_type": "code",
            "client_id": self._client.client_id,
            "redirect_uri": self._client.redirect_uri,
            "scope": " ".join(self._client.scopes),
            "state": begun.state,
            "nonce": begun.nonce,
            "code_challenge": urlsafe_b64encode(hashlib.sha256(begun.verifier.encode()).digest()).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
            **({"prompt": "login"} if anew else {}),
        }
        return f"{found.authorization}{'&' if '?' in found.authorization else '?'}{urlencode(asked)}"

    async def customer(self, answer: Mapping[str, str], begun: SignIn) -> str:
        """See IdentityProvider.customer."""
        found = await self.discover()
        named = answer.get("iss")
        if named != self._client.issuer and (named is not None or found.names_itself):
            raise SignInRefused("the answer came from another provider")
        if "error" in answer:
            # What it may say beside is anybody's text: the address of the return is open to all.
            said = answer["error"]
            raise SignInRefused(f"the provider said {said if said in _KNOWN_ERRORS else 'no'}")
        if not answer.get("code"):
            raise SignInRefused("the provider sent no code")
        token = await self._redeem(found, answer["code"], begun.verifier)
        tokens = IdTokens(
            self._client.issuer,
            self._client.client_id,
            self._client.claim,
            self._client.secret,
            secret_signs=found.secret_signs,
        )
        keys = await self._keys_with(found, tokens.key_id(token))
        return tokens.customer(token, keys, begun.nonce)

    async def look(self) -> None:
        """Ask for all that a sign-in needs to know of it. Raises ProviderDown."""
        await self._keys_with(await self.discover(), None)

    async def discover(self) -> Discovered:
        """What the provider says of itself, at most an hour old; older where it is silent. Raises ProviderDown."""
        async with self._asking:
            now = time.monotonic()
            if self._discovered is not None and now - self._discovered_at < FRESH:
                return self._discovered
            try:
                said = await self._get(self._client.issuer.rstrip("/") + WELL_KNOWN)
                self._discovered, self._discovered_at = _discovered(said, self._client), now
            except ProviderDown:
                if self._discovered is None:
                    raise
                # Each sign-in would otherwise wait for a provider that still answers at its other addresses.
                self._discovered_at = now - FRESH + AGAIN_AFTER
            return self._discovered

    async def _keys_with(self, found: Discovered, kid: str | None) -> tuple[Jwk, ...]:
        """The provider's keys, read again where they are old or lack this one: providers change them."""
        async with self._asking:
            now = time.monotonic()
            age = now - self._keys_at
            known = self._keys and (kid is None or any(key.get("kid") == kid for key in self._keys))
            if not self._keys or age > FRESH or (not known and age > AGAIN_AFTER):
                said = (await self._get(found.jwks)).get("keys")
                if not isinstance(said, list):
                    raise ProviderDown("its keys are no JSON Web Key Set")
                self._keys, self._keys_at = tuple(key for key in said if isinstance(key, dict)), now
            return self._keys

    async def _redeem(self, found: Discovered, code: str, verifier: str) -> str:
        """The ID token for a code (RFC 6749 §4.1.3)."""
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._client.redirect_uri,
            "code_verifier": verifier,
        }
        status, said = await self._shown(found, form)
        if status != _OK:
            wrong = said.get("error")
            if wrong == "invalid_grant":
                raise SignInRefused("the provider does not take its code (any more)")
            known = wrong if wrong in ("invalid_client", "unauthorized_client", "invalid_request") else "no"
            raise ProviderDown(f"answers {status} ({known}) to a code; see accounts.oidc.client_id and client_secret")
        token = said.get("id_token")
        if not isinstance(token, str):
            raise ProviderDown("sends no ID token; accounts.oidc.scopes must have openid")
        return token

    async def _shown(self, found: Discovered, form: Mapping[str, str]) -> tuple[int, Mapping[str, object]]:
        """Send the form with our secret, in the way that this provider has for us: it need not say which one."""
        secret, name = self._client.secret, self._client.client_id
        if secret is None:
            return await self._ask("POST", found.token, form={**form, "client_id": name})
        # Both parts are written as in a form before they are joined (RFC 6749 §2.3.1).
        pair = b64encode(f"{quote_plus(name)}:{quote_plus(secret)}".encode()).decode()
        status, said = 0, dict[str, object]()
        for way in self._ways or found.ways:
            more = {} if way == BASIC else {"client_id": name, "client_secret": secret}
            headers = {"Authorization": f"Basic {pair}"} if way == BASIC else {}
            status, told = await self._ask("POST", found.token, form={**form, **more}, headers=headers)
            if told.get("error") != "invalid_client":
                self._ways = (way,)
                return status, told
            said = dict(told)
        self._ways = ()
        return status, said

    async def _get(self, url: str) -> Mapping[str, object]:
        failure, until = self._failures.get(url, ("", 0.0))
        if time.monotonic() < until:
            raise ProviderDown(failure)
        try:
            status, said = await self._ask("GET", url)
            if status != _OK:
                raise ProviderDown(f"answers {status} at {urlsplit(url).path}")
        except ProviderDown as error:
            # Who waited meanwhile must not wait as long again, one after the other.
            self._failures[url] = (str(error), time.monotonic() + SILENT_FOR)
            raise
        return said

    async def _ask(
        self, method: str, url: str, *, form: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Mapping[str, object]]:
        if self._session is None:
            raise TypeError("enter the provider before it is asked")
        try:
            # Also where a name look-up or a TLS handshake hangs, which aiohttp's own limit may not reach.
            async with (
                asyncio.timeout(self._timeout),
                self._session.request(method, url, data=form, headers=headers, allow_redirects=False) as answer,
            ):
                body = await answer.content.read(ANSWER_MAX + 1)
                while not answer.content.at_eof() and len(body) <= ANSWER_MAX:
                    body += await answer.content.readany()
        except TimeoutError:
            raise ProviderDown(f"{urlsplit(url).netloc} gave no answer in time") from None
        except (ClientError, OSError, ValueError) as error:
            raise ProviderDown(f"{urlsplit(url).netloc} cannot be reached ({type(error).__name__})") from None
        if len(body) > ANSWER_MAX:
            raise ProviderDown(f"{urlsplit(url).netloc} sends more than {ANSWER_MAX} bytes")
        try:
            said = json.loads(body)
        except (ValueError, RecursionError):
            said = None
        if not isinstance(said, dict):
            if answer.status == _OK:
                raise ProviderDown(f"{urlsplit(url).netloc} does not send JSON at {urlsplit(url).path}")
            said = {}
        return answer.status, said


def _discovered(said: Mapping[str, object], client: Client) -> Discovered:
    issuer = said.get("issuer")
    if issuer != client.issuer:
        named = f"calls itself {issuer[:_NAME_SHOWN]!a}" if isinstance(issuer, str) else "does not name itself"
        raise ProviderDown(f"{named}, another name than accounts.oidc.issuer; write it just as it does")
    methods = said.get("token_endpoint_auth_methods_supported")
    methods = methods if isinstance(methods, list) else [BASIC]
    algorithms = said.get("id_token_signing_alg_values_supported", [])
    return Discovered(
        authorization=_endpoint(said, "authorization_endpoint"),
        token=_endpoint(said, "token_endpoint"),
        jwks=_endpoint(said, "jwks_uri"),
        secret_signs=isinstance(algorithms, list) and "HS256" in algorithms,
        ways=tuple(way for way in (BASIC, POST) if way in methods) or (BASIC,),
        names_itself=said.get("authorization_response_iss_parameter_supported") is True,
    )


def _endpoint(said: Mapping[str, object], name: str) -> str:
    address = said.get(name)
    if not isinstance(address, str) or not is_safe(address) or "#" in address:
        raise ProviderDown(f"says no {name} that can be used (https)")
    return address
