"""Movers: exactly the bytes asked for, in windows, from bodies that keep their promise and bodies that do not."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import OriginChanged, OriginDown
from gateway.store_ports import FileBody
from gateway.transfer import socket_channel
from gateway.transfer.channel import Channel
from gateway.transfer.choose import mover_for
from gateway.transfer.copy import CopyMover, FileStream

Run = Callable[[Coroutine[Any, Any, None]], None]


class Sink(Channel):
    """Takes everything at once and remembers how it was cut."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    async def send(self, data: bytes | memoryview) -> None:
        self.pieces.append(bytes(data))


async def test_chunks_go_on_as_they_arrive_and_windows_cut_only_their_last(kit: Any) -> None:
    sink = Sink()
    mover = CopyMover(kit.chunks(kit.content[:1000], size=300), sink)
    await mover.move(650)
    await mover.move(1)
    await mover.move(349)
    assert [len(p) for p in sink.pieces] == [300, 300, 50, 1, 249, 100]
    assert b"".join(sink.pieces) == kit.content[:1000]
    with pytest.raises(OriginDown):
        await mover.move(1)


async def test_a_file_is_read_from_its_offset_in_pieces(kit: Any) -> None:
    sink = Sink()
    body = kit.file_body(offset=5, length=100_000)
    mover = mover_for(body, sink)
    await mover.move(99_999)
    await mover.move(1)
    assert b"".join(sink.pieces) == kit.content[5:100_005]
    with pytest.raises(OriginDown):
        await mover.move(1)
    await body.aclose()


async def test_a_truncated_or_unreadable_file_is_not_an_end(tmp_path: Path) -> None:
    path = tmp_path / "short"
    path.write_bytes(b"x" * 10)
    stream = FileStream(FileBody(os.open(path, os.O_RDONLY), 0, 20))
    assert await stream.read() == b"x" * 10
    with pytest.raises(OriginChanged):
        await stream.read()
    await stream.aclose()
    folder = FileBody(os.open(tmp_path, os.O_RDONLY), 0, 20)
    with pytest.raises(OriginDown):
        await FileStream(folder).read()
    await folder.aclose()


def test_sendfile_of_a_truncated_file_aborts(run: Run, kit: Any, tmp_path: Path) -> None:
    path = tmp_path / "short"
    path.write_bytes(kit.content[:100_000])

    async def scenario() -> None:
        async with kit.serve(lambda _: (FileBody(os.open(path, os.O_RDONLY), 0, 200_000), 200_000)) as site:
            client = await site.connect()
            await asyncio.get_running_loop().sock_sendall(client, kit.get("/"))
            _, body = await kit.read_response(client)
            assert body == kit.content[:100_000]
            await site.ended()
            assert isinstance(site.ends[0], OriginChanged)
            client.close()

    run(scenario())


def test_sendfile_of_what_cannot_be_read_blames_the_file(run: Run, kit: Any, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with kit.serve(lambda _: (FileBody(os.open(tmp_path, os.O_RDONLY), 0, 2000), 2000)) as site:
            client = await site.connect()
            await asyncio.get_running_loop().sock_sendall(client, kit.get("/"))
            await kit.read_response(client)
            await site.ended()
            assert isinstance(site.ends[0], OriginDown)
            client.close()

    run(scenario())


def test_a_local_file_goes_to_a_plain_socket_without_a_copy(
    run: Run, kit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[int] = []
    really = FileStream.read

    async def read(stream: FileStream) -> bytes:
        reads.append(1)
        return await really(stream)

    monkeypatch.setattr(FileStream, "read", read)

    async def scenario() -> None:
        async with kit.serve(kit.bodies("file")) as site:
            client = await site.connect()
            await asyncio.get_running_loop().sock_sendall(client, kit.get("/"))
            assert (await kit.read_response(client))[1] == kit.content
            client.close()

    run(scenario())
    assert not reads


def test_a_part_and_no_more_comes_from_a_body_longer_than_the_window(run: Run, kit: Any, kind: str) -> None:
    part = slice(1_000_001, 3_000_001)

    def make(_request: object) -> tuple[object, int]:
        body = kit.file_body(part.start, 2_000_000) if kind == "file" else kit.chunks(kit.content[part])
        return body, 2_000_000

    async def scenario() -> None:
        async with kit.serve(make, window=123_457) as site:
            client = await site.connect()
            await asyncio.get_running_loop().sock_sendall(client, kit.get("/"))
            assert (await kit.read_response(client, pause=0.001))[1] == kit.content[part]
            client.close()

    run(scenario())


def test_twenty_downloads_at_once_are_each_whole(run: Run, kit: Any, kind: str) -> None:
    async def scenario() -> None:
        async with kit.serve(kit.bodies(kind), window=300_000) as site:

            async def download(number: int) -> str:
                client = await site.connect(rcvbuf=64 * 1024 if number % 2 else None)
                await asyncio.get_running_loop().sock_sendall(client, kit.get("/"))
                _, body = await kit.read_response(client, pause=0.001 if number % 5 == 0 else 0.0)
                client.close()
                return hashlib.sha256(body).hexdigest()

            sums = await asyncio.gather(*(download(n) for n in range(20)))
            assert set(sums) == {hashlib.sha256(kit.content).hexdigest()}

    run(scenario())


def test_a_socket_that_stays_writable_leaves_turns_to_others(
    run: Run, kit: Any, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it fits into the socket's buffers at once, so no send ever waits for the client."""
    size = 32 * 1024
    monkeypatch.setattr(socket_channel, "TURN", 1024)

    def make(_request: object) -> tuple[object, int]:
        return (kit.file_body(0, size) if kind == "file" else kit.chunks(kit.content[:size], size=1024)), size

    async def scenario() -> None:
        seen: set[int] = set()

        async with kit.serve(make, window=1024) as site:

            async def watch() -> None:
                while True:
                    seen.update(channel.sent for channel in site.channels)
                    await asyncio.sleep(0)

            client = await site.connect()
            watcher = asyncio.create_task(watch())
            await asyncio.get_running_loop().sock_sendall(client, kit.get("/"))
            await site.ended()
            watcher.cancel()
            assert len(seen) >= size // 1024
            client.close()

    run(scenario())
