"""Bytes copied through this process: from an origin's connection, or from a file where TLS ends here.

Law: chunks go on as they arrive, never joined; only the end of a window cuts one.
"""

from __future__ import annotations

import os

from gateway.errors import OriginChanged, OriginDown
from gateway.store_ports import FileBody, StreamBody
from gateway.transfer.channel import Channel

READ = 64 * 1024
"""Bytes read from a file at a time."""


class CopyMover:
    """Moves a StreamBody; what a window leaves of a chunk is kept for the next one."""

    def __init__(self, body: StreamBody, channel: Channel) -> None:
        self._body = body
        self._channel = channel
        self._rest = memoryview(b"")

    async def move(self, count: int) -> None:
        """Move exactly the next `count` bytes. Raises ClientGone, OriginDown on a short body, what `read` raises."""
        while count:
            if not self._rest:
                self._rest = memoryview(await self._body.read())
                if not self._rest:
                    raise OriginDown("the body ended before its length")
            piece, self._rest = self._rest[:count], self._rest[count:]
            await self._channel.send(piece)
            count -= len(piece)


class FileStream:
    """A FileBody as a StreamBody, for a channel that cannot take a descriptor.

    Reads while the event loop waits: a thread would cost more than the page cache or a local disk takes.
    """

    def __init__(self, body: FileBody) -> None:
        self._body = body
        self._offset = body.offset
        self._end = body.offset + body.length

    async def read(self) -> bytes:
        """The next READ bytes, b"" at the end. Raises OriginChanged on a truncated file, OriginDown when unreadable."""
        size = min(READ, self._end - self._offset)
        if not size:
            return b""
        try:
            data = os.pread(self._body.fd, size, self._offset)
        except OSError as error:
            raise OriginDown(f"the file cannot be read: {error.strerror}") from error
        if not data:
            raise OriginChanged("the file became shorter while it was sent")
        self._offset += len(data)
        return data

    async def aclose(self) -> None:
        """Close the file. Call it once."""
        await self._body.aclose()
