"""Who says which customer somebody is: the shop's identity provider. The docstrings are the contract."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class SignIn:
    """One sign-in that has begun in one browser, which alone knows it: it is in no address and no log.

    `state` goes with the browser to the shop and back, `nonce` comes back inside what the shop signs; `verifier` is
    shown when its code is redeemed (PKCE, RFC 7636). `to`: the path of ours that it returns to.
    """

    state: str = field(repr=False)
    nonce: str = field(repr=False)
    verifier: str = field(repr=False)
    to: str = field(repr=False)
    begun_at: int
    """Unix seconds."""


class IdentityProvider(Protocol):
    """Tells who somebody is, by way of the browser."""

    async def address(self, begun: SignIn, *, anew: bool = False) -> str:
        """Where the browser is to be sent. `anew`: to sign in even if somebody has. Raises ProviderDown."""

    async def customer(self, answer: Mapping[str, str], begun: SignIn) -> str:
        """The customer's id, from the query with which the browser came back.

        Raises SignInRefused where the shop or its answer says no, ProviderDown where it could not be asked.
        """
