"""A body written through aiohttp's transport: where TLS ends here, or where the socket cannot be dup'ed.

Law: at most one piece waits in user space above the transport's own buffer; TLS record overhead is not body.
"""

from __future__ import annotations

import asyncio
import socket

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from gateway.errors import ClientGone
from gateway.transfer.channel import Channel

PIECE = 64 * 1024
"""Plain bytes written (and encrypted) at a time."""

_RECORD = 16 * 1024  # RFC 8446 section 5.1: the most plain bytes in one record; OpenSSL fills it


class TransportChannel(Channel):
    """Through aiohttp's transport with back-pressure: where TLS ends here, or where the socket cannot be dup'ed."""

    def __init__(
        self,
        response: web.StreamResponse,
        writer: AbstractStreamWriter,
        transport: asyncio.Transport,
        dup: socket.socket | None,
    ) -> None:
        super().__init__(response, writer, transport, dup)
        transport.set_write_buffer_limits(high=PIECE)
        self._records = 0
        self._overhead = _record_overhead(transport)

    async def send(self, data: bytes | memoryview) -> None:
        """Send all of `data`, in pieces of PIECE bytes with back-pressure. Raises ClientGone."""
        view = memoryview(data)
        for start in range(0, len(view), PIECE):
            piece = view[start : start + PIECE]
            self._check()
            self._count(len(piece))
            self._records += -(-len(piece) // _RECORD)
            try:
                await self._writer.write(piece)
                await self._writer.drain()
            except ConnectionError as error:
                raise ClientGone("the client closed its connection") from error

    def finish(self) -> None:
        """Nothing to do: close_notify is the transport's to send, and shutting the socket down would forbid it."""

    def _plain(self, wire: int) -> int:
        total = self.sent + self._records * self._overhead
        return wire * self.sent // total if total else 0


def _record_overhead(transport: asyncio.Transport) -> int:
    """Bytes that TLS adds to a record: header, nonce, content type, tag (RFC 8446 section 5.2, 5288, 7905)."""
    cipher: tuple[str, str, int] | None = transport.get_extra_info("cipher")
    if cipher is None:
        return 0
    name, version, _ = cipher
    if version == "TLSv1.3":
        return 5 + 1 + 16
    return 5 + 16 if "CHACHA20" in name else 5 + 8 + 16
