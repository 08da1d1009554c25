"""From a shop's webhook to the file in its buyer's hands: `gateway serve`, a real mail server, a real Redis."""

from __future__ import annotations

import asyncio
import email
import email.policy
import http.client
import json
import os
import re
import secrets
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from email.message import EmailMessage

import pytest
from aiosmtpd.smtp import SMTP, Envelope, Session

from gateway.backends.embedded_redis import EmbeddedRedis
from gateway.shops import signed
from gateway.shops.samples import Wanted, Webhook, sample

SECRET = b"what the shop signs its webhooks with"
SETTINGS = """\
{origin}
rules: {folder}/rules.yaml
products: {folder}/products.yaml
shops:
  - {{name: main, kind: shopify, secrets: [{secret}]}}
  - {{name: careful, kind: signed, secrets: [{secret}], require_confirmation: true}}
orders: {{url: "sqlite:///{folder}/orders.db"}}
mail: {{server: "smtp+plain://127.0.0.1:{port}", sender: shop@example.com}}
brand: {{name: Sea Shop, contact: help@example.com}}
journal: {{path: {folder}/journal}}
"""
RULES = "version: 1\nplans: {standard: {valid_for: 30d, downloads: 5}, slow: {rate: 1MB/s}}\notherwise: allow\n"
PRODUCTS = """\
version: 1
products:
  - {sku: SEA, files: [sea.pdf], plan: standard}
  - {sku: FILM, files: [film.bin], plan: slow}
"""
WORKERS = 2
ANSWERED = 1.0
MAILED = 5.0
STOPPED = 5.0
QUIET = 2.0
MINUTE = 60_000
pytestmark = pytest.mark.timeout(180)


@dataclass
class MailServer:
    """A real SMTP server in a thread; `box` has what it took, by recipient."""

    box: dict[str, list[EmailMessage]] = field(default_factory=dict)
    port: int = 0

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802  aiosmtpd's name
        assert isinstance(envelope.content, bytes)
        message = email.message_from_bytes(envelope.content, policy=email.policy.default)
        assert isinstance(message, EmailMessage)
        for recipient in envelope.rcpt_tos:
            self.box.setdefault(recipient, []).append(message)
        return "250 taken"

    def mails(self, to: str, count: int = 1, within: float = MAILED) -> list[EmailMessage]:
        until = time.monotonic() + within
        while len(self.box.get(to, ())) < count and time.monotonic() < until:
            time.sleep(0.02)
        return self.box.get(to, [])


@pytest.fixture(scope="module")
def mail_server() -> Iterator[MailServer]:
    server = MailServer()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    opening = loop.create_server(lambda: SMTP(server, hostname="mx", loop=loop), "127.0.0.1", 0)
    opened = asyncio.run_coroutine_threadsafe(opening, loop).result(5)
    server.port = opened.sockets[0].getsockname()[1]
    yield server
    loop.call_soon_threadsafe(opened.close)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(5)
    loop.close()


@dataclass
class Shop:
    """The gateway as a shop and its buyers see it."""

    gateway: object
    mails: MailServer
    redis: EmbeddedRedis

    def tell(self, webhook: Webhook, shop: str = "main") -> tuple[int, str]:
        with closing(http.client.HTTPConnection("127.0.0.1", self.gateway.port, timeout=10)) as connection:
            connection.request("POST", f"/hooks/{shop}", webhook.body, dict(webhook.headers))
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())["outcome"]

    def link(self, to: str) -> str:
        """The path of the file in the last mail."""
        (*_, message) = self.mails.mails(to)
        text = message.get_body(("plain",)).get_content()
        return re.search(r"http://[^/\s]+(/d/\S+)", text)[1]

    def get(self, path: str) -> tuple[int, bytes]:
        with closing(http.client.HTTPConnection("127.0.0.1", self.gateway.port, timeout=30)) as connection:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()

    def refused(self, path: str, status: int, within: float = STOPPED) -> str:
        """The reason of the refusal, which must come in time."""
        until = time.monotonic() + within
        while (answer := self.get(path))[0] != status:
            assert time.monotonic() < until, f"still {answer[0]}"
            time.sleep(0.1)
        return json.loads(answer[1])["reason"]

    def served(self, path: str, within: float = STOPPED) -> bytes:
        until = time.monotonic() + within
        while (answer := self.get(path))[0] != 200:
            assert time.monotonic() < until, answer
            time.sleep(0.1)
        return answer[1]

    def kinds(self, order: str) -> list[str]:
        """The types of the order's events, in their sequence."""
        return [e["type"] for _, e in self.gateway.redis.xrange("gw:{0}:events") if e.get("order.id") == order]

    def told(self, order: str, *wanted: str, within: float = MAILED) -> list[str]:
        until = time.monotonic() + within
        while not set(wanted) <= set(kinds := self.kinds(order)):
            assert time.monotonic() < until, kinds
            time.sleep(0.05)
        return kinds


