"""The check of `gateway doctor` for accounts: whether the shop's provider can be asked, and is the one meant."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from gateway.backends.oidc import OidcProvider
from gateway.bootstrap.accounts import ENTER, RETURN, oidc_client
from gateway.errors import ProviderDown
from gateway.policy.checkup import Check, Line
from gateway.services.checkup import PATIENCE, Report
from gateway.settings import Settings


def account_checks(settings: Settings) -> dict[Check, Callable[[Report], Awaitable[None]]]:
    """What is to be looked at with these settings."""
    if settings.accounts is None:
        return {}

    async def look(report: Report) -> None:
        report(await _look(settings))

    return {"accounts": look}


async def _look(settings: Settings) -> Line:
    accounts = settings.accounts
    if accounts is None or accounts.oidc is None:
        said = f"the shop's page hands customers over, at {settings.base_url}{ENTER}; whether it does is not asked here"
        return Line("ok", "accounts", said)
    issuer = accounts.oidc.issuer
    async with OidcProvider(oidc_client(settings, accounts.oidc), timeout=PATIENCE / 2 - 0.5) as provider:
        try:
            await provider.look()
        except ProviderDown as error:
            return Line("FAIL", "accounts", f"nobody can sign in: {issuer} {error}; see accounts.oidc.issuer")
    said = f"{issuer} answers, and is the one; register {settings.base_url}{RETURN} there as redirect URI"
    return Line("ok", "accounts", said)
