"""The link page on a real socket: what it says of each file; that it counts nothing and waits for nobody."""

from __future__ import annotations

import asyncio
import hashlib
import re
import time

import pytest

from gateway.backends.files import FolderStore
from gateway.backends.redis_ledger import RedisLedger
from gateway.errors import LedgerDown, OriginDown
from gateway.policy.model import FileEntry, StoredObject

SIZE = 300_000
BROWSER = {"Accept": "text/html,*/*;q=0.8", "Accept-Language": "en"}
BRAND = 'brand: {name: "Sea & Co", color: "#ffcc00", contact: help@example.com}\n'


async def page(gateway, token: str, status: int = 200, **headers: str) -> str:
    async with gateway.client.get(f"{gateway.base}/l/{token}", headers={**BROWSER, **headers}) as response:
        assert response.status == status
        assert response.content_type == "text/html"
        text = await response.text()
        assert response.headers["X-Request-Id"] in text
        return text


async def test_one_file_with_all_that_is_to_know(gateway) -> None:
    data = gateway.file("a/Sea.pdf", SIZE)
    token = gateway.token("a/Sea.pdf", downloads=5)
    first = await page(gateway, token)
    assert f'content="0;url=/d/{token}/1/Sea.pdf"' in first
    assert "300\u00a0KB" in first or "300 KB" in first
    assert "Downloads left: 5 of 5" in first
    async with gateway.client.get(f"{gateway.base}/d/{token}") as response:
        await response.read()
    for _ in range(100):
        if hashlib.sha256(data).hexdigest() in (again := await page(gateway, token)):
            break
        await asyncio.sleep(0.02)
    else:
        raise AssertionError("the checksum never came")
    assert "Downloads left: 4 of 5" in again
    assert {event["type"] for event in await gateway.settled()} == {
        *("link.opened", "download.allowed", "download.finished")
    }
    assert await gateway.used() == 1


async def test_without_a_limit_no_number_is_shown(gateway) -> None:
    gateway.file("a.pdf", SIZE)
    assert "Downloads left" not in await page(gateway, gateway.token("a.pdf"))


async def test_several_files_and_all_of_them_at_once(gateway) -> None:
    for name in ("1.mp3", "2.mp3"):
        gateway.file(name, SIZE)
    token = gateway.token("1.mp3", "2.mp3", downloads=2)
    text = await page(gateway, token)
    assert "http-equiv" not in text
    assert f'href="/z/{token}/shop.example.com%2010001.zip"' in text
    async with gateway.client.get(f"{gateway.base}/l/{token}") as response:
        told = await response.json()
    assert told["zip"] == f"/z/{token}/shop.example.com%2010001.zip"
    assert [(file["size"], file["left"]) for file in told["files"]] == [(SIZE, 2), (SIZE, 2)]


async def test_no_zip_is_offered_of_what_cannot_be_in_it(gateway) -> None:
    gateway.file("1.mp3", SIZE)
    external = FileEntry(key=None, url="https://cdn.example.com/2.mp3")
    text = await page(gateway, gateway.token(files=(FileEntry(key="1.mp3"), external)))
    assert "2.mp3" in text
    assert "/z/" not in text
    await gateway.rules('{version: 1, rules: [{name: n, when: {file: "b/*"}, then: deny}], otherwise: allow}')
    gateway.file("b/2.mp3", SIZE)
    text = await page(gateway, gateway.token("1.mp3", "b/2.mp3"))
    assert "/z/" not in text


async def test_used_up_files_say_so_and_a_link_of_nothing_else_is_gone(gateway) -> None:
    for name in ("1.mp3", "2.mp3"):
        gateway.file(name, SIZE)
    both = gateway.token("1.mp3", "2.mp3", downloads=1)
    one = gateway.token("1.mp3", downloads=1)
    for token in (both, one):
        async with gateway.client.get(f"{gateway.base}/d/{token}") as response:
            await response.read()
    await gateway.settled()
    assert "can still be finished" in await page(gateway, one), "in the repeat window it may be had again"
    await asyncio.sleep(2.1)  # counting.repeat_window
    text = await page(gateway, both)
    assert "All downloads of this file are used up" in text
    assert f"/d/{both}/1" not in text
    assert f"/d/{both}/2" in text
    assert "/z/" not in text
    text = await page(gateway, one, 410)
    assert "All downloads of this file are used up" in text
    denied = [event for event in await gateway.events() if event["type"] == "download.denied"]
    assert [event["reason"] for event in denied] == ["limit.downloads"]
    assert denied[0]["request.id"] in text