@pytest.fixture(scope="module")
def shop(start_gateway, mail_server: MailServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("shop")
    (folder / "files").mkdir()
    (folder / "files" / "sea.pdf").write_bytes(os.urandom(300_000))
    (folder / "files" / "film.bin").write_bytes(os.urandom(40_000_000))
    (folder / "rules.yaml").write_text(RULES)
    (folder / "products.yaml").write_text(PRODUCTS)
    origin = f'{{url: "file://{folder}/files"}}'
    settings = SETTINGS.format(origin=origin, folder=folder, secret=SECRET.decode(), port=mail_server.port)
    with EmbeddedRedis(tmp_path_factory.mktemp("redis")) as redis:
        gateway = start_gateway(redis, WORKERS, settings, background=1)
        gateway.folder = folder / "files"
        yield Shop(gateway, mail_server, redis)
        gateway.stop()


@pytest.fixture
def number() -> str:
    """An order that no other test has."""
    return str(secrets.randbelow(10**9) + 10**9)


def webhook(number: str, *, kind: str = "shopify", ago: int = MINUTE, sku: str = "SEA", **changes: object) -> Webhook:
    at = int(time.time() * 1000) - ago
    return sample(kind, Wanted(number, at, secrets.token_hex(8), sku, f"{number}@example.com", **changes), SECRET)


def test_a_paid_order_is_mailed_and_downloaded_and_a_refund_ends_it(shop: Shop, number: str) -> None:
    order, to = f"main-{number}", f"{number}@example.com"
    began = time.monotonic()
    assert shop.tell(webhook(number, ago=3 * MINUTE)) == (200, "taken")
    assert time.monotonic() - began < ANSWERED
    assert len(shop.mails.mails(to)) == 1, "no mail came in time"
    path = shop.link(to)
    assert shop.served(path) == (shop.gateway.folder / "sea.pdf").read_bytes()
    kinds = shop.told(order, "mail.accepted", "download.finished")
    steps = ["order.received", "order.paid", "order.granted", "mail.queued", "link.created", "mail.accepted"]
    assert [kind for kind in kinds if kind in steps] == steps
    assert shop.tell(webhook(number, ago=2 * MINUTE, refund=True))[0] == 200
    assert shop.refused(path, 410) == "token.revoked"
    shop.told(order, "order.refunded")
    assert len(shop.mails.mails(to, 2, within=QUIET)) == 1


def test_a_refund_cuts_what_runs(shop: Shop, number: str) -> None:
    to = f"{number}@example.com"
    shop.tell(webhook(number, ago=3 * MINUTE, sku="FILM"))
    path = shop.link(to)
    with closing(http.client.HTTPConnection("127.0.0.1", shop.gateway.port, timeout=30)) as connection:
        connection.request("GET", path)
        answer = connection.getresponse()
        assert answer.status == 200
        answer.read(100_000)
        shop.tell(webhook(number, ago=2 * MINUTE, sku="FILM", refund=True))
        began = time.monotonic()
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            answer.read()
        assert time.monotonic() - began < STOPPED
    events = [e for _, e in shop.gateway.redis.xrange("gw:{0}:events") if e.get("order.id") == f"main-{number}"]
    assert [e["reason"] for e in events if e["type"] == "download.finished"] in ([], ["token.revoked"])


def test_copies_in_any_number_and_sequence_make_one_order(shop: Shop, number: str) -> None:
    paid, unpaid = webhook(number, ago=2 * MINUTE), webhook(number, ago=3 * MINUTE, paid=False)
    with ThreadPoolExecutor(20) as clients:
        outcomes = list(clients.map(shop.tell, [paid] * 20))
    assert sorted(outcomes) == [(200, "known")] * 19 + [(200, "taken")]
    # Another delivery of the same, an older word that comes later, and the first one again.
    for each in (webhook(number, ago=2 * MINUTE), unpaid, paid):
        assert shop.tell(each)[0] == 200
    assert len(shop.mails.mails(f"{number}@example.com", 2, within=QUIET)) == 1
    kinds = shop.told(f"main-{number}", "mail.accepted")
    assert [kinds.count(kind) for kind in ("order.paid", "order.granted", "link.created", "mail.accepted")] == [1] * 4
    assert shop.served(shop.link(f"{number}@example.com"))


def test_a_refund_that_comes_before_the_payment_stands(shop: Shop, number: str) -> None:
    shop.tell(webhook(number, ago=MINUTE, refund=True))
    shop.tell(webhook(number, ago=2 * MINUTE))
    kinds = shop.told(f"main-{number}", "order.paid", "order.refunded")
    time.sleep(QUIET)
    assert not {"link.created", "order.granted"} & {*kinds}
    assert not shop.mails.mails(f"{number}@example.com", within=0)


def test_nothing_is_sent_before_payment_and_confirmation(shop: Shop, number: str) -> None:
    to, order = f"{number}@example.com", f"careful-{number}"

    def says(ago: int, **members: object) -> tuple[int, str]:
        document = {"id": secrets.token_hex(8), "order": number, "at": rfc3339(ago), **members}
        document |= {"buyer": {"email": to}, "lines": [{"id": "1", "sku": "SEA"}]}
        body = json.dumps(document).encode()
        return shop.tell(Webhook(signed.sign(SECRET, body, int(time.time())), body), "careful")

    assert says(3 * MINUTE, paid=False) == (200, "taken")
    assert says(2 * MINUTE, paid=True) == (200, "taken")
    shop.told(order, "order.paid")
    assert not shop.mails.mails(to, within=QUIET)
    assert says(MINUTE, confirmed=True) == (200, "taken")
    assert len(shop.mails.mails(to)) == 1
    assert shop.served(shop.link(to))


def rfc3339(ago: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - ago / 1000))


