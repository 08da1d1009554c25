"""What a stalled download costs a worker in memory, and how many descriptors it has: by /proc, not by its own word."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from bucket import Bucket
from crowd import Crowd
from stage import Stage

FILE, SIZE = "stalled.bin", 8 << 20
PAUSE = 1.0
AT_ONCE, ROUNDS = 50, 60
KIB = 1 << 10
_RSS = re.compile(r"^VmRSS:\s+(\d+) kB", re.MULTILINE)
_PSS = re.compile(r"^Pss:\s+(\d+) kB", re.MULTILINE)


async def kib_per_download(stage: Stage, count: int) -> float:
    """KiB of one worker's memory for each of `count` readers that stop in mid-body, out of an S3 store."""
    folder = stage.folder / "memory" / "files"
    folder.mkdir(parents=True)
    async with (
        Bucket(folder) as bucket,
        stage.beside("memory", origin=bucket.origin, workers=1) as own,
        Crowd() as crowd,
    ):
        own.file(FILE, SIZE)
        (worker,) = own.gateway.pids()
        # What the first downloads leave behind (modules, caches, arenas) is no cost of the next ones.
        await _stall(own, crowd, count // 4)
        await crowd.ask("leave")
        await asyncio.sleep(PAUSE)
        before = pss_kib(worker)
        await _stall(own, crowd, count)
        await asyncio.sleep(PAUSE)
        after = pss_kib(worker)
        await crowd.ask("leave")
    return (after - before) / count


async def _stall(stage: Stage, crowd: Crowd, count: int) -> None:
    left = count
    for _ in range(ROUNDS):
        paths = [f"/d/{stage.token(FILE)}/1" for _ in range(min(left, AT_ONCE))]
        left -= (await crowd.ask("stall", port=stage.gateway.port, paths=paths))["outcomes"].get("200", 0)
        if not left:
            return
    raise AssertionError(f"{left} of {count} clients were not served")


def pss_kib(pid: int) -> int:
    """Proportional set size in KiB."""
    found = _PSS.search(Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii"))
    assert found is not None
    return int(found[1])


def resident(pid: int) -> int:
    """Bytes of memory that the process holds."""
    found = _RSS.search(Path(f"/proc/{pid}/status").read_text(encoding="ascii"))
    assert found is not None
    return int(found[1]) * KIB


def descriptors(pid: int) -> int:
    """How many the process has open."""
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
