"""`make chaos`: every fault under load on real servers, then hostile input and mutants, and one line at the end.

It listens on loopback only and ends only what it has started. Exit status 1: a promise was broken.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import random
import re
import secrets
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from audit import Evidence, audit
from background import background
from fault import Fault
from memory import descriptors, kib_per_download, resident
from report import Totals, line
from stage import Stage

from gateway.backends.redis_client import CONNECTIONS

HERE = Path(__file__).resolve().parent
MODULES = ("redis_faults", "loss_faults", "origin_faults", "host_faults", "load_faults")
FAULT_LIMIT = 240.0
CALM = 3.0
SPARE_DESCRIPTORS = CONNECTIONS + 4
"""A worker may keep its whole pool of connections to Redis, and some of clients."""
LEAK = 48 << 20
"""Bytes that a worker may grow by in a quarter of an hour, caches and arenas included."""
CASES_SHOWN = 40
_INPUTS = re.compile(r"^inputs (\d+)", re.MULTILINE)
_MUTANTS = re.compile(r"^mutants (\d+)/(\d+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Size:
    """How much is done. `limit` and `fuzz` (of each group) in seconds; `faults`, `mutants`: how many, None for all."""

    limit: float
    stalled: int
    fuzz: float
    faults: int | None
    mutants: int | None


FULL, QUICK = Size(900, 1000, 10, None, 60), Size(300, 200, 2, 5, 2)
"""A quick run takes about a minute on two idle cores; its limit is for slow ones. Each run draws its mutants."""


@dataclass(slots=True)
class Run:
    """One run and what came of it."""

    seed: int
    size: Size
    folder: Path
    totals: Totals = field(default_factory=Totals)
    evidence: list[Evidence] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    async def play(self, faults: list[Fault], *, measured: bool) -> None:
        """All faults on one stage under one crowd."""
        self.totals.faults = (0, len(faults))
        async with Stage(self.folder, random.Random(self.seed)) as stage:
            if measured:
                self.totals.kib = await kib_per_download(stage, self.size.stalled)
                self._say(f"{self.totals.kib:.1f} KiB a stalled download")
            before = {pid: (descriptors(pid), resident(pid)) for pid in stage.gateway.processes()}
            try:
                async with background(stage):
                    await asyncio.sleep(CALM)
                    for fault in faults:
                        await self._play(fault, stage)
                    await asyncio.sleep(CALM)
            finally:
                self.evidence += await stage.testify("main")
                self.totals.recoveries += stage.recoveries
            self._compare(before, {pid: (descriptors(pid), resident(pid)) for pid in stage.gateway.processes()})

    async def _play(self, fault: Fault, stage: Stage) -> None:
        began = time.monotonic()
        why = ""
        async with stage.disturbance():
            try:
                async with asyncio.timeout(FAULT_LIMIT):
                    await fault.play(stage)
            except Exception as error:  # noqa: BLE001  whatever it is, the fault was not survived, and the run goes on
                why = f"{type(error).__name__}: {error}" if not isinstance(error, AssertionError) else str(error)
                await stage.mend()
                await stage.serves_within(30)
        kept, total = self.totals.faults
        self.totals.faults = (kept + (not why), total)
        self._say(f"{'FAILED' if why else 'ok    '} {fault.name} ({time.monotonic() - began:.1f} s)")
        if why:
            self.fail(f"{fault.name}: {why}")

    def _compare(self, before: dict[int, tuple[int, int]], after: dict[int, tuple[int, int]]) -> None:
        """The whole run is a soak: whatever was played, no worker may be larger for it, nor hold more open."""
        most = max(opened for opened, _ in before.values())
        if (opened := max(opened for opened, _ in after.values())) > most + SPARE_DESCRIPTORS:
            self.fail(f"descriptors: {most} before the load, {opened} after it")
        largest = max(size for _, size in before.values())
        if (size := max(size for _, size in after.values())) > largest + LEAK:
            self.fail(f"memory: {largest >> 20} MiB before the load, {size >> 20} MiB after it")

    async def hunt(self) -> None:
        """Hostile input, then mutants: each a program of its own, whose last line has the count."""
        out = await self._program("fuzz", "--seconds", f"{self.size.fuzz:g}", "--seed", str(self.seed))
        if found := _INPUTS.search(out):
            self.totals.inputs = int(found[1])
        sample = [] if self.size.mutants is None else ["--sample", str(self.size.mutants)]
        out = await self._program("mutants", *sample, "--seed", str(self.seed))
        if found := _MUTANTS.search(out):
            self.totals.mutants = (int(found[1]), int(found[2]))

    async def _program(self, name: str, *arguments: str) -> str:
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(HERE.parent / name / "run.py"), *arguments, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        lines = []
        try:
            async for each in process.stdout:
                lines.append(each.decode())
                print(lines[-1], end="", flush=True)
            status = await process.wait()
        except BaseException:
            # Only here: to signal one that is just ending takes its status from whoever waits for it.
            process.terminate()
            await process.wait()
            raise
        if status:
            self.fail(f"{name}: ended with {status}")
        return "".join(lines)

    def fail(self, why: str) -> None:
        """A broken promise, said at once and again at the end by the exit status."""
        self.failures.append(why)
        self._say(f"FAILED {why}")

    def _say(self, text: str) -> None:
        print(f"{time.monotonic() - self.began:5.0f} s  {text}", flush=True)


async def _all(run: Run, faults: list[Fault], *, only: bool) -> None:
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        async with asyncio.timeout(run.size.limit):
            await run.play(faults, measured=not only)
            if not only:
                await run.hunt()
    except TimeoutError:
        run.fail(f"broken off after {run.size.limit:g} s")
    except asyncio.CancelledError:
        run.fail("broken off: told to stop")
    except Exception as error:  # noqa: BLE001  what the audit has seen until then is still told
        run.fail(f"the stage broke: {type(error).__name__}: {error}")


def main() -> int:
    parser = argparse.ArgumentParser(description="Play every fault under load, and count the broken promises.")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 32), help="of an earlier run, to repeat it")
    parser.add_argument("--minutes", type=float, help="after which the run is broken off")
    parser.add_argument("--quick", action="store_true", help="about a minute: some of the short faults, a few mutants")
    parser.add_argument("--only", metavar="NAME", help="the faults with this in their names, and nothing else")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="a new folder for logs, which stays")
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    size = QUICK if arguments.quick else FULL
    if arguments.minutes is not None:
        size = replace(size, limit=arguments.minutes * 60)
    faults = _named(arguments.only) if arguments.only else _chosen(arguments.seed, size.faults)
    if not faults:
        parser.error(f"no fault has {arguments.only!r} in its name")
    folder = arguments.keep or Path(tempfile.mkdtemp(prefix="gateway-chaos-"))
    run = Run(arguments.seed, size, folder)
    asyncio.run(_all(run, faults, only=arguments.only is not None))
    findings = audit(run.evidence)
    for case in findings.cases[:CASES_SHOWN]:
        print(case)
    if len(findings.cases) > CASES_SHOWN:
        print(f"… and {len(findings.cases) - CASES_SHOWN} more")
    if findings.broken or run.failures:
        print(f"what the clients and the gateways wrote is in {folder}")
    elif arguments.keep is None:
        shutil.rmtree(folder)
    print(line(findings, run.totals))
    return 1 if findings.broken or run.failures else 0


def _modules() -> list[list[Fault]]:
    return [list(importlib.import_module(name).FAULTS) for name in MODULES]


def _named(part: str) -> list[Fault]:
    return [fault for faults in _modules() for fault in faults if part in fault.name]


def _chosen(seed: int, count: int | None) -> list[Fault]:
    """Every fault, or `count` of the quick ones, some of each kind; which and in which order is the seed's."""
    rng = random.Random(seed)
    modules = _modules()
    if count is None:
        chosen = [fault for faults in modules for fault in faults if fault.whole]
    else:
        rounds = zip_longest(*(rng.sample(quick, len(quick)) for faults in modules if (quick := _quick(faults))))
        chosen = [fault for each in rounds for fault in rng.sample(each, len(each)) if fault is not None][:count]
    rng.shuffle(chosen)
    return chosen


def _quick(faults: list[Fault]) -> list[Fault]:
    return [fault for fault in faults if fault.quick]


if __name__ == "__main__":
    sys.exit(main())
