"""From webhooks to links and mails, in a real order book: each thing once, whatever comes twice, late or broken."""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from gateway.backends.order_book import SqlOrderBook
from gateway.order_ports import Delivery, Mail
from gateway.policy.events import FIELDS, TYPES
from gateway.policy.links import read_link
from gateway.policy.model import FileEntry, Plan
from gateway.policy.orders import ALL, Buyer, Line, Notice, Order, Refund, SoldFile
from gateway.policy.products import Catalogue, Product
from gateway.policy.ruleset import RuleSet
from gateway.services import fulfilment as module
from gateway.services.fulfilment import Assortment, Fulfilment, Terms
from gateway.services.identifiers import now_ms
from gateway.shops import SHOPS
from gateway.shops.samples import Wanted, sample

BOOK, SONG = FileEntry("ebooks/sea.pdf"), FileEntry("music/song.wav")
SEA, WAVE = Line("l1", sku="SEA", title="The Sea"), Line("l2", sku="WAVE", title="The Wave")
BUYER = Buyer("jan@example.com", "Jan", "c-1", "pl")
CATALOGUE = Catalogue("1", by_sku={"SEA": Product((BOOK,), plan="standard"), "WAVE": Product((SONG,))})
RULES = RuleSet(plans={"standard": Plan("standard", valid_for=86_400)})
PAID = Notice("1", 1000, "10001", paid=True, buyer=BUYER, lines=(SEA,))


class Bell:
    """Counts."""

    def __init__(self) -> None:
        self.rang = 0

    async def ring(self) -> None:
        self.rang += 1

    async def heard(self) -> AsyncGenerator[None, None]:
        yield


@dataclass
class Desk:
    """A real order book, and everything around it that a test may change."""

    book: SqlOrderBook
    bell: Bell = field(default_factory=Bell)
    catalogue: Catalogue = CATALOGUE
    asked: list[list[FileEntry]] = field(default_factory=list)
    broken: list[Exception] = field(default_factory=list)

    async def sold(self, files: Sequence[FileEntry]) -> Sequence[SoldFile]:
        self.asked.append(list(files))
        if self.broken:
            raise self.broken.pop()
        return [SoldFile(file, "etag", 5) for file in files]

    def fulfilment(self, *, confirmed: bool = False, mails: bool = True) -> Fulfilment:
        assortment = Assortment(lambda: self.catalogue, lambda: RULES, self.sold)
        shops = {"main": Terms(SHOPS["signed"], confirmed), "other": Terms(SHOPS["signed"], confirmed)}
        return Fulfilment(self.book, self.bell, assortment, shops=shops, issuer="shop.example.com", mails=mails)

    async def order(self, order_id: str = "main-1") -> Order:
        order = await self.book.read(order_id)
        assert order is not None
        return order

    async def told(self) -> list[str]:
        return [each.fields["type"] for each in await self.book.outgoing(1000)]

    async def mails(self) -> Sequence[Mail]:
        return await self.book.mails("main-1")

    async def deliver(self, order: str = "1", *, delivery: str = "d1", sku: str = "SEA", paid: bool = True) -> None:
        """A webhook of the shop's own kind, kept as the intake keeps it."""
        made = sample("signed", Wanted(order, now_ms(), delivery, sku, "jan@example.com", paid=paid), b"secret")
        await self.book.take_in(Delivery("main", delivery, now_ms(), {}, made.body))


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    opened = SqlOrderBook(f"sqlite:///{tmp_path}/orders.db")
    await opened.open()
    yield Desk(opened)
    await opened.close()


