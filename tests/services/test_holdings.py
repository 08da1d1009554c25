"""What orders give, remembered: against a real order book, changed by others and broken under it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.backends.order_book import SqlOrderBook
from gateway.errors import OrdersDown, SettingsError
from gateway.policy.model import Claims, FileEntry, Reservation
from gateway.policy.orders import ALL, Entitlement, Holding, Line, Notice, Order, SoldFile
from gateway.services import holdings as module
from gateway.services.holdings import Holdings
from gateway.services.settlement import Running, Settlement

FILE = FileEntry("ebooks/sea.pdf")
NEW = Order("main-1", "main", "1")
NEVER_LATE = 1.5
"""Seconds in which a change must be seen."""


def paid(order: Order = NEW, *, ends_at: int | None = None) -> Order:
    own = Entitlement("l1", "Sea", (SoldFile(FILE),), granted_at=1, ends_at=ends_at)
    return replace(order.heard(Notice(order.shop_order_id, 1, paid=True, lines=(Line("l1"),))), entitlements=(own,))


class Book(SqlOrderBook):
    """The real book; it counts what it is asked, can be away, and can hold an answer back."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.away = False
        self.reads = 0
        self.read_it = asyncio.Event()
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def read(self, order_id: str) -> Order | None:
        self.reads += 1
        self._check()
        order = await super().read(order_id)
        self.read_it.set()
        await self.go_on.wait()
        return order

    async def changed(self, since: int) -> tuple[int, Sequence[str]]:
        self._check()
        return await super().changed(since)

    async def latest(self) -> int:
        self._check()
        return await super().latest()

    def _check(self) -> None:
        if self.away:
            raise OrdersDown("the database is away")


@pytest.fixture
async def book(tmp_path: Path) -> AsyncIterator[Book]:
    opened = Book(f"sqlite:///{tmp_path}/orders.db")
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
def settlement() -> Settlement:
    return Settlement(Nobody(), lease=30)  # type: ignore[arg-type]  nothing is settled here


class Nobody:
    """A ledger that is not asked."""


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EVERY", 0.02)
    monkeypatch.setattr(module, "SILENCE", 0.15)


@asynccontextmanager
async def following(
    book: SqlOrderBook, settlement: Settlement, confirmed_shops: Sequence[str] = ()
) -> AsyncIterator[Holdings]:
    holdings = Holdings(book, settlement, confirmed_shops=confirmed_shops)
    await holdings.start()
    try:
        yield holdings
    finally:
        await holdings.stop()


async def put(book: SqlOrderBook, order: Order) -> None:
    async with book.change(order.order_id) as draft:
        draft.order = order


async def becomes(holdings: Holdings, wanted: Holding | None, within: float = 2.0) -> float:
    """Seconds until it is so."""
    began = time.monotonic()
    while await holdings.of("main-1") != wanted:
        assert time.monotonic() - began < within
        await asyncio.sleep(0.005)
    return time.monotonic() - began


OWNED = Holding(True, {FILE.identity: None})


async def test_without_an_order_nobody_is_asked(book: Book, settlement: Settlement) -> None:
    async with following(book, settlement) as holdings:
        assert await holdings.of(None) is None
        assert book.reads == 0


async def test_what_was_asked_is_remembered_also_that_it_is_unknown(book: Book, settlement: Settlement) -> None:
    await put(book, paid())
    async with following(book, settlement) as holdings:
        for _ in range(3):
            assert await holdings.of("main-1") == OWNED
            assert await holdings.of("main-2") is None
        assert book.reads == 2


async def test_a_change_by_somebody_else_is_seen_in_time(book: Book, settlement: Settlement, tmp_path: Path) -> None:
    await put(book, paid())
    other = SqlOrderBook(f"sqlite:///{tmp_path}/orders.db")
    async with following(book, settlement) as holdings:
        assert await holdings.of("main-1") == OWNED
        await put(other, paid().heard(Notice("1", 2, refunded=True)))
        assert await becomes(holdings, Holding(True, {})) < NEVER_LATE
    await other.close()


async def test_an_order_that_becomes_known_is_seen_in_time(book: Book, settlement: Settlement) -> None:
    async with following(book, settlement) as holdings:
        assert await holdings.of("main-1") is None
        await put(book, paid())
        assert await becomes(holdings, OWNED) < NEVER_LATE


async def test_a_shop_that_confirms_gives_nothing_before(book: Book, settlement: Settlement) -> None:
    await put(book, paid())
    async with following(book, settlement, confirmed_shops=["main"]) as holdings:
        assert await holdings.of("main-1") == Holding(False, {})


async def test_sixteen_at_once_ask_once(book: Book, settlement: Settlement) -> None:
    await put(book, paid())
    async with following(book, settlement) as holdings:
        assert await asyncio.gather(*(holdings.of("main-1") for _ in range(16))) == [OWNED] * 16
        assert book.reads == 1


async def test_one_who_leaves_takes_the_answer_from_nobody(book: Book, settlement: Settlement) -> None:
    await put(book, paid())
    async with following(book, settlement) as holdings:
        book.go_on.clear()
        leaving, staying = asyncio.create_task(holdings.of("main-1")), asyncio.create_task(holdings.of("main-1"))
        await book.read_it.wait()
        leaving.cancel()
        book.go_on.set()
        assert await staying == OWNED


