"""Rules, lists and geo databases are replaced, cut short, broken, deleted and swapped under load.

In force is always the last good version: every answer meanwhile is that of one whole version, and none is a 5xx.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from fault import Fault
from stage import Stage

from gateway.cli.demo_geo import build_demo_databases

LISTED, POLE, OTHER, NEUTRAL = "203.0.113.9", "198.51.100.7", "192.0.2.200", "198.51.100.200"
ALWAYS_DENIED, ALWAYS_ALLOWED = (LISTED, POLE), (NEUTRAL,)
# What refuses stands behind everything else that may be lost with the end of a file.
RULES = """\
version: 1
lists:
  listed: {{file: networks.txt}}
rules:
  - {{name: other, when: {{ip: {other}}}, then: deny}}
  - {{name: listed, when: {{ip: $listed}}, then: deny}}
  - {{name: poles, when: {{country: PL}}, then: deny}}
otherwise: allow
"""
ONE, TWO = RULES.format(other="192.0.2.1"), RULES.format(other=f"{OTHER}/32")
NETWORKS = [f"10.{number >> 8}.{number & 255}.0/24" for number in range(2000)] + ["203.0.113.0/24"]
SEEN_WITHIN = 20.0
"""Seconds until every worker obeys a file, on a machine that everything else loads too; alone it is one."""
REPLACED_WITHIN = 45.0
ASKING = 4
FILE = "small.bin"

Break = Callable[[Path, bytes, random.Random], None]
Play = Callable[[Stage], Awaitable[None]]


Files = Mapping[str, Mapping[str, str]]


@dataclass
class House:
    """A gateway with rules, a list and geo databases, and who asks it all the time."""

    stage: Stage
    folder: Path
    files: dict[str, Path]
    good: dict[str, bytes]
    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    reset: bool = False
    """A worker is being killed: whoever it served gets no answer."""

    def put(self, name: str, data: bytes) -> None:
        """As everybody should: complete, and under its name at once."""
        path = self.files[name]
        fresh = path.with_name(".fresh")
        fresh.write_bytes(data)
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        fresh.replace(path)

    async def obeys(self, other: int) -> None:
        """Every worker takes the files that are there, and answers OTHER so."""
        until = time.monotonic() + SEEN_WITHIN
        while await self._wrong() or await self._disagree(other):
            self.judge()
            assert time.monotonic() < until, f"good files are not in force: {await self._wrong()}"
            await asyncio.sleep(0.05)

    async def complains(self, what: str) -> None:
        """Every worker says aloud that these files are wrong."""
        until = time.monotonic() + SEEN_WITHIN
        while (wrong := await self._wrong()).count(what) < self.stage.gateway.workers:
            self.judge()
            assert time.monotonic() < until, f"files that are wrong are passed over in silence: {wrong}"
            await asyncio.sleep(0.05)

    async def _wrong(self) -> list[str]:
        views = await asyncio.to_thread(self.stage.gateway.worker_views)
        assert len(views) == self.stage.gateway.workers
        return [what for view in views for what, state in cast(Files, view["files"]).items() if state["wrong"]]

    async def _disagree(self, other: int) -> bool:
        answers = [await self.ask(OTHER) for _ in range(6)]
        return any(status != other for status in answers)

    async def ask(self, address: str) -> int:
        got = await self.stage.fetch(self.token, address=address)
        # A machine that is loaded beyond its cores may keep Redis from answering in time: no file has to do with it.
        if (got.status or not self.reset) and got.reason != "redis.down":
            self.answers[address, got.status] += 1
        return got.status

    @property
    def token(self) -> str:
        return next(token for token, ticket in self.stage.tickets.items() if ticket.files == (FILE,))

    def judge(self) -> None:
        """Whatever happened so far, there were only the answers that one version or the other gives."""
        right = {(address, 403) for address in (*ALWAYS_DENIED, OTHER)}
        right |= {(address, 200) for address in (*ALWAYS_ALLOWED, OTHER)}
        wrong = {f"{address}: {status}": count for (address, status), count in self.answers.items()
                 if (address, status) not in right}  # fmt: skip
        assert not wrong, f"answers of no whole version: {wrong}"


@asynccontextmanager
async def house(stage: Stage, name: str, workers: int) -> AsyncIterator[House]:
    folder = stage.folder / f"{name} files"
    folder.mkdir()
    geo = build_demo_databases(folder)
    files = {"rules": folder / "rules.yaml", "list": folder / "networks.txt", "geo": geo["city"]}
    files["rules"].write_text(ONE)
    files["list"].write_text("\n".join(NETWORKS) + "\n")
    settings = {
        "rules": json.dumps(str(files["rules"])),
        "geo": json.dumps({setting: str(path) for setting, path in geo.items()}),
    }
    async with stage.beside(name, workers=workers, settings=settings) as own:
        own.file(FILE, 1000)
        own.token(FILE)
        opened = House(own, folder, files, {what: path.read_bytes() for what, path in files.items()})
        clients = [asyncio.create_task(asking(opened, number)) for number in range(ASKING)]
        try:
            yield opened
            assert not any(client.done() for client in clients), f"a client has ended: {clients}"
        finally:
            for client in clients:
                client.cancel()
            await asyncio.gather(*clients, return_exceptions=True)
        opened.judge()
        assert all(opened.answers[address, 403] for address in ALWAYS_DENIED)
        assert opened.answers[NEUTRAL, 200]


async def asking(opened: House, number: int) -> None:
    everybody = (*ALWAYS_DENIED, *ALWAYS_ALLOWED, OTHER)
    while True:
        await opened.ask(everybody[number % len(everybody)])
        number += 1
        await asyncio.sleep(0.03)


def deleted(path: Path, _good: bytes, _rng: random.Random) -> None:
    path.unlink()


def emptied(path: Path, _good: bytes, _rng: random.Random) -> None:
    os.truncate(path, 0)


def cut_short(path: Path, good: bytes, rng: random.Random) -> None:
    # In the middle of a line: whole lines fewer are a shorter list, and nobody can know that they are missing.
    places = [at for at in range(len(good) // 4, len(good) - 8) if good[at - 1 : at + 1].isalnum()]
    os.truncate(path, rng.choice(places))


def garbled(path: Path, good: bytes, rng: random.Random) -> None:
    path.write_bytes(rng.randbytes(len(good)))


def a_folder(path: Path, _good: bytes, _rng: random.Random) -> None:
    path.unlink()
    path.mkdir()


def a_pipe(path: Path, _good: bytes, _rng: random.Random) -> None:
    path.unlink()
    os.mkfifo(path)


def a_device(path: Path, _good: bytes, _rng: random.Random) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def unreadable(path: Path, _good: bytes, _rng: random.Random) -> None:
    """For everybody: root may read what nobody else may."""
    path.unlink()
    path.symlink_to(path.name)


def packed(path: Path, good: bytes, _rng: random.Random) -> None:
    path.write_bytes(gzip.compress(good))


BREAKS: tuple[Break, ...] = (deleted, emptied, cut_short, garbled, a_folder, a_pipe, a_device, unreadable, packed)


def broken(count: int | None) -> Play:
    """Each file is broken in `count` ways (None: all), and mended after each."""

    async def play(stage: Stage) -> None:
        async with house(stage, f"broken-{count or 'all'}", workers=2) as opened:
            rng = stage.rng
            for name in opened.files:
                for number, how in enumerate(rng.sample(BREAKS, count or len(BREAKS))):
                    how(opened.files[name], opened.good[name], rng)
                    await opened.complains("geo databases" if name == "geo" else "rules")
                    opened.put(name, opened.good[name])
                    opened.put("rules", (TWO, ONE)[number % 2].encode())
                    await opened.obeys((403, 200)[number % 2])
                opened.put("rules", ONE.encode())
                await opened.obeys(200)

    return play


async def replaced(stage: Stage) -> None:
    """New versions all the time: by rename, in place and in pieces, behind a link; several files at once."""
    async with house(stage, "files-replaced", workers=4) as opened:
        rules, city = opened.files["rules"], opened.files["geo"]
        for number in range(4):
            opened.put("rules", (TWO, ONE)[number % 2].encode())
            opened.put("geo", opened.good["geo"])
            await opened.obeys((403, 200)[number % 2])
            await asyncio.to_thread(in_pieces, rules, (TWO, ONE)[number % 2].encode(), 0.05)
            await asyncio.to_thread(in_pieces, city, opened.good["geo"], 0.1)
            await opened.obeys((403, 200)[number % 2])
        folders = [opened.folder / name for name in ("1", "2")]
        for folder, text in zip(folders, (ONE, TWO), strict=True):
            folder.mkdir()
            (folder / "rules.yaml").write_text(text)
            shutil.copy(opened.files["list"], folder / "networks.txt")
        swap(opened.folder / "..data", folders[0])
        opened.files["rules"].unlink()
        rules.symlink_to("..data/rules.yaml")
        for number in range(4):
            swap(opened.folder / "..data", folders[(number + 1) % 2])
            await opened.obeys((403, 200)[number % 2])
        until = time.monotonic() + 3
        while time.monotonic() < until:
            swap(opened.folder / "..data", stage.rng.choice(folders))
            await asyncio.sleep(stage.rng.uniform(0, 0.1))
        swap(opened.folder / "..data", folders[1])
        await opened.obeys(403)


async def killed_meanwhile(stage: Stage) -> None:
    """Workers die while everything is broken: those in their place have what was last good, and say so."""
    async with house(stage, "killed", workers=2) as opened:
        opened.put("rules", TWO.encode())
        await opened.obeys(403)
        for name, how in (("rules", garbled), ("list", deleted), ("geo", cut_short)):
            how(opened.files[name], opened.good[name], stage.rng)
        for what in ("rules", "geo databases"):
            await opened.complains(what)
        for _ in range(2):
            victims: Sequence[int] = await asyncio.to_thread(opened.stage.gateway.pids)
            opened.reset = True
            for victim in victims:
                os.kill(victim, signal.SIGKILL)
            until = time.monotonic() + REPLACED_WITHIN
            while True:
                pids = set(await asyncio.to_thread(opened.stage.gateway.pids))
                if len(pids) == len(victims) and not pids & set(victims):
                    break
                assert time.monotonic() < until, f"none in their place: {opened.stage.gateway.log()[-2000:]}"
                await asyncio.sleep(0.1)
            opened.reset = False
            assert await opened.ask(OTHER) == 403, "not the last good version"
            for what in ("rules", "geo databases"):
                await opened.complains(what)
        for name in ("list", "geo"):
            opened.put(name, opened.good[name])
        opened.put("rules", ONE.encode())
        await opened.obeys(200)


def in_pieces(path: Path, data: bytes, pause: float) -> None:
    """As a careless copy does: the file is there all the time, and whole only at the end."""
    with path.open("wb") as file:
        for start in range(0, len(data), len(data) // 4 + 1):
            file.write(data[start : start + len(data) // 4 + 1])
            file.flush()
            time.sleep(pause)


def swap(link: Path, target: Path) -> None:
    fresh = link.with_name(f"{link.name}.fresh")
    fresh.symlink_to(target)
    fresh.replace(link)


FILE_FAULTS = [
    Fault("rules, lists and geo files broken, one way each", broken(1), quick=True, whole=False),
    Fault("rules, lists and geo files broken in every way", broken(None)),
    Fault("rules and geo files replaced", replaced),
    Fault("workers killed while every file is broken", killed_meanwhile),
]
