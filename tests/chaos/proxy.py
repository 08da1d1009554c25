"""A TCP proxy on loopback that breaks the line between a gateway and its server: silent, refusing, late, forgetful.

It keeps its port through every fault, and knows nothing of the protocol but that a reply follows a request.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

CHUNK = 1 << 16


@dataclass(eq=False, slots=True)
class _Link:
    """One client's connection and ours to the server, if any; `asked`: the next reply on it may be lost."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter | None = None
    asked: bool = False

    def cut(self) -> None:
        self.client.transport.abort()
        if self.server is not None:
            self.server.transport.abort()


class FaultProxy:
    """Start it in the loop that runs for as long as the proxy is needed."""

    def __init__(self) -> None:
        self.port = 0
        self._target = 0
        self._mode: Literal["pass", "black hole", "refuse"] = "pass"
        self._delay = 0.0
        self._to_lose = 0
        self._lose_after = b""
        self._listener: asyncio.Server | None = None
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, target_port: int) -> int:
        """The port on which it stands in front of `target_port`."""
        self._target = target_port
        listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port = int(listening.getsockname()[1])
        self._listener = await asyncio.start_server(self._serve, sock=listening)
        return self.port

    async def close(self) -> None:
        self._close_listener()
        self._cut_all()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5)

    @property
    def lost(self) -> int:
        """How many replies are still to be lost."""
        return self._to_lose

    def turn_to(self, target_port: int) -> None:
        """Lead new connections to another server."""
        self._target = target_port

    def let_pass(self) -> None:
        """No fault any more. What was swallowed is lost, so connections out of a black hole are cut."""
        if self._mode == "black hole":
            self._cut_all()
        self._mode, self._delay, self._to_lose = "pass", 0.0, 0
        self._listen()

    def black_hole(self) -> None:
        """Connections are accepted and stay open; nothing is answered, nothing goes through."""
        self._listen()
        self._mode = "black hole"

    def refuse(self) -> None:
        """Connections are reset, and new ones refused."""
        self._mode = "refuse"
        self._close_listener()
        self._cut_all()

    def delay(self, seconds: float) -> None:
        """Each chunk arrives that much later, in both directions: a round trip takes twice as long."""
        self._delay = seconds

    def lose_replies(self, count: int, after: bytes = b"") -> None:
        """The next `count` times that a reply follows a request, it is swallowed and its connection closed.

        `after`: only a request that holds these bytes counts.
        """
        for link in self._links:
            link.asked = False
        self._to_lose, self._lose_after = count, after

    def _listen(self) -> None:
        if self._listener is None:
            listening = socket.create_server(("127.0.0.1", self.port), backlog=1024)
            self._spawn(self._start_on(listening))

    async def _start_on(self, listening: socket.socket) -> None:
        if self._listener is None and self._mode != "refuse":
            self._listener = await asyncio.start_server(self._serve, sock=listening)
        else:
            listening.close()

    def _close_listener(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def _cut_all(self) -> None:
        for link in list(self._links):
            link.cut()

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        own = asyncio.current_task()
        assert own is not None
        self._tasks.add(own)
        own.add_done_callback(self._tasks.discard)
        link = _Link(writer)
        self._links.add(link)
        try:
            if self._mode == "black hole":
                while await reader.read(CHUNK):
                    pass
                return
            from_server, link.server = await asyncio.open_connection("127.0.0.1", self._target)
            ways = (self._move(link, reader, link.server, True), self._move(link, from_server, writer, False))
            await asyncio.gather(*ways)
        except OSError:
            pass  # one end is gone, and the other follows
        finally:
            link.cut()
            self._links.discard(link)

    async def _move(
        self, link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bool
    ) -> None:
        # Chunks are late, not slowed: the next is read while this one waits, as on a long line.
        waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(64)
        delivery = asyncio.create_task(self._deliver(waiting, writer))
        loop = asyncio.get_running_loop()
        try:
            while chunk := await reader.read(CHUNK):
                if self._mode == "black hole":
                    continue
                if self._is_lost(link, chunk, request):
                    break
                await waiting.put((loop.time() + self._delay, chunk))
            else:
                await waiting.put((0.0, b""))
                await delivery
        finally:
            delivery.cancel()
            await asyncio.wait([delivery])
        raise ConnectionResetError("an end of the link is closed")

    def _is_lost(self, link: _Link, chunk: bytes, request: bool) -> bool:
        if request:
            link.asked = link.asked or (self._to_lose > 0 and self._lose_after in chunk)
            return False
        lost, link.asked = link.asked and self._to_lose > 0, False
        self._to_lose -= lost
        return lost

    async def _deliver(self, waiting: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        while True:
            when, chunk = await waiting.get()
            if not chunk:
                return
            if (late := when - loop.time()) > 0:
                await asyncio.sleep(late)
            with suppress(OSError):
                writer.write(chunk)
                await writer.drain()
