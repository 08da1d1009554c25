"""The library at a whole worker: what its customer sees and may do there, and nobody else's is shown or changed."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientResponse

from gateway.backends.order_book import SqlOrderBook
from gateway.order_ports import Mail
from gateway.policy.model import FileEntry
from gateway.policy.orders import Buyer, Entitlement, IssuedLink, Line, Order, Said, SoldFile, Told
from gateway.policy.standing import Command
from gateway.services.desk import LinkDesk
from gateway.services.purchases import PAGE
from gateway.services.sessions import Sessions

SECRET = "a-secret-of-sign-ins-for-tests-only-40-long"
MORE = f"""
public_url: https://dl.example.com
accounts:
  secret: {SECRET}
  shops: [main]
  handover: {{{{login_url: "https://shop.example.com/in", issuer: shop, secret: {SECRET}}}}}
shops:
  - {{{{name: main, kind: signed, secrets: [0123456789abcdef0123456789abcdef]}}}}
  - {{{{name: other, kind: signed, secrets: [0123456789abcdef0123456789abcdef]}}}}
orders: {{{{url: "sqlite:///{{folder}}/orders.db"}}}}
products: "{{folder}}/products.yaml"
"""
RULES = """
version: 1
otherwise: allow
plans:
  standard: {downloads: 2, devices: 1, networks: 3, valid_for: 7d, renewals: 1}
default_plan: standard
"""
BROWSER = {"Accept": "text/html", "User-Agent": "Mozilla/5.0 (Windows NT 10.0; rv:132.0) Gecko/20100101 Firefox/132.0"}
PHONE = {
    "User-Agent": "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    "Version/17.5 Mobile/15E148 Safari/604.1"
}
HOSTILE = "<script>alert(1)</script>\u202e\"'&" + "x" * 10_000


def order(number: str, customer: str = "7", shop: str = "main", *, title: str = "The Sea", **more: Any) -> Order:
    """One that is paid, with one link to one file."""
    now = int(time.time())
    file = FileEntry(key=f"ebooks/{number}.pdf", name=f"Sea {number}.pdf")
    whole = Order(
        f"{shop}-{number}",
        shop,
        number,
        reference=f"#{number}",
        paid=Said(True, (now * 1000 - 60_000,)),
        buyer=Told(Buyer(f"{customer}@example.com", "Jan Buyer", customer), now * 1000),
        lines=Told((Line("1", title=title),), now * 1000),
        entitlements=(Entitlement("1", title, (SoldFile(file, "", 300_000),), now * 1000),),
        links=(IssuedLink(f"link-of-{shop}-{number}", ("1",), (file,), now, now + 86_400),),
        address=Told("203.0.113.9", now * 1000),
    )
    return replace(whole, **more)


@dataclass
class Visitor:
    """Somebody's browser, signed in or not."""

    gateway: Any
    book: SqlOrderBook
    folder: Path
    sessions: Sessions
    cookie: str = ""

    def as_(self, customer: str) -> Visitor:
        return replace(self, cookie=self.sessions.begin(customer).partition(";")[0])

    @property
    def key(self) -> str:
        session = self.sessions.read(self.cookie)
        assert session is not None
        return self.sessions.form_key(session)

    async def put(self, *orders: Order) -> None:
        for each in orders:
            async with self.book.change(each.order_id) as draft:
                draft.order = each
            for sold in (sold for held in each.entitlements for sold in held.files):
                self.gateway.file(sold.file.key, sold.size)

    async def get(self, path: str = "/account", **headers: str) -> ClientResponse:
        headers = {**BROWSER, **headers, "Cookie": self.cookie}
        return await self.gateway.client.get(self.gateway.base + path, headers=headers, allow_redirects=False)

    async def page(self, path: str = "/account", **headers: str) -> str:
        answer = await self.get(path, **headers)
        assert answer.status == 200, await answer.text()
        return await answer.text()

    async def json(self, path: str = "/account") -> Any:
        answer = await self.get(path, Accept="application/json")
        assert answer.status == 200
        return await answer.json()

    async def post(self, act: str, **fields: str) -> ClientResponse:
        form = {"key": self.key, "act": act, **fields}
        return await self.gateway.client.post(
            f"{self.gateway.base}/account",
            data=form,
            headers={**BROWSER, "Cookie": self.cookie},
            allow_redirects=False,
        )

    async def download(self, number: int = 0, **headers: str) -> int:
        link = (await self.json())["orders"][number]["links"][0]
        path = link["href"].replace("/l/", "/d/")
        async with self.gateway.client.get(self.gateway.base + path, headers=headers) as answer:
            await answer.read()
        await self.gateway.settled()
        return int(answer.status)


