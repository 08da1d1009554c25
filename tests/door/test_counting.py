"""What counts as a download, seen from a client: each row is a trap that known systems fall into."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest
from aiohttp import ClientPayloadError, StreamReader

SIZE = 300_000
LARGE = 8 * 1024 * 1024


def by(address: str, agent: str = "agent") -> dict[str, str]:
    return {"X-Forwarded-For": address, "User-Agent": agent}


async def get(gateway, token: str, headers: dict[str, str], number: int = 1) -> tuple[int, bytes]:
    async with gateway.client.get(f"{gateway.base}/d/{token}/{number}", headers=headers) as response:
        return response.status, await response.read()


async def drain(content: StreamReader, into: bytearray) -> None:
    async for chunk in content.iter_any():
        into += chunk


async def test_a_double_click_is_one_download_and_a_fourth_copy_another(gateway) -> None:
    gateway.file("a.bin", SIZE)
    token = gateway.token("a.bin", downloads=1)
    for _ in range(3):
        assert (await get(gateway, token, by("203.0.113.7")))[0] == 200
        await gateway.settled()
    assert await gateway.used() == 1
    assert (await get(gateway, token, by("203.0.113.7")))[0] == 410


async def test_two_full_downloads_apart_are_two(gateway) -> None:
    gateway.file("a.bin", SIZE)
    token = gateway.token("a.bin", downloads=2)
    await get(gateway, token, by("203.0.113.7"))
    await gateway.settled()
    await asyncio.sleep(2.2)
    await get(gateway, token, by("203.0.113.7"))
    assert await gateway.used() == 2
    await asyncio.sleep(2.2)
    assert (await get(gateway, token, by("203.0.113.7")))[0] == 410
    assert (await get(gateway, token, by("203.0.113.7") | {"Range": "bytes=299000-"}))[0] == 410


async def test_sixteen_ranges_over_a_plain_get_are_one(gateway) -> None:
    data = gateway.file("large.bin", LARGE)
    token = gateway.token("large.bin", downloads=1)
    step = LARGE // 16
    host, port = gateway.base.removeprefix("http://").split(":")
    # A small buffer: what loopback would take of the plain answer is more than any line holds.
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        sock.connect((host, int(port)))
        reader, writer = await asyncio.open_connection(sock=sock, limit=4096)
        writer.write(f"GET /d/{token} HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 203.0.113.7\r\n\r\n".encode())
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        assert await reader.readexactly(step) == data[:step]
        ranges = [f"bytes={n * step}-{(n + 1) * step - 1}" for n in range(1, 16)]
        parts = await asyncio.gather(*(get(gateway, token, by("203.0.113.7") | {"Range": r}) for r in ranges))
        writer.close()
    assert [status for status, _ in parts] == [206] * 15
    assert b"".join(body for _, body in parts) == data[step:]
    assert await gateway.used() == 1


async def test_small_slices_add_up_to_a_download(gateway) -> None:
    gateway.file("a.bin", SIZE)
    token = gateway.token("a.bin", downloads=1)
    for n in range(6):
        headers = by("203.0.113.7") | {"Range": f"bytes={n * 10_000}-{n * 10_000 + 9_999}"}
        assert (await get(gateway, token, headers))[0] == 206
        await gateway.settled()
    assert await gateway.used() == 0
    assert (await get(gateway, token, by("203.0.113.7") | {"Range": "bytes=60000-"}))[0] == 206
    assert await gateway.used() == 1
    assert (await get(gateway, token, by("198.51.100.1", "other")))[0] == 410


async def test_charges_are_given_back_eight_times(gateway) -> None:
    gateway.file("a.bin", SIZE)
    token = gateway.token("a.bin", downloads=1)
    for n in range(9):
        status, _ = await get(gateway, token, by(f"203.0.{n}.7", f"agent {n}") | {"Range": "bytes=0-99"})
        assert status == 206
        assert await gateway.used() == (0 if n < 8 else 1)
    assert (await get(gateway, token, by("198.51.100.1", "other")))[0] == 410


async def test_another_network_is_another_download_but_a_resume_with_the_same_agent_is_not(gateway) -> None:
    data = gateway.file("a.bin", SIZE)
    token = gateway.token("a.bin", downloads=1)
    assert (await get(gateway, token, by("203.0.113.7") | {"Range": "bytes=0-199999"}))[0] == 206
    await gateway.settled()
    assert (await get(gateway, token, by("198.51.100.1")))[0] == 410
    assert (await get(gateway, token, by("198.51.100.1", "") | {"Range": "bytes=200000-"}))[0] == 410
    status, rest = await get(gateway, token, by("198.51.100.1") | {"Range": "bytes=200000-"})
    assert (status, rest) == (206, data[200_000:])
    assert await gateway.used() == 1


async def test_the_device_cookie_follows_a_buyer_from_network_to_network(gateway) -> None:
    gateway.file("a.bin", SIZE)
    token = gateway.token("a.bin", downloads=1)
    async with gateway.client.get(f"{gateway.base}/l/{token}", allow_redirects=False) as response:
        cookie = {"Cookie": response.headers["Set-Cookie"].partition(";")[0]}
    assert (await get(gateway, token, by("203.0.113.7", "one") | cookie | {"Range": "bytes=0-199999"}))[0] == 206
    await gateway.settled()
    assert (await get(gateway, token, by("198.51.100.1", "two") | cookie | {"Range": "bytes=200000-"}))[0] == 206
    assert await gateway.used() == 1


async def test_what_has_begun_may_finish_after_expiry(gateway) -> None:
    data = gateway.file("a.bin", SIZE)
    token = gateway.token("a.bin", expires_at=int(time.time()) + 2)
    assert (await get(gateway, token, by("203.0.113.7") | {"Range": "bytes=0-199999"}))[0] == 206
    await asyncio.sleep(2.5)
    status, rest = await get(gateway, token, by("203.0.113.7") | {"Range": "bytes=200000-"})
    assert (status, rest) == (206, data[200_000:])
    assert (await get(gateway, token, by("198.51.100.1", "other")))[0] == 410


async def test_a_client_that_leaves_is_charged_for_what_its_kernel_took(gateway) -> None:
    gateway.file("large.bin", LARGE)
    token = gateway.token("large.bin", downloads=1)
    host, port = gateway.base.removeprefix("http://").split(":")
    sock = socket.create_connection((host, int(port)))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    sock.sendall(f"GET /d/{token} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    await asyncio.sleep(0.3)
    assert sock.recv(1024).startswith(b"HTTP/1.1 200")
    sock.close()
    [_, finished] = await gateway.settled()
    assert finished["outcome"] == "client_left"
    assert int(finished["bytes.delivered"]) < 4 * 1024 * 1024
    assert finished["counted"] == ("-1" if int(finished["bytes.delivered"]) < 65_536 else "0")


async def test_past_its_budget_a_repeat_is_cut_visibly(gateway) -> None:
    size = 48 * 1024 * 1024
    data = gateway.file("huge.bin", size)
    token = gateway.token("huge.bin", downloads=1)
    headers = by("203.0.113.7")
    assert (await get(gateway, token, headers | {"Range": f"bytes=0-{size * 9 // 10}"}))[0] == 206
    await gateway.settled()
    await asyncio.sleep(2.2)
    got = bytearray()
    async with gateway.client.get(f"{gateway.base}/d/{token}", headers=headers) as response:
        assert response.status == 200
        with pytest.raises(ClientPayloadError):
            async with asyncio.timeout(10):
                await drain(response.content, got)
    assert size // 32 <= len(got) < size // 2
    assert data.startswith(bytes(got))
    events = await gateway.settled()
    assert (events[-1]["outcome"], events[-1]["reason"]) == ("cut", "limit.downloads")
    assert await gateway.used() == 1


async def test_past_its_budget_a_repeat_opens_the_next_download(gateway) -> None:
    size = 48 * 1024 * 1024
    data = gateway.file("huge.bin", size)
    token = gateway.token("huge.bin", downloads=2)
    headers = by("203.0.113.7")
    assert (await get(gateway, token, headers | {"Range": f"bytes=0-{size * 9 // 10}"}))[0] == 206
    await gateway.settled()
    await asyncio.sleep(2.2)
    assert (await get(gateway, token, headers))[1] == data
    events = await gateway.settled()
    assert [event.get("counted") for event in events] == ["1", "0", "0", "1"]


async def test_a_stalled_reader_keeps_its_lease(gateway) -> None:
    """A slow download outlives several leases: they are renewed while the client stalls."""
    data = gateway.file("large.bin", LARGE)
    token = gateway.token("large.bin", downloads=1)
    async with gateway.client.get(f"{gateway.base}/d/{token}") as response:
        head = await response.content.readexactly(1000)
        await asyncio.sleep(5)
        assert head + await response.read() == data
    events = await gateway.settled()
    assert [event["type"] for event in events] == ["download.allowed", "download.finished"]
    assert events[-1]["outcome"] == "complete"


async def test_the_object_is_replaced_between_stat_and_open(gateway) -> None:
    gateway.file("a.bin", SIZE)
    token = gateway.token("a.bin", downloads=1)
    await get(gateway, token, by("203.0.113.7") | {"Range": "bytes=0-9"})
    await gateway.settled()
    new = b"new" * 100_000
    gateway.replace("a.bin", new)
    status, body = await get(gateway, token, by("203.0.113.7"))
    assert (status, body) == (200, new)
    assert await gateway.used() == 1
    outcomes = [event.get("outcome", "") for event in await gateway.settled()]
    assert "origin_failed" in outcomes