@pytest.mark.parametrize(
    ("change", "status"),
    [
        (lambda headers, body: ({**headers, "X-Shopify-Hmac-Sha256": "AAAA"}, body), 401),
        (lambda headers, body: (headers, body + b"\n"), 401),
        (lambda headers, body: ({**headers, "Content-Encoding": "gzip"}, body), 415),
        (lambda headers, body: (headers, b" " * (2 * 1024 * 1024 + 1)), 413),
    ],
    ids=["another signature", "another body", "packed", "too large"],
)
def test_what_is_not_the_shops_is_not_taken(shop: Shop, number: str, change, status: int) -> None:
    whole = webhook(number)
    headers, body = change(dict(whole.headers), whole.body)
    assert shop.tell(Webhook(headers, body))[0] == status
    assert shop.tell(whole, "nobody") == (404, "shop.unknown")
    assert not shop.kinds(f"main-{number}")


def test_without_redis_orders_are_taken_and_mailed(shop: Shop, number: str) -> None:
    to = f"{number}@example.com"
    pid = shop.gateway.redis.info("server")["process_id"]
    os.kill(pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        assert shop.tell(webhook(number)) == (200, "taken")
        assert time.monotonic() - began < 2 * ANSWERED
        assert len(shop.mails.mails(to, within=2 * MAILED)) == 1
    finally:
        os.kill(pid, signal.SIGCONT)
    assert shop.served(shop.link(to), within=4 * STOPPED)
    shop.told(f"main-{number}", "mail.accepted", within=4 * MAILED)


def test_a_background_worker_that_is_killed_loses_nothing(shop: Shop) -> None:
    numbers = [str(secrets.randbelow(10**9) + 10**9) for _ in range(10)]
    for number in numbers:
        assert shop.tell(webhook(number)) == (200, "taken")
    (background,) = [int(str(worker["pid"])) for worker in shop.gateway.workers() if worker["slot"] == WORKERS]
    os.kill(background, signal.SIGKILL)
    for number in numbers:
        # What was under way is done again when its claim has lapsed; that of a mail lasts longer, as its server does.
        kinds = shop.told(f"main-{number}", "link.created", "mail.queued", within=40)
        assert [kinds.count(kind) for kind in ("order.granted", "link.created", "mail.queued")] == [1, 1, 1]


def test_no_secret_and_no_address_is_in_log_or_events(shop: Shop, number: str) -> None:
    to = f"{number}@example.com"
    shop.tell(webhook(number))
    token = shop.link(to).split("/")[2]
    shop.served(f"/d/{token}/1")
    shop.told(f"main-{number}", "mail.accepted", "download.finished")
    places = [shop.gateway.log(), repr(shop.gateway.redis.xrange("gw:{0}:events")), *metrics(shop)]
    for secret in (SECRET.decode(), token.rpartition(".")[2], to):
        assert not [place for place in places if secret in place]


def metrics(shop: Shop) -> Sequence[str]:
    return [shop.gateway.ask("/metrics")[1].decode()]