async def test_a_paid_order_becomes_links_a_mail_and_events(desk: Desk) -> None:
    await desk.fulfilment().hear("main", PAID)
    order = await desk.order()
    [given], [link], [mail] = order.entitlements, order.links, await desk.mails()
    assert (given.line_id, given.title, given.files) == ("l1", "The Sea", (SoldFile(BOOK, "etag", 5),))
    assert (link.files, link.plan, link.expires_at - link.issued_at) == ((BOOK,), "standard", 86_400)
    assert (mail.to, mail.language, mail.purpose, mail.state) == ("jan@example.com", "pl", "links", "queued")
    outgoing = await desk.book.outgoing(100)
    assert [each.fields["type"] for each in outgoing] == [
        "order.received",
        "order.paid",
        "order.granted",
        "mail.queued",
        "link.created",
    ]
    assert all(each.fields["order.id"] == "main-1" for each in outgoing)
    assert len({each.fields["id"] for each in outgoing}) == 5
    claims = read_link(outgoing[-1].link).claims
    assert (claims.token_id, claims.order_id, claims.customer_id) == (link.token_id, "main-1", "c-1")
    assert desk.bell.rang == 1
    text = json.dumps([dict(each.fields) for each in outgoing]) + "".join(each.link for each in outgoing)
    assert "jan" not in text.lower()
    assert {name for each in outgoing for name in each.fields} <= set(FIELDS)
    assert {each.fields["type"] for each in outgoing} <= set(TYPES)


NOTICES = (
    Notice("1", 1, "10001", paid=False, buyer=BUYER, lines=(SEA, WAVE)),
    Notice("1", 2, "10001", paid=True, buyer=BUYER, lines=(SEA, WAVE)),
    Notice("1", 3, "10001", paid=True, confirmed=True, buyer=BUYER, lines=(SEA, WAVE)),
    Notice("1", 4, "10001", paid=True, lines=(SEA, WAVE)),
)


@pytest.mark.parametrize("seed", range(3))
async def test_twenty_copies_at_once_and_out_of_order_make_one_of_each(desk: Desk, tmp_path: Path, seed: int) -> None:
    copies = list(NOTICES * 5)
    random.Random(seed).shuffle(copies)
    others = [SqlOrderBook(f"sqlite:///{tmp_path}/orders.db") for _ in range(3)]
    workers = [replace(desk, book=book).fulfilment() for book in (desk.book, *others)]
    await asyncio.gather(*(workers[number % 4].hear("main", notice) for number, notice in enumerate(copies)))
    for other in others:
        await other.close()
    order, told = await desk.order(), await desk.told()
    queued = [each.fields for each in await desk.book.outgoing(1000) if "mail.id" in each.fields]
    assert [each.line_id for each in order.entitlements] == ["l1", "l2"]
    assert sorted(file.identity for link in order.links for file in link.files) == [BOOK.identity, SONG.identity]
    assert len(await desk.mails()) == 1
    assert told.count("order.received") == told.count("order.paid") == len(queued) == 1
    assert told.count("order.granted") == told.count("link.created") == 2


async def test_nothing_is_made_before_it_is_paid(desk: Desk) -> None:
    fulfilment = desk.fulfilment()
    await fulfilment.hear("main", replace(PAID, paid=False))
    order = await desk.order()
    assert (order.entitlements, order.links, await desk.mails(), desk.asked) == ((), (), [], [])
    await fulfilment.hear("main", replace(PAID, at=2000))
    assert len((await desk.order()).links) == 1


async def test_a_shop_that_confirms_gives_nothing_before(desk: Desk) -> None:
    fulfilment = desk.fulfilment(confirmed=True)
    await fulfilment.hear("main", PAID)
    assert (await desk.order()).links == ()
    assert await desk.mails() == []
    await fulfilment.hear("main", Notice("1", 1500, confirmed=True))
    assert len((await desk.order()).links) == 1
    assert len(await desk.mails()) == 1


async def test_a_refund_before_the_payment_gives_nothing(desk: Desk) -> None:
    fulfilment = desk.fulfilment()
    await fulfilment.hear("main", Notice("1", 2000, refunds=(Refund("r1", (("l1", 1),)),)))
    await fulfilment.hear("main", PAID)
    order, told = await desk.order(), await desk.told()
    assert order.links == ()
    assert order.holding(needs_confirmation=False).until == {}
    assert await desk.mails() == []
    assert "order.granted" not in told, "nothing of it became the buyer's"
    assert "link.created" not in told


