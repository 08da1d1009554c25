"""Buyers help themselves over HTTP: a real worker, order book, Redis and mail server."""

from __future__ import annotations

import asyncio
import email
import email.policy
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from aiosmtpd.smtp import SMTP, Envelope, Session

from gateway.backends.order_book import SqlOrderBook
from gateway.backends.redis_allowance import RedisAllowance
from gateway.bootstrap.mail import open_mailing
from gateway.bootstrap.orders import open_desk
from gateway.errors import LedgerDown
from gateway.order_ports import Mail, OrderBook
from gateway.policy.granting import claims_of
from gateway.policy.orders import Buyer, Line, Notice, Order, Refund
from gateway.policy.ruleset import NO_RULES
from gateway.policy.tokens import encode
from gateway.services.fulfilment import Fulfilment
from gateway.services.identifiers import now_ms
from gateway.settings import Settings, load

JAN = "jan@example.com"
FIRST, SECOND = "192.0.2.1", "198.51.100.1"
HTML = {"Accept": "text/html,*/*;q=0.8", "Accept-Language": "en"}
MORE = """
shops: [{{name: main, kind: signed, secrets: [0123456789abcdef0123456789abcdef]}}]
orders: {{url: "sqlite:///{folder}/orders.db"}}
products: {folder}/products.yaml
mail: {{server: "smtp+plain://127.0.0.1:{port}", sender: shop@example.com}}
brand: {{name: Sea Shop, contact: help@example.com}}
"""
PRODUCTS = "version: 1\nproducts:\n  - {sku: SEA, files: [sea.pdf], plan: standard}\n"
RULES = "version: 1\notherwise: allow\nplans: {{standard: {{downloads: 1, valid_for: {valid_for}, renewals: 1}}}}\n"
WITHIN = 5.0


@dataclass
class MailServer:
    """What it took, by recipient."""

    box: list[tuple[str, str]] = field(default_factory=list)
    port: int = 0

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802  aiosmtpd's name
        assert isinstance(envelope.content, bytes)
        message = email.message_from_bytes(envelope.content, policy=email.policy.default)
        text = message.get_body(("plain",))  # type: ignore[attr-defined]  # of this policy
        self.box += [(to, text.get_content()) for to in envelope.rcpt_tos]
        return "250 taken"


@dataclass
class Shop:
    """One gateway, and what stands behind it."""

    gateway: object
    book: OrderBook
    fulfilment: Fulfilment
    settings: Settings
    server: MailServer

    async def sell(self, number: str = "10001", to: str = JAN, customer: str = "7") -> Order:
        lines = (Line("1", sku="SEA", title="The Sea"),)
        buyer = Buyer(to, "Jan", customer)
        await self.fulfilment.hear("main", Notice(number, now_ms(), f"#{number}", paid=True, buyer=buyer, lines=lines))
        order = await self.book.read(f"main-{number}")
        assert order is not None
        return order

    async def long_ago(self, order_id: str = "main-10001") -> None:
        """The last mail has left long ago."""
        await self.fulfilment.amend(order_id, lambda order: replace(order, mailed_at=1), mail=False)

    def token(self, order: Order, number: int = -1) -> str:
        return encode(claims_of(order, order.links[number], "shop.example.com"), self.gateway.key)

    async def get(self, path: str, address: str = FIRST, **headers: str) -> tuple[int, str, str]:
        return await self._ask("GET", path, None, address, headers)

    async def post(self, path: str, form: dict[str, str], address: str = FIRST) -> tuple[int, str, str]:
        return await self._ask("POST", path, form, address, {})

    async def _ask(
        self, method: str, path: str, form: dict[str, str] | None, address: str, headers: dict[str, str]
    ) -> tuple[int, str, str]:
        # People, and not what follows a mail's links by itself: that pays nothing at first.
        sent = {**HTML, "X-Forwarded-For": address, "Cookie": "gw_person=1", **headers}
        async with self.gateway.client.request(
            method, f"{self.gateway.base}{path}", data=form, headers=sent, allow_redirects=False
        ) as response:
            policy = response.headers.get("Content-Security-Policy", "")
            return response.status, (await response.read()).decode(errors="replace"), policy

    async def mails(self, count: int, order_id: str = "main-10001") -> list[Mail]:
        """The order's mails, once there are so many, or when there seem to be no more."""
        for _ in range(250):
            if len(await self.book.mails(order_id)) >= count:
                break
            await asyncio.sleep(0.02)
        return list(await self.book.mails(order_id))

    async def send(self) -> None:
        """What the background worker does with all that is queued."""
        mailing = open_mailing(self.settings, self.book, lambda: NO_RULES, str)
        while await mailing.work():
            pass

    async def outcome(self, name: str, before: float = 0) -> None:
        """Wait until one more question had this outcome."""
        until = time.monotonic() + WITHIN
        while outcomes(name) <= before:
            assert time.monotonic() < until, f"no question was {name}"
            await asyncio.sleep(0.02)


