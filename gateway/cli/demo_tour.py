"""The demo's tour: what buyers do, over real HTTP, and whether the gateway did and counted what it should.

It believes nothing but answers, checksums and the events.
"""

from __future__ import annotations

import asyncio
import hashlib
import socket
import time
from collections import Counter
from contextlib import AsyncExitStack
from itertools import pairwise

import aiohttp

from gateway.cli.demo_files import BOOK, NOVEL, STORM, TABLE, TEMPLATES, TUNE
from gateway.cli.demo_screen import heading
from gateway.cli.demo_shop import ShopTour
from gateway.cli.demo_stage import OFFICE, PREVIEW_RATE, WORKERS, Stage
from gateway.cli.demo_steps import Wrong, expect, step
from gateway.cli.output import print_line

BROWSER = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
SETTLED_SECONDS = 12.0
"""The slowest settlement waits 10 s for a client's acknowledgements."""
_CONNECTIONS = 4
_READ_BEFORE_LEAVING = 1_000_000
_SMALL_BUFFER = 64 * 1024

_CLOSINGS = ("download.finished", "download.lost")
_COUNTED = {
    ("10001", BOOK): 3,
    ("10002", TUNE): 1,
    ("10002", STORM): 1,
    ("10003", TUNE): 1,
    ("10004", BOOK): 1,
    ("10005", TEMPLATES): 1,
    ("10006", NOVEL): 1,
    ("10007", TABLE): 1,
    ("demo-20001", BOOK): 1,
}
"""The downloads that the whole tour is worth, by order and file."""
_DENIED = Counter(
    {
        "limit.downloads": 1,
        "limit.networks": 1,
        "rule.denied": 3,
        "token.expired": 1,
        "token.revoked": 2,
        "token.signature": 1,
        "view.not_allowed": 1,
    }
)
_ABROAD, _IN_POLAND, _IN_OFFICE = "192.0.2.44", "198.51.100.7", "203.0.113.9"
_NOWHERE = "198.51.100.200"
"""In no geo database."""
_RATE_TOLERANCE = 0.8


async def tour(stage: Stage) -> bool:
    """Make every step and print a line for each; whether all went as it should."""
    print(heading(f"download-gateway, the tour: {stage.settings.base_url}, {WORKERS} workers"))
    began = time.monotonic()
    async with AsyncExitStack() as stack:
        steps, shop = _Tour(stage, stack), ShopTour(stage, stack)
        results = [
            await step("a browser opens the link's page, which counts nothing", steps.page),
            await step("the e-book is downloaded whole, its SHA-256 is right", steps.book),
            await step("HEAD tells its size and counts nothing", steps.head),
            await step("a connection breaks at 1 MB, the download is resumed, the sum is right", steps.resume),
            await step(f"a download manager fetches {_CONNECTIONS} ranges at once", steps.ranges),
            await step("a second and a third network may download too", steps.networks),
            await step("a fourth one is refused: 403 limit.networks", steps.fourth_network),
            await step(f"a preview comes at {PREVIEW_RATE // 10**6} MB/s", steps.preview),
            await step("a book is shown in the browser where its plan says so", steps.view),
            await step("and not where it does not: 403 view.not_allowed", steps.no_view),
            await step("the last download of a link is used up", steps.use_up),
            await step("a second device is refused: 410 limit.downloads", steps.second_device),
            await step("an expired link is refused: 410 token.expired", steps.expired),
            await step("a forged link is refused: 403 token.signature", steps.forged),
            await step("a revoked link is refused: 410 token.revoked", steps.revoked),
            await step("a Polish edition is refused abroad, and where nobody knows: 403 rule.denied", steps.abroad),
            await step("and works in Poland", steps.in_poland),
            await step(f"a link for the office is refused outside {OFFICE}: 403 rule.denied", steps.elsewhere),
            await step("and works from there", steps.office),
            await step("a shop says that an order is paid: its buyer has a mail, and with it the file", shop.paid),
            await step("the shop says so again, and there is no second mail", shop.paid_again),
            await step("an order that is not paid gets nothing", shop.unpaid),
            await step("the order is refunded, and its link refused: 410 token.revoked", shop.refunded),
            await step(f"the events tell exactly that: {sum(_COUNTED.values())} downloads counted", steps.events),
            await step("metrics are for the management token only", steps.metrics),
        ]
    seconds = time.monotonic() - began
    verdict = "all as it should be" if all(results) else f"{results.count(False)} of {len(results)} steps went wrong"
    print_line(f"{verdict}, in {seconds:.1f} s")
    return all(results)


