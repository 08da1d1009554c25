"""The demo's stage: a folder with sample files, settings, a private Redis and links, and the real gateway on top.

Everything lives in that folder and in this process and its children, and goes when the demo goes.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shlex
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from gateway.backends.embedded_redis import EmbeddedRedis
from gateway.backends.keygen import generate
from gateway.bootstrap.redis import Tools, open_tools
from gateway.cli.demo_files import BOOK, COVER, NOVEL, STORM, TABLE, TEMPLATES, TUNE, write_samples
from gateway.cli.demo_geo import build_demo_databases
from gateway.errors import GatewayError, SettingsError
from gateway.policy.model import Claims, FileEntry, Limits
from gateway.policy.standing import Standing
from gateway.policy.units import format_rate
from gateway.services.identifiers import now_ms
from gateway.services.linking import Subject, issue, revoke
from gateway.settings import PREFIX, Settings, load
from gateway.web.api.opening import open_api
from gateway.web.api.users import users_of
from gateway.web.listener import address_text, close_all, open_sockets
from gateway.web.supervisor import Plan, supervise, worker_command

HOST = "127.0.0.1"
WORKERS = 2
OFFICE = "203.0.113.0/24"
"""A documentation network (RFC 5737), for the link that works only from there."""
PREVIEW_RATE = 2_000_000
SHOP, SKU = "demo", "SEA-EBOOK"
"""The shop that sends webhooks, and what it sells."""
READY_SECONDS = 60.0

_CONFIG, _FILES, _GEO, _REDIS, _RULES_FILE = "gateway.yaml", "files", "geo", "redis", "rules.yaml"
_PRODUCTS_FILE, _MAILS, _ORDERS = "products.yaml", "mails", "orders.db"
_SETTINGS = """\
# Made by `gateway demo`, and removed with it.
listen: {listen}
management: {{listen: {management}, token: {token}}}
origin: {{url: {files}}}
redis: {redis}
issuer: demo.shop.example
keys: [{key}]
rules: {rules}
geo: {geo}
products: {products}
shops: [{{name: {shop}, kind: shopify, secrets: [{shop_secret}]}}]
orders: {{url: {orders}}}
mail: {{server: {mails}, sender: shop@demo.shop.example}}   # mails are put into a folder, and not sent
brand: {{name: Sea Shop, contact: help@demo.shop.example}}
trusted_proxies: [127.0.0.0/8]   # so that one machine can play many: curl -H 'X-Forwarded-For: 198.51.100.7' …
drain: 2s
"""
_RULES = f"""
# Edit and save: the demo takes it over within a second.
version: 1
plans:
  guest: {{valid_for: 30d, downloads: 5, networks: 3, concurrent: 2}}
  preview: {{valid_for: 7d, downloads: 100, rate: {format_rate(PREVIEW_RATE)}}}
  read: {{valid_for: 30d, downloads: 20, view: true}}
  internal: {{valid_for: 1y}}
default_plan: guest
lists:
  office: [{OFFICE}]
rules:
  - name: office-only
    when: {{plan: internal, not: {{ip: $office}}}}
    then: deny
    message: This file is for the office alone.
  - name: polish-edition
    when: {{file: "ebooks/Żółw*", not: {{country: PL}}}}
    then: deny
    message: This edition is sold in Poland only.
  - name: try-no-hosting
    mode: observe
    when: {{network: [hosting, vpn, tor]}}
    then: deny
otherwise: allow
"""

_PRODUCTS = f"""
# What the shop sells: a line of an order with this SKU gives these files.
version: 1
products:
  - {{sku: {SKU}, title: The Sea, files: [{{key: {BOOK}, name: The Sea.pdf}}]}}