def outcomes(name: str) -> float:
    from gateway.web.metrics import SELF_SERVICE  # noqa: PLC0415  the counters of the worker in this process

    return SELF_SERVICE.labels(name)._value.get()


Opening = Callable[..., AbstractAsyncContextManager[Shop]]


@pytest.fixture
async def open_shop(open_gateway, tmp_path: Path) -> AsyncIterator[Opening]:
    """Opens a gateway with an order book; several share the book, and one mail server."""
    server = MailServer()
    loop = asyncio.get_running_loop()
    listening = await loop.create_server(lambda: SMTP(server, hostname="mx", loop=loop), "127.0.0.1", 0)
    server.port = listening.sockets[0].getsockname()[1]
    (tmp_path / "products.yaml").write_text(PRODUCTS)

    @asynccontextmanager
    async def opened(valid_for: str = "7d") -> AsyncIterator[Shop]:
        async with AsyncExitStack() as closing:
            more = MORE.format(folder=tmp_path, port=server.port)
            (tmp_path / "rules.yaml").write_text(RULES.format(valid_for=valid_for))
            gateway = await closing.enter_async_context(
                open_gateway(more, rules_text=RULES.format(valid_for=valid_for))
            )
            gateway.file("sea.pdf", 5000)
            settings = load(tmp_path / "gateway.yaml", {})
            book, fulfilment = await closing.enter_async_context(open_desk(settings))
            yield Shop(gateway, book, fulfilment, settings, server)

    yield opened
    listening.close()


@pytest.fixture
async def shop(open_shop: Opening) -> AsyncIterator[Shop]:
    async with open_shop() as opened:
        yield opened


async def use_up(shop: Shop, token: str) -> str:
    """The page of the next try, from elsewhere."""
    status, _, _ = await shop.get(f"/d/{token}")
    assert status == 200
    await shop.gateway.settled()
    status, page, _ = await shop.get(f"/d/{token}", SECOND)
    assert status == 410
    return page


async def test_a_used_up_link_is_renewed_with_one_button(shop: Shop) -> None:
    order = await shop.sell()
    await shop.long_ago()
    token = shop.token(order)
    page = await use_up(shop, token)
    assert "Renew my downloads" in page
    assert f'action="/l/{token}"' in page
    assert 'href="/help"' in page
    await shop.send()
    clicks = await asyncio.gather(*(shop.post(f"/l/{token}", {"act": "again"}) for _ in range(2)))
    assert [status for status, _, _ in clicks] == [200, 200]
    assert all("Please look into your mailbox" in text and token not in text for _, text, _ in clicks)
    assert len(await shop.mails(2)) == 2
    await shop.send()
    to, text = shop.server.box[-1]
    [link] = re.findall(r"http\S+/l/(\S+)", text)
    assert (to, link != token) == (JAN, True)
    assert (await shop.get(f"/d/{link}", SECOND))[0] == 200
    changed = await shop.book.read("main-10001")
    assert changed is not None
    assert (changed.renewed, len(changed.links)) == (1, 2)
    await shop.gateway.settled()
    status, page, _ = await shop.get(f"/d/{link}")
    assert (status, "<form" in page, "help@example.com" in page) == (410, False, True), "the plan gives one renewal"


async def test_programs_and_other_refusals_get_no_button(shop: Shop) -> None:
    order = await shop.sell()
    await use_up(shop, token := shop.token(order))
    status, problem, _ = await shop.get(f"/d/{token}", SECOND, Accept="application/json")
    assert (status, "<form" in problem) == (410, False)
    for path in ("/l/junk", "/nothing", f"/l/{token[:-3]}AAA"):
        _, page, _ = await shop.get(path)
        assert ("<form" in page, 'href="/help"' in page) == (False, True)