@pytest.fixture
async def visitor(open_gateway: Any, tmp_path: Path) -> AsyncIterator[Visitor]:
    (tmp_path / "products.yaml").write_text("version: 1\nproducts:\n  - {sku: SEA, files: [ebooks/1.pdf]}\n")
    book = SqlOrderBook(f"sqlite:///{tmp_path}/orders.db")
    await book.open()
    try:
        async with open_gateway(MORE.format(folder=tmp_path)) as gateway:
            await gateway.rules(RULES)
            yield Visitor(gateway, book, tmp_path, Sessions(SECRET, seconds=600, shops=["main"]))
    finally:
        await book.close()


async def test_who_has_not_signed_in_is_sent_there(visitor: Visitor) -> None:
    asked = await visitor.get()
    assert (asked.status, asked.headers["Location"]) == (303, "/account/sign-in")
    program = await visitor.get(Accept="*/*")
    assert program.status == 401
    assert (await program.json())["reason"] == "account.required"


async def test_what_was_bought_is_there_with_what_is_left_of_it(visitor: Visitor) -> None:
    await visitor.put(order("1"), order("2", title="The Land"))
    his = visitor.as_("7")
    assert await his.download(1, **PHONE) == 200
    listed = await his.json()
    assert [each["id"] for each in listed["orders"]] == ["main-2", "main-1"]
    link = listed["orders"][1]["links"][0]
    assert (link["state"], link["downloads"], link["devices"]) == ("valid", 2, {"used": 1, "limit": 1})
    assert link["files"] == [{"name": "Sea 1.pdf", "size": 300_000, "left": 1}]
    page = await his.page()
    assert "Downloads left: 1 of 2" in page
    assert "Safari on iOS" in page
    assert "The Land" in page
    answer = await his.get()
    assert "no-store" in answer.headers["Cache-Control"]
    assert "form-action 'self'" in answer.headers["Content-Security-Policy"]
    assert "script-src" not in answer.headers["Content-Security-Policy"]
    polish = await his.page(**{"Accept-Language": "pl"})
    assert "Pozostało pobrań: 1 z 2" in polish
    # The address on the page opens the link.
    opened = re.search(r'href="(/l/[^"]+)"', page)
    assert opened is not None
    assert (await his.get(opened[1])).status == 200


async def test_another_customers_things_are_neither_shown_nor_changed(visitor: Visitor) -> None:
    await visitor.put(order("1"), order("1", shop="other"), order("2", "77"), order("3", " 7"), order("4", ""))
    assert [each["id"] for each in (await visitor.as_("7").json())["orders"]] == ["main-1"]
    assert (await visitor.as_("8").json())["orders"] == []
    assert (await visitor.as_(" ").json())["orders"] == []
    await visitor.as_("7").download(0, **PHONE)
    stranger, before = visitor.as_("8"), await visitor.book.read("main-1")
    for name, link in (("main-1", "link-of-main-1"), ("main-9", "link-of-main-1"), ("other-1", "link-of-other-1")):
        for act in ("renew", "device"):
            answer = await stranger.post(act, order=name, link=link, slot="1")
            assert answer.status == 403
            assert "account.other" in await answer.text()
    # Of his own order, a link of another.
    assert (await visitor.as_("7").post("device", order="main-1", link="link-of-main-2", slot="1")).status == 403
    assert (await stranger.post("erase")).headers["Location"] == "/account?said=erased"
    assert await visitor.book.read("main-1") == before
    assert (await visitor.as_("7").json())["orders"][0]["links"][0]["devices"]["used"] == 1


