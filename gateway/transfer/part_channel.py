"""One part of a body that has several, each with a settlement of its own, on one connection.

Law: a part's acknowledged bytes are its own: neither those before it on the connection nor those behind it.
"""

from __future__ import annotations

import zlib

from gateway.ports import Summed
from gateway.transfer.channel import Channel


class SharedChannel:
    """A response's channel and those of its parts that are not settled yet; released with the last of them."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self._users = 1

    def hold(self) -> None:
        """One more needs it."""
        self._users += 1

    def release(self) -> None:
        """One less needs it."""
        self._users -= 1
        if not self._users:
            self.channel.release()


class PartChannel(Channel):
    """The part that begins here, sent and read as if it were alone.

    `summed`: the CRC-32 of the file's beginning, at least up to the part's first byte, `offset`; it grows as bytes
    beyond it are sent. None: not known, and not to be computed.
    """

    def __init__(self, shared: SharedChannel, offset: int, summed: Summed | None) -> None:
        # Channel's own state is the whole response's, which it keeps.
        self.sent = 0
        self.summed = summed
        self._shared: SharedChannel | None = shared
        self._whole = shared.channel
        self._first = shared.channel.sent
        self._at = offset
        shared.hold()

    async def send(self, data: bytes | memoryview) -> None:
        """See Channel.send."""
        try:
            await self._whole.send(data)
        finally:
            took = self._whole.sent - self._first - self.sent
            self.sent += took
            self._sum(memoryview(data)[:took])

    def acknowledged(self) -> int | None:
        """See Channel.acknowledged."""
        whole = self._whole.acknowledged()
        return None if whole is None else min(self.sent, max(0, whole - self._first))

    def peer_gone(self) -> bool:
        """See Channel.peer_gone."""
        return self._whole.peer_gone()

    def finish(self) -> None:
        """Nothing to do: the response goes on."""

    def abort(self) -> None:
        """End the whole response visibly incomplete."""
        self._whole.abort()

    def release(self) -> None:
        """See Channel.release."""
        if self._shared is not None:
            self._shared.release()
            self._shared = None

    def _sum(self, data: memoryview) -> None:
        if self.summed is None:
            return
        new = data[max(0, self.summed.length - self._at) :]
        self._at += len(data)
        if new:
            self.summed = Summed(self._at, zlib.crc32(new, self.summed.crc32))