"""


@dataclass(frozen=True, slots=True)
class Offer:
    """A link that the demo hands out. `name`: the shell variable that holds it; `expires` in seconds from now."""

    name: str
    order: str
    about: str
    files: tuple[FileEntry, ...]
    downloads: int | None = None
    expires: int = 7 * 86_400
    plan: str | None = None
    revoked: bool = False


OFFERS = (
    Offer("BOOK", "10001", "A guest's e-book: 5 downloads, 3 networks.", (FileEntry(BOOK, name="The Sea.pdf"),)),
    Offer(
        "ALBUM",
        "10002",
        "An album of 4 files, 3 downloads of each.",
        tuple(map(FileEntry, (TUNE, STORM, COVER, TABLE))),
        downloads=3,
    ),
    Offer("PREVIEW", "10003", "A preview, at 2 MB/s.", (FileEntry(TUNE, name="Tide (preview).wav"),), plan="preview"),
    Offer("READ", "10004", "To read in the browser.", (FileEntry(BOOK, name="The Sea.pdf"),), plan="read"),
    Offer("LAST", "10005", "Templates, 1 download left: use it up.", (FileEntry(TEMPLATES),), downloads=1),
    Offer("POLISH", "10006", "A book sold in Poland only, so not to you here.", (FileEntry(NOVEL),)),
    Offer("OFFICE", "10007", f"Only for the office, {OFFICE}, so not for you.", (FileEntry(TABLE),), plan="internal"),
    Offer("EXPIRED", "10008", "Expired an hour ago.", (FileEntry(COVER),), expires=-3600),
    Offer("REVOKED", "10009", "Revoked by the shop.", (FileEntry(BOOK),), revoked=True),
)


@dataclass(frozen=True, slots=True)
class Stage:
    """What an act works with. `tokens` by the offers' names and BROKEN; `digests`: SHA-256 by storage key."""

    folder: Path
    settings: Settings
    tools: Tools
    sockets: tuple[socket.socket, ...]
    """The public listener and the one for ops."""
    digests: dict[str, str]
    tokens: dict[str, str] = field(repr=False)

    @property
    def config(self) -> Path:
        """The settings file."""
        return self.folder / _CONFIG

    @property
    def files(self) -> Path:
        """The folder that plays the bucket."""
        return self.folder / _FILES

    @property
    def mails(self) -> Path:
        """The Maildir that buyers' mails are put into."""
        return self.folder / _MAILS

    @property
    def management(self) -> str:
        """The address for ops."""
        return f"http://{self.settings.management.listen}"

    @property
    def management_token(self) -> str:
        """The bearer token for metrics."""
        token = self.settings.management.token
        return token.get_secret_value() if token else ""

    def link(self, name: str) -> str:
        """The address that an e-mail would carry."""
        return f"{self.settings.base_url}/l/{self.tokens[name]}"

    def file(self, name: str, number: int = 1) -> str:
        """The address of one of a link's files."""
        return f"{self.settings.base_url}/d/{self.tokens[name]}/{number}"


@asynccontextmanager
async def open_stage(port: int) -> AsyncIterator[Stage]:
    """Set everything up; port 0 takes a free one. Raises SettingsError, LedgerDown."""
    sockets: list[socket.socket] = []
    try:
        sockets += _listen(port)
        sockets += open_sockets(HOST, 0)
        with _no_settings_from_outside(), _folder() as folder:
            with _explained():
                digests = write_samples(folder / _FILES)
                (folder / _GEO).mkdir()
                databases = build_demo_databases(folder / _GEO)
                (folder / _RULES_FILE).write_text(_RULES, encoding="utf-8")
                (folder / _PRODUCTS_FILE).write_text(_PRODUCTS, encoding="utf-8")
                listeners = map(address_text, sockets)
                (folder / _CONFIG).write_text(_settings(folder, databases, *listeners), encoding="utf-8")
            settings = load(folder / _CONFIG, {})
            # Started and stopped without a break in which a signal could part the two; open_tools only joins it.
            with EmbeddedRedis(folder / _REDIS):
                async with open_tools(settings) as tools:
                    tokens = {offer.name: await _issue(settings, tools, offer) for offer in OFFERS}
                    tokens["BROKEN"] = _forged(tokens["BOOK"])
                    stage = Stage(folder, settings, tools, tuple(sockets), digests, tokens)
                    with _explained():
                        _write_links(stage)
                    yield stage
    finally:
        close_all(sockets)


async def play(stage: Stage, act: Callable[[Stage], Awaitable[bool]]) -> bool | None:
    """Run the gateway and, once it is ready, the act; end both when the act ends or at SIGINT, SIGTERM, SIGHUP.

    Returns what the act did, None where a signal ended it. Raises GatewayError where the gateway cannot run.
    """
    ready = asyncio.Event()
    plan = Plan(
        command=worker_command("--config", str(stage.config), "--workers", str(WORKERS)),
        workers=WORKERS,
        background=1,
        sockets=stage.sockets[:1],
        management=stage.sockets[1:],
        drain=stage.settings.drain,
        announce=lambda _: ready.set(),
        users=users_of(stage.settings.management),
        api=open_api(stage.settings),
    )

    async def acting() -> bool:
        try:
            await asyncio.wait_for(ready.wait(), READY_SECONDS)
        except TimeoutError:
            raise GatewayError(f"the gateway was not ready within {READY_SECONDS:.0f} s; try again") from None
        # A closed terminal ends the demo; `gateway serve` would read its settings again.
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, _end)
        return await act(stage)

    serving, playing = asyncio.create_task(supervise(plan)), asyncio.create_task(acting())
    await asyncio.wait((serving, playing), return_when=asyncio.FIRST_COMPLETED)
    if playing.done():
        _end()
    else:
        playing.cancel()
    await serving
    with suppress(asyncio.CancelledError):
        return await playing
    return None


