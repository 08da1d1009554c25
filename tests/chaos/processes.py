"""What the processes of a stage's gateway are doing, as the supervisor and /proc tell it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from stage import Stage

BEGUN_WITHIN = 20.0


async def views(stage: Stage) -> list[dict[str, object]]:
    """What the supervisor says of each worker."""
    return await asyncio.to_thread(stage.gateway.worker_views)


async def in_flight(stage: Stage, count: int) -> None:
    """Until that many downloads are being sent."""
    until = time.monotonic() + BEGUN_WITHIN
    while sum(int(str(view["downloads"])) for view in await views(stage)) < count:
        assert time.monotonic() < until, "the downloads did not begin"
        await asyncio.sleep(0.1)


def charged(events: Iterable[Mapping[str, str]], token_id: str) -> int:
    """Downloads that the token holds a charge for."""
    return sum(int(event.get("counted", 0)) for event in events if event.get("token.id") == token_id)


def busiest(pids: Iterable[int], port: int) -> int:
    """The worker with the most connections of clients."""
    clients = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        columns = line.split()
        if columns[1] == f"0100007F:{port:04X}" and columns[3] == "01":
            clients.add(f"socket:[{columns[9]}]")
    return max(pids, key=lambda pid: len(clients.intersection(descriptors(pid))))


def descriptors(pid: int) -> list[str]:
    """What the process has open; nothing where it is no more."""
    found = []
    with suppress(FileNotFoundError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # closed meanwhile
                found.append(str(link.readlink()))
    return found
