"""Channels on real connections: what is counted, how a response ends, what the next one on the connection finds."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import ClientGone, OriginDown
from gateway.transfer import choose, tcp_info
from gateway.transfer.socket_channel import SocketChannel
from gateway.transfer.transport_channel import TransportChannel

Run = Callable[[Coroutine[Any, Any, None]], None]
linux = pytest.mark.skipif(sys.platform != "linux", reason="acknowledged bytes are Linux's")
CURL = shutil.which("curl")


@linux
def test_a_whole_download_is_acknowledged_to_the_byte(run: Run, kit: Any, kind: str) -> None:
    async def scenario() -> None:
        async with kit.serve(kit.bodies(kind)) as site:
            client = await site.connect()
            await asyncio.get_running_loop().sock_sendall(client, kit.get("/"))
            head, body = await kit.read_response(client)
            assert head.startswith(b"HTTP/1.1 200")
            assert body == kit.content
            await site.ended()
            (channel,) = site.channels
            assert isinstance(channel, SocketChannel)
            await kit.until(lambda: channel.acknowledged() == len(kit.content))
            assert channel.sent == len(kit.content)
            assert not channel.peer_gone()
            client.close()
            await kit.until(channel.peer_gone)
            assert channel.acknowledged() == len(kit.content)

    run(scenario())


@linux
def test_keep_alive_counts_each_response_by_itself(run: Run, kit: Any, kind: str) -> None:
    async def scenario() -> None:
        async with kit.serve(kit.bodies(kind)) as site:
            client = await site.connect()
            for number in range(3):
                await asyncio.get_running_loop().sock_sendall(client, kit.get(f"/{number}"))
                head, body = await kit.read_response(client)
                assert head.startswith(b"HTTP/1.1 200")
                assert body == kit.content
                await site.ended(number + 1)
                await kit.until(lambda: site.channels[-1].acknowledged() == len(kit.content))
            assert [c.acknowledged() for c in site.channels] == [len(kit.content)] * 3
            client.setblocking(False)
            with pytest.raises(BlockingIOError):
                client.recv(1)
            client.close()

    run(scenario())


@linux
def test_what_a_stalled_client_has_not_taken_is_all_that_is_missing(run: Run, kit: Any, kind: str) -> None:
    """Also on a connection that has delivered a whole file before: neither that nor any head is counted."""

    async def scenario() -> None:
        async with kit.serve(kit.bodies(kind)) as site:
            loop = asyncio.get_running_loop()
            client = await site.connect(rcvbuf=8 * 1024)
            await loop.sock_sendall(client, kit.get("/1"))
            assert (await kit.read_response(client))[1] == kit.content
            await loop.sock_sendall(client, kit.get("/2"))
            await asyncio.sleep(0.2)
            channel = site.channels[1]
            waiting = tcp_info.queued(channel._dup)
            assert waiting > 0
            assert channel.acknowledged() == channel.sent - waiting
            client.close()

    run(scenario())


@linux
def test_pipelined_requests_are_answered_and_counted(run: Run, kit: Any, kind: str) -> None:
    """The second head and body queue behind a first that the client has not taken yet."""

    async def scenario() -> None:
        async with kit.serve(kit.bodies(kind)) as site:
            client = await site.connect()
            await asyncio.get_running_loop().sock_sendall(client, kit.get("/1") + kit.get("/2") + kit.get("/3"))
            for _ in range(3):
                _, body = await kit.read_response(client)
                assert body == kit.content
            await site.ended(3)
            for channel in site.channels:
                await kit.until(lambda channel=channel: channel.acknowledged() == len(kit.content))
            client.close()

    run(scenario())


@pytest.mark.parametrize(
    ("version", "headers"), [("1.1", ("Connection: close",)), ("1.0", ()), ("1.0", ("Connection: keep-alive",))]
)
def test_the_end_is_told_while_the_dup_is_held(
    run: Run, kit: Any, kind: str, version: str, headers: tuple[str, ...]
) -> None:
    async def scenario() -> None:
        async with kit.serve(kit.bodies(kind)) as site:
            loop = asyncio.get_running_loop()
            client = await site.connect()
            await loop.sock_sendall(client, kit.get("/", *headers, version=version))
            _, body = await kit.read_response(client)
            assert body == kit.content
            if "Connection: keep-alive" in headers:
                await loop.sock_sendall(client, kit.get("/", *headers, version=version))
                assert (await kit.read_response(client))[1] == kit.content
            else:
                assert await asyncio.wait_for(loop.sock_recv(client, 1), 2) == b""
            client.close()

    run(scenario())


@linux
def test_a_client_that_reads_a_little_and_leaves(run: Run, kit: Any, kind: str) -> None:
    async def scenario() -> None:
        async with kit.serve(kit.bodies(kind)) as site:
            loop = asyncio.get_running_loop()
            client = await site.connect(rcvbuf=16 * 1024)
            await loop.sock_sendall(client, kit.get("/"))
            await loop.sock_recv(client, 1024)
            await asyncio.sleep(0.1)
            client.close()
            await site.ended()
            (channel,) = site.channels
            await kit.until(channel.peer_gone)
            delivered = channel.acknowledged()
            assert delivered is not None
            assert 0 < delivered < channel.sent < 1024 * 1024
            assert delivered < 128 * 1024
            await asyncio.sleep(0.05)
            assert channel.acknowledged() == delivered

    run(scenario())


def test_a_client_that_leaves_while_the_origin_is_silent(run: Run, kit: Any) -> None:
    async def scenario() -> None:
        body = kit.chunks(kit.content, stall_at=300_000)
        async with kit.serve(lambda _: (body, len(kit.content))) as site:
            client = await site.connect()
            await asyncio.get_running_loop().sock_sendall(client, kit.get("/"))
            received = 0
            while received < body.stall_at:
                received += len(await asyncio.get_running_loop().sock_recv(client, 65536))
            client.close()
            await site.ended()
            assert isinstance(site.ends[0], asyncio.CancelledError)
            assert body.closed

    run(scenario())


def test_a_client_that_closes_its_sending_side_is_taken_as_gone(run: Run, kit: Any) -> None:
    """aiohttp closes the transport at EOF, so the download is cut, visibly."""

    async def scenario() -> None:
        body = kit.chunks(kit.content, stall_at=300_000)
        async with kit.serve(lambda _: (body, len(kit.content))) as site:
            client = await site.connect()
            await asyncio.get_running_loop().sock_sendall(client, kit.get("/"))
            await asyncio.get_running_loop().sock_recv(client, 1024)
            client.shutdown(socket.SHUT_WR)
            received = bytearray()
            while more := await asyncio.wait_for(asyncio.get_running_loop().sock_recv(client, 65536), 5):
                received += more
            assert len(received) < len(kit.content)
            await site.ended()
            assert isinstance(site.ends[0], asyncio.CancelledError)
            client.close()

    run(scenario())


def test_a_stalled_client_costs_the_kernel_kilobytes(run: Run, kit: Any, kind: str) -> None:
    async def scenario() -> None:
        async with kit.serve(kit.bodies(kind)) as site:
            loop = asyncio.get_running_loop()
            client = await site.connect(rcvbuf=8 * 1024)
            await loop.sock_sendall(client, kit.get("/"))
            await asyncio.sleep(0.3)
            (channel,) = site.channels
            assert channel.sent < 512 * 1024
            started = time.process_time()
            await asyncio.sleep(0.3)
            assert time.process_time() - started < 0.1, "waiting for a slow client must not spin"
            _, body = await kit.read_response(client)
            assert body == kit.content
            client.close()

    run(scenario())


@linux
def test_abort_is_visible_and_still_counted(run: Run, kit: Any) -> None:
    async def scenario() -> None:
        short = kit.content[:1_000_000]
        async with kit.serve(lambda _: (kit.chunks(short), len(kit.content))) as site:
            client = await site.connect()
            await asyncio.get_running_loop().sock_sendall(client, kit.get("/"))
            _, body = await kit.read_response(client)
            assert body == short
            await site.ended()
            assert isinstance(site.ends[0], OriginDown)
            (channel,) = site.channels
            await kit.until(lambda: channel.acknowledged() == len(short))
            channel.abort()
            client.close()
            await kit.until(channel.peer_gone)
            assert channel.acknowledged() == len(short)

    run(scenario())


@linux
def test_release_after_abort_drops_what_a_stalled_client_did_not_take(run: Run, kit: Any, kind: str) -> None:
    async def scenario() -> None:
        async with kit.serve(kit.bodies(kind)) as site:
            loop = asyncio.get_running_loop()
            client = await site.connect(rcvbuf=8 * 1024)
            await loop.sock_sendall(client, kit.get("/"))
            await asyncio.sleep(0.2)
            (channel,) = site.channels
            channel.abort()
            await site.ended()
            channel.release()
            channel.release()

            async def drain() -> None:
                while await loop.sock_recv(client, 65536):
                    pass

            with pytest.raises(ConnectionResetError):
                await drain()
            client.close()

    run(scenario())


@pytest.mark.skipif(CURL is None, reason="curl is not installed")
def test_curl_reports_an_aborted_download(run: Run, kit: Any) -> None:
    async def scenario() -> None:
        async with kit.serve(lambda _: (kit.chunks(kit.content[:500_000]), len(kit.content))) as site:
            curl = await asyncio.create_subprocess_exec(
                str(CURL), "-s", "-o", os.devnull, "--max-time", "10", f"http://127.0.0.1:{site.port}/"
            )
            assert await curl.wait() in (18, 56)

    run(scenario())


def test_an_abort_from_elsewhere_wakes_a_waiting_send(run: Run, kit: Any, kind: str) -> None:
    async def scenario() -> None:
        async with kit.serve(kit.bodies(kind)) as site:
            client = await site.connect(rcvbuf=8 * 1024)
            await asyncio.get_running_loop().sock_sendall(client, kit.get("/"))
            await asyncio.sleep(0.1)
            site.channels[0].abort()
            await site.ended()
            assert isinstance(site.ends[0], ClientGone | asyncio.CancelledError)
            client.close()

    run(scenario())


def test_an_abort_is_visible_while_the_dup_is_held(run: Run, kit: Any) -> None:
    async def scenario() -> None:
        async with kit.serve(lambda _: (kit.chunks(kit.content[:1000]), 2000)) as site:
            client = await site.connect()
            await asyncio.get_running_loop().sock_sendall(client, kit.get("/"))
            reading = asyncio.ensure_future(kit.read_response(client))
            await asyncio.wait({reading}, timeout=3)
            assert reading.done()
            assert len(reading.result()[1]) < 2000
            client.close()

    run(scenario())


def test_an_abort_is_visible_without_a_dup_too(run: Run, kit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "_dup", lambda _: None)

    async def scenario() -> None:
        async with kit.serve(lambda _: (kit.chunks(kit.content[:1000]), 2000)) as site:
            client = await site.connect()
            await asyncio.get_running_loop().sock_sendall(client, kit.get("/"))
            assert len((await asyncio.wait_for(kit.read_response(client), 3))[1]) < 2000
            client.close()

    run(scenario())


def test_no_registration_outlives_a_wait(run: Run, kit: Any, kind: str) -> None:
    async def scenario() -> None:
        async with kit.serve(kit.bodies(kind)) as site:
            loop = asyncio.get_running_loop()
            for number, leave_early in enumerate((True, False), 1):
                client = await site.connect(rcvbuf=8 * 1024)
                await loop.sock_sendall(client, kit.get("/"))
                await asyncio.sleep(0.1)
                if not leave_early:
                    assert (await kit.read_response(client))[1] == kit.content
                client.close()
                await site.ended(number)
                assert not loop.remove_writer(site.channels[-1]._sock.fileno())

    run(scenario())


def test_without_a_dup_the_transport_carries_the_body_and_nothing_is_guessed(
    run: Run, kit: Any, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choose, "_dup", lambda _: None)

    async def scenario() -> None:
        async with kit.serve(kit.bodies(kind)) as site:
            client = await site.connect()
            for _ in range(2):
                await asyncio.get_running_loop().sock_sendall(client, kit.get("/"))
                assert (await kit.read_response(client))[1] == kit.content
            (first, _) = site.channels
            assert isinstance(first, TransportChannel)
            assert first.acknowledged() is None
            assert not first.peer_gone()
            client.close()
            await kit.until(first.peer_gone)

    run(scenario())


def test_the_access_log_counts_the_body(run: Run, kit: Any, kind: str) -> None:
    async def scenario() -> None:
        async with kit.serve(kit.bodies(kind)) as site:
            client = await site.connect()
            await asyncio.get_running_loop().sock_sendall(client, kit.get("/"))
            head, body = await kit.read_response(client)
            response = site.channels[0]._response
            await kit.until(lambda: response.body_length == len(head) + len(body))
            client.close()

    run(scenario())


def test_no_descriptor_stays_behind(run: Run, kit: Any, kind: str) -> None:
    def descriptors() -> int:
        return len(list(Path("/dev/fd").iterdir()))

    async def scenario() -> None:
        async with kit.serve(kit.bodies(kind)) as site:
            start = descriptors()
            for number in range(10):
                client = await site.connect(rcvbuf=8 * 1024)
                await asyncio.get_running_loop().sock_sendall(client, kit.get("/"))
                await asyncio.get_running_loop().sock_recv(client, 1024)
                client.close()
                await site.ended(number + 1)
                site.channels[-1].release()
            await kit.until(lambda: descriptors() == start)

    run(scenario())
