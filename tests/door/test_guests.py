"""A new device with a real gateway, order book and mail server: who gets in, with which code, after how many tries."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from email import message_from_bytes
from email.policy import default
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientResponse, web
from aiosmtpd.smtp import SMTP, Envelope, Session

from gateway.backends.order_book import SqlOrderBook
from gateway.policy.model import FileEntry
from gateway.policy.orders import Buyer, Entitlement, Line, Order, Said, SoldFile, Told
from gateway.settings import load
from gateway.web.app import build_background
from gateway.web.status import WorkerStatus

RULES = """
version: 1
otherwise: allow
default_plan: guests
plans:
  guests: {new_device: code}
  home: {bind_ip: order}
"""
SIZE = 3_000_000
SOLD = (SoldFile(FileEntry("a.bin"), "e", SIZE),)
ORDER = Order(
    "main-1",
    "main",
    "1",
    reference="#1042",
    paid=Said(True, (1,)),
    buyer=Told(Buyer("ada@example.com", "Ada", language="pl"), 1),
    lines=Told((Line("l1", sku="SEA"),), 1),
    entitlements=(Entitlement("l1", "Sea", SOLD, 1),),
    address=Told("203.0.113.9", 1),
)
PAGE = {"Accept": "text/html", "Accept-Language": "en"}


class Inbox:
    """A mail server that takes everything."""

    def __init__(self) -> None:
        self.came: asyncio.Queue[Envelope] = asyncio.Queue()

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802  aiosmtpd's name
        self.came.put_nowait(envelope)
        return "250 queued"

    async def code(self) -> str:
        """That of the next mail."""
        async with asyncio.timeout(10):
            envelope = await self.came.get()
        assert envelope.rcpt_tos == ["ada@example.com"]
        message = message_from_bytes(envelope.content or b"", policy=default)
        part = message.get_body(("plain",))
        assert part is not None
        assert "#1042" in message["Subject"]
        (code,) = re.findall(r"^ {4}([0-9]{6})$", part.get_content().replace("\r", ""), re.MULTILINE)
        return str(code)


@dataclass
class Person:
    """Somebody with a browser and a network of his own, which keeps the cookies that it is given."""

    gateway: Any
    agent: str
    address: str
    cookies: dict[str, str] = field(default_factory=dict)

    async def ask(self, method: str, path: str, **more: Any) -> ClientResponse:
        headers = {**PAGE, "User-Agent": self.agent, "X-Forwarded-For": self.address, **more.pop("headers", {})}
        if self.cookies:
            headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        url = f"{self.gateway.base}{path}"
        async with self.gateway.client.request(method, url, headers=headers, allow_redirects=False, **more) as answer:
            await answer.read()
        for name, morsel in answer.cookies.items():
            self.cookies[name] = morsel.value
        return answer

    async def download(self, token: str, **more: Any) -> int:
        return (await self.ask("GET", f"/d/{token}/1/a.bin", **more)).status

    async def send_code(self, token: str) -> ClientResponse:
        return await self.ask("POST", f"/l/{token}", data={"act": "code"})

    async def enter(self, token: str, code: str) -> ClientResponse:
        return await self.ask("POST", f"/l/{token}", data={"act": "enter", "code": code})


@dataclass
class Shop:
    gateway: Any
    inbox: Inbox
    book: SqlOrderBook

    def person(self, number: int) -> Person:
        return Person(self.gateway, f"Browser/{number}", f"198.51.{number}.9")

    def token(self, *files: str, **changes: Any) -> str:
        return self.gateway.token(*(files or ("a.bin",)), **{"order_id": "main-1", **changes})


@pytest.fixture
async def shop(open_gateway: Any, tmp_path: Path) -> AsyncIterator[Shop]:
    async with opened(open_gateway, tmp_path) as running:
        yield running


@asynccontextmanager
async def opened(open_gateway: Any, folder: Path, doors: str = "") -> AsyncIterator[Shop]:
    loop, inbox = asyncio.get_running_loop(), Inbox()
    server = await loop.create_server(lambda: SMTP(inbox, hostname="mx", loop=loop), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    url = f"sqlite:///{folder}/orders.db"
    more = f"orders: {{url: '{url}'}}\nmail: {{server: 'smtp+plain://127.0.0.1:{port}', sender: shop@example.com}}\n"
    book = SqlOrderBook(url)
    await book.open()
    async with book.change("main-1") as draft:
        draft.order = ORDER
    async with open_gateway(more + doors) as gateway:
        gateway.file("a.bin", SIZE)
        await gateway.rules(RULES)
        background = web.AppRunner(await build_background(load(folder / "gateway.yaml", {}), WorkerStatus()))
        await background.setup()
        try:
            yield Shop(gateway, inbox, book)
        finally:
            await background.cleanup()
            await book.close()
            server.close()


async def test_the_second_device_gets_in_with_the_code_from_the_mail_and_stays_in(shop: Shop) -> None:
    token, first, second = shop.token(), shop.person(1), shop.person(2)
    assert await first.download(token) == 200
    refused = await second.ask("GET", f"/d/{token}/1/a.bin")
    page = await refused.text()
    assert (refused.status, "Send me a code" in page, f'action="/l/{token}"' in page) == (401, True, True)
    assert "form-action 'self'" in refused.headers["Content-Security-Policy"]
    sent = await second.send_code(token)
    page = await sent.text()
    assert (sent.status, 'autocomplete="one-time-code"' in page, 'inputmode="numeric"' in page) == (200, True, True)
    assert sent.headers["Cache-Control"] == "private, no-store"
    assert set(second.cookies) == {"gw_device"}
    code = await shop.inbox.code()
    entered = await second.enter(token, f" {code[:3]} {code[3:]} ")
    assert (entered.status, entered.headers["Location"]) == (303, f"/l/{token}")
    assert "HttpOnly; SameSite=Lax" in entered.headers["Set-Cookie"]
    assert [await second.download(token), await second.download(token)] == [200, 200]
    assert await first.download(token) == 200
    # Anywhere: what is known is the browser, and not the network.
    second.address = "198.51.77.9"
    assert await second.download(token) == 200
    # Of this one link.
    other = shop.token()
    assert [await first.download(other), await second.download(other)] == [200, 401]
    events = await shop.gateway.settled()
    refusals = [event for event in events if event["type"] == "download.denied"]
    assert [(event["reason"], event["plan.guests"]) for event in refusals] == [("device.code", "new_device")] * 2
    assert not any(code in value for event in events for value in event.values())


async def test_neither_of_the_two_cookies_is_worth_anything_without_the_other(shop: Shop) -> None:
    token, first, second, thief = shop.token(), shop.person(1), shop.person(2), shop.person(3)
    await first.download(token)
    await second.send_code(token)
    assert (await second.enter(token, await shop.inbox.code())).status == 303
    known, device = second.cookies["gw_known"], second.cookies["gw_device"]
    thief.cookies = {"gw_known": known}
    assert await thief.download(token) == 401
    thief.cookies = {"gw_known": known, "gw_device": "A" * 22}
    assert await thief.download(token) == 401
    thief.cookies = {"gw_device": device, "gw_known": known[:-1] + ("0" if known[-1] != "0" else "1")}
    assert await thief.download(token) == 401
    assert await second.download(token) == 200


async def test_a_code_is_good_for_one_device_one_link_and_once(shop: Shop) -> None:
    token, first, second, third = shop.token(), shop.person(1), shop.person(2), shop.person(3)
    await first.download(token)
    await second.send_code(token)
    code = await shop.inbox.code()
    await third.send_code(token)
    own = await shop.inbox.code()
    assert (await third.enter(token, code)).status == 401
    assert await third.download(token) == 401
    other = shop.token()
    await first.download(other)
    assert (await second.enter(other, code)).status == 401
    assert (await second.enter(token, code)).status == 303
    del second.cookies["gw_known"]
    assert (await second.enter(token, code)).status == 401
    assert "no such code" in await (await second.enter(token, code)).text()
    # A new one takes the place of the one before.
    await third.send_code(token)
    newest = await shop.inbox.code()
    if own != newest:
        assert (await third.enter(token, own)).status == 401
    assert (await third.enter(token, newest)).status == 303


async def test_of_two_who_enter_the_right_code_at_once_one_is_let_in(shop: Shop) -> None:
    token, first, second = shop.token(), shop.person(1), shop.person(2)
    await first.download(token)
    await second.send_code(token)
    code = await shop.inbox.code()
    answers = await asyncio.gather(*(second.enter(token, code) for _ in range(4)))
    assert sorted(answer.status for answer in answers) == [303, 401, 401, 401]


async def test_five_tries_a_code_and_three_codes_a_device(shop: Shop) -> None:
    token, first, second = shop.token(), shop.person(1), shop.person(2)
    await first.download(token)
    for _ in range(3):
        assert (await second.send_code(token)).status == 200
        code = await shop.inbox.code()
        wrong = [await second.enter(token, f"{(int(code) + n) % 10**6:06}") for n in range(1, 6)]
        assert [answer.status for answer in wrong] == [401] * 5
        assert "4 more tries" in await wrong[0].text()
        assert "1 more try" in await wrong[3].text()
        assert "no such code" in await wrong[4].text()
        assert (await second.enter(token, code)).status == 401
    often = await second.send_code(token)
    assert (often.status, "many codes" in await often.text()) == (429, True)
    assert await second.download(token) == 401
    assert shop.inbox.came.empty()


async def test_who_throws_his_cookies_away_gets_no_more_than_six_codes_an_hour(shop: Shop) -> None:
    token, first = shop.token(), shop.person(1)
    await first.download(token)
    answers = [(await shop.person(2).send_code(token)).status for _ in range(7)]
    assert answers == [200] * 6 + [429]
    # And tries without a code are no tries.
    stranger = shop.person(3)
    assert [(await stranger.enter(token, f"{n:06}")).status for n in range(8)] == [401] * 8


async def test_of_two_devices_at_once_exactly_one_is_the_first(shop: Shop) -> None:
    for _ in range(5):
        token = shop.token()
        statuses = await asyncio.gather(*(shop.person(number).download(token) for number in (1, 2, 3, 4)))
        assert sorted(statuses) == [200, 401, 401, 401]


async def test_a_scanners_glance_leaves_the_place_to_the_buyer(shop: Shop) -> None:
    token, scanner, buyer = shop.token(), shop.person(1), shop.person(2)
    assert await scanner.download(token, headers={"Range": "bytes=0-1023"}) == 206
    await shop.gateway.settled()
    assert await buyer.download(token) == 200
    assert await scanner.download(token) == 401


async def test_a_peek_promises_nothing_to_a_new_device(shop: Shop) -> None:
    token, first, second = shop.token(), shop.person(1), shop.person(2)
    await first.download(token)
    assert (await second.ask("HEAD", f"/d/{token}/1/a.bin")).status == 401
    problem = await second.ask("GET", f"/d/{token}/1/a.bin", headers={"Accept": "application/json"})
    assert ((await problem.json())["reason"], problem.status) == ("device.code", 401)


@pytest.mark.parametrize("change", [{"buyer": Told(Buyer(), 1)}, {}])
async def test_the_answer_does_not_tell_whether_the_order_has_an_address(shop: Shop, change: dict[str, Any]) -> None:
    async with shop.book.change("main-1") as draft:
        draft.order = replace(ORDER, **change)
    token, first, second = shop.token(), shop.person(1), shop.person(2)
    await first.download(token)
    sent = await second.send_code(token)
    text = re.sub(r"<code>[^<]*</code>", "", await sent.text())
    assert (sent.status, "If we know an e-mail address" in text, "ada@" in text) == (200, True, False)
    queued: list[str] = []
    while not queued:
        queued = [e.get("reason", "") for e in await shop.gateway.events() if e["type"] == "mail.queued"]
        await asyncio.sleep(0.02)
    assert queued == ["mail.no_address" if change else ""]


async def test_no_code_for_a_link_without_an_order_or_one_that_gives_nothing(shop: Shop) -> None:
    first, second = shop.person(1), shop.person(2)
    alone = shop.token(order_id=None)
    assert await first.download(alone) == 200
    answer = await second.send_code(alone)
    assert (answer.status, "write to the shop" in await answer.text(), "<form" in await answer.text()) == (
        401,
        True,
        False,
    )
    async with shop.book.change("main-1") as draft:
        draft.order = replace(ORDER, paid=Said(False, (1,)))
    unpaid = await second.send_code(shop.token())
    assert (unpaid.status, "payment" in await unpaid.text()) == (403, True)
    assert shop.inbox.came.empty()


async def test_where_no_code_is_asked_for_none_is_sent(shop: Shop) -> None:
    await shop.gateway.rules(RULES.replace("{new_device: code}", "{}"))
    token, person = shop.token(), shop.person(1)
    assert (await person.send_code(token)).headers["Location"] == f"/l/{token}"
    assert (await person.enter(token, "123456")).headers["Location"] == f"/l/{token}"
    assert shop.inbox.came.empty()


@pytest.mark.parametrize(
    ("address", "status"),
    [("203.0.113.77", 200), ("::ffff:203.0.113.77", 200), ("203.0.114.9", 403), ("2001:db8::1", 403)],
)
async def test_a_plan_that_binds_is_open_where_it_was_ordered(shop: Shop, address: str, status: int) -> None:
    token, person = shop.token(plan="home"), replace(shop.person(1), address=address)
    assert [await person.download(token), (await person.ask("GET", f"/l/{token}")).status] == [status, status]
    refused = [event for event in await shop.gateway.settled() if event["type"] == "download.denied"]
    assert {event["reason"] for event in refused} == ({"token.ip"} if status == 403 else set())


async def test_who_had_his_data_erased_still_downloads_where_he_ordered(shop: Shop) -> None:
    async with shop.book.change("main-1") as draft:
        draft.order = ORDER.erased(2)
    token = shop.token(plan="home")
    for address, status in (("203.0.113.77", 200), ("203.0.114.9", 403)):
        assert await replace(shop.person(1), address=address).download(token) == status


async def test_a_plan_that_binds_is_closed_where_nobody_knows_the_order(shop: Shop) -> None:
    person = replace(shop.person(1), address="203.0.113.9")
    for token in (shop.token(plan="home", order_id=None), shop.token(plan="home", order_id="main-2")):
        problem = await person.ask("GET", f"/d/{token}", headers={"Accept": "application/json"})
        assert (problem.status, "no order of it is known" in (await problem.json())["detail"]) == (403, True)
    async with shop.book.change("main-1") as draft:
        draft.order = replace(ORDER, address=Told("", 2))
    token = shop.token(plan="home")
    problem = await person.ask("GET", f"/d/{token}", headers={"Accept": "application/json"})
    assert (problem.status, "has not told" in (await problem.json())["detail"]) == (403, True)


async def test_behind_a_proxy_that_asks_the_form_leads_to_the_listener(open_gateway: Any, tmp_path: Path) -> None:
    secret = "0123456789abcdef-for-tests"
    async with opened(open_gateway, tmp_path, f"doors: {{secret: {secret}}}\n") as shop:
        token, second = shop.token(), shop.person(2)
        told = {"X-Gateway-Secret": secret, "X-Forwarded-Method": "GET", "X-Forwarded-Uri": f"/d/{token}/1/a.bin"}
        assert (await shop.person(1).ask("GET", "/auth", headers=told)).status == 200
        refused = await second.ask("GET", "/auth", headers=told)
        assert (refused.status, f'action="/l/{token}"' in await refused.text()) == (401, True)
        again = await second.ask("GET", "/auth/refused", headers={**told, "X-Gateway-Reason": "device.code"})
        assert (again.status, f'action="/l/{token}"' in await again.text()) == (401, True)
        await second.send_code(token)
        assert (await second.enter(token, await shop.inbox.code())).status == 303
        assert (await second.ask("GET", "/auth", headers=told)).status == 200
