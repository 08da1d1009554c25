"""Accounts: who says which customer somebody is, and what keeps that."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal

from gateway.account_ports import IdentityProvider
from gateway.backends.oidc import Client, OidcProvider
from gateway.backends.redis_asked import RedisAsked
from gateway.backends.redis_client import Wire
from gateway.backends.redis_links import RedisLinks
from gateway.bootstrap.mail import holding_of
from gateway.order_ports import OrderBook
from gateway.policy.ruleset import RuleSet
from gateway.services.addressing import Addressing
from gateway.services.handover import Handover, Shop
from gateway.services.sessions import Sessions
from gateway.services.short_links import ShortLinks
from gateway.services.sign_ins import SignIns
from gateway.settings import Settings
from gateway.settings_accounts import AccountsSettings, HandoverSettings, OidcSettings

RETURN = "/account/return"
ENTER = "/account/enter"


@dataclass(frozen=True, slots=True)
class Accounts:
    """What signing in takes. `back`: the step of `/account` to which the provider sends the browser."""

    sessions: Sessions
    sign_ins: SignIns
    provider: IdentityProvider
    back: Literal["return", "enter"]
    short_links: ShortLinks


def open_sessions(accounts: AccountsSettings) -> Sessions:
    """Who reads and writes sign-ins, by these settings."""
    return Sessions(accounts.secret.get_secret_value(), seconds=accounts.session, shops=accounts.shops)


@asynccontextmanager
async def open_accounts(
    settings: Settings, wire: Wire, rules: Callable[[], RuleSet], book: OrderBook | None
) -> AsyncIterator[Accounts | None]:
    """None where nobody can sign in. The provider is asked when the first one does."""
    accounts = settings.accounts
    if accounts is None:
        yield None
        return
    sessions = open_sessions(accounts)
    sign_ins = SignIns(sessions.key("sign-in"))
    addressing = Addressing(settings.key_set(), settings.issuer, "", rules, holding_of(settings))
    short = ShortLinks(addressing, RedisLinks(wire, settings.shards), book, time.time)
    if accounts.oidc is not None:
        async with OidcProvider(oidc_client(settings, accounts.oidc)) as provider:
            yield Accounts(sessions, sign_ins, provider, "return", short)
    elif accounts.handover is not None:
        handover = Handover(_shop(settings, accounts.handover), RedisAsked(wire, settings.shards))
        yield Accounts(sessions, sign_ins, handover, "enter", short)


def oidc_client(settings: Settings, section: OidcSettings) -> Client:
    """How the provider knows us."""
    secret = section.client_secret
    return Client(
        section.issuer,
        section.client_id,
        f"{settings.base_url}{RETURN}",
        None if secret is None else secret.get_secret_value(),
        section.scopes,
        section.claim,
    )


def _shop(settings: Settings, section: HandoverSettings) -> Shop:
    key = section.secret or section.public_key
    if key is None:
        raise TypeError("validation has asked for a secret or a public_key before")
    return Shop(section.login_url, f"{settings.base_url}{ENTER}", section.issuer, section.alg, key.get_secret_value())
