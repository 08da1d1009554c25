"""One response's body on its way to one client: what was sent, what the client's TCP acknowledged, how it ends.

Law: an incomplete body never ends politely, and what was acknowledged can be read after any end.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from abc import ABC, abstractmethod
from contextlib import suppress

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from gateway.errors import ClientGone
from gateway.transfer import tcp_info

_RESET_ON_CLOSE = struct.pack("@ii", 1, 0)


class Channel(ABC):
    """What both kinds share; an `Inspectable`, so it can be read after the handler has ended, until `release`.

    It holds a dup of the client's socket, because only that still answers after a reset. While it is held the
    connection stays open, whatever aiohttp closes: `abort` or `finish` first, `release` as soon as all is known.
    """

    def __init__(
        self,
        response: web.StreamResponse,
        writer: AbstractStreamWriter,
        transport: asyncio.Transport,
        dup: socket.socket | None,
    ) -> None:
        self.sent = 0
        """Body bytes handed to the kernel, or to the transport where TLS ends here."""
        self._response = response
        self._writer = writer
        self._transport = transport
        self._dup = dup
        self._start = _end_of_head(transport, dup)
        self._aborted = False

    @abstractmethod
    async def send(self, data: bytes | memoryview) -> None:
        """Send all of `data`, waiting for the client as long as it takes. Raises ClientGone."""

    def acknowledged(self) -> int | None:
        """Body bytes the client's TCP has acknowledged so far; None where the platform cannot tell."""
        info = tcp_info.tcp_info(self._dup) if self._dup is not None else None
        if info is None or self._start is None:
            return None
        return min(self.sent, self._plain(max(0, info.bytes_acked - self._start)))

    def peer_gone(self) -> bool:
        """Whether nothing more will be acknowledged: reset, closed, or left with nothing outstanding."""
        if self._dup is not None and tcp_info.nothing_more_to_come(self._dup):
            return True
        return self._start is None and self._transport.is_closing()

    def finish(self) -> None:
        """Call it when the whole body was sent: tells a client that was promised `Connection: close` that this is all.

        aiohttp closes its own descriptor only, and the dup would keep the end from the client until `release`.
        """
        if self._dup is not None and not self._response.keep_alive:
            with suppress(OSError):
                self._dup.shutdown(socket.SHUT_WR)

    def abort(self) -> None:
        """End the response visibly incomplete; `acknowledged` still answers. Harmless when called again."""
        self._aborted = True
        if self._dup is not None:
            with suppress(OSError):
                self._dup.shutdown(socket.SHUT_RDWR)
        self._transport.abort()

    def release(self) -> None:
        """Close the dup; after `abort` with a reset, so that what the client did not take frees its memory."""
        if self._dup is None:
            return
        if self._aborted:
            with suppress(OSError):
                self._dup.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._dup.close()
        self._dup = None

    def _plain(self, wire: int) -> int:
        """Body bytes in `wire` bytes of this connection."""
        return wire

    def _check(self) -> None:
        if self._transport.is_closing():
            raise ClientGone("the client's connection is closed")

    def _count(self, size: int) -> None:
        self.sent += size


def _end_of_head(transport: asyncio.Transport, dup: socket.socket | None) -> int | None:
    end = tcp_info.end_of_queue(dup) if dup is not None else None
    return None if end is None else end + transport.get_write_buffer_size()
