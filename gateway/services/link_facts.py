"""What a link page can say of its files beyond their names: how large, how often still, and their checksums.

Law: nobody waits for it, and it counts nothing. What cannot be asked in time is not said.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from gateway.errors import GatewayError
from gateway.policy.model import Allow, StoredObject
from gateway.ports import Ledger
from gateway.services.faults import describe
from gateway.services.gatekeeper import Opened
from gateway.store_ports import ObjectStore

log = logging.getLogger(__name__)

PATIENCE = 0.12
"""Seconds; the page is to be there in 0.2."""


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What is known of one file, None where nothing is. `limit`: its downloads in all, `left`: those not yet charged.

    `used_up`: none is left, and none that has begun could go on.
    """

    size: int | None = None
    limit: int | None = None
    left: int | None = None
    used_up: bool = False
    sha256: str = ""


async def look(opened: Opened, store: ObjectStore, ledger: Ledger, repeat_window: int) -> list[FileFacts]:
    """The facts of the link's files, in their sequence; `repeat_window` (s) as in Ledger.is_unfinished.

    Raises nothing but CancelledError.
    """
    stored: dict[str, StoredObject] = {}
    left: dict[str, tuple[int, bool]] = {}
    keys = dict.fromkeys(allow.file.key for _, allow in opened.files if allow.file.key is not None)
    with suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(
                _count(opened, ledger, repeat_window, left), *(_stat(key, store, stored) for key in keys)
            )
    return [_facts(allow, store, stored, left) for _, allow in opened.files]


def limit_of(allow: Allow) -> int | None:
    """Downloads of the file in all; None: as many as one likes."""
    return next((charge.limit for charge in allow.charges if charge.kind == "count"), None)


def _facts(
    allow: Allow, store: ObjectStore, stored: Mapping[str, StoredObject], left: Mapping[str, tuple[int, bool]]
) -> FileFacts:
    known = stored.get(allow.file.key or "")
    rest, used_up = left.get(allow.file.identity, (None, False))
    return FileFacts(
        None if known is None else known.size,
        limit_of(allow),
        rest,
        used_up,
        "" if known is None else store.sums(known).sha256,
    )


async def _stat(key: str, store: ObjectStore, stored: dict[str, StoredObject]) -> None:
    try:
        stored[key] = await store.stat(key)
    except GatewayError:
        pass  # whoever presses the button is told
    except Exception as error:  # noqa: BLE001  a size is not worth a page
        log.error("a file of a link page could not be looked up: %s", describe(error))


async def _count(opened: Opened, ledger: Ledger, repeat_window: int, left: dict[str, tuple[int, bool]]) -> None:
    token_key = opened.claims.token_key
    limits = {allow.file.identity: limit for _, allow in opened.files if (limit := limit_of(allow)) is not None}
    try:
        used = await ledger.usage(opened.shard, token_key, list(limits))
        for identity, limit in limits.items():
            rest = max(0, limit - used.get(identity, 0))
            goes_on = rest > 0 or await ledger.is_unfinished(opened.shard, token_key, identity, repeat_window)
            left[identity] = rest, not goes_on
    except GatewayError as error:
        log.warning("a link page says nothing of what is left: %s", error)