class _Tour:
    """The steps. Each buyer has an address, cookies and a name of their own."""

    def __init__(self, stage: Stage, stack: AsyncExitStack) -> None:
        self._stage = stage
        self._stack = stack

    async def page(self) -> None:
        reader = await self._buyer("198.51.100.7", BROWSER)
        async with reader.get(self._stage.link("BOOK"), headers={"Accept": "text/html"}) as answer:
            expect(answer, 200)
            if "The Sea.pdf" not in await answer.text():
                raise Wrong("the page does not name the file")

    async def book(self) -> None:
        reader = await self._buyer("198.51.100.7", "curl/8.5.0")
        # Not a browser, so the link leads to the file at once.
        await self._whole(reader, self._stage.link("BOOK"), BOOK)

    async def head(self) -> None:
        reader = await self._buyer("192.0.2.44", "Wget/1.21")
        async with reader.head(self._stage.file("BOOK")) as answer:
            expect(answer, 200)
            size = (self._stage.files / BOOK).stat().st_size
            if answer.content_length != size:
                raise Wrong(f"it tells {answer.content_length} bytes of {size}")

    async def resume(self) -> None:
        # A small buffer, so that what was sent and never read stays little.
        listener = await self._buyer("203.0.113.77", "Player/1.0", _small_socket)
        address, got = self._stage.file("ALBUM", 1), bytearray()
        async with listener.get(address) as answer:
            expect(answer, 200)
            etag = answer.headers["ETag"]
            while len(got) < _READ_BEFORE_LEAVING:
                got += await answer.content.readany()
            answer.close()
        rest = {"Range": f"bytes={len(got)}-", "If-Range": etag}
        async with listener.get(address, headers=rest) as answer:
            expect(answer, 206)
            got += await answer.read()
        self._check(bytes(got), TUNE)

    async def ranges(self) -> None:
        manager = await self._buyer("198.51.100.200", "Manager/2.0")
        address = self._stage.file("ALBUM", 2)
        async with manager.head(address) as answer:
            expect(answer, 200)
            size = answer.content_length or 0
        edges = [size * part // _CONNECTIONS for part in range(_CONNECTIONS + 1)]

        async def part(first: int, end: int) -> bytes:
            async with manager.get(address, headers={"Range": f"bytes={first}-{end - 1}"}) as answer:
                expect(answer, 206)
                return await answer.read()

        parts = await asyncio.gather(*(part(*pair) for pair in pairwise(edges)))
        self._check(b"".join(parts), STORM)

    async def networks(self) -> None:
        for address in (_ABROAD, _IN_OFFICE):
            await self._whole(await self._buyer(address, "curl/8.5.0"), self._stage.file("BOOK"), BOOK)

    async def fourth_network(self) -> None:
        await self._refused(await self._buyer("2001:db8:4::9", "curl/8.5.0"), "BOOK", 403, "limit.networks")

    async def preview(self) -> None:
        began = time.monotonic()
        await self._whole(await self._buyer(_IN_POLAND, "Player/1.0"), self._stage.file("PREVIEW"), TUNE)
        least = (self._stage.files / TUNE).stat().st_size / PREVIEW_RATE * _RATE_TOLERANCE
        if time.monotonic() - began < least:
            raise Wrong(f"it took {time.monotonic() - began:.1f} s and not {least:.1f} s")

    async def view(self) -> None:
        reader = await self._buyer(_IN_POLAND, BROWSER)
        async with reader.get(self._stage.file("READ"), params={"view": "1"}) as answer:
            expect(answer, 200)
            if not answer.headers["Content-Disposition"].startswith("inline"):
                raise Wrong("it would be saved and not shown")
            self._check(await answer.read(), BOOK)

    async def no_view(self) -> None:
        await self._refused(await self._buyer(_IN_POLAND, BROWSER), "BOOK?view=1", 403, "view.not_allowed")

    async def use_up(self) -> None:
        await self._whole(await self._buyer("198.51.100.7", BROWSER), self._stage.file("LAST"), TEMPLATES)

    async def second_device(self) -> None:
        await self._refused(await self._buyer(_ABROAD, "Phone/1.0"), "LAST", 410, "limit.downloads")

    async def expired(self) -> None:
        await self._refused(await self._buyer("198.51.100.7", BROWSER), "EXPIRED", 410, "token.expired")

    async def forged(self) -> None:
        await self._refused(await self._buyer("198.51.100.7", BROWSER), "BROKEN", 403, "token.signature")

    async def revoked(self) -> None:
        await self._refused(await self._buyer(_IN_POLAND, BROWSER), "REVOKED", 410, "token.revoked")

    async def abroad(self) -> None:
        for address in (_ABROAD, _NOWHERE):
            await self._refused(await self._buyer(address, BROWSER), "POLISH", 403, "rule.denied")

    async def in_poland(self) -> None:
        await self._whole(await self._buyer(_IN_POLAND, BROWSER), self._stage.file("POLISH"), NOVEL)

    async def elsewhere(self) -> None:
        await self._refused(await self._buyer(_IN_POLAND, BROWSER), "OFFICE", 403, "rule.denied")

    async def office(self) -> None:
        await self._whole(await self._buyer(_IN_OFFICE, BROWSER), self._stage.file("OFFICE"), TABLE)

    async def events(self) -> None:
        """Wait until every download has its closing event, then compare everything."""
        deadline = time.monotonic() + SETTLED_SECONDS
        while True:
            shards = range(self._stage.settings.shards)
            events = [fields async for _, fields in self._stage.tools.events.history(shards)]
            begun = [event["request.id"] for event in events if event["type"] == "download.allowed"]
            closed = [event["request.id"] for event in events if event["type"] in _CLOSINGS]
            if len(closed) >= len(begun) or time.monotonic() > deadline:
                break
            await asyncio.sleep(0.05)
        if sorted(begun) != sorted(closed):
            raise Wrong(f"{len(begun)} transfers began and {len(closed)} have an end")
        counted: Counter[tuple[str, str]] = Counter()
        for event in events:
            if "counted" in event:
                counted[event["order.id"], event["file.key"]] += int(event["counted"])
        if counted != _COUNTED:
            raise Wrong(f"they count {dict(counted)}")
        denied = Counter(event["reason"] for event in events if event["type"] == "download.denied")
        if denied != _DENIED:
            raise Wrong(f"they tell of the refusals {dict(denied)}")

    async def metrics(self) -> None:
        ops = await self._buyer("127.0.0.1", "Prometheus/3.0")
        address = f"{self._stage.management}/metrics"
        async with ops.get(address) as answer:
            expect(answer, 401)
        async with ops.get(address, headers={"Authorization": f"Bearer {self._stage.management_token}"}) as answer:
            expect(answer, 200)
            if "gateway_bytes_delivered_total" not in await answer.text():
                raise Wrong("no bytes are measured")

    async def _buyer(
        self, address: str, agent: str, socket_factory: aiohttp.SocketFactoryType | None = None
    ) -> aiohttp.ClientSession:
        session = aiohttp.ClientSession(
            headers={"User-Agent": agent, "X-Forwarded-For": address, "Accept": "*/*"},
            cookie_jar=aiohttp.CookieJar(unsafe=True),
            connector=aiohttp.TCPConnector(socket_factory=socket_factory),
            auto_decompress=False,
        )
        return await self._stack.enter_async_context(session)

    async def _whole(self, buyer: aiohttp.ClientSession, address: str, key: str) -> None:
        async with buyer.get(address) as answer:
            expect(answer, 200)
            self._check(await answer.read(), key)

    def _check(self, data: bytes, key: str) -> None:
        if hashlib.sha256(data).hexdigest() != self._stage.digests[key]:
            raise Wrong(f"{len(data)} bytes came, and they are not {key}")

    async def _refused(self, buyer: aiohttp.ClientSession, name: str, status: int, reason: str) -> None:
        name, _, query = name.partition("?")
        async with buyer.get(self._stage.file(name) + (query and f"?{query}")) as answer:
            expect(answer, status)
            told = (await answer.json(content_type="application/problem+json")).get("reason")
            if told != reason:
                raise Wrong(f"the reason is {told}")


def _small_socket(found: aiohttp.AddrInfoType) -> socket.socket:
    family, kind, protocol, _, _ = found
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL_BUFFER)
    made.setblocking(False)
    return made