async def test_an_expired_link_goes_on_for_the_orders_own_address_alone(open_shop: Opening) -> None:
    async with open_shop("1s") as shop:
        order = await shop.sell()
        await shop.long_ago()
        token = shop.token(order)
        await asyncio.sleep(1.1 - (time.time() - order.links[0].issued_at) % 1)
        await shop.gateway.rules(RULES.format(valid_for="7d"))
        status, page, policy = await shop.get(f"/l/{token}")
        assert (status, "Send me a new link" in page, "form-action 'self'" in policy) == (410, True, True)
        status, answer, _ = await shop.post(f"/l/{token}", {"act": "again"})
        assert (status, "a mail is on its way" in answer) == (200, True)
        assert [mail.to for mail in await shop.mails(2)] == [JAN, JAN]
        changed = await shop.book.read(order.order_id)
        assert changed is not None
        anew = shop.token(changed)
        assert (await shop.get(f"/d/{anew}"))[0] == 200
        # Whoever else has the old one, and presses its button, has nothing of it but a mail to the buyer.
        assert (await shop.get(f"/l/{token}"))[0] == 410
        assert (changed.links[0].token_id, anew != token) == (order.links[0].token_id, True)


async def test_the_form_mails_links_to_their_own_address_alone(shop: Shop) -> None:
    await shop.sell()
    await shop.long_ago()
    status, page, policy = await shop.get("/help")
    assert (status, 'action="/help"' in page, "form-action 'self'" in policy) == (200, True, True)
    answers = {
        (await shop.post("/help", {"order": text}, SECOND))[:2]
        for text in ("10001", "nobody@example.com", "mallory@example.com", "99999", "x" * 4000, "main-10001' --")
    }
    assert len(answers) == 1, "to the last byte"
    assert [mail.to for mail in await shop.mails(2)] == [JAN, JAN]


@pytest.mark.parametrize("text", ["#10001", " JAN@example.com ", "main-10001"])
async def test_how_a_buyer_may_call_the_order(shop: Shop, text: str) -> None:
    await shop.sell()
    await shop.long_ago()
    before = outcomes("mailed")
    await shop.post("/help", {"order": text})
    await shop.outcome("mailed", before)
    assert len(await shop.mails(2)) == 2


async def test_the_shops_own_id_of_its_customer_finds_nothing(shop: Shop) -> None:
    await shop.sell(customer="4711")
    await shop.long_ago()
    before = outcomes("nothing")
    await shop.post("/help", {"order": "4711"})
    await shop.outcome("nothing", before)
    assert len(await shop.mails(1)) == 1


async def test_one_address_with_many_orders_gets_the_newest_five(shop: Shop) -> None:
    for number in range(10001, 10008):
        await shop.sell(str(number))
        await shop.long_ago(f"main-{number}")
    before = outcomes("mailed")
    await shop.post("/help", {"order": JAN})
    await shop.outcome("mailed", before)
    counts = [len(await shop.book.mails(f"main-{number}")) for number in range(10001, 10008)]
    assert counts == [1, 1, 2, 2, 2, 2, 2]


async def refund(shop: Shop) -> None:
    await shop.fulfilment.hear("main", Notice("10001", now_ms() + 1, refunds=(Refund("r", (("1", 1),)),)))


async def bounce(shop: Shop) -> None:
    [mail] = await shop.book.mails("main-10001")
    await shop.book.note_mail(replace(mail, state="bounced", answer="5.1.1"), [])


@pytest.mark.parametrize(("what", "mails"), [(refund, 1), (bounce, 2)])
async def test_the_answer_is_the_same_whatever_became_of_the_order(shop: Shop, what: object, mails: int) -> None:
    order = await shop.sell()
    await shop.long_ago()
    await what(shop)  # type: ignore[operator]  # a row of the table
    name = "nothing" if mails == 1 else "mailed"
    before = outcomes(name)
    for path, form in (("/help", {"order": "10001"}), (f"/l/{shop.token(order)}", {"act": "again"})):
        status, text, _ = await shop.post(path, form)
        assert (status, "a mail is on its way" in text) == (200, True)
    await shop.outcome(name, before)
    assert len(await shop.mails(mails)) == mails


