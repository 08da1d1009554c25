"""A body written straight to the client's plain TCP socket, past the transport's buffers.

Law: one bounded write per client and turn of the event loop, and no byte waits in this process.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from gateway.errors import ClientGone, GatewayError, OriginChanged, OriginDown
from gateway.transfer.channel import Channel

TURN = 256 * 1024
"""Bytes that one client may take in one turn of the event loop, so that a fast one does not starve the others."""

# What sendfile(2) reports of the file; every other errno is the socket's.
_FILE_ERRORS = frozenset({errno.EIO, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EOVERFLOW, errno.ESTALE})


class SocketChannel(Channel):
    """Plain TCP: writes past aiohttp to the dup, so nothing is buffered in this process and files can be spliced in."""

    def __init__(
        self,
        response: web.StreamResponse,
        writer: AbstractStreamWriter,
        transport: asyncio.Transport,
        dup: socket.socket,
    ) -> None:
        super().__init__(response, writer, transport, dup)
        self._sock = dup
        self._loop = asyncio.get_running_loop()
        self._turn = 0

    async def send(self, data: bytes | memoryview) -> None:
        """Send all of `data`, in writes of at most TURN bytes. Raises ClientGone."""
        rest = memoryview(data)

        def step() -> bool:
            nonlocal rest
            count = self._sock.send(rest[:TURN])
            self._count(count)
            rest = rest[count:]
            return not rest

        await self._drive(step)

    async def sendfile(self, fd: int, offset: int, count: int) -> None:
        """Send `count` bytes of the file `fd` from `offset` without copying them (sendfile(2)).

        What is not in the page cache is read while the event loop waits, at most TURN bytes at a time.
        Raises ClientGone, OriginChanged when the file has become shorter, OriginDown when it cannot be read.
        """
        end = offset + count

        def step() -> bool:
            nonlocal offset
            size = os.sendfile(self._sock.fileno(), fd, offset, min(TURN, end - offset))
            if not size:
                raise OriginChanged("the file became shorter while it was sent")
            self._count(size)
            offset += size
            return offset == end

        await self._drive(step)

    def _count(self, size: int) -> None:
        self.sent += size
        self._turn += size
        self._writer.output_size += size  # what aiohttp's access log shows

    async def _drive(self, step: Callable[[], bool]) -> None:
        """Take `step` at once, and again whenever the socket is writable, until it says that it is done."""
        self._check()
        try:
            done = self._attempt(step)
        except OSError as error:
            raise _translated(error) from error
        if not done:
            await self._when_writable(step)
        elif self._turn >= TURN:
            await asyncio.sleep(0)
        else:
            return
        self._turn = 0

    @staticmethod
    def _attempt(step: Callable[[], bool]) -> bool:
        try:
            return step()
        except BlockingIOError:
            return False

    async def _when_writable(self, step: Callable[[], bool]) -> None:
        done: asyncio.Future[None] = self._loop.create_future()
        failure: Exception | None = None

        def writable() -> None:
            nonlocal failure
            if done.done():
                return
            try:
                self._check()
                finished = self._attempt(step)
            except Exception as error:  # noqa: BLE001 - whatever it is, the waiting task raises it
                failure, finished = error, True
            if finished:
                done.set_result(None)

        fd = self._sock.fileno()
        self._loop.add_writer(fd, writable)
        try:
            await done
        finally:
            self._loop.remove_writer(fd)
        if isinstance(failure, OSError):
            raise _translated(failure) from failure
        if failure is not None:
            raise failure


def _translated(error: OSError) -> GatewayError:
    if error.errno in _FILE_ERRORS:
        return OriginDown(f"the file cannot be read: {error.strerror}")
    return ClientGone("the client closed its connection")
