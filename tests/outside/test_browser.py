"""A buyer's browser, real Chromium driven over its DevTools protocol: what it shows, downloads and reads."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import itertools
import json
import math
import os
import shutil
import socket
import struct
import subprocess
import tarfile
import time
import urllib.request
import wave
import zipfile
import zlib
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from io import BytesIO
from pathlib import Path

import pytest
from accounts.people import PASSWORD, Provider
from aiohttp import ClientSession, ClientWebSocketResponse

from gateway.bootstrap.orders import open_desk
from gateway.cli.demo_geo import build_demo_databases
from gateway.policy.granting import claims_of
from gateway.policy.orders import Buyer, Line, Notice
from gateway.policy.tokens import encode
from gateway.services.identifiers import now_ms
from gateway.services.sessions import Sessions
from gateway.settings import load

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
]
RULES = """
version: 1
plans:
  preview: {view: true}
otherwise: allow
"""
AXE = "axe-core@4.10.3"
AXE_SHA256 = "880970c081707360e64f34cea25ff91892f5bc95675b0776925b9709dd8a68bb"
BRAND = 'brand: {{name: "Sea Shop", color: "#0e7490", contact: help@example.com, logo: "{logo}"}}'
"""The settings of the shop's looks."""
PICTURES = os.environ.get("GATEWAY_PICTURES")
POLISH = "Zażółć gęślą jaźń. "
PATIENCE = 15.0
NOTHING = "Browser.getVersion"
"""A question whose answer brings along what has happened meanwhile."""
BETWEEN_PAGES = "Not attached to an active page"
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")


class Tab:
    """One tab; call it with a DevTools method and its parameters."""

    def __init__(self, socket: ClientWebSocketResponse, blank: Tab | None = None) -> None:
        self._socket = socket
        self._blank = blank
        self._numbers = itertools.count(1)
        self.downloads: dict[str, str] = {}
        self.finished: set[str] = set()
        self.loads = 0

    async def __call__(self, method: str, **params: object) -> dict[str, object]:
        for _ in range(int(PATIENCE / 0.1)):
            told = await self._ask(method, params)
            if "result" in told:
                return told["result"]
            assert told["error"]["message"] == BETWEEN_PAGES, (method, told)
            await asyncio.sleep(0.1)
        raise AssertionError(f"{method}: {BETWEEN_PAGES}")

    async def _ask(self, method: str, params: dict[str, object]) -> dict[str, dict[str, str]]:
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": params})
        while True:
            told = await asyncio.wait_for(self._socket.receive_json(), PATIENCE)
            if told.get("id") == number:
                return told
            self._note(told.get("method"), told.get("params", {}))

    def _note(self, method: str | None, params: dict[str, str]) -> None:
        if method == "Browser.downloadWillBegin":
            self.downloads[params["guid"]] = params["suggestedFilename"]
        elif method == "Page.loadEventFired":
            self.loads += 1
        elif method == "Browser.downloadProgress" and params["state"] == "completed":
            self.finished.add(self.downloads[params["guid"]])

    async def open(self, url: str) -> None:
        """Go to an address; whether a page comes of it or a download is for the test to say."""
        await self("Page.navigate", url=url)

    async def show(self, url: str | None = None) -> None:
        """Go to an address, None: load the page again; returns when it has loaded."""
        await self._loaded(self("Page.reload") if url is None else self.open(url))

    async def follow(self, selector: str) -> None:
        """Press a link that leads to a page."""
        await self._loaded(self.script(f"document.querySelector({selector!r}).click()"))

    async def _loaded(self, step: Awaitable[object]) -> None:
        before = self.loads
        await step
        for _ in range(int(PATIENCE / 0.1)):
            await self(NOTHING)
            if self.loads > before:
                return
            await asyncio.sleep(0.1)
        raise AssertionError("the page did not load")

    async def script(self, source: str) -> object:
        """The value of an expression in the page; it may be a promise only where the page is not in a sandbox."""
        told = await self("Runtime.evaluate", expression=source, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    async def until(self, source: str) -> None:
        """Wait until an expression in the page is true, also while the page is still to come."""
        for _ in range(int(PATIENCE / 0.1)):
            if await self.script(source):
                return
            await asyncio.sleep(0.1)
        raise AssertionError(f"never true: {source}; the page says {await self.script('document.body?.innerText')!r}")

    async def until_green(self) -> None:
        """Wait until a third of the window is pure green, the one colour of every picture here."""
        assert self._blank is not None
        for _ in range(int(PATIENCE / 0.2)):
            shot = (await self("Page.captureScreenshot"))["data"]
            if float(str(await self._blank.script(SHARE_OF_GREEN % shot))) > 1 / 3:
                return
            await asyncio.sleep(0.2)
        raise AssertionError("the file is not shown")

    async def until_downloaded(self, name: str) -> None:
        for _ in range(int(PATIENCE / 0.1)):
            await self(NOTHING)
            if name in self.finished:
                return
            await asyncio.sleep(0.1)
        raise AssertionError(f"{name} was not downloaded, but {self.downloads}")


SHARE_OF_GREEN = """(async () => {
  const picture = await createImageBitmap(await (await fetch("data:image/png;base64,%s")).blob());
  const context = new OffscreenCanvas(picture.width, picture.height).getContext("2d");
  context.drawImage(picture, 0, 0);
  const data = context.getImageData(0, 0, picture.width, picture.height).data;
  let green = 0;
  for (let i = 0; i < data.length; i += 4) green += data[i] < 60 && data[i + 1] > 200 && data[i + 2] < 60;
  return green / (data.length / 4);
})()"""
GREEN_FILM = """(async () => {
  const canvas = Object.assign(document.createElement("canvas"), {width: 640, height: 480});
  const context = canvas.getContext("2d"), parts = [];
  const recorder = new MediaRecorder(canvas.captureStream(10), {mimeType: "video/webm;codecs=vp8"});
  recorder.ondataavailable = event => parts.push(event.data);
  recorder.start();
  for (let i = 0; i < 3; i++) {
    context.fillStyle = i % 2 ? "#00ff00" : "#00fe00";
    context.fillRect(0, 0, 640, 480);
    await new Promise(done => setTimeout(done, 100));
  }
  await new Promise(done => { recorder.onstop = done; recorder.stop(); });
  return btoa(String.fromCharCode(...new Uint8Array(await new Blob(parts).arrayBuffer())));
})()"""


@pytest.fixture(scope="module")
def devtools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a browser's DevTools; it has a profile of its own."""
    profile = tmp_path_factory.mktemp("profile")
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}", "about:blank"]
    silent = subprocess.DEVNULL
    with subprocess.Popen(command, stdin=silent, stdout=silent, stderr=silent) as process:
        try:
            yield f"http://127.0.0.1:{_port(profile / 'DevToolsActivePort', process)}"
        finally:
            process.terminate()