@pytest.fixture
def hanging_book(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """The order book does not answer before this is set."""
    answers = asyncio.Event()

    async def hang(*_: object) -> tuple[()]:
        await answers.wait()
        return ()

    monkeypatch.setattr(SqlOrderBook, "find", hang)
    return answers


async def test_a_book_that_hangs_delays_no_answer(shop: Shop, hanging_book: asyncio.Event) -> None:
    async with asyncio.timeout(3):
        for _ in range(20):
            assert (await shop.post("/help", {"order": "10001"}))[0] == 200
    hanging_book.set()


async def test_a_full_queue_says_the_same(
    shop: Shop, hanging_book: asyncio.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.services.self_service.PER_NETWORK", ((1000, 60),))
    before = outcomes("full")
    answers = [await shop.post("/help", {"order": "10001"}) for _ in range(204)]
    assert len(set(answers)) == 1
    assert outcomes("full") - before == 2, "200 wait, and two are being done"
    hanging_book.set()


async def test_how_often_is_counted_over_all_workers(open_shop: Opening, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.services.renewing.JUST", -1)
    async with open_shop() as one, open_shop() as two:
        await one.sell()
        limited = outcomes("limited")
        for number in range(30):
            shop = (one, two)[number % 2]
            assert (await shop.post("/help", {"order": "10001"}))[0] == 200
        await one.outcome("limited", limited + 26)
        assert len(await one.mails(4)) == 4, "the first, and three in an hour"
        for shop in (one, two):
            status, text, _ = await shop.post("/help", {"order": "another"})
            assert (status, "That was too often" in text) == (429, True)
        assert (await two.post("/help", {"order": "another"}, SECOND))[0] == 200


async def test_what_sends_nothing_takes_nothing(shop: Shop) -> None:
    await shop.sell()
    before = outcomes("nothing")
    for number in range(4):
        await shop.post("/help", {"order": "10001"})
        await shop.outcome("nothing", before + number)
    await shop.long_ago()
    await shop.post("/help", {"order": "10001"})
    assert len(await shop.mails(2)) == 2, "its first mail had only just left, and is none that was asked for"


async def test_two_workers_and_the_last_renewal(open_shop: Opening) -> None:
    async with open_shop() as one, open_shop() as two:
        order = await one.sell()
        await one.long_ago()
        token = one.token(order)
        await use_up(one, token)
        mailed = outcomes("asked")
        await asyncio.gather(*(each.post(f"/l/{token}", {"act": "again"}) for each in (one, two) * 2))
        await one.outcome("asked", mailed + 3)
        await one.mails(2)
        await asyncio.sleep(0.2)
        changed = await one.book.read("main-10001")
        assert changed is not None
        assert (changed.renewed, len(changed.links), len(await one.mails(2))) == (1, 2, 2)


async def test_without_redis_the_answer_is_the_same_and_nothing_is_mailed(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def down(*_: object) -> None:
        raise LedgerDown("away")

    await shop.sell()
    await shop.long_ago()
    monkeypatch.setattr(RedisAllowance, "take", down)
    before = outcomes("failed")
    status, text, _ = await shop.post("/help", {"order": "10001"})
    assert (status, "a mail is on its way" in text) == (200, True)
    await shop.outcome("failed", before)
    assert len(await shop.mails(1)) == 1


async def test_without_mail_the_page_names_the_shop(open_gateway) -> None:
    async with open_gateway("brand: {name: Sea Shop, contact: help@example.com}\n") as gateway:
        for method in ("GET", "POST"):
            async with gateway.client.request(
                method, f"{gateway.base}/help", data={"order": "1"} if method == "POST" else None, headers=HTML
            ) as response:
                page = await response.text()
            assert (response.status, "<form" in page, "help@example.com" in page) == (200, False, True)
        async with gateway.client.put(f"{gateway.base}/help") as response:
            assert (response.status, response.headers["Allow"]) == (405, "GET, HEAD, POST")
        async with gateway.client.post(f"{gateway.base}/help", json={}) as response:
            assert response.status == 400
        async with gateway.client.post(f"{gateway.base}/l/{gateway.token('a')}", data={"act": "again"}) as response:
            assert response.status == 400, "no such act where nothing is mailed"


async def test_an_office_with_a_guesser_in_it(gateway) -> None:
    gateway.file("a.pdf", 100)
    genuine, answers = gateway.token("a.pdf"), []
    for number in range(200):
        sent = {"X-Forwarded-For": f"192.0.2.{number}"}
        async with gateway.client.get(f"{gateway.base}/d/junk", headers=sent) as response:
            answers.append(response.status)
            assert response.status == 403 or int(response.headers["Retry-After"]) <= 60
        if number % 20 == 0:
            async with gateway.client.get(f"{gateway.base}/d/{genuine}", headers=sent) as response:
                assert response.status == 200
    assert answers == [403] * 60 + [429] * 140
    reasons = [event["reason"] for event in await gateway.events() if event["type"] == "download.denied"]
    assert "throttled" not in reasons
