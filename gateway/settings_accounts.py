"""The settings of accounts: who may sign in, where, and what keeps it. See docs/accounts.md."""

from __future__ import annotations

import re
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, model_validator

from gateway.policy.keys import Key, load_key
from gateway.settings_values import ExactUrl, Seconds, Secret, is_loopback

_SECRET_MIN = 32
_CLAIM = re.compile(r"[A-Za-z0-9_:/.-]{1,100}")
DAY = 86_400


def is_safe(url: str) -> bool:
    """Whether what is sent there, or by there, can be read by nobody on the way: https, or this very machine."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return False
    return bool(host) and (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host)))


def _long(secret: SecretStr) -> SecretStr:
    if len(secret.get_secret_value()) < _SECRET_MIN:
        raise ValueError(f"is shorter than {_SECRET_MIN} characters; make one: openssl rand -hex 32")
    return secret


def _safe(url: str) -> str:
    if not is_safe(url):
        raise ValueError("is not https; sign-ins can be read on the way")
    return url


LongSecret = Annotated[Secret, AfterValidator(_long)]
SafeUrl = Annotated[ExactUrl, AfterValidator(_safe)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, str_min_length=1)


class OidcSettings(_Section):
    """The shop's OpenID provider. `issuer` exactly as its discovery document says; `claim`: the ID token's claim that
    is the customer id of the shop's orders.
    """

    issuer: SafeUrl = Field(examples=["https://accounts.example.com"])
    client_id: str = Field(examples=["download-gateway"])
    client_secret: Secret | None = None
    scopes: tuple[str, ...] = ("openid",)
    claim: str = "sub"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if "openid" not in self.scopes:
            raise ValueError("scopes lacks openid; write [openid, …]")
        if not _CLAIM.fullmatch(self.claim):
            raise ValueError("claim is no claim's name; write one like sub")
        return self


class HandoverSettings(_Section):
    """A page of the shop's that hands over its customer by a signed JWT: `secret` for HS…, `public_key` for others."""

    login_url: SafeUrl = Field(examples=["https://shop.example.com/downloads/sign-in"])
    issuer: str = Field(examples=["shop.example.com"])
    alg: str = "HS256"
    secret: LongSecret | None = None
    public_key: Secret | None = None

    def load(self) -> Key:
        """The key that verifies what the shop signed. Raises ValueError, which validation has done before."""
        secret, public_key = (
            None if each is None else each.get_secret_value() for each in (self.secret, self.public_key)
        )
        return load_key(
            kid="handover", alg=self.alg, use="verify", secret=secret, private_key=None, public_key=public_key
        )

    @model_validator(mode="after")
    def _check(self) -> Self:
        self.load()
        return self


class AccountsSettings(_Section):
    """Who may sign in. `secret` signs sessions, which last `session` seconds; `shops`: whose customers these are."""

    secret: LongSecret
    session: Annotated[Seconds, Field(le=30 * DAY)] = 12 * 3600
    shops: tuple[str, ...] = ()
    oidc: OidcSettings | None = None
    handover: HandoverSettings | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.oidc is not None and self.handover is not None:
            raise ValueError("has two ways to sign in; take out oidc or handover, see docs/accounts.md")
        if self.oidc is None and self.handover is None:
            raise ValueError("has to have one way to sign in; write oidc: {…} or handover: {…}, see docs/accounts.md")
        return self
