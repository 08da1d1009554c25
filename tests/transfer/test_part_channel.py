"""Parts of one body on one connection: each has its own bytes, its own checksum, and all of them one socket."""

from __future__ import annotations

import zlib

import pytest

from gateway.errors import ClientGone
from gateway.ports import Summed
from gateway.transfer.channel import Channel
from gateway.transfer.part_channel import PartChannel, SharedChannel

DATA = bytes(range(256)) * 20


class Whole(Channel):
    """A connection that takes `room` bytes and has acknowledged `heard` of them."""

    def __init__(self, room: int = 1 << 30) -> None:
        self.sent, self.room, self.heard, self.released, self.aborted = 0, room, 0, 0, False

    async def send(self, data: bytes | memoryview) -> None:
        took = min(len(data), self.room - self.sent)
        self.sent += took
        if took < len(data):
            raise ClientGone("it left")

    def acknowledged(self) -> int | None:
        return self.heard

    def abort(self) -> None:
        self.aborted = True

    def release(self) -> None:
        self.released += 1


async def test_acknowledged_bytes_are_the_parts_own() -> None:
    whole = Whole()
    shared = SharedChannel(whole)
    await whole.send(b"head")
    one = PartChannel(shared, 0, Summed())
    await one.send(DATA)
    one.finish()
    await whole.send(b"between")
    two = PartChannel(shared, 0, Summed())
    await two.send(DATA[:100])
    for heard, expected in [(0, (0, 0)), (4, (0, 0)), (5, (1, 0)), (4 + 5120, (5120, 0)), (5131, (5120, 0))]:
        whole.heard = heard
        assert (one.acknowledged(), two.acknowledged()) == expected
    whole.heard = whole.sent
    assert (one.acknowledged(), two.acknowledged()) == (5120, 100)
    assert (one.sent, two.sent) == (5120, 100)


async def test_the_socket_is_let_go_with_the_last_part() -> None:
    whole = Whole()
    shared = SharedChannel(whole)
    parts = [PartChannel(shared, 0, Summed()) for _ in range(3)]
    parts[0].release()
    parts[0].release()
    shared.release()
    parts[1].release()
    assert whole.released == 0
    parts[2].release()
    assert whole.released == 1


@pytest.mark.parametrize(("known", "offset"), [(0, 0), (1000, 0), (1000, 1000), (3000, 1000), (5120, 700)])
async def test_the_checksum_goes_on_from_what_is_known(known: int, offset: int) -> None:
    part = PartChannel(SharedChannel(Whole()), offset, Summed(known, zlib.crc32(DATA[:known])))
    for at in range(offset, len(DATA), 333):
        await part.send(DATA[at : at + 333])
    assert part.summed == Summed(len(DATA), zlib.crc32(DATA))


async def test_only_what_was_sent_is_summed() -> None:
    part = PartChannel(SharedChannel(Whole(room=700)), 0, Summed())
    await part.send(DATA[:500])
    with pytest.raises(ClientGone):
        await part.send(DATA[500:1000])
    assert part.summed == Summed(700, zlib.crc32(DATA[:700]))
    unknown = PartChannel(SharedChannel(Whole()), 10, None)
    await unknown.send(DATA)
    assert unknown.summed is None
