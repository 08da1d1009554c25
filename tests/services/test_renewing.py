"""Renewals on a real order book and a real Redis: each is given once, to its own buyer, and is on record."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from gateway.backends.order_book import SqlOrderBook
from gateway.backends.redis_client import Wire
from gateway.backends.redis_control import RedisControl
from gateway.backends.redis_events import RedisEventLog
from gateway.backends.redis_ledger import RedisLedger
from gateway.backends.redis_links import RedisLinks
from gateway.backends.redis_shards import RedisShards
from gateway.errors import LedgerDown
from gateway.policy.events import FIELDS, TYPES
from gateway.policy.granting import claims_of
from gateway.policy.model import FileEntry, Limits, Plan
from gateway.policy.orders import ALL, Buyer, Line, Notice, Order, Refund, SoldFile
from gateway.policy.products import Catalogue, Product
from gateway.policy.renewing import Offer, Refused
from gateway.policy.ruleset import RuleSet
from gateway.services import renewing as module
from gateway.services.desk import LinkDesk, Shown, on_record
from gateway.services.fulfilment import Assortment, Fulfilment, Terms
from gateway.services.identifiers import now_ms
from gateway.services.linking import Subject
from gateway.services.renewing import Renewed, Renewing
from gateway.shops import SHOPS

BOOK = FileEntry("ebooks/sea.pdf")
PLAN = Plan("standard", Limits(downloads=1), valid_for=7 * 86_400, renewals=1)
ISSUER = "shop.example.com"
PAID = Notice("1", 1000, "10001", paid=True, buyer=Buyer("jan@example.com"), lines=(Line("l1", sku="SEA"),))
LATER = 8 * 86_400


class Bell:
    async def ring(self) -> None:
        pass

    async def heard(self) -> AsyncGenerator[None, None]:
        yield


class Counters:
    """What a test says was downloaded."""

    def __init__(self) -> None:
        self.used: dict[str, int] = {}
        self.live = 0
        self.networks = self.devices = 0
        self.first_ms: int | None = None

    async def usage(self, shard: int, token_key: str, identities: Sequence[str]) -> dict[str, int]:
        return {name: self.used.get(token_key, 0) for name in identities}

    async def token_usage(self, shard: int, token_key: str) -> Counters:
        return self

    async def prolong(self, shard: int, token_key: str, identities: Sequence[str], expires_at: int) -> None:
        pass


@dataclass
class Office:
    book: SqlOrderBook
    fulfilment: Fulfilment
    links: LinkDesk
    counters: Counters
    renewing: Renewing
    wire: Wire

    async def order(self) -> Order:
        order = await self.book.read("main-1")
        assert order is not None
        return order

    async def use_up(self) -> None:
        order = await self.order()
        self.counters.used[claims_of(order, order.links[-1], ISSUER).token_key] = 1

    async def expire(self) -> None:
        """As if the link had been made, and mailed, long ago."""

        def long_ago(order: Order) -> Order:
            links = tuple(
                replace(each, issued_at=each.issued_at - LATER, expires_at=each.expires_at - LATER)
                for each in order.links
            )
            return replace(order, links=links, mailed_at=order.mailed_at - LATER * 1000)

        await self.fulfilment.amend("main-1", long_ago, mail=False)

    async def told(self) -> list[str]:
        return [each.fields["type"] for each in await self.book.outgoing(1000)]

    async def commands(self) -> list[str]:
        return [fields["verb"] for _, fields in await self.wire.execute("XRANGE", "gw:{0}:control", "-", "+")]

    async def shown(self, token_id: str) -> Shown:
        order = await self.order()
        [link] = [each for each in order.links if each.token_id == token_id]
        return await self.renewing._shown(order, link)


@pytest.fixture
async def office(tmp_path: Path, wire: Wire) -> AsyncIterator[Office]:
    book = SqlOrderBook(f"sqlite:///{tmp_path}/orders.db")
    await book.open()
    rules = RuleSet(plans={"standard": PLAN})

    async def sold(files: Sequence[FileEntry]) -> Sequence[SoldFile]:
        return [SoldFile(file) for file in files]

    catalogue = Catalogue("1", by_sku={"SEA": Product((BOOK,), plan="standard")})
    fulfilment = Fulfilment(
        book,
        Bell(),
        Assortment(lambda: catalogue, lambda: rules, sold),
        shops={"main": Terms(SHOPS["signed"], False)},
        issuer=ISSUER,
        mails=True,
    )
    counters = Counters()
    links = LinkDesk(
        links=RedisLinks(wire, 1),
        events=RedisEventLog(wire, 1),
        control=RedisControl(wire),
        counters=counters,
        sign=lambda claims: "",
        issuer=ISSUER,
        shards=1,
        rules=lambda: rules,
    )
    await fulfilment.hear("main", PAID)
    yield Office(book, fulfilment, links, counters, Renewing(book, fulfilment, links, issuer=ISSUER), wire)
    await book.close()


async def test_a_link_that_is_good_is_left_alone(office: Office) -> None:
    order = await office.order()
    assert await office.renewing.offered(order, order.links[0]) is None
    assert await office.renewing.renew("main-1", order.links[0].token_id, by="link") == Refused("good")
    assert await office.renewing.renew("main-1", "another", by="link") == Refused("unknown")
    assert await office.renewing.renew("main-2", "another", by="link") == Refused("unknown")
    assert "buyer.acted" not in await office.told()


async def test_an_expired_link_goes_on_with_its_counts(office: Office) -> None:
    await office.expire()
    order = await office.order()
    [link] = order.links
    offered = await office.renewing.offered(order, link)
    assert offered is not None
    assert offered.way == "extend"
    done = await office.renewing.renew("main-1", link.token_id, by="link")
    assert isinstance(done, Renewed)
    assert (done.way, done.token_id, done.mailed) == ("extend", link.token_id, True)
    [longer] = (await office.order()).links
    assert abs(longer.expires_at - (time.time() + 7 * 86_400)) < 5
    assert (longer.token_id, abs(longer.issued_at - time.time()) < 5) == (link.token_id, True)
    assert await office.commands() == [], "whoever else has the old token has nothing of it"
    assert (await office.told())[-3:] == ["buyer.acted", "mail.queued", "link.created"]
    acted = (await office.book.outgoing(1000))[-3].fields
    assert (acted["buyer.action"], acted["buyer.at"], acted["token.id"]) == ("link.extend", "link", link.token_id)
    assert acted.keys() <= set(FIELDS)
    assert acted["type"] in TYPES
    assert [mail.to for mail in await office.book.mails("main-1")] == ["jan@example.com"] * 2
    assert await office.renewing.offered(await office.order(), longer, longer.issued_at) is None
    again = await office.renewing.offered(await office.order(), longer, link.issued_at)
    assert again == Offer("mail", longer.expires_at), "who shows the old one may have lost the mail"


async def test_a_second_click_gives_and_mails_nothing_more(office: Office) -> None:
    await office.expire()
    [link] = (await office.order()).links
    both = await asyncio.gather(*(office.renewing.renew("main-1", link.token_id, by="link") for _ in range(2)))
    await office.renewing.renew("main-1", link.token_id, by="link")
    assert [each.way for each in both if isinstance(each, Renewed)] == ["extend", "extend"]
    assert len(await office.book.mails("main-1")) == 2
    assert (await office.told()).count("buyer.acted") == 1


async def test_a_used_up_link_begins_anew_as_often_as_the_plan_says(office: Office) -> None:
    await office.use_up()
    order = await office.order()
    [link] = order.links
    assert await office.renewing.offered(order, link) == Offer("renew", int(time.time()) + 7 * 86_400)
    both = await asyncio.gather(*(office.renewing.renew("main-1", link.token_id, by="account") for _ in range(2)))
    after = await office.order()
    [_, another] = after.links
    assert [each.token_id for each in both if isinstance(each, Renewed)] == [another.token_id] * 2
    assert after.renewed == 1
    assert (await office.shown(link.token_id)).now.revoked
    assert not (await office.shown(another.token_id)).now.revoked
    assert (await office.told()).count("link.created") == 2
    assert (await office.told()).count("buyer.acted") == 1
    assert (await office.commands()).count("extend") == 0
    await office.use_up()
    assert await office.renewing.offered(after, another) is None
    assert await office.renewing.renew("main-1", another.token_id, by="account") == Refused("spent")
    assert await office.renewing.renew("main-1", link.token_id, by="account") == Refused("spent")
    assert len((await office.order()).links) == 2


async def test_an_old_link_leads_to_the_one_in_its_place(office: Office) -> None:
    await office.use_up()
    [link] = (await office.order()).links
    await office.renewing.renew("main-1", link.token_id, by="link")
    order = await office.order()
    offered = await office.renewing.offered(order, link)
    assert offered is not None
    assert offered.way == "mail"
    mails = len(await office.book.mails("main-1"))
    await office.fulfilment.amend("main-1", lambda order: replace(order, mailed_at=now_ms() - 120_000), mail=False)
    done = await office.renewing.renew("main-1", link.token_id, by="link")
    assert isinstance(done, Renewed)
    assert (done.way, done.token_id, done.mailed) == ("mail", order.links[1].token_id, True)
    assert len(await office.book.mails("main-1")) == mails + 1
    assert (await office.order()).renewed == 1


async def test_a_running_download_is_not_cut_by_a_renewal(office: Office) -> None:
    await office.use_up()
    office.counters.live = 1
    [link] = (await office.order()).links
    assert await office.renewing.renew("main-1", link.token_id, by="link") == Refused("running")
    assert await office.commands() == []


async def revoke(office: Office) -> None:
    order = await office.order()
    await office.links.revoke(Subject((claims_of(order, order.links[0], ISSUER),)), on_record)


async def refund(office: Office) -> None:
    await office.fulfilment.hear("main", Notice("1", 2000, refunds=(Refund("r1", (("l1", 1),)),)))


async def end(office: Office) -> None:
    await office.fulfilment.hear("main", Notice("1", 2000, ends_at=int(time.time()) - 1))


async def unpay(office: Office) -> None:
    await office.fulfilment.hear("main", Notice("1", 2000, paid=False))


async def withdraw(office: Office) -> None:
    await office.fulfilment.withdraw("main-1", ALL, gone=True)


@pytest.mark.parametrize(
    ("what", "why"), [(revoke, "revoked"), (refund, "lost"), (end, "lost"), (unpay, "lost"), (withdraw, "lost")]
)
@pytest.mark.parametrize("used_up", [False, True])
async def test_what_is_not_the_buyers_any_more(office: Office, what: object, why: str, used_up: bool) -> None:
    await office.expire()
    if used_up:
        await office.use_up()
    [link] = (await office.order()).links
    await what(office)  # type: ignore[operator]  # a row of the table
    mails, links = len(await office.book.mails("main-1")), (await office.order()).links
    done = await office.renewing.renew("main-1", link.token_id, by="link")
    assert done == Refused(why)  # type: ignore[arg-type]  # a row of the table
    assert not await office.renewing.mail("main-1", by="help")
    assert len(await office.book.mails("main-1")) == mails
    assert (await office.order()).links == links
    assert "buyer.acted" not in await office.told()


async def test_a_refund_at_the_same_moment_counts(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    await office.use_up()
    [link] = (await office.order()).links
    shown = Renewing._shown

    async def late(self: Renewing, *args: object) -> Shown:
        found = await shown(self, *args)  # type: ignore[arg-type]  # handed on
        await refund(office)
        return found

    monkeypatch.setattr(Renewing, "_shown", late)
    assert await office.renewing.renew("main-1", link.token_id, by="link") == Refused("lost")
    assert len((await office.order()).links) == 1


async def test_redis_that_fails_after_the_book_is_told_once_more(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    await office.use_up()
    [link] = (await office.order()).links
    revoke, failures = LinkDesk.revoke, [LedgerDown("away")] * 2

    async def failing(self: LinkDesk, *args: object) -> object:
        if failures:
            raise failures.pop()
        return await revoke(self, *args)  # type: ignore[arg-type]  # handed on

    monkeypatch.setattr(LinkDesk, "revoke", failing)
    monkeypatch.setattr(module, "PAUSES", (0.0, 0.0))
    await office.renewing.renew("main-1", link.token_id, by="link")
    assert await office.commands() == ["revoke"]


async def test_what_a_dead_worker_left_good_ends_when_it_is_asked_for_again(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    await office.use_up()
    [link] = (await office.order()).links

    async def die(*_: object) -> None:
        raise asyncio.CancelledError

    with monkeypatch.context() as patched:
        patched.setattr(LinkDesk, "revoke", die)
        with pytest.raises(asyncio.CancelledError):
            await office.renewing.renew("main-1", link.token_id, by="link")
    assert not (await office.shown(link.token_id)).now.revoked
    for _ in range(2):
        await office.renewing.renew("main-1", link.token_id, by="link")
    assert (await office.shown(link.token_id)).now.revoked
    order = await office.order()
    assert (order.renewed, len(order.links), await office.commands()) == (1, 2, ["revoke"])


async def test_links_are_mailed_again_and_expired_ones_go_on(office: Office) -> None:
    assert not await office.renewing.mail("main-1", by="help"), "its first mail has only just left"
    assert not await office.renewing.mail("main-2", by="help")
    await office.expire()
    assert await office.renewing.mail("main-1", by="help")
    [link] = (await office.order()).links
    assert link.expires_at > time.time()
    acts = [each.fields.get("buyer.action") for each in await office.book.outgoing(1000)]
    assert [each for each in acts if each] == ["link.extend", "link.mail"]
    assert not await office.renewing.mail("main-1", by="help")


async def test_the_real_counters_fit(office: Office) -> None:
    ledger = RedisLedger(office.wire, RedisShards(office.wire, 1), lease_ms=1000, keep_ms=1000)
    office.links._counters = ledger
    [link] = (await office.order()).links
    assert (await office.shown(link.token_id)).taken.live == 0


async def test_whoever_has_the_link_of_a_buyer_without_an_address_gets_nothing(office: Office) -> None:
    await office.expire()
    await office.fulfilment.erase("main-1")
    [link] = (await office.order()).links
    told = await office.told()
    assert await office.renewing.renew("main-1", link.token_id, by="link") == Refused("unreachable")
    assert not await office.renewing.mail("main-1", by="help")
    assert (await office.commands(), await office.told()) == ([], told)
    done = await office.renewing.renew("main-1", link.token_id, by="account")
    assert isinstance(done, Renewed), "who has signed in needs no mail"