@pytest.mark.parametrize("key", ["", "0" * 32, "\u20ac"])
async def test_a_form_of_another_site_does_nothing(visitor: Visitor, key: str) -> None:
    await visitor.put(order("1"))
    answer = await visitor.as_("7").post("erase", key=key)
    assert answer.status == 403
    kept = await visitor.book.read("main-1")
    assert kept is not None
    assert kept.email == "7@example.com"
    # Nor one of another session of the same customer's.
    assert (await visitor.as_("7").post("erase", key=visitor.as_("7").key)).status == 403


async def test_what_looks_only_is_answered_without_a_body(visitor: Visitor) -> None:
    his = visitor.as_("7")
    headers = {**BROWSER, "Cookie": his.cookie}
    async with visitor.gateway.client.head(visitor.gateway.base + "/account", headers=headers) as answer:
        assert (answer.status, await answer.read()) == (200, b"")


async def test_what_is_no_act_is_no_form(visitor: Visitor) -> None:
    assert (await visitor.as_("7").post("steal")).status == 400
    answer = await visitor.gateway.client.put(visitor.gateway.base + "/account")
    assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD, POST")


async def test_a_removed_device_makes_room_as_often_as_there_are_slots(visitor: Visitor) -> None:
    await visitor.put(order("1"))
    his, own = visitor.as_("7"), {"order": "main-1", "link": "link-of-main-1"}
    assert await his.download(0, **PHONE) == 200
    elsewhere = {"User-Agent": "other", "X-Forwarded-For": "198.51.100.7"}
    assert await his.download(0, **elsewhere) == 403
    page = await his.page()
    slot = re.search(r'name="slot" value="([0-9]+)"', page)
    assert slot is not None
    for wrong in ("", "99", "-1", "1" * 30, "\u0661"):
        assert (await his.post("device", slot=wrong, **own)).headers["Location"] == "/account?said=not_removed"
    assert (await his.post("device", slot=slot[1], **own)).headers["Location"] == "/account?said=removed"
    assert (await his.post("device", slot=slot[1], **own)).headers["Location"] == "/account?said=not_removed"
    assert "The device is removed" in await his.page("/account?said=removed")
    assert await his.download(0, **elsewhere) == 200
    after = re.search(r'name="slot" value="([0-9]+)"', await his.page())
    assert after is not None
    assert (await his.post("device", slot=after[1], **own)).headers["Location"] == "/account?said=too_many"
    acts = [event for event in await visitor.gateway.events() if event["type"] == "buyer.acted"]
    assert [(event["buyer.action"], event["token.id"]) for event in acts] == [("device.remove", "link-of-main-1")]


async def test_an_expired_link_is_renewed_with_its_counts(visitor: Visitor) -> None:
    past = int(time.time()) - 60
    sea = order("1")
    await visitor.put(replace(sea, links=(replace(sea.links[0], issued_at=past - 60, expires_at=past),)))
    his = visitor.as_("7")
    page = await his.page()
    assert "Expired on" in page
    assert ">Renew</button>" in page
    assert "/l/" not in page
    answer = await his.post("renew", order="main-1", link="link-of-main-1", before="17")
    assert (answer.status, answer.headers["Location"]) == (303, "/account?said=extended&before=17")
    link = (await his.json())["orders"][0]["links"][0]
    assert (link["state"], link["ends_at"] > past + 6 * 86_400) == ("valid", True)
    assert (await his.post("renew", order="main-1", link="link-of-main-1")).headers["Location"].endswith("not_renewed")


