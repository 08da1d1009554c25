"""The supervisor: opens nothing to the public but the sockets, keeps N workers alive on them, and never serves itself.

A worker that dies is replaced; one that never managed to start ends the gateway with its own words.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from gateway.errors import GatewayError
from gateway.services.faults import describe, log_loop_fault
from gateway.web.api.routes import Api
from gateway.web.api.users import User
from gateway.web.connections import ConnectionLimits, Front
from gateway.web.last_good import LastGood
from gateway.web.listener import address_text, close_all
from gateway.web.management import build_management
from gateway.web.metrics import FOLDER_VARIABLE, SLOT_VARIABLE, SupervisorMetrics, metrics_folder
from gateway.web.status import Report, WorkerView, in_front
from gateway.web.worker import FLUSH, SETTLE

LOG = logging.getLogger("gateway.web")
_GRACE = 5.0
_HURRY = 3.0
_STOPPED = frozenset({0, -signal.SIGTERM})


class StartFailed(GatewayError):
    """No worker could start; the text is the worker's own reason."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run. `command` is a worker's argv, to which its slot, sockets and channel are added; times in seconds.
    `background` more of them get no sockets.

    `announce` gets the one line that says where the gateway listens. `start_attempts`: how often a worker may fail
    before any ever served. A worker that served for `steady` is replaced after `backoff_first`, a shorter-lived one
    after twice the last pause, up to `backoff_most`.
    """

    command: tuple[str, ...]
    workers: int
    sockets: tuple[socket.socket, ...]
    management: tuple[socket.socket, ...]
    drain: float
    announce: Callable[[str], None]
    users: tuple[User, ...] = ()
    api: Api | None = None
    scheme: str = "http"
    background: int = 0
    start_attempts: int = 3
    backoff_first: float = 0.1
    backoff_most: float = 10.0
    steady: float = 30.0


@dataclass(slots=True)
class _Slot:
    number: int
    background: bool = False
    process: asyncio.subprocess.Process | None = None
    report: Report | None = None
    reported_at: float = 0.0
    starts: int = 0
    served: bool = False
    error: str = ""
    lamented: tuple[str, ...] = ()


async def supervise(plan: Plan) -> int:
    """Run the gateway until SIGTERM or SIGINT; 0 when every worker left by itself, else 1. Raises StartFailed."""
    with metrics_folder() as folder:
        return await Supervisor(plan, folder).run()


class Supervisor:
    """One run of the gateway. `views` and `exposition` are what the management listener shows."""

    def __init__(self, plan: Plan, folder: str) -> None:
        self._plan = plan
        self._folder = folder
        self._metrics = SupervisorMetrics(folder)
        self._last_good = LastGood()
        count = plan.workers + plan.background
        self._slots = [_Slot(number, background=number >= plan.workers) for number in range(count)]
        self._stop = asyncio.Event()
        self._announced = False
        self._served = False
        self._kill_at = float("inf")

    async def run(self) -> int:
        """See `supervise`."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(log_loop_fault)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._told_to_stop)
        loop.add_signal_handler(signal.SIGHUP, self._told_to_reload)
        self._last_good.start()
        front = Front(build_management(self, self._plan.users, self._plan.api), ConnectionLimits(connections=200))
        try:
            await front.start(self._plan.management)
            return await self._keep_all()
        finally:
            close_all(self._plan.sockets)
            self._last_good.close()
            await front.finish(0.0)
            await front.cleanup()

    def views(self) -> Sequence[WorkerView]:
        now = asyncio.get_running_loop().time()
        return [
            WorkerView(
                slot=slot.number,
                pid=slot.process.pid if slot.process else None,
                starts=slot.starts,
                report=slot.report,
                age=now - slot.reported_at,
                background=slot.background,
            )
            for slot in self._slots
        ]

    def exposition(self) -> bytes:
        self._metrics.workers_ready.set(sum(view.ready for view in in_front(self.views())))
        return self._metrics.exposition()

    async def _keep_all(self) -> int:
        keepers = [asyncio.create_task(self._keep(slot)) for slot in self._slots]
        stopping = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({stopping, *keepers}, return_when=asyncio.FIRST_COMPLETED)
            self._begin_to_stop()
            killed = await self._all_gone(keepers)
            for keeper in keepers:
                keeper.result()
        finally:
            stopping.cancel()
            self._signal_all(signal.SIGKILL)
        return 1 if killed or any(slot.error for slot in self._slots) else 0

    async def _all_gone(self, keepers: Sequence[asyncio.Task[None]]) -> bool:
        """Wait for the workers to leave; returns whether any had to be killed."""
        loop = asyncio.get_running_loop()
        killed = False
        while not all(keeper.done() for keeper in keepers):
            await asyncio.wait(keepers, timeout=0.1)
            if loop.time() >= self._kill_at and not killed:
                killed = True
                LOG.error("workers that did not leave in time are killed")
                self._signal_all(signal.SIGKILL)
        return killed

    async def _keep(self, slot: _Slot) -> None:
        """Run one worker after another until it is time to stop. Raises StartFailed."""
        loop = asyncio.get_running_loop()
        pause = self._plan.backoff_first
        failures = 0
        while not self._stop.is_set():
            began = loop.time()
            code = await self._live(slot)
            if self._stop.is_set():
                if code not in _STOPPED:
                    slot.error = f"exit status {code}"
                return
            reason = slot.error or _death(code)
            failures = 0 if slot.served else failures + 1
            if not self._served and failures >= self._plan.start_attempts:
                raise StartFailed(reason)
            steady = slot.served and loop.time() - began >= self._plan.steady
            pause = self._plan.backoff_first if steady else pause
            self._log_death(slot, reason, failures, pause)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), pause)
            pause = min(pause * 2, self._plan.backoff_most)

    def _log_death(self, slot: _Slot, reason: str, failures: int, pause: float) -> None:
        if failures > 1 and self._served:
            text = "worker %d failed to start %d times in a row: %s; next try in %.1f s"
            LOG.critical(text, slot.number, failures, reason, pause)
        else:
            LOG.error("worker %d is gone: %s; a new one starts in %.1f s", slot.number, reason, pause)

    async def _live(self, slot: _Slot) -> int:
        """One worker's life, from its start to its exit status."""
        slot.report, slot.served, slot.error, slot.lamented = None, False, "", ()
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                slot.process = await self._spawn(slot, theirs)
        except OSError as error:
            ours.close()
            slot.error = f"a process cannot be started: {error.strerror}"
            return 1
        slot.starts += 1
        if slot.starts > 1:
            self._metrics.restarts.inc()
        if self._stop.is_set():
            slot.process.send_signal(signal.SIGTERM)
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        try:
            await self._listen(slot, reader)
            return await self._exit_status(slot.process)
        finally:
            writer.close()
            slot.process = None
            self._metrics.worker_gone(slot.number)

    async def _exit_status(self, process: asyncio.subprocess.Process) -> int:
        """Of a worker that has closed its channel, and so has nothing left to do: it may not hang on a thread."""
        with suppress(TimeoutError):
            return await asyncio.wait_for(process.wait(), _GRACE)
        with suppress(ProcessLookupError):
            process.kill()
        return await process.wait()

    async def _spawn(self, slot: _Slot, channel: socket.socket) -> asyncio.subprocess.Process:
        descriptors = [] if slot.background else [sock.fileno() for sock in self._plan.sockets]
        argv = [*self._plan.command, "--status-fd", str(channel.fileno())]
        for descriptor in descriptors:
            argv += ["--listen-fd", str(descriptor)]
        return await asyncio.create_subprocess_exec(
            *argv,
            pass_fds=(*descriptors, channel.fileno(), *self._last_good.descriptors()),
            stdin=asyncio.subprocess.DEVNULL,
            env={
                **os.environ,
                FOLDER_VARIABLE: self._folder,
                SLOT_VARIABLE: str(slot.number),
                **self._last_good.environment(),
            },
            # Ctrl-C is for the supervisor alone, also while a worker's interpreter is still starting.
            process_group=0,
        )

    async def _listen(self, slot: _Slot, reader: asyncio.StreamReader) -> None:
        """Take the worker's reports until its end of the channel closes."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                line = await reader.readline()
                if not line:
                    return
                report = Report.from_line(line)
            except OSError:
                return
            except ValueError as error:
                LOG.error("worker %d sent no report: %s", slot.number, describe(error))
                continue
            if report.error:
                slot.error = report.error
                continue
            self._log_readiness(slot, report)
            slot.report, slot.reported_at = report, loop.time()
            slot.served = slot.served or report.serving
            serves = report.serving and (not slot.background or not self._plan.sockets)
            self._served = self._served or serves
            if serves:
                self._announce()

    def _log_readiness(self, slot: _Slot, report: Report) -> None:
        """What a worker lacks, once it has lacked it in two reports, and that it lacks nothing any more."""
        lasting = slot.report is not None and slot.report.missing == report.missing
        if report.missing == slot.lamented or not (lasting or report.ready):
            return
        slot.lamented = report.missing
        if report.missing:
            LOG.warning("worker %d is not ready: %s", slot.number, ", ".join(report.missing))
        else:
            LOG.info("worker %d is ready again", slot.number)

    def _announce(self) -> None:
        if not self._announced:
            self._announced = True
            if not self._plan.sockets:
                self._plan.announce("working in the background")
                return
            public = ", ".join(f"{self._plan.scheme}://{address_text(sock)}" for sock in self._plan.sockets)
            management = ", ".join(f"http://{address_text(sock)}" for sock in self._plan.management)
            self._plan.announce(f"listening on {public}, management on {management}")

    def _told_to_stop(self) -> None:
        if self._stop.is_set():
            self._kill_at = asyncio.get_running_loop().time() + _HURRY
            self._signal_all(signal.SIGTERM)
        else:
            self._stop.set()

    def _begin_to_stop(self) -> None:
        self._stop.set()
        self._kill_at = asyncio.get_running_loop().time() + self._plan.drain + FLUSH + SETTLE + _GRACE
        close_all(self._plan.sockets)
        self._signal_all(signal.SIGTERM)

    def _told_to_reload(self) -> None:
        for slot in self._slots:
            # Before it serves, its handler is not there yet and the signal would kill it.
            if slot.process is not None and slot.served:
                with suppress(ProcessLookupError):
                    slot.process.send_signal(signal.SIGHUP)

    def _signal_all(self, number: signal.Signals) -> None:
        for slot in self._slots:
            if slot.process is not None:
                with suppress(ProcessLookupError):
                    slot.process.send_signal(number)


def _death(code: int) -> str:
    if code >= 0:
        return f"exit status {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def worker_command(*arguments: str) -> tuple[str, ...]:
    """The argv with which this same installation starts a worker."""
    return (sys.executable, "-m", "gateway", "_worker", *arguments)