def _port(file: Path, process: subprocess.Popen[bytes]) -> str:
    for _ in range(300):
        if file.exists() and "\n" in (text := file.read_text()):
            return text.splitlines()[0]
        assert process.poll() is None, "Chromium did not start"
        time.sleep(0.1)
    raise AssertionError("Chromium did not start in time")


@asynccontextmanager
async def new_tab(devtools: str, blank: Tab | None = None) -> AsyncIterator[Tab]:
    async with ClientSession() as session:
        async with session.put(f"{devtools}/json/new?about:blank") as response:
            address = (await response.json())["webSocketDebuggerUrl"]
        async with session.ws_connect(address, max_msg_size=0) as socket:
            tab = Tab(socket, blank)
            yield tab
            await tab("Page.close")


@pytest.fixture
async def blank(devtools: str) -> AsyncIterator[Tab]:
    """An empty page, to look at pictures with."""
    async with new_tab(devtools) as tab:
        yield tab


@pytest.fixture
async def tab(devtools: str, blank: Tab, tmp_path: Path) -> AsyncIterator[Tab]:
    """A tab that downloads to tmp_path."""
    async with new_tab(devtools, blank) as tab:
        await tab("Page.enable")
        await tab("Network.enable")
        await tab("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path), eventsEnabled=True)
        yield tab


@pytest.fixture(scope="module")
def shop(start_gateway, redis_url: str, tmp_path_factory: pytest.TempPathFactory):
    """A gateway whose rules have a plan that may be viewed; its folder holds a file of each kind."""
    folder = tmp_path_factory.mktemp("shop")
    (folder / "rules.yaml").write_text(RULES, "utf-8")
    files = folder / "files"
    files.mkdir()
    # The settings go on behind the origin.
    (folder / "geo").mkdir()
    geo = ", ".join(f"{name}: {path}" for name, path in build_demo_databases(folder / "geo").items())
    origin = f'{{url: "file://{files}"}}\nrules: "{folder}/rules.yaml"\ngeo: {{{geo}}}'
    gateway = start_gateway(redis_url, 1, origin)
    gateway.folder = files
    for name, data in {
        "green.pdf": green_pdf(),
        "green.png": green_png(),
        "polish.txt": (POLISH * 50).encode(),
        "silence.wav": silent_wav(),
        "page.html": b"<!doctype html><title>not shown</title><h1>not shown</h1>",
        "drawing.svg": b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
    }.items():
        (files / name).write_bytes(data)
    yield gateway
    gateway.stop()


def green_pdf() -> bytes:
    """One page, all of it green."""
    drawn = b"0 1 0 rg 0 0 595 842 re f"
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Contents 4 0 R>>",
        b"<</Length %d>>stream\n%s\nendstream" % (len(drawn), drawn),
    ]
    made, table = b"%PDF-1.4\n", b"0000000000 65535 f \n"
    for number, body in enumerate(objects, 1):
        table += b"%010d 00000 n \n" % len(made)
        made += b"%d 0 obj%s endobj\n" % (number, body)
    return made + b"xref\n0 5\n%strailer<</Size 5/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % (table, len(made))


