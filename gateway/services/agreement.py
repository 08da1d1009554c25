"""The device secret that all gateways share: the ledger keeps the one proposed first, and the journal remembers it."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from gateway.errors import SettingsError
from gateway.ports import Journal, Ledger

SECRET = "device_secret"  # noqa: S105  the name of one


class Agreement:
    """Call it whenever the ledger may be another one. All of `agreed` hear the secret, at once where the journal knows
    it.

    Raises what Ledger.agree raises.
    """

    def __init__(self, ledger: Ledger, journal: Journal | None, *agreed: Callable[[str], None]) -> None:
        self._ledger = ledger
        self._journal = journal
        self._agreed = agreed
        known = journal.header.get(SECRET) if journal is not None else None
        self._secret = str(known or secrets.token_hex(32))
        if known:
            self._tell(self._secret)

    async def __call__(self) -> None:
        try:
            self._secret = await self._ledger.agree(self._secret)
        except SettingsError:
            self._tell("")  # it must not be used, so nobody is let in until that is mended
            raise
        self._tell(self._secret)
        if self._journal is not None:
            self._journal.tell(**{SECRET: self._secret})

    def _tell(self, secret: str) -> None:
        for agreed in self._agreed:
            agreed(secret)
