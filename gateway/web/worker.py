"""A worker: one process, one event loop, the application on sockets that the supervisor opened.

SIGTERM drains: what runs may finish, nothing new begins. When the supervisor's end of the channel closes, the
supervisor is dead, and the worker follows at once.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace

from aiohttp import web

from gateway.services.faults import describe, log_loop_fault
from gateway.web.connections import ConnectionLimits, Front, connections_within, raise_descriptor_limit
from gateway.web.metrics import CONNECTIONS, FOLDER_VARIABLE, INFLIGHT, LOOP_LAG, MEMORY
from gateway.web.overload import resident
from gateway.web.status import Report, WorkerStatus

LOG = logging.getLogger("gateway.web")
AppFactory = Callable[[WorkerStatus], Awaitable[web.Application]]

REPORT_EVERY = 1.0
SETTLE = 20.0
"""Seconds for the application's clean-up, which settles what was delivered; the slowest settlement waits 10 s."""
FLUSH = 5.0
_TICK = 0.1
_CALM_LOOKS = 2
_HURRY = 1.0
_CHANNEL_BYTES_MAX = 64 * 1024


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """`listen_fds`: inherited listening sockets; `status_fd`: the channel to the supervisor; `drain` in seconds."""

    listen_fds: tuple[int, ...]
    status_fd: int
    drain: float
    tls: ssl.SSLContext | None = None
    limits: ConnectionLimits = field(default_factory=ConnectionLimits)


def run_worker(options: WorkerOptions, app_factory: AppFactory) -> int:
    """Serve until told to stop; returns the exit status."""
    # Ctrl-C in a terminal reaches the whole group; only the supervisor acts on it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    room = connections_within(raise_descriptor_limit(), options.limits.connections)
    options = replace(options, limits=replace(options.limits, connections=room))
    with asyncio.Runner(loop_factory=_fast_loop()) as runner:
        return runner.run(_Worker(options, app_factory).serve())


def refuse_to_start(status_fd: int, reason: str) -> int:
    """Tell the supervisor in one line why this worker cannot start; returns the exit status."""
    with socket.socket(fileno=status_fd) as channel, suppress(OSError):
        channel.sendall(Report(error=reason).to_line())
    return 1


class _Worker:
    def __init__(self, options: WorkerOptions, app_factory: AppFactory) -> None:
        self._options = options
        self._app_factory = app_factory
        self._status = WorkerStatus()
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._front: Front | None = None

    async def serve(self) -> int:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(log_loop_fault)
        loop.add_signal_handler(signal.SIGTERM, self._told_to_stop)
        loop.add_signal_handler(signal.SIGHUP, self._status.reload.set)
        reader, writer = await asyncio.open_unix_connection(sock=socket.socket(fileno=self._options.status_fd))
        watching = asyncio.create_task(self._watch_supervisor(reader))
        reporting = asyncio.create_task(self._report(writer))
        try:
            error = await self._until_stopped()
            if error:
                writer.write(Report(error=error).to_line())
                return 1
            return await self._leave()
        finally:
            watching.cancel()
            reporting.cancel()
            writer.close()

    async def _until_stopped(self) -> str:
        """Start, and serve until told to stop. Returns why it could not start, or nothing."""
        starting = asyncio.create_task(self._start())
        stopping = asyncio.create_task(self._stop.wait())
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            starting.cancel()
        try:
            await starting
        except asyncio.CancelledError:
            return ""
        except Exception as error:  # noqa: BLE001  whatever it is, the supervisor gets it in one line
            return describe(error)
        self._status.serving = True
        await stopping
        return ""

    async def _start(self) -> None:
        app = await self._app_factory(self._status)
        app.on_response_prepare.append(self._say_goodbye)
        self._front = Front(app, self._options.limits)
        await self._front.start([socket.socket(fileno=fd) for fd in self._options.listen_fds], self._options.tls)

    async def _leave(self) -> int:
        self._status.draining = True
        if self._front is None:
            return 0
        self._front.stop_accepting()
        if self._status.downloads:
            LOG.info("stopping: %d downloads may finish, for %.0f s", self._status.downloads, self._options.drain)
        await self._drained(self._front)
        if self._status.downloads:
            LOG.warning("%d downloads are cut; their buyers can resume them", self._status.downloads)
        self._status.serving = False
        await self._front.finish(0.0 if self._hurry.is_set() else FLUSH)
        cleaning = asyncio.create_task(self._front.cleanup())
        done = await self._within(cleaning, SETTLE)
        if not done:
            LOG.error("the clean-up did not finish in time; what was not settled is left to the reaper")
            return 1
        return 0

    async def _drained(self, front: Front) -> None:
        """Until _CALM_LOOKS looks in a row find no request running, the drain time is over, or there is a hurry."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._options.drain
        calm = 0
        while calm < _CALM_LOOKS and loop.time() < until and not self._hurry.is_set():
            calm = 0 if front.busy else calm + 1
            await asyncio.sleep(_TICK)

    async def _within(self, task: asyncio.Task[None], seconds: float) -> bool:
        """Whether the task ended in time; a hurry leaves it a second from then on. Its fault is logged, not raised."""
        hurrying = asyncio.create_task(self._hurry.wait())
        await asyncio.wait({task, hurrying}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        hurrying.cancel()
        if not task.done() and self._hurry.is_set():
            await asyncio.wait({task}, timeout=_HURRY)
        if not task.done():
            task.cancel()
            return False
        if (fault := task.exception()) is not None:
            LOG.error("the clean-up failed: %s", describe(fault))
            return False
        return True

    def _told_to_stop(self) -> None:
        (self._hurry if self._stop.is_set() else self._stop).set()

    async def _say_goodbye(self, _request: web.Request, response: web.StreamResponse) -> None:
        if self._status.draining:
            response.force_close()
            response.headers["Connection"] = "close"

    async def _watch_supervisor(self, reader: asyncio.StreamReader) -> None:
        with suppress(OSError):
            await reader.read()
        LOG.error("the supervisor is gone: stopping")
        # It cannot clean up after itself any more.
        if folder := os.environ.get(FOLDER_VARIABLE):
            shutil.rmtree(folder, ignore_errors=True)
        self._stop.set()
        self._hurry.set()
        await asyncio.sleep(1.5 * _HURRY)
        os._exit(1)

    async def _report(self, writer: asyncio.StreamWriter) -> None:
        """Tell the supervisor the state every second, and at once when it has changed."""
        loop = asyncio.get_running_loop()
        told: tuple[object, ...] = ()
        told_at = float("-inf")
        while True:
            due = loop.time() + _TICK
            await asyncio.sleep(_TICK)
            now = loop.time()
            # The worst lag since the last report, not the one that happens to be measured last.
            self._status.loop_lag = max(self._status.loop_lag, now - due)
            report = self._read()
            # A supervisor that is stopped does not read; nothing may pile up here for it.
            choked = writer.transport.get_write_buffer_size() > _CHANNEL_BYTES_MAX
            if not choked and (report.state != told or now - told_at >= REPORT_EVERY):
                writer.write(report.to_line())
                told, told_at = report.state, now
                self._status.loop_lag = 0.0

    def _read(self) -> Report:
        self._status.connections = self._front.connections if self._front is not None else 0
        CONNECTIONS.set(self._status.connections)
        INFLIGHT.set(self._status.downloads)
        LOOP_LAG.set(self._status.loop_lag)
        MEMORY.set(resident())
        return self._status.report()


def _fast_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415  not to be had on every platform
    except ImportError:
        return None
    return uvloop.new_event_loop
