"""The mitmproxy door on its services, in one process of its own: there is no supervisor here."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from gateway.bootstrap.redis import hold_embedded_redis
from gateway.bootstrap.services import open_services
from gateway.bootstrap.told import Told
from gateway.front.answers import door_settings
from gateway.mitm.door import Door
from gateway.settings import Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Opened:
    """The door, and what is set to have the files read anew."""

    door: Door
    reload: asyncio.Event


class _KeepsNothing:
    """A Keeper: there are no other workers to keep good files for."""

    def keep(self, what: str, copies: Mapping[str, int]) -> None:
        """See Keeper.keep."""

    def kept(self, what: str) -> Mapping[str, int]:
        """See Keeper.kept."""
        return {}


@asynccontextmanager
async def open_door(settings: Settings) -> AsyncIterator[Opened]:
    """Everything until the end of the block; then what has ended is settled. Raises SettingsError."""
    told = _told()
    async with hold_embedded_redis(settings), open_services(settings, told) as services:
        # The wire's own connect comes first, and only then the store's first byte.
        silence = settings.origin.connect_timeout + settings.origin.read_timeout
        yield Opened(Door(door_settings(settings), services, silence=silence), told.reload)


def _told() -> Told:
    missing = ""

    def on_ledger(wrong: str, goes_on: bool) -> None:
        nonlocal missing
        if wrong != missing:
            if wrong:
                log.critical("%s: %s", "downloads go on unchecked" if goes_on else "nothing is served", wrong)
            else:
                log.info("Redis answers")
        missing = wrong

    def on_files(what: str, version: str, wrong: str) -> None:
        if wrong:
            log.warning("%s: the file is wrong, and version %s stays in force: %s", what, version, wrong)

    return Told(
        on_ledger,
        settled=lambda running: None,
        reloaded=lambda what, outcome: None,
        files=on_files,
        verdict=lambda rules, rule, verdict: None,
        rolled_back=lambda back: None,
        helped=lambda outcome: None,
        reload=asyncio.Event(),
        keeper=_KeepsNothing(),
    )