def green_png(side: int = 600) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + b"\0\xff\0" * side) * side
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def silent_wav(seconds: int = 60) -> bytes:
    file = BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setparams((1, 2, 44_100, 0, "NONE", ""))
        sound.writeframes(bytes(2 * 44_100 * seconds))
    return file.getvalue()


def view(shop, name: str, **changes: object) -> tuple[str, str]:
    """A link's token, and the address that shows its file."""
    token = shop.token(name, plan="preview", **changes)
    return token, f"{shop.base}/d/{token}/1/{name}?view=1"


@pytest.mark.parametrize("name", ["green.pdf", "green.png", "green.webm"])
async def test_what_may_be_viewed_is_shown_also_after_a_reload(shop, tab: Tab, blank: Tab, name: str) -> None:
    if name == "green.webm":
        (shop.folder / name).write_bytes(base64.b64decode(str(await blank.script(GREEN_FILM))))
    _, address = view(shop, name)
    await tab.show(address)
    await tab.until_green()
    await tab.show()
    await tab.until_green()
    assert not tab.downloads


async def test_text_is_read_as_utf8(shop, tab: Tab) -> None:
    await tab.open(view(shop, "polish.txt")[1])
    await tab.until(f"document.body.innerText.startsWith({json.dumps(POLISH)})")


async def test_a_listener_jumps_to_the_end_for_one_download(shop, tab: Tab) -> None:
    token, address = view(shop, "silence.wav", downloads=1)
    await tab.open(address)
    await tab.until("document.querySelector('video')?.readyState >= 2")
    assert await tab.script("document.querySelector('video').duration") == 60
    await tab.script("document.querySelector('video').currentTime = 59")
    await tab.until("!document.querySelector('video').seeking && document.querySelector('video').readyState >= 2")
    assert await tab.script("document.querySelector('video').error") is None
    await tab.open("about:blank")
    assert shop.used(token) == 1
    assert {event["file.use"] for event in shop.events(token) if event["type"] == "download.allowed"} == {"view"}


@pytest.mark.parametrize("name", ["page.html", "drawing.svg"])
async def test_what_could_run_is_downloaded_even_when_it_is_to_be_viewed(
    shop, tab: Tab, tmp_path: Path, name: str
) -> None:
    await tab.open(view(shop, name)[1])
    await tab.until_downloaded(name)
    assert (tmp_path / name).read_bytes() == (shop.folder / name).read_bytes()


async def test_what_came_too_soon_is_charged_when_the_mouse_moves(shop, tab: Tab) -> None:
    """A browser in a data centre, soon after the link was made: a scanner, until it turns out to be a person's."""
    (shop.folder / "mailed.bin").write_bytes(bytes(300_000))
    token = shop.token("mailed.bin", downloads=2, issued_at=int(time.time()))
    await tab("Network.setExtraHTTPHeaders", headers={"X-Forwarded-For": "192.0.2.44"})
    await tab.open(f"{shop.base}/l/{token}")
    await tab.until_downloaded("mailed.bin")
    await tab.script("dispatchEvent(new Event('pointermove'))")
    assert shop.used(token) == 0
    await tab("Input.dispatchMouseEvent", type="mouseMoved", x=50, y=50)
    for _ in range(50):
        if shop.used(token):
            break
        await asyncio.sleep(0.1)
    assert [event["type"] for event in shop.events(token) if event.get("counted") == "1"] == ["download.confirmed"]
    await tab.script("document.querySelector('a.button').click()")
    await tab.until("true")
    assert shop.used(token) == 1