def _end() -> None:
    """What the supervisor takes for the wish to stop, as `gateway serve` does."""
    signal.raise_signal(signal.SIGTERM)


@contextmanager
def _no_settings_from_outside() -> Iterator[None]:
    """The shop's own variables must get neither into the demo nor into the workers, which inherit the environment."""
    kept = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith(PREFIX)}
    try:
        yield
    finally:
        os.environ.update(kept)


@contextmanager
def _folder() -> Iterator[Path]:
    with _explained():
        folder = tempfile.TemporaryDirectory(prefix="gateway-demo-", ignore_cleanup_errors=True)
    with folder as name:
        yield Path(name)


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except UnicodeEncodeError as error:
        raise SettingsError("this locale cannot name the sample files; set PYTHONUTF8=1") from error
    except OSError as error:
        place = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
        raise SettingsError(
            f"the demo's folder cannot be made: {place}; name a folder to make it in: TMPDIR=/some/folder gateway demo"
        ) from error


def _listen(port: int) -> tuple[socket.socket, ...]:
    try:
        return open_sockets(HOST, port)
    except SettingsError as error:
        raise SettingsError(f"{error}; with --port 0 the demo takes a free one") from None


def _settings(folder: Path, databases: Mapping[str, Path], public: str, management: str) -> str:
    """JSON's quoting is YAML's too, so no folder's name can break the file."""
    return _SETTINGS.format(
        listen=public,
        management=management,
        token=secrets.token_urlsafe(16),
        files=json.dumps(f"file://{quote(str(folder / _FILES))}"),
        redis=json.dumps(f"embedded://{folder / _REDIS}"),
        key=json.dumps(generate("demo", "HS256")),
        rules=json.dumps(str(folder / _RULES_FILE)),
        geo=json.dumps({name: str(path) for name, path in databases.items()}),
        products=json.dumps(str(folder / _PRODUCTS_FILE)),
        shop=SHOP,
        shop_secret=secrets.token_urlsafe(16),
        orders=json.dumps(f"sqlite:///{folder / _ORDERS}"),
        mails=json.dumps(f"maildir://{folder / _MAILS}"),
    )


async def _issue(settings: Settings, tools: Tools, offer: Offer) -> str:
    """A registered link's token, as `gateway link create` makes it, which cannot make an expired one."""
    now = now_ms()
    claims = Claims(
        issuer=settings.issuer,
        token_id=f"demo-{offer.name.lower()}",
        expires_at=now // 1000 + offer.expires,
        files=offer.files,
        issued_at=now // 1000 + min(offer.expires - 1, 0),
        order_id=offer.order,
        plan=offer.plan,
        limits=Limits(downloads=offer.downloads),
    )
    token = await issue(claims, now, keys=tools.keys, links=tools.links, events=tools.events, shards=settings.shards)
    if offer.revoked:
        subject, standing = Subject((claims,)), Standing()
        await revoke(subject, standing=standing, control=tools.control, events=tools.events, shards=settings.shards)
    return token


def _forged(token: str) -> str:
    """The token with the first letter of its signature changed: the last one has bits that mean nothing."""
    message, _, signature = token.rpartition(".")
    return f"{message}.{'B' if signature.startswith('A') else 'A'}{signature[1:]}"


def _write_links(stage: Stage) -> None:
    """A shell script that names the links, so that what there is to type stays short."""
    values = {name: stage.link(name) for name in stage.tokens}
    values |= {"TUNE": stage.file("ALBUM"), "TOKEN": stage.management_token}
    lines = [f"{name}={shlex.quote(value)}\n" for name, value in values.items()]
    lines.append(f"export GATEWAY_CONFIG={shlex.quote(str(stage.config))}\n")
    (stage.folder / "links").write_text("".join(lines), encoding="utf-8")
