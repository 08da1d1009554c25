"""Bytes of a local file sent by the kernel, never copied through this process (sendfile(2))."""

from __future__ import annotations

from gateway.errors import OriginDown
from gateway.store_ports import FileBody
from gateway.transfer.socket_channel import SocketChannel


class SendfileMover:
    """Moves a FileBody to a client on plain TCP."""

    def __init__(self, body: FileBody, channel: SocketChannel) -> None:
        self._fd = body.fd
        self._channel = channel
        self._offset = body.offset
        self._end = body.offset + body.length

    async def move(self, count: int) -> None:
        """Move exactly the next `count` bytes. Raises ClientGone, OriginChanged on a truncated file, OriginDown."""
        if self._offset + count > self._end:
            raise OriginDown("the body ended before its length")
        await self._channel.sendfile(self._fd, self._offset, count)
        self._offset += count