async def test_a_refund_takes_the_line_and_a_replay_gives_nothing_back(desk: Desk) -> None:
    fulfilment = desk.fulfilment()
    both = replace(PAID, lines=(SEA, WAVE))
    await fulfilment.hear("main", both)
    for _ in range(2):
        await fulfilment.hear("main", Notice("1", 2000, refunds=(Refund("r1", (("l1", 1),)),)))
        await fulfilment.hear("main", both)
    order = await desk.order()
    assert list(order.holding(needs_confirmation=False).until) == [SONG.identity]
    assert (await desk.told()).count("order.refunded") == 1
    assert len(await desk.mails()) == 1
    assert len(order.links) == 2


async def test_what_was_withdrawn_and_given_back_has_the_same_link(desk: Desk) -> None:
    fulfilment = desk.fulfilment()
    await fulfilment.hear("main", PAID)
    before = (await desk.order()).links
    await fulfilment.withdraw("main-1", ALL, gone=True)
    assert (await desk.order()).holding(needs_confirmation=False).until == {}
    await asyncio.sleep(0.002)
    await fulfilment.withdraw("main-1", ALL, gone=False)
    order = await desk.order()
    assert order.links == before
    assert order.holding(needs_confirmation=False).until == {BOOK.identity: None}
    assert len(await desk.mails()) == 1
    assert await fulfilment.withdraw("main-9", ALL, gone=True) is None


async def test_a_product_that_was_missing_is_given_when_it_is_there(desk: Desk) -> None:
    desk.catalogue = Catalogue("0")
    fulfilment = desk.fulfilment()
    await fulfilment.hear("main", PAID)
    await fulfilment.hear("main", replace(PAID, at=1001))
    assert (await desk.told()).count("order.nothing") == 1
    assert await desk.mails() == []
    desk.catalogue = CATALOGUE
    for _ in range(2):
        await fulfilment.grant("main-1")
    assert len((await desk.order()).links) == 1
    assert len(await desk.mails()) == 1


async def test_a_line_that_comes_later_has_a_link_and_a_mail_of_its_own(desk: Desk) -> None:
    fulfilment = desk.fulfilment()
    await fulfilment.hear("main", PAID)
    await asyncio.sleep(0.002)
    await fulfilment.hear("main", replace(PAID, at=2000, lines=(SEA, WAVE)))
    order = await desk.order()
    assert [link.line_ids for link in order.links] == [("l1",), ("l2",)]
    assert len(await desk.mails()) == 2
    assert desk.asked == [[BOOK], [SONG]]


async def test_without_an_address_it_is_told_and_mailed_when_there_is_one(desk: Desk) -> None:
    fulfilment = desk.fulfilment()
    await fulfilment.hear("main", replace(PAID, buyer=None))
    assert await desk.mails() == []
    [queued] = [each.fields for each in await desk.book.outgoing(100) if each.fields["type"] == "mail.queued"]
    assert queued["reason"] == "mail.no_address"
    await fulfilment.hear("main", replace(PAID, at=2000))
    await fulfilment.hear("main", replace(PAID, at=2001))
    [mail] = await desk.mails()
    assert mail.to == "jan@example.com"


async def test_an_address_that_comes_when_all_is_taken_back_is_not_written_to(desk: Desk) -> None:
    fulfilment = desk.fulfilment()
    await fulfilment.hear("main", replace(PAID, buyer=None))
    await fulfilment.hear("main", Notice("1", 2000, refunded=True))
    await fulfilment.hear("main", replace(PAID, at=1500))
    assert await desk.mails() == []


async def test_an_address_is_corrected_and_the_links_are_mailed_there(desk: Desk) -> None:
    fulfilment = desk.fulfilment()
    await fulfilment.hear("main", PAID)
    await fulfilment.correct("main-1", "ada@example.com")
    assert len(await desk.mails()) == 1, "to write it down alone sends nothing again"
    await asyncio.sleep(0.002)
    await fulfilment.resend("main-1", anew=False)
    assert [mail.to for mail in await desk.mails()] == ["jan@example.com", "ada@example.com"]
    assert len((await desk.order()).links) == 1


async def test_new_links_are_made_when_they_are_asked_for(desk: Desk) -> None:
    fulfilment = desk.fulfilment()
    await fulfilment.hear("main", PAID)
    await asyncio.sleep(0.002)
    await fulfilment.resend("main-1", anew=True)
    order = await desk.order()
    assert len({link.token_id for link in order.links}) == 2
    assert len(await desk.mails()) == 2