async def test_a_used_up_link_begins_anew_as_often_as_its_plan_says(visitor: Visitor) -> None:
    await visitor.put(order("1"))
    await visitor.gateway.rules(RULES.replace("downloads: 2, devices: 1", "downloads: 1"))
    his = visitor.as_("7")
    assert await his.download(0, **PHONE) == 200
    listed = (await his.json())["orders"][0]["links"]
    assert (listed[0]["state"], listed[0]["renewal"]["way"]) == ("used up", "renew")
    answer = await his.post("renew", order="main-1", link="link-of-main-1")
    assert answer.headers["Location"] == "/account?said=renewed"
    [link] = (await his.json())["orders"][0]["links"]
    assert link["id"] != "link-of-main-1"
    assert link["files"][0]["left"] == 1


async def test_what_is_gone_is_said_in_plain_words(visitor: Visitor) -> None:
    sea = order("1")
    now = int(time.time())
    lapsed = replace(sea.entitlements[0], ends_at=now - 5)
    await visitor.put(
        replace(sea, refunded=Said(True, (now * 1000,))),
        replace(order("2"), paid=Said()),
        replace(order("3"), entitlements=(replace(lapsed, files=order("3").entitlements[0].files),)),
        replace(order("4"), entitlements=(), links=()),
    )
    his = visitor.as_("7")
    gone = {each["id"]: each["gone"] for each in (await his.json())["orders"]}
    assert [[one["why"] for one in gone[f"main-{number}"]] for number in "1234"] == [
        ["refunded"],
        ["unpaid"],
        ["lapsed"],
        [],
    ]
    page = await his.page()
    for words in ("Refunded.", "The payment has not reached us yet.", "is over.", "There is nothing to download"):
        assert words in page
    assert "/l/" not in page


async def test_revoked_and_extended_links_are_shown_as_they_stand(visitor: Visitor) -> None:
    await visitor.put(order("1"))
    await visitor.gateway.command(Command("revoke", int(time.time()) + 1, order_id="main-1"))
    his = visitor.as_("7")
    assert (await his.json())["orders"][0]["links"][0]["state"] == "revoked"
    page = await his.page()
    assert "The shop has switched this off" in page
    assert "/l/" not in page


async def test_hostile_names_are_text(visitor: Visitor) -> None:
    file = FileEntry(key="ebooks/1.pdf", name=HOSTILE[:255])
    sea = order("1", title=HOSTILE, reference=HOSTILE[:300])
    held = replace(sea.entitlements[0], files=(SoldFile(file, "", 5),))
    await visitor.put(replace(sea, entitlements=(held,), links=(replace(sea.links[0], files=(file,)),)))
    his = visitor.as_("7")
    await his.download(0, **{"User-Agent": HOSTILE[:400].encode().decode("latin-1").replace("\x80", "")[:200]})
    page = await his.page("/account?said=<script>&before=<script>")
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    # A text that turns its direction turns itself alone.
    assert "<bdi>&lt;script" in page
    assert HOSTILE[:200] in unescape(page)


async def test_many_orders_come_in_pages(visitor: Visitor) -> None:
    for number in range(1, 46):
        async with visitor.book.change(f"main-{number}") as draft:
            draft.order = order(str(number))
    page = await visitor.as_("7").page()
    his, seen, path = visitor.as_("7"), [], "/account"
    while True:
        listed = await his.json(path)
        assert len(listed["orders"]) <= PAGE
        seen += [each["id"] for each in listed["orders"]]
        if "older" not in listed:
            break
        if path == "/account":
            assert f'"/account?before={listed["older"]}"' in page
        path = f"/account?before={listed['older']}"
    assert seen == [f"main-{number}" for number in range(45, 0, -1)]
    assert (await his.json("/account?before=0"))["orders"] == []
    assert len((await his.json("/account?before=" + "9" * 30))["orders"]) == PAGE