async def test_the_link_page_starts_its_file_without_any_script(shop, tab: Tab, tmp_path: Path) -> None:
    await tab("Emulation.setScriptExecutionDisabled", value=True)
    await tab("Network.setExtraHTTPHeaders", headers={"Accept-Language": "pl-PL,pl;q=0.9,en;q=0.8"})
    token = shop.token("green.pdf", plan="preview", downloads=1)
    await tab.open(f"{shop.base}/l/{token}")
    await tab.until_downloaded("green.pdf")
    assert (tmp_path / "green.pdf").read_bytes() == (shop.folder / "green.pdf").read_bytes()
    assert await tab.script("document.documentElement.lang") == "pl"
    assert "Plik jest gotowy" in str(await tab.script("document.body.innerText"))
    assert shop.used(token) == 1


async def test_the_link_page_leads_to_the_view(shop, tab: Tab) -> None:
    token = shop.token("green.png", "silence.wav", "page.html", plan="preview")
    await tab("Emulation.setDeviceMetricsOverride", width=320, height=640, deviceScaleFactor=1, mobile=True)
    await tab.show(f"{shop.base}/l/{token}")
    assert await tab.script("document.querySelectorAll('a').length") == 6
    assert await tab.script("document.documentElement.scrollWidth") == 320
    assert await tab.script("getComputedStyle(document.querySelector('main')).borderRadius") == "20px"
    await tab.follow("a.view")
    await tab.until_green()


