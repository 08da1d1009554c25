"""A crowd on one link, through real HTTP and several worker processes: exactly as many downloads as it has."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest
from aiohttp import ClientSession, ClientTimeout, DummyCookieJar, TCPConnector

CLIENTS = 200
DOWNLOADS = 5
SIZE = 300_000


async def whole(session: ClientSession, url: str, address: str) -> list[int]:
    return [await fetch(session, url, address, None)]


async def resumable(session: ClientSession, url: str, address: str) -> list[int]:
    return [await fetch(session, url, address, "bytes=0-")]


async def halves(session: ClientSession, url: str, address: str) -> list[int]:
    ranges = ("bytes=0-149999", "bytes=150000-")
    return list(await asyncio.gather(*(fetch(session, url, address, asked) for asked in ranges)))


async def fetch(session: ClientSession, url: str, address: str, asked: str | None) -> int:
    headers = {"X-Forwarded-For": address, "User-Agent": f"client {address}", **({"Range": asked} if asked else {})}
    async with session.get(url, headers=headers) as response:
        body = await response.read()
        if response.status != 410:
            assert len(body) == response.content_length
        return response.status


@pytest.mark.timeout(120)
@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_a_crowd_on_one_link(gateway, seed: int) -> None:
    """Each in a network of its own, so none may join another's download; its own two halves are one."""
    choose = random.Random(seed)
    name = f"books/crowd-{seed}.pdf"
    gateway.file(name, SIZE)
    token = gateway.token(name, downloads=DOWNLOADS)
    url = f"{gateway.base}/d/{token}"
    addresses = [f"198.{18 + number // 256}.{number % 256}.{choose.randint(1, 254)}" for number in range(CLIENTS)]
    choose.shuffle(addresses)
    async with ClientSession(
        cookie_jar=DummyCookieJar(), connector=TCPConnector(limit=0), timeout=ClientTimeout(60)
    ) as session:
        ways = choose.choices([whole, resumable, halves], k=CLIENTS)
        answers = await asyncio.gather(
            *(way(session, url, address) for way, address in zip(ways, addresses, strict=True))
        )
    outcomes = Counter("refused" if set(statuses) == {410} else "served" for statuses in answers)
    assert {status for statuses in answers for status in statuses} <= {200, 206, 410}
    assert not [statuses for statuses in answers if len(set(statuses)) > 1], "half a file"
    assert outcomes == {"served": DOWNLOADS, "refused": CLIENTS - DOWNLOADS}
    events = gateway.settled(token)
    assert gateway.used(token) == DOWNLOADS
    assert gateway.delivered(token) == DOWNLOADS * SIZE
    charged = [event for event in events if event["type"] == "download.allowed" and event["counted"] == "1"]
    assert len({event["client.network"] for event in charged}) == DOWNLOADS
    denied = [event for event in events if event["type"] == "download.denied"]
    assert len(denied) == sum(statuses.count(410) for statuses in answers)
    assert {event["reason"] for event in denied} == {"limit.downloads"}