async def test_a_download_that_broke_off_can_be_finished(gateway) -> None:
    gateway.file("big.bin", 3_000_000)
    token = gateway.token("big.bin", downloads=1)
    async with gateway.client.get(f"{gateway.base}/d/{token}", headers={"Range": "bytes=0-1999999"}) as response:
        await response.read()
    await gateway.settled()
    await asyncio.sleep(2.1)  # counting.repeat_window
    text = await page(gateway, token)
    assert "The last download has begun and can still be finished." in text
    assert f"/d/{token}/1" in text


@pytest.mark.parametrize("wrong", ["slow", "down"])
async def test_a_store_or_ledger_that_does_not_answer_holds_up_no_page(
    gateway, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    async def stat(self: FolderStore, key: str, *, fresh: bool = False) -> StoredObject:
        await asyncio.sleep(30 if wrong == "slow" else 0)
        raise OriginDown("it is down")

    async def usage(self: RedisLedger, *_: object) -> dict[str, int]:
        await asyncio.sleep(30 if wrong == "slow" else 0)
        raise LedgerDown("it is down")

    monkeypatch.setattr(FolderStore, "stat", stat)
    monkeypatch.setattr(RedisLedger, "usage", usage)
    gateway.file("a.pdf", SIZE)
    began = time.monotonic()
    text = await page(gateway, gateway.token("a.pdf", "b.pdf", downloads=2))
    assert time.monotonic() - began < 1
    assert "/1/a.pdf" in text
    assert "Downloads left" not in text


async def test_the_shop_s_looks(open_gateway) -> None:
    async with open_gateway(BRAND) as gateway:
        gateway.file("a.pdf", SIZE)
        text = await page(gateway, gateway.token("a.pdf"))
        refusal = await page(gateway, gateway.token("a.pdf", expires_at=5), 410)
        async with gateway.client.get(f"{gateway.base}/l/x", headers=BROWSER) as response:
            policy = response.headers["Content-Security-Policy"]
    for each in (text, refusal):
        assert "Sea &amp; Co" in each
        assert 'href="mailto:help@example.com"' in each
        assert "--accent:#ffcc00;--on-accent:#000000" in each
    assert "img-src" not in policy


async def test_the_zip_is_named_after_the_shop(open_gateway) -> None:
    async with open_gateway(BRAND) as gateway:
        gateway.file("a.pdf", SIZE)
        async with gateway.client.head(f"{gateway.base}/z/{gateway.token('a.pdf', 'a.pdf')}") as response:
            assert "filename*=UTF-8''Sea%20&%20Co%2010001.zip" in response.headers["Content-Disposition"]


async def test_a_page_of_very_many_files_stays_small(gateway) -> None:
    keys = [f"albums/{number:02}.flac" for number in range(60)]
    for key in keys:
        gateway.file(key, 100)
    token = gateway.token(*keys, downloads=3)
    text = await page(gateway, token)
    assert len(token) > 1500
    assert len(text.encode()) <= 40_000
    assert text.count(token) == 2, "once for all files, and once for the ZIP"
    async with gateway.client.get(f"{gateway.base}/l/{token}", headers=BROWSER) as response:
        assert "base-uri 'self'" in response.headers["Content-Security-Policy"]
    base = re.search(r'<base href="([^"]+)"', text)
    assert base is not None
    hrefs = re.findall(r'class="button plain" href="([^"]+)"', text)
    assert len(hrefs) == 60
    async with gateway.client.get(gateway.base + base[1] + hrefs[59]) as response:
        assert (response.status, len(await response.read())) == (200, 100)