async def test_a_refusal_is_a_page_in_the_readers_language(shop, tab: Tab) -> None:
    await tab("Network.setExtraHTTPHeaders", headers={"Accept-Language": "pl"})
    token = shop.token("green.png")
    await tab.open(f"{shop.base}/d/{token}?view=1")
    await tab.until("document.querySelector('h1')?.innerText == 'Ten plik można tylko pobrać'")
    await tab("Network.setExtraHTTPHeaders", headers={"Accept-Language": "xx, en;q=0.1"})
    await tab.open(f"{shop.base}/d/{token}/7")
    await tab.until("document.querySelector('h1')?.innerText == 'This file is not part of your link'")


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The source of axe-core, which finds what breaks WCAG. It is no dependency: npm fetches this one version."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("there is no npm on this machine to fetch axe-core with")
    folder = tmp_path_factory.mktemp("axe")
    try:
        fetched = subprocess.run([npm, "pack", AXE], cwd=folder, capture_output=True, timeout=40, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip("the npm registry does not answer")
    if fetched.returncode:
        pytest.skip("the npm registry cannot be reached")
    with tarfile.open(next(folder.glob("axe-core-*.tgz"))) as archive:
        member = archive.extractfile("package/axe.min.js")
        assert member is not None
        source = member.read()
    assert hashlib.sha256(source).hexdigest() == AXE_SHA256
    return source.decode()


@pytest.fixture(scope="module")
def sea_shop(start_gateway, redis_url: str, tmp_path_factory: pytest.TempPathFactory):
    """A gateway with a brand; its folder holds an album."""
    folder = tmp_path_factory.mktemp("sea")
    files = folder / "files"
    files.mkdir()
    (folder / "logo.png").write_bytes(wave_png())
    (folder / "rules.yaml").write_text(RULES, "utf-8")
    brand = BRAND.format(logo=folder / "logo.png")
    gateway = start_gateway(redis_url, 1, f'{{url: "file://{files}"}}\nrules: "{folder}/rules.yaml"\n{brand}')
    gateway.folder = files
    for name, size in ALBUM.items():
        gateway.file(name, size)
    yield gateway
    gateway.stop()


ALBUM = {
    "01 Przypływ.flac": 31_457_280,
    "02 Latarnia morska.flac": 24_117_248,
    "03 Cisza przed burzą.flac": 40_894_464,
    "Booklet.pdf": 2_411_724,
}
RUN_AXE = """axe.run(document, {runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]})
  .then(found => JSON.stringify(found.violations.map(each => [each.id, each.nodes.map(node => node.html)])))"""


def wave_png(side: int = 44) -> bytes:
    """Three blue waves on nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b""
    for y in range(side):
        rows += b"\0"
        for x in range(side):
            near = min(abs(y - base - 4 * math.sin(x / 7 + base)) for base in (10, 22, 34))
            rows += bytes((14, 116, 144, round(255 * min(1, max(0, 3 - near)))))
    head = struct.pack(">IIBBBBB", side, side, 8, 6, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


LOOKS = {
    "desktop": (1280, "en", "light"),
    "phone": (390, "en", "light"),
    "polish": (390, "pl", "light"),
    "dark": (390, "en", "dark"),
    "narrow": (320, "pl", "dark"),
}


async def look(tab: Tab, width: int, language: str, scheme: str) -> None:
    phone = width < 500
    await tab(
        "Emulation.setDeviceMetricsOverride", width=width, height=760, deviceScaleFactor=1 + phone / 2, mobile=phone
    )
    await tab("Network.setExtraHTTPHeaders", headers={"Accept-Language": language})
    await tab("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])


@pytest.fixture(scope="module")
def used_up(sea_shop) -> str:
    """A link of several files, of which one has been had and can no more be had."""
    token = sea_shop.token("Booklet.pdf", *list(ALBUM)[:2], downloads=1)
    use_up(f"{sea_shop.base}/d/{token}")
    return token


def use_up(*urls: str) -> None:
    for url in urls:
        # A person's: what comes so soon after a mail pays nothing else.
        asked = urllib.request.Request(url, headers={"Cookie": "gw_person=1"})  # noqa: S310  one of our own links
        with urllib.request.urlopen(asked, timeout=10) as answer:  # noqa: S310  the same
            answer.read()
    time.sleep(2.1)  # counting.repeat_window, in which it could be had again


@pytest.mark.parametrize("name", LOOKS)
async def test_nobody_is_shut_out_of_a_page(sea_shop, used_up: str, tab: Tab, axe: str, name: str) -> None:
    """One file, several, several of which one is used up, and a refusal; GATEWAY_PICTURES names a folder for pictures
    of them.
    """
    await look(tab, *LOOKS[name])
    one = sea_shop.token("Booklet.pdf", downloads=5, plan="preview", order_id="10001")
    several = sea_shop.token(*ALBUM, downloads=3, order_id="10001", expires_at=int(time.time()) + 30 * 86_400 + 99)
    expired = sea_shop.token("Booklet.pdf", expires_at=int(time.time()) - 9)
    for kind, token in {"one": one, "several": several, "used": used_up, "refused": expired}.items():
        await tab.show(f"{sea_shop.base}/l/{token}")
        await asyncio.sleep(0.3)  # the first look asks for checksums, which are shown from the next one on
        await tab.show()
        assert await tab.script("document.documentElement.scrollWidth") <= LOOKS[name][0]
        await tab.script(axe + "; 0")
        assert json.loads(str(await tab.script(RUN_AXE))) == [], kind
        if PICTURES:
            shot = await tab("Page.captureScreenshot", captureBeyondViewport=True, **(await whole_page(tab)))
            keep(f"{kind}-{name}.png", str(shot["data"]))


def keep(name: str, picture: str) -> None:
    Path(str(PICTURES), name).write_bytes(base64.b64decode(picture))


async def test_what_is_to_find_something_does(tab: Tab, axe: str) -> None:
    await tab.show("data:text/html,<title>x</title><h1>x</h1><img src='data:,'><p style='color:%23ccc'>pale</p>")
    await tab.script(axe + "; 0")
    found = dict(json.loads(str(await tab.script(RUN_AXE))))
    assert {"image-alt", "color-contrast", "html-has-lang"} <= set(found)


async def whole_page(tab: Tab) -> dict[str, dict[str, object]]:
    size = (await tab("Page.getLayoutMetrics"))["cssContentSize"]
    return {"clip": {**size, "scale": 1}}


async def test_the_keyboard_reaches_every_button_and_sees_where_it_is(sea_shop, tab: Tab) -> None:
    token = sea_shop.token(*ALBUM, plan="preview")
    await tab.show(f"{sea_shop.base}/l/{token}")
    reached = []
    for _ in range(6):
        await tab("Input.dispatchKeyEvent", type="rawKeyDown", key="Tab", code="Tab", windowsVirtualKeyCode=9)
        await tab("Input.dispatchKeyEvent", type="keyUp", key="Tab", code="Tab", windowsVirtualKeyCode=9)
        reached.append(
            await tab.script("document.activeElement.getAttribute('href') || document.activeElement.tagName")
        )
        assert await tab.script("getComputedStyle(document.activeElement).outlineWidth") == "3px"
    assert f"/z/{token}/" in str(reached[0])
    assert len(set(reached)) >= 5


async def test_everything_comes_as_one_zip(sea_shop, tab: Tab, tmp_path: Path) -> None:
    token = sea_shop.token(*ALBUM, downloads=1, order_id="10001")
    await tab.show(f"{sea_shop.base}/l/{token}")
    await asyncio.sleep(0.5)
    assert not tab.downloads, "nothing of several files starts by itself"
    await tab.script("document.querySelector('a.button.wide').click()")
    await tab.until_downloaded("Sea Shop 10001.zip")
    with zipfile.ZipFile(tmp_path / "Sea Shop 10001.zip") as opened:
        assert opened.namelist() == list(ALBUM)
        assert opened.testzip() is None
    assert sea_shop.used(token) == len(ALBUM)


async def test_the_page_is_there_at_once_and_small(sea_shop) -> None:
    token = sea_shop.token(*ALBUM, downloads=3)
    async with ClientSession(headers={"Accept": "text/html"}) as session:
        for _ in range(2):
            began = time.monotonic()
            async with session.get(f"{sea_shop.base}/l/{token}") as response:
                page = await response.read()
            took = time.monotonic() - began
    assert took < 0.2
    assert len(page) <= 40_000


async def test_a_customer_signs_in_and_uses_another_account(
    start_gateway,
    provider: Provider,
    redis_url: str,
    tab: Tab,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    known = await provider.register(f"http://127.0.0.1:{port}/account/return")
    oidc = {"issuer": known.issuer, "client_id": known.client_id, "client_secret": known.secret}
    monkeypatch.setenv("GATEWAY_LISTEN", f"127.0.0.1:{port}")
    monkeypatch.setenv("GATEWAY_ACCOUNTS", json.dumps({"secret": "0123456789" * 4, "oidc": oidc}))
    gateway = start_gateway(redis_url, 1)
    (gateway.folder / "sea.pdf").write_bytes(green_pdf())
    try:
        link = f"{gateway.base}/l/{gateway.token('sea.pdf', account=True, customer_id='c-7')}"
        await tab.show(link)
        await tab.follow("a.button")
        for field, value in (("login", "c-7"), ("password", PASSWORD)):
            await tab.until(f"document.querySelector('input[name={field}]') != null")
            await tab.script(f"document.querySelector('input[name={field}]').value = {value!r}")
            await tab.script("document.querySelector('form').submit()")
        await tab.until("document.querySelector('[name=answer][value=accept]') != null")
        await tab.script("document.querySelector('[name=answer][value=accept]').click()")
        await tab.until_downloaded("sea.pdf")
        assert await tab.script("location.href") == link
        assert await tab.script("document.cookie") == ""

        await tab.show(f"{gateway.base}/l/{gateway.token('sea.pdf', account=True, customer_id='c-8')}")
        assert "another account" in str(await tab.script("document.querySelector('h1').innerText"))
        await tab.follow("button")
        assert await tab.script("document.querySelector('h1').innerText") == "You are signed out"
        await tab.follow("a.button")
        await tab.until("document.querySelector('input[name=password], input[name=login]') != null")
        assert str(await tab.script("location.href")).startswith(known.issuer)
    finally:
        gateway.stop()


HELPFUL = """
products: {folder}/products.yaml
shops: [{{name: main, kind: signed, secrets: [0123456789abcdef0123456789abcdef]}}]
orders: {{url: "sqlite:///{folder}/orders.db"}}
mail: {{server: "maildir://{folder}/mails", sender: shop@example.com}}
accounts:
  secret: {secret}
  handover: {{login_url: "http://localhost:9/in", issuer: shop.example.com, secret: {secret}}}
"""
ACCOUNTS_SECRET = "0123456789abcdef" * 2
RENEWABLE = """
version: 1
otherwise: allow
plans: {once: {downloads: 1, renewals: 1, devices: 2}, known: {new_device: code}}
"""


@pytest.fixture(scope="module")
def helpful(start_gateway, redis_url: str, tmp_path_factory: pytest.TempPathFactory):
    """A gateway whose buyers can help themselves; its `paid` is one of them's token, of which nothing is left, and
    `known` one that another device has opened.
    """
    folder = tmp_path_factory.mktemp("helpful")
    for name in ("files", "mails"):
        (folder / name).mkdir()
    (folder / "logo.png").write_bytes(wave_png())
    (folder / "rules.yaml").write_text(RENEWABLE)
    (folder / "products.yaml").write_text("version: 1\nproducts:\n  - {sku: SEA, files: [Booklet.pdf], plan: once}\n")
    brand, helped = BRAND.format(logo=folder / "logo.png"), HELPFUL.format(folder=folder, secret=ACCOUNTS_SECRET)
    more = f'\nrules: "{folder}/rules.yaml"\n{brand}{helped}'
    gateway = start_gateway(redis_url, 1, f'{{url: "file://{folder}/files"}}{more}', background=1)
    gateway.folder = folder / "files"
    gateway.file("Booklet.pdf", ALBUM["Booklet.pdf"])
    settings = load(gateway.log_file.parent / "gateway.yaml", {})

    async def sell() -> str:
        buyer, lines = Buyer("jan@example.com", "Jan", "c-7"), (Line("1", sku="SEA", title="Sea: a booklet"),)
        async with open_desk(settings) as (book, fulfilment):
            await fulfilment.hear("main", Notice("10001", now_ms(), "#10001", paid=True, buyer=buyer, lines=lines))
            order = await book.read("main-10001")
        assert order is not None
        return encode(claims_of(order, order.links[0], settings.issuer), gateway.key)

    gateway.paid = asyncio.run(sell())
    gateway.known = gateway.token("Booklet.pdf", plan="known", order_id="main-10001", customer_id="c-7")
    use_up(f"{gateway.base}/d/{gateway.paid}", f"{gateway.base}/d/{gateway.known}")
    yield gateway
    gateway.stop()


@pytest.mark.parametrize("name", ["desktop", "phone", "polish", "narrow"])
async def test_nobody_is_shut_out_of_help(helpful, tab: Tab, axe: str, name: str) -> None:
    """The form, its answer, a used-up link with a button, and what a new device and a customer see."""
    await tab("Network.clearBrowserCookies")
    await look(tab, *LOOKS[name])
    base, private = helpful.base, helpful.token("Booklet.pdf", account=True, customer_id="c-7")
    for kind, step, there in (
        ("help", partial(tab.show, f"{base}/help"), "form"),
        (
            "asked",
            partial(tab.script, "document.querySelector('input').value = 'x'; document.forms[0].submit()"),
            "main:not(:has(form))",
        ),
        ("renew", partial(tab.show, f"{base}/l/{helpful.paid}"), "form"),
        ("code", partial(tab.show, f"{base}/l/{helpful.known}"), "#code"),
        ("sent", partial(tab.script, "document.forms[0].submit()"), "#code[autofocus]"),
        ("account", partial(tab.show, f"{base}/l/{private}"), "a.button[href$=sign-in]"),
        ("library", partial(signed_in, tab, f"{base}/account"), "form"),
        ("erase", partial(tab.follow, "a[href*=erase]"), "form"),
    ):
        await step()
        await tab.until(f"document.querySelector('{there}') && document.readyState == 'complete'")
        assert await tab.script("document.documentElement.scrollWidth") <= LOOKS[name][0]
        await tab.script(axe + "; 0")
        assert json.loads(str(await tab.script(RUN_AXE))) == [], kind
        if PICTURES:
            shot = await tab("Page.captureScreenshot", captureBeyondViewport=True, **(await whole_page(tab)))
            keep(f"{kind}-{name}.png", str(shot["data"]))


async def signed_in(tab: Tab, url: str) -> None:
    name, _, value = Sessions(ACCOUNTS_SECRET, seconds=600).begin("c-7").partition(";")[0].partition("=")
    await tab("Network.setCookie", name=name, value=value, url=url.replace("http:", "https:"), secure=True, path="/")
    await tab.show(url)


async def test_one_button_renews_a_used_up_link(helpful, tab: Tab) -> None:
    await look(tab, *LOOKS["desktop"])
    await tab.show(f"{helpful.base}/l/{helpful.paid}")
    await tab.follow("form .button")
    await tab.until("document.querySelector('h1').innerText == 'Please look into your mailbox'")
    for _ in range(100):
        if len(list((helpful.folder.parent / "mails").rglob("*.*"))) >= 2:
            return
        await asyncio.sleep(0.1)
    raise AssertionError("no second mail was sent")
