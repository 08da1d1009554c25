"""Which version of each file was sold, and whether it is still the one that lies in the store.

Law: what cannot be asked in time is not known, and no order waits for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from gateway.errors import FileMissing, GatewayError
from gateway.policy.model import FileEntry, StoredObject
from gateway.policy.orders import Order, SoldFile
from gateway.services.faults import describe
from gateway.store_ports import ObjectStore

log = logging.getLogger(__name__)

PATIENCE, SALE_PATIENCE = 5.0, 1.5
"""Seconds; at a sale others wait behind, and a version that is not known is no harm."""
AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Changed:
    """A sold file whose object is `replaced` by `now`, or is `missing`; `line_id` is that of the entitlement."""

    line_id: str
    sold: SoldFile
    state: Literal["replaced", "missing"]
    now: StoredObject | None = None


async def sold(files: Sequence[FileEntry], store: ObjectStore) -> tuple[SoldFile, ...]:
    """The files as they are now, in their sequence; of external, missing and unanswered ones no version is known.

    Takes 1.5 s at most. Never raises.
    """
    found = await _ask((file.key for file in files), store, SALE_PATIENCE)
    return tuple(_sold(file, found.get(file.key)) for file in files)


async def look(order: Order, store: ObjectStore) -> list[Changed]:
    """What has become of the order's files since they were sold; files of which nothing can be said are left out.

    Takes 5 s at most. Never raises.
    """
    entries = [(each.line_id, each_file) for each in order.entitlements for each_file in each.files]
    found = await _ask((each.file.key for _, each in entries), store, PATIENCE)
    changed: list[Changed] = []
    for line_id, each in entries:
        now = found.get(each.file.key, each)
        if now is None:
            changed.append(Changed(line_id, each, "missing"))
        elif isinstance(now, StoredObject) and each.etag not in ("", now.etag):
            changed.append(Changed(line_id, each, "replaced", now))
    return changed


def _sold(file: FileEntry, stored: StoredObject | None) -> SoldFile:
    return SoldFile(file) if stored is None else SoldFile(file, stored.etag, stored.size)


async def _ask(
    keys: Iterable[str | None], store: ObjectStore, patience: float
) -> Mapping[str | None, StoredObject | None]:
    """What the store said of each key in time, None for a missing one. Keys that are None are of external files."""
    found: dict[str | None, StoredObject | None] = {}
    turns = asyncio.Semaphore(AT_ONCE)

    async def ask(key: str) -> None:
        async with turns:
            try:
                found[key] = await store.stat(key)
            except FileMissing:
                found[key] = None
            except GatewayError:
                pass
            except Exception as error:  # noqa: BLE001  a paid order must not fail by what a store does
                log.error("the store could not be asked for a sold file: %s", describe(error))

    with suppress(TimeoutError):
        async with asyncio.timeout(patience), asyncio.TaskGroup() as group:
            for key in dict.fromkeys(keys):
                if key is not None:
                    group.create_task(ask(key))
    return found