@pytest.mark.usefixtures("quick")
async def test_an_answer_of_before_a_change_is_not_remembered(book: Book, settlement: Settlement) -> None:
    await put(book, paid())
    async with following(book, settlement) as holdings:
        book.go_on.clear()
        slow = asyncio.create_task(holdings.of("main-1"))
        await book.read_it.wait()
        await put(book, paid().heard(Notice("1", 2, refunded=True)))
        await asyncio.sleep(0.1)  # the change is heard of while the old answer is under way
        book.go_on.set()
        assert await slow == OWNED
        assert await holdings.of("main-1") == Holding(True, {})


@pytest.mark.usefixtures("quick")
async def test_a_book_that_is_away_is_believed_for_a_moment_and_then_refused(
    book: Book, settlement: Settlement, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    await put(book, paid())
    async with following(book, settlement) as holdings:
        assert await holdings.of("main-1") == OWNED
        book.away = True
        assert await holdings.of("main-1") == OWNED, "what was heard a moment ago still holds"
        with pytest.raises(OrdersDown):
            await holdings.of("main-2")
        await asyncio.sleep(0.3)
        with pytest.raises(OrdersDown):
            await holdings.of("main-1")
        book.away = False
        assert await holdings.of("main-1") == OWNED, "the book itself is asked, before it is followed again"
        await put(book, paid().heard(Notice("1", 2, refunded=True)))
        await becomes(holdings, Holding(True, {}))
        await asyncio.sleep(0.1)
    said = [record.getMessage() for record in caplog.records]
    assert sum("cannot be asked, and links of orders are refused" in line for line in said) == 1
    assert sum("can be asked again" in line for line in said) == 1


@pytest.mark.usefixtures("quick")
async def test_a_book_that_is_away_at_the_start_is_found_later(book: Book, settlement: Settlement) -> None:
    await put(book, paid())
    book.away = True
    async with following(book, settlement) as holdings:
        with pytest.raises(OrdersDown):
            await holdings.of("main-1")
        book.away = False
        await asyncio.sleep(0.1)
        before = book.reads
        assert await holdings.of("main-1") == await holdings.of("main-1") == OWNED
        assert book.reads == before + 1, "and is followed from then on"


@pytest.mark.usefixtures("quick")
async def test_whatever_breaks_while_it_follows_it_goes_on(
    book: Book, settlement: Settlement, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await put(book, paid())
    async with following(book, settlement) as holdings:
        assert await holdings.of("main-1") == OWNED

        async def broken(_since: int) -> tuple[int, Sequence[str]]:
            raise SettingsError("another version")

        with monkeypatch.context() as patch:
            patch.setattr(book, "changed", broken)
            await asyncio.sleep(0.1)
        await put(book, paid().heard(Notice("1", 2, refunded=True)))
        await becomes(holdings, Holding(True, {}))
    assert "another version" in caplog.text


def begun(settlement: Settlement, order_id: str | None) -> tuple[Running, asyncio.Event]:
    cut = asyncio.Event()
    claims = Claims("shop.example.com", "t", int(time.time()) + 3600, (FILE,), order_id=order_id)
    reservation = Reservation("r", "t", 0, (), asked=100, granted=100, window=100, counted=1)
    one = Running(reservation, claims, FILE, cut=cut.set)
    settlement.begin(one)
    return one, cut


async def test_running_downloads_are_cut_on_refund_and_no_others(book: Book, settlement: Settlement) -> None:
    await put(book, paid())
    await put(book, paid(replace(NEW, order_id="main-2", shop_order_id="2")))
    own, cut = begun(settlement, "main-1")
    others = [begun(settlement, name) for name in ("main-2", "unknown-1", None)]
    async with following(book, settlement):
        assert own.stopped == ""
        await put(book, paid().withdrew(ALL, True, 5))
        await asyncio.wait_for(cut.wait(), 5)
        assert own.stopped == "token.revoked"
        assert [each.stopped for each, _ in others] == ["", "", ""]


async def test_running_downloads_are_cut_when_the_right_to_them_lapses(book: Book, settlement: Settlement) -> None:
    await put(book, paid(ends_at=int(time.time()) + 2))
    own, cut = begun(settlement, "main-1")
    async with following(book, settlement):
        assert own.stopped == ""
        await asyncio.wait_for(cut.wait(), 5)
        assert own.stopped == "token.expired"


@pytest.mark.usefixtures("quick")
async def test_a_book_that_is_away_cuts_nothing(book: Book, settlement: Settlement) -> None:
    await put(book, paid())
    own, _ = begun(settlement, "main-1")
    async with following(book, settlement):
        book.away = True
        await asyncio.sleep(0.3)
        assert own.stopped == ""
        book.away = False


async def test_what_is_remembered_is_bounded(
    book: Book, settlement: Settlement, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REMEMBERED", 3)
    async with following(book, settlement) as holdings:
        for number in range(5):
            await holdings.of(f"main-{number}")
        assert book.reads == 5
        await holdings.of("main-4")
        assert book.reads == 5
        await holdings.of("main-0")
        assert book.reads == 6