async def test_a_renewal_beyond_the_links_makes_new_ones_once(desk: Desk) -> None:
    fulfilment, day, now = desk.fulfilment(), 86_400, now_ms() // 1000
    await fulfilment.hear("main", replace(PAID, ends_at=now + day // 2))
    (first,) = (await desk.order()).links
    renewed = Notice("1", 2000, ends_at=now + 30 * day)
    for _ in range(3):
        await fulfilment.hear("main", renewed)
    old, new = (await desk.order()).links
    assert old == first
    assert new.token_id != old.token_id
    assert len(await desk.mails()) == 2
    assert (await desk.told()).count("order.renewed") == 2
    # A shorter renewal, within what the newest link is good for, needs none.
    await fulfilment.hear("main", Notice("1", 3000, ends_at=now + day // 4))
    assert len((await desk.order()).links) == 2


async def test_a_corrected_address_stands_while_the_shop_repeats_the_old_one(desk: Desk) -> None:
    fulfilment = desk.fulfilment()
    await fulfilment.hear("main", PAID)
    await fulfilment.correct("main-1", "right@example.com")
    await fulfilment.hear("main", replace(PAID, at=9_000_000_000_000))
    assert (await desk.order()).email == "right@example.com"
    assert len(await desk.mails()) == 1, "a corrected address mails nothing by itself"
    await fulfilment.hear("main", replace(PAID, at=9_000_000_000_001, buyer=replace(BUYER, email="new@example.com")))
    assert (await desk.order()).email == "new@example.com"


async def test_who_corrects_or_mails_again_grants_nothing(desk: Desk) -> None:
    desk.catalogue = Catalogue("0")
    fulfilment = desk.fulfilment()
    await fulfilment.hear("main", PAID)
    desk.catalogue = CATALOGUE
    await fulfilment.correct("main-1", "right@example.com")
    await fulfilment.prolong("main-1", now_ms() // 1000 + 60)
    await fulfilment.withdraw("main-1", ALL, gone=True)
    assert not (await desk.order()).entitlements
    await fulfilment.withdraw("main-1", ALL, gone=False)
    assert (await desk.order()).entitlements


async def test_a_line_that_the_shop_takes_out_is_the_buyers_no_more(desk: Desk) -> None:
    fulfilment = desk.fulfilment()
    await fulfilment.hear("main", replace(PAID, lines=(SEA, WAVE)))
    await fulfilment.hear("main", replace(PAID, at=2000, lines=(SEA,)))
    order = await desk.order()
    assert [order.taken_back(line.line_id) for line in (SEA, WAVE)] == ["", "removed"]
    assert set(order.holding(needs_confirmation=False).until) == {BOOK.identity}
    assert (await desk.told()).count("order.removed") == 1
    await fulfilment.withdraw("main-1", "l2", gone=False)
    await fulfilment.hear("main", replace(PAID, at=3000, lines=(SEA,)))
    assert (await desk.order()).taken_back("l2") == "", "given back is given back, though the shop repeats itself"


async def test_ended_links_are_made_anew_where_they_are_mailed_again(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    fulfilment = desk.fulfilment()
    await fulfilment.hear("main", PAID)
    later = now_ms() + 2 * 86_400_000
    monkeypatch.setattr(module, "now_ms", lambda: later)
    await fulfilment.resend("main-1", anew=False)
    old, new = (await desk.order()).links
    assert old.expires_at * 1000 < later < new.expires_at * 1000


async def test_no_word_comes_from_the_future(desk: Desk) -> None:
    ahead = sample("signed", Wanted("1", now_ms() + 10**9, "d9", "SEA", "jan@example.com"), b"secret")
    await desk.book.take_in(Delivery("main", "d9", now_ms(), {}, ahead.body))
    fulfilment = desk.fulfilment()
    assert await fulfilment.work() is True
    assert (await desk.order()).paid.at <= now_ms()


async def test_without_a_mail_server_nothing_is_queued(desk: Desk) -> None:
    await desk.fulfilment(mails=False).hear("main", PAID)
    assert await desk.mails() == []
    assert "mail.queued" not in await desk.told()
    assert desk.bell.rang == 0


async def test_orders_of_two_shops_with_the_same_number_are_two(desk: Desk) -> None:
    fulfilment = desk.fulfilment()
    for shop in ("main", "other"):
        await fulfilment.hear(shop, PAID)
    assert (await desk.order("main-1")).links != (await desk.order("other-1")).links


async def done(fulfilment: Fulfilment) -> int:
    count = 0
    while await fulfilment.work():
        count += 1
    return count


async def test_webhooks_are_done_once_each(desk: Desk) -> None:
    for number in range(5):
        await desk.deliver(delivery=f"d{number}")
    assert await asyncio.gather(done(desk.fulfilment()), done(desk.fulfilment())) != [0, 0]
    assert await done(desk.fulfilment()) == 0
    assert len((await desk.order()).links) == 1
    await desk.deliver(delivery="d1")
    assert await done(desk.fulfilment()) == 0, "a copy that comes later is known"


async def test_one_webhook_that_cannot_be_read_blocks_no_other(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    secret = b'{"id": "x", "what": "jan@example.com"}'
    await desk.book.take_in(Delivery("main", "d0", 1, {}, secret))
    await desk.book.take_in(Delivery("gone", "d0", 2, {}, secret))
    await desk.deliver(delivery="d1")
    assert await done(desk.fulfilment()) == 3
    assert len((await desk.order()).links) == 1
    assert "jan@example.com" not in caplog.text
    assert "no shop of this name any more" in caplog.text


async def test_a_store_that_breaks_delays_its_webhook_alone(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    monkeypatch.setattr(module, "PAUSES", (0,))
    fulfilment = desk.fulfilment()
    desk.broken = [RuntimeError("secret text")]
    await desk.deliver("1", delivery="d1")
    await desk.deliver("2", delivery="d2")
    assert await fulfilment.work() is True
    assert await desk.book.read("main-1") is None, "nothing of it is written"
    assert await fulfilment.work() is True
    assert len((await desk.order("main-2")).links) == 1
    assert await fulfilment.work() is True, "and then it is its turn again"
    assert len((await desk.order("main-1")).links) == 1
    assert len(await desk.mails()) == 1
    assert "tried again: RuntimeError at" in caplog.text
    assert "secret text" not in caplog.text


async def test_the_pauses_of_what_fails_grow(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    until: list[int] = []

    async def postponed(_delivery: Delivery, at: int, _why: str) -> None:
        until.append(at - now_ms())

    async def due(_now: int, _patience: int) -> Delivery:
        return Delivery("main", "d", 1, {}, b"{")

    monkeypatch.setattr(desk.book, "postpone", postponed)
    monkeypatch.setattr(desk.book, "next_delivery", due)
    fulfilment = desk.fulfilment()
    for _ in range(7):
        await fulfilment.work()
    assert [round(each, -2) for each in until] == [*module.PAUSES, module.PAUSES[-1], module.PAUSES[-1]]


async def test_an_order_that_is_not_paid_any_more_gives_nothing_and_says_so(desk: Desk) -> None:
    fulfilment = desk.fulfilment()
    await fulfilment.hear("main", PAID)
    await fulfilment.hear("main", replace(PAID, at=2000, paid=False))
    order = await desk.order()
    assert order.holding(needs_confirmation=False).paid is False
    assert (await desk.told())[-1] == "order.unpaid"
    await fulfilment.hear("main", replace(PAID, at=3000))
    assert len((await desk.order()).links) == 1, "the same link works again"
    assert len(await desk.mails()) == 1


async def test_what_cannot_be_written_leaves_nothing_behind(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("broken")

    fulfilment = desk.fulfilment()
    with monkeypatch.context() as patch:
        patch.setattr(fulfilment, "_queue", broken)
        with pytest.raises(RuntimeError):
            await fulfilment.hear("main", PAID)
    assert await desk.book.read("main-1") is None
    assert await desk.told() == []
    await fulfilment.hear("main", PAID)
    assert len(await desk.mails()) == 1
