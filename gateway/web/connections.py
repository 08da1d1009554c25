"""Client connections under guard: no peer holds one by saying nothing, too little, too slowly, or by having died.

aiohttp's server knows one deadline, for idle connections; the rest stands here, on its protocol class. Nothing a peer
sends reaches the log.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
import ssl
import struct
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from itertools import islice
from typing import cast

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from gateway.services.faults import describe
from gateway.web.listener import BACKLOG
from gateway.web.metrics import CONNECTIONS_CUT
from gateway.web.overload import MEMORY

LOG = logging.getLogger("gateway.web")

# Linux struct tcp_info: tcpi_retransmits and tcpi_probes are bytes 2 and 3, tcpi_last_ack_recv (ms) a u32 at 56.
_TCP_INFO = struct.Struct("@2xBB52xI")
_PROBES_UNANSWERED = 3
_DESCRIPTORS_PER_DOWNLOAD = 5
_SWEEP_SLICE = 256
_LOOKS_FOR_ROOM = 32
_UNREAD_BODY = 4 * 1024
"""Bytes of a request's body, which nobody reads, after which no more of it is taken from the kernel."""
_CANCELLED_WITHIN = 0.5


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Times in seconds. `head`: until a request's headers are complete, and for a TLS handshake; `keepalive`: idle
    between requests; `linger`: reading a body that nobody asked for; `dead_peer`: without any acknowledgement while
    data or probes are out; `unread`: closed by us, but its last bytes are not taken. `head_bytes` bounds a head that
    is not complete, `pipelined` the requests that wait behind a running one."""

    head: float = 10.0
    keepalive: float = 75.0
    linger: float = 10.0
    dead_peer: float = 120.0
    unread: float = 900.0
    sweep: float = 15.0
    connections: int = 10_000
    head_bytes: int = 32 * 1024
    pipelined: int = 8


def unheard_for(sock: socket.socket) -> float:
    """Seconds for which the peer has left retransmissions or window probes unanswered; 0 where it answers or is idle.

    TCP_USER_TIMEOUT is not used: since Linux 5.11 it also kills a paused reader that answers every probe (tcp(7)).
    """
    if sys.platform != "linux":
        return 0.0
    try:
        raw = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
    except OSError:
        return 0.0
    if len(raw) < _TCP_INFO.size:
        return 0.0
    retransmits, probes, last_ack = _TCP_INFO.unpack(raw)
    # Probes of a long-paused reader are 120 s apart: one or two that are still out say nothing.
    return float(last_ack) / 1000 if retransmits or probes >= _PROBES_UNANSWERED else 0.0


def raise_descriptor_limit() -> int:
    """Take all file descriptors that the hard limit allows; returns how many that is."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (ValueError, OSError):
        LOG.warning("the limit of open files could not be raised")
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def connections_within(descriptors: int, wanted: int) -> int:
    """How many connections fit: each may need five descriptors (client, its dup, origin, a pipe's two ends)."""
    return max(16, min(wanted, descriptors // _DESCRIPTORS_PER_DOWNLOAD))


class GuardedHandler(RequestHandler):
    """One connection: aiohttp's protocol with deadlines, bounds, and a log that quotes no peer."""

    __slots__ = ("_closing_since", "_guard", "_head_bytes", "_head_timer", "_wire")

    def __init__(self, guard: GuardedServer, loop: asyncio.AbstractEventLoop) -> None:
        limits = guard.limits
        super().__init__(
            guard,
            loop=loop,
            keepalive_timeout=limits.keepalive,
            lingering_time=limits.linger,
            tcp_keepalive=False,
            access_log=cast(logging.Logger, None),
            max_line_size=8190,
            max_field_size=8190,
            max_headers=64,
            read_bufsize=_UNREAD_BODY,
        )
        self._guard = guard
        self._wire: asyncio.Transport | None = None
        self._head_timer: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self._closing_since: float | None = None

    @property
    def busy(self) -> bool:
        """Whether a request is being answered or waits to be."""
        return self._request_in_progress or bool(self._messages)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._wire = cast(asyncio.Transport, transport)
        sock = transport.get_extra_info("socket")
        if sock is not None:
            _keep_alive(sock)
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._head_done()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        heads = self._request_count
        super().data_received(data)
        if self._request_count != heads:
            self._head_done()
            self._guard.heard(self)
            if len(self._messages) > self._guard.limits.pipelined:
                self.cut("pipelined")
        elif self._waiter is not None and not self._waiter.done():
            if self._head_timer is None:
                self._expect_head()
            self._head_bytes += len(data)
            if self._head_bytes > self._guard.limits.head_bytes:
                self.cut("head_bytes")

    def cut(self, why: str) -> None:
        """End the connection now, whatever is still on its way."""
        CONNECTIONS_CUT.labels(why).inc()
        if self._wire is not None:
            self._wire.abort()

    def inspect(self, now: float) -> None:
        """Cut a peer that died with data in flight, or one that keeps a closed connection from emptying."""
        limits = self._guard.limits
        if self._wire is None:
            return
        if self._wire.is_closing():
            self._closing_since = now if self._closing_since is None else self._closing_since
            if now - self._closing_since > limits.unread:
                self.cut("unread")
        elif unheard_for(self._wire.get_extra_info("socket")) > limits.dead_peer:
            self.cut("dead_peer")

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """A fault outside every handler (RFC 9112 §2.2 for what cannot be parsed): a bare answer, and close."""
        if status < HTTPStatus.INTERNAL_SERVER_ERROR:
            self._guard.log_rarely("a request that is not HTTP, or too long: %s", type(exc).__name__)
        else:
            LOG.error("a request failed: %s", describe(exc) if exc is not None else HTTPStatus(status).phrase)
        if request.writer.output_size > 0:
            # A head or part of a body is out: only a broken connection tells the client that the rest is missing.
            self.cut("broken_answer")
            raise ConnectionError("the response had begun")
        response = web.Response(
            status=status,
            text=f"{status} {HTTPStatus(status).phrase}\n",
            headers={"Server": "download-gateway", "Cache-Control": "no-store"},
        )
        response.force_close()
        return response

    def log_exception(self, *args: object, **kw: object) -> None:
        error = kw.get("exc_info")
        LOG.error("a connection failed: %s", describe(error) if isinstance(error, BaseException) else "no exception")

    def _expect_head(self) -> None:
        self._head_bytes = 0
        self._head_timer = self._loop.call_later(self._guard.limits.head, self.cut, "head")

    def _head_done(self) -> None:
        self._head_bytes = 0
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


class Refused(asyncio.Protocol):
    """A connection above the caps, where none is idle: ended before a byte of it is read."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        CONNECTIONS_CUT.labels("full").inc()
        cast(asyncio.Transport, transport).abort()


class GuardedServer(web.Server):
    """Makes a guarded protocol per connection, and knows the open ones."""

    def __init__(self, plain: web.Server, limits: ConnectionLimits, is_spent: Callable[[], bool]) -> None:
        super().__init__(plain.request_handler, request_factory=plain.request_factory, handler_cancellation=True)
        self.limits = limits
        self.open: dict[GuardedHandler, None] = {}
        """In the order in which they were last heard of, as far as anybody asked for room."""
        self._is_spent = is_spent
        self._logged_at = float("-inf")

    def protocol(self) -> asyncio.Protocol:
        """The protocol of the next connection. Above the caps it takes the place of an idle one, the oldest: whoever
        hoards connections keeps nobody out.
        """
        full = len(self.open) >= self.limits.connections or self._is_spent()
        if full and not self._make_room():
            return Refused()
        return GuardedHandler(self, asyncio.get_running_loop())

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        self.open[cast(GuardedHandler, handler)] = None

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        self.open.pop(cast(GuardedHandler, handler), None)

    def heard(self, handler: GuardedHandler) -> None:
        """A request has come on it: it is the last of those to make room."""
        if handler in self.open:
            del self.open[handler]
            self.open[handler] = None

    def _make_room(self) -> bool:
        for handler in list(islice(self.open, _LOOKS_FOR_ROOM)):
            del self.open[handler]
            if not handler.busy:
                handler.cut("idle")
                return True
            self.open[handler] = None
        return False

    async def all_done(self, patience: float) -> None:
        """Until every connection is gone and its handler has ended, at most `patience` seconds."""
        loop = asyncio.get_running_loop()
        until = loop.time() + patience
        while self.connections and loop.time() < until:  # noqa: ASYNC110  aiohttp has no event for it
            await asyncio.sleep(0.02)

    async def sweep(self) -> None:
        """Look at every connection each `limits.sweep` seconds, a slice at a time; runs until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self.limits.sweep)
            for number, handler in enumerate(list(self.open), start=1):
                handler.inspect(loop.time())
                if number % _SWEEP_SLICE == 0:
                    await asyncio.sleep(0)

    def log_rarely(self, text: str, *values: object) -> None:
        """One line a second at most, so that junk from outside cannot fill the disk."""
        now = asyncio.get_running_loop().time()
        if now - self._logged_at >= 1.0:
            self._logged_at = now
            LOG.info(text, *values)


class Front:
    """An aiohttp application on listening sockets, under guard."""

    def __init__(self, app: web.Application, limits: ConnectionLimits) -> None:
        self._runner = web.AppRunner(app, access_log=None)
        self._limits = limits
        self._listeners: list[asyncio.Server] = []
        self._sweeper: asyncio.Task[None] | None = None
        self._guard: GuardedServer | None = None

    @property
    def connections(self) -> int:
        return len(self._guard.open) if self._guard is not None else 0

    @property
    def busy(self) -> bool:
        return self._guard is not None and any(handler.busy for handler in self._guard.open)

    async def start(self, sockets: Sequence[socket.socket], tls: ssl.SSLContext | None = None) -> None:
        """Run the application's start-up, then accept. The sockets belong to the front from here on."""
        await self._runner.setup()
        # setup() has made it; its handler and request factory are all that is taken from it.
        memory = self._runner.app.get(MEMORY)
        is_spent = memory.is_spent if memory is not None else lambda: False
        self._guard = GuardedServer(cast(web.Server, self._runner.server), self._limits, is_spent)
        self._sweeper = asyncio.create_task(self._guard.sweep())
        loop = asyncio.get_running_loop()
        for sock in sockets:
            listener = await loop.create_server(
                self._guard.protocol,
                sock=sock,
                ssl=tls,
                backlog=BACKLOG,
                ssl_handshake_timeout=self._limits.head if tls else None,
                ssl_shutdown_timeout=self._limits.linger if tls else None,
            )
            self._listeners.append(listener)

    def stop_accepting(self) -> None:
        """Close this process's copy of the sockets; the accept queue lives on where another holds one."""
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()

    async def finish(self, patience: float) -> None:
        """Break off what still runs, close the rest, and wait: at most `patience` seconds for bytes being flushed, and
        then a moment for the cancelled handlers."""
        self.stop_accepting()
        if self._sweeper is not None:
            self._sweeper.cancel()
        if self._guard is None:
            return
        for handler in list(self._guard.open):
            if handler.busy:
                handler.cut("drain")
            else:
                handler.force_close()
        await self._guard.all_done(patience)
        for handler in list(self._guard.open):
            handler.cut("drain")
        await self._guard.all_done(_CANCELLED_WITHIN)

    async def cleanup(self) -> None:
        """The application's on_shutdown and on_cleanup."""
        await self._runner.cleanup()


def _keep_alive(sock: socket.socket) -> None:
    """Probe a silent peer after 60 s, and give it up after 60 more."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4)):
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