async def test_erasing_forgets_the_buyer_and_keeps_what_was_bought(visitor: Visitor) -> None:
    await visitor.put(order("1", corrected=("7@example.com", "jan@example.net")), order("2", "8"))
    async with visitor.book.change("main-1") as draft:
        draft.mails.append(Mail("m1", "main-1", "links", 1, "jan@example.net", "en", 1, "accepted"))
        draft.mails.append(Mail("m2", "main-1", "links", 2, "jan@example.net", "en", 1))
    his = visitor.as_("7")
    asked = await his.page("/account?ask=erase")
    assert "GDPR, Article 17(3)(e)" in asked
    assert 'name="act" value="erase"' in asked
    assert (await his.post("erase")).headers["Location"] == "/account?said=erased"
    left = await visitor.book.read("main-1")
    assert left is not None
    assert (left.buyer.value, left.email, left.address.value) == (Buyer(customer_id="7"), "", "203.0.113.0")
    assert left.erased_at > 0
    mails = await visitor.book.mails("main-1")
    assert [(mail.to, mail.state) for mail in mails] == [("", "accepted"), ("", "failed")]
    database = b"".join(path.read_bytes() for path in visitor.folder.glob("orders.db*"))
    assert (await visitor.book.find("jan@example.net")) == []
    assert b"8@example.com" in database
    # His still, and erased no more than once.
    assert await his.download() == 200
    assert (await his.post("erase")).headers["Location"] == "/account?said=erased"
    assert (await visitor.book.read("main-1")) == left
    other = await visitor.book.read("main-2")
    assert other is not None
    assert other.email == "8@example.com"


async def test_who_leaves_is_erased_all_the_same(visitor: Visitor) -> None:
    await visitor.put(*(order(str(number)) for number in range(1, 21)))
    asking = asyncio.create_task(visitor.as_("7").post("erase"))
    for _ in range(200):
        first = await visitor.book.read("main-20")
        if first is not None and first.erased_at > 0:
            break
        await asyncio.sleep(0.005)
    asking.cancel()
    for _ in range(200):
        last = await visitor.book.read("main-1")
        if last is not None and last.erased_at > 0:
            return
        await asyncio.sleep(0.02)
    raise AssertionError("what was left when the customer left is not erased")


async def test_who_leaves_while_a_link_is_renewed_does_not_keep_the_old_one(
    visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    await visitor.put(order("1"))
    await visitor.gateway.rules(RULES.replace("downloads: 2, devices: 1", "downloads: 1"))
    his = visitor.as_("7")
    assert await his.download(0, **PHONE) == 200
    reached, left, revoke = asyncio.Event(), asyncio.Event(), LinkDesk.revoke

    async def revoke_later(self: LinkDesk, *args: Any) -> object:
        reached.set()
        await left.wait()
        return await revoke(self, *args)

    monkeypatch.setattr(LinkDesk, "revoke", revoke_later)
    asking = asyncio.create_task(his.post("renew", order="main-1", link="link-of-main-1"))
    await reached.wait()
    asking.cancel()
    await asyncio.sleep(0.05)  # until the worker has noticed
    left.set()
    for _ in range(200):
        commands = await visitor.gateway.wire.execute("XRANGE", "gw:{0}:control", "-", "+")
        if [fields["verb"] for _, fields in commands] == ["revoke"]:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("the link that was renewed is still good beside the one in its place")


async def test_without_redis_the_page_says_what_the_book_knows(visitor: Visitor) -> None:
    await visitor.put(order("1"))
    his = visitor.as_("7")
    await visitor.gateway.wire.execute("CLIENT", "PAUSE", 1200, "ALL")
    page = await his.page()
    assert "Just now we cannot see how much is left" in page
    assert "The Sea" in page
    assert "/l/" in page


async def test_without_the_order_book_nothing_is_shown(visitor: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in visitor.folder.glob("orders.db*"):
        path.write_bytes(b"no database " * 400)
    answer = await visitor.as_("7").get()
    assert answer.status == 503
    assert "orders.down" in await answer.text()
