"""The contract of gateway.order_ports.OrderBook, row by row, on a file of SQLite and on a real PostgreSQL server."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import sqlite3
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from gateway.backends import order_calls
from gateway.backends.order_book import FOUND_MAX, SqlOrderBook
from gateway.errors import OrdersDown, SettingsError
from gateway.order_ports import Delivery, Mail
from gateway.policy.orders import Buyer, Order, Told

_spec = importlib.util.spec_from_file_location("postgresql", Path(__file__).with_name("postgresql.py"))
assert _spec is not None
assert _spec.loader is not None
postgresql = importlib.util.module_from_spec(_spec)
sys.modules["postgresql"] = postgresql
_spec.loader.exec_module(postgresql)

ROOT = Path(__file__).parents[2]
WORKER = Path(__file__).with_name("order_worker.py")
Run = Callable[[str], Awaitable[list[tuple[Any, ...]]]]
Server = Any
"""A PostgresqlServer; its module is loaded by its path."""


@dataclass(frozen=True)
class Place:
    """A database for an order book, and a way into it past the book."""

    kind: str
    url: str
    run: Run


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    programs = postgresql.programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    made = postgresql.PostgresqlServer(programs)
    made.start()
    yield made
    made.close()


async def empty_file(folder: Path) -> Place:
    path = folder / "orders.db"

    async def run(statement: str) -> list[tuple[Any, ...]]:
        connection = sqlite3.connect(path)
        try:
            with connection:
                return connection.execute(statement).fetchall()
        finally:
            connection.close()

    return Place("sqlite", f"sqlite:///{path}", run)


async def empty_database(server: Server) -> Place:
    name = await server.new_database()
    return Place("postgresql", server.url(name), lambda statement: server.run(statement, name))


@pytest.fixture(params=["sqlite", "postgresql"])
async def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A database with nothing in it."""
    if request.param == "sqlite":
        return await empty_file(tmp_path)
    return await empty_database(request.getfixturevalue("server"))


@pytest.fixture(scope="module")
def used() -> list[Place]:
    """The database of PostgreSQL that the tests have one after the other, once the first has made it."""
    return []


@pytest.fixture(params=["sqlite", "postgresql"])
async def place(request: pytest.FixtureRequest, tmp_path: Path, used: list[Place]) -> Place:
    """A database with nothing in it, but perhaps the tables."""
    if request.param == "sqlite":
        return await empty_file(tmp_path)
    if used:
        await used[0].run("TRUNCATE gateway_orders, gateway_deliveries, gateway_mails, gateway_outbox")
        await used[0].run("UPDATE gateway_book SET version = 1, latest = 0")
    else:
        used.append(await empty_database(request.getfixturevalue("server")))
    return used[0]


@pytest.fixture
async def book(place: Place) -> AsyncIterator[SqlOrderBook]:
    opened = SqlOrderBook(place.url)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
async def other(place: Place, book: SqlOrderBook) -> AsyncIterator[SqlOrderBook]:
    """Another process, as far as the database can tell."""
    opened = SqlOrderBook(place.url)
    await opened.open()
    yield opened
    await opened.close()


def order(number: int | str = 1, **more: Any) -> Order:
    return Order(f"main-{number}", "main", str(number), **more)


def sold_to(email: str, customer_id: str = "") -> Told[Buyer]:
    return Told(Buyer(email, customer_id=customer_id), 5)


async def put(book: SqlOrderBook, new: Order) -> None:
    async with book.change(new.order_id) as draft:
        draft.order = new


def delivery(number: int, received_at: int = 1000) -> Delivery:
    headers = {"x-topic": "orders/paid", "x-odd": "zażółć \0 \ud800"}
    return Delivery("main", f"delivery-{number}", received_at, headers, b"\x00\xff body")


def mail(number: int = 1, **more: Any) -> Mail:
    values = {"order_id": "main-1", "purpose": "links", "to": "Buyer@Example.com", "language": "pl", "created_at": 1000}
    return Mail(mail_id=f"mail-{number}", number=number, **(values | more))


def process(place: Place, *words: str) -> Awaitable[asyncio.subprocess.Process]:
    pipe = asyncio.subprocess.PIPE
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(WORKER), place.url, *words]
    return asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, env=environment)


# ---- orders


async def test_an_order_is_read_as_it_was_written(book: SqlOrderBook, other: SqlOrderBook) -> None:
    assert await book.read("main-1") is None
    first = order(reference="#1001 \0\ud800", buyer=sold_to("Żółw@Example.com"))
    await put(book, first)
    assert await other.read("main-1") == first
    async with other.change("main-1") as draft:
        assert draft.order == first
        draft.order = replace(first, ends_at=Told(70, 7))
    assert await book.read("main-1") == replace(first, ends_at=Told(70, 7))


async def test_nothing_changed_is_nothing_written(book: SqlOrderBook) -> None:
    await put(book, order())
    assert await book.latest() == 1
    async with book.change("main-1"):
        pass
    await put(book, order())
    async with book.change("main-2") as draft:
        assert draft.order is None
    assert await book.latest() == 1
    assert await book.read("main-2") is None


async def test_an_exception_undoes_all_of_it(book: SqlOrderBook) -> None:
    async def fail() -> None:
        async with book.change("main-1") as draft:
            draft.order = order()
            draft.events.append({"id": "1"})
            draft.links.append(({"id": "2"}, "{}"))
            draft.mails.append(mail())
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        await fail()
    await put(book, order(2))  # nobody is held up by it
    assert await book.read("main-1") is None
    assert await book.outgoing(10) == []
    assert await book.mails("main-1") == []
    assert await book.latest() == 1


@pytest.mark.parametrize("new", [None, order(2)])
async def test_a_draft_keeps_to_its_order(book: SqlOrderBook, new: Order | None) -> None:
    await put(book, order())

    async def stray() -> None:
        async with book.change("main-1") as draft:
            draft.order = new
            draft.events.append({"id": "1"})

    with pytest.raises(ValueError, match="lost its order"):
        await stray()
    assert await book.read("main-1") == order()
    assert await book.outgoing(10) == []


async def test_ids_that_no_database_takes_are_nobody(book: SqlOrderBook) -> None:
    for odd in ("", "a\0b", "\ud800", "x" * 501):
        assert await book.read(odd) is None
        assert await book.mails(odd) == ()
        with pytest.raises(ValueError, match="an order's id is no text"):
            async with book.change(odd):
                pass
        with pytest.raises(ValueError, match="a delivery's id is no text"):
            await book.take_in(Delivery("main", odd, 1, {}, b""))


async def test_processes_change_one_order_one_after_the_other(empty: Place) -> None:
    """They also make the tables all at once."""
    running = [await process(empty, "add", "20") for _ in range(3)]
    ended = await asyncio.gather(*(each.communicate() for each in running))
    assert [each.returncode for each in running] == [0, 0, 0], ended
    book = SqlOrderBook(empty.url)
    await book.open()
    try:
        changed = await book.read("main-1")
        assert changed is not None
        assert [refund.refund_id for refund, _ in changed.refunds] == [str(number) for number in range(1, 61)]
        assert [each.fields["id"] for each in await book.outgoing(100)] == [str(number) for number in range(1, 61)]
        assert await book.changed(59) == (60, ["main-1"])
    finally:
        await book.close()


async def test_a_process_killed_in_the_middle_leaves_nothing(place: Place, book: SqlOrderBook) -> None:
    await put(book, order())
    doomed = await process(place, "hang")
    assert doomed.stdout is not None
    assert await doomed.stdout.readline() == b"in the middle\n"
    waiting = asyncio.create_task(put(book, order(reference="whole")))
    await asyncio.sleep(0.1)
    assert not waiting.done()  # it holds the order until it is gone
    doomed.kill()
    await doomed.wait()
    await waiting
    assert await book.read("main-1") == order(reference="whole")
    assert await book.outgoing(10) == []
    assert await book.latest() == 2


async def test_who_is_cancelled_gives_everything_back(book: SqlOrderBook, other: SqlOrderBook) -> None:
    """More often than there are connections, at every point of a change."""

    async def slow(until: asyncio.Event) -> None:
        async with book.change("main-1") as draft:
            draft.order = order(reference="cancelled")
            await until.wait()

    for turn in range(20):
        task = asyncio.create_task(slow(asyncio.Event()))
        for _ in range(turn):
            await asyncio.sleep(0.001)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    await asyncio.wait_for(put(other, order()), 4)
    await asyncio.wait_for(asyncio.gather(*(put(book, order(number)) for number in range(2, 20))), 4)
    assert await book.read("main-1") == order()


async def test_who_takes_too_long_loses_the_lock_and_the_change(
    book: SqlOrderBook, other: SqlOrderBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def dawdle() -> None:
        monkeypatch.setattr(order_calls, "LIMIT", 0.3)
        async with book.change("main-1") as draft:
            monkeypatch.undo()
            draft.order = order(reference="late")
            await put(other, order())
            draft.events.append({"id": "late"})

    with pytest.raises(OrdersDown, match="in time"):
        await dawdle()
    assert await book.read("main-1") == order()
    assert await book.outgoing(10) == []


# ---- looking for orders


async def test_orders_are_found_by_what_people_know_of_them(book: SqlOrderBook) -> None:
    first = order("A1", reference="#1001", buyer=sold_to("Ola.ŻÓŁW@Example.com ", "customer-7"))
    second = order("B2", reference="1001", buyer=sold_to("ola.żółw@example.com", "Customer-7"))
    await put(book, first)
    await put(book, second)
    await put(book, replace(first, ends_at=Told(90, 9)))  # the newest is who came last, not who changed last
    first = replace(first, ends_at=Told(90, 9))
    for text in ("1001", "#1001", " # 1001 ", "ola.żółw@EXAMPLE.com", "\tOLA.ŻÓŁW@example.com"):
        assert await book.find(text) == [second, first], text
    for text in ("main-A1", "A1", "customer-7"):
        assert await book.find(text) == [first], text
    assert await book.find("main-a1") == []


async def test_a_customers_orders_are_found_by_his_id_alone(book: SqlOrderBook) -> None:
    own = [order(number, buyer=sold_to(f"{number}@example.com", "7")) for number in range(1, 6)]
    for each in own:
        await put(book, each)
    others = [
        order(7, reference="7", buyer=sold_to("7")),
        order(8, buyer=sold_to("a@example.com", "77")),
        order(9, buyer=sold_to("b@example.com", " 7 ")),
        order(10, buyer=sold_to("c@example.com", "7\0")),
        replace(order(1, buyer=sold_to("d@example.com", "7")), order_id="other-1", shop="other"),
    ]
    for each in others:
        await put(book, each)
    await put(book, replace(own[0], ends_at=Told(90, 9)))  # the newest is who came last, not who changed last
    own[0] = replace(own[0], ends_at=Told(90, 9))
    found: list[Order] = []
    older, pages = None, 0
    while pages == 0 or older is not None:
        page, older = await book.of_customer("7", shops=["main"], before=older, most=2)
        assert len(page) <= 2
        found += page
        pages += 1
    assert found == own[::-1]
    assert pages == 4  # the ids that are only written alike take a place of their own
    assert (await book.of_customer("7", most=99))[0] == [others[-1], *own[::-1]]
    assert await book.of_customer("7", shops=["none", "\0"], most=9) == ([], None)


@pytest.mark.parametrize("nobody", ["", " ", "#", "%", "' OR ''='", "\0", "\ud800", "8", "x" * 9999, "7@example.com"])
async def test_nobody_has_no_orders(book: SqlOrderBook, nobody: str) -> None:
    await put(book, order(1, buyer=sold_to("7@example.com", "7")))
    await put(book, order(2, buyer=sold_to("8@example.com")))
    assert list((await book.of_customer(nobody, most=9))[0]) == []


async def test_where_mails_went_is_forgotten_in_one_step_with_the_order(book: SqlOrderBook) -> None:
    async with book.change("main-1") as draft:
        draft.order = order(1, buyer=sold_to("jan@example.com", "7"))
        draft.mails += [mail(1), mail(2), mail(3, order_id="main-2")]
    taken = await book.next_mail(2000, 1000)
    assert taken is not None
    async with book.change("main-1") as draft:
        assert draft.order is not None
        draft.order, draft.forgets_recipients = draft.order.erased(5), True
    # The worker that was handing one over has it in its memory, and must not write it down again.
    await book.note_mail(replace(taken, state="accepted"), [])
    mails = await book.mails("main-1")
    assert [each.to for each in mails] == ["", ""]
    assert sorted(each.state for each in mails) == ["accepted", "failed"]
    assert await book.find("jan@example.com") == []
    assert [each.to for each in await book.mails("main-2")] == ["Buyer@Example.com"]
    remaining = await book.next_mail(9999, 1000)
    assert remaining is not None
    assert remaining.order_id == "main-2"


HOSTILE = ["", " ", "#", "%", "_", "main%", "' OR ''='", "\\", "\0", "\ud800", "1001\0", "x" * 9999, "$1", ":text", "?"]


async def test_hostile_texts_find_nothing(book: SqlOrderBook) -> None:
    await put(book, order())
    await put(book, order(2, reference="1001 and more"))
    assert [text for text in HOSTILE if await book.find(text)] == []


async def test_what_is_very_long_or_odd_is_found_by_itself_alone(book: SqlOrderBook) -> None:
    long = order(1, reference="x" * 5000 + "1", buyer=sold_to("odd\0\ud800@example.com"))
    await put(book, long)
    assert await book.find("X" * 5000 + "1") == [long]
    assert await book.find("x" * 5000 + "2") == []
    assert await book.find("odd\0\ud800@example.com") == [long]


async def test_not_more_are_found_than_anybody_reads(book: SqlOrderBook) -> None:
    for number in range(FOUND_MAX + 1):
        await put(book, order(number, buyer=sold_to("shop@example.com", "0")))
    found = await book.find("shop@example.com")
    assert [each.shop_order_id for each in found] == [str(number) for number in range(FOUND_MAX, 0, -1)]
    # However much a customer orders, the order whose number is that customer's id too is found.
    found = await book.find("0")
    assert [each.shop_order_id for each in found[:2]] == ["0", str(FOUND_MAX)]


async def test_an_order_of_another_version_is_not_guessed_at(book: SqlOrderBook, place: Place) -> None:
    await put(book, order())
    await place.run("UPDATE gateway_orders SET document = '{\"v\":2}'")
    with pytest.raises(OrdersDown, match="another version than 1"):
        await book.read("main-1")
    with pytest.raises(OrdersDown, match="another version than 1"):
        async with book.change("main-1"):
            pass


# ---- changes


async def test_changes_are_followed_in_their_sequence(book: SqlOrderBook) -> None:
    assert await book.changed(0) == (0, [])
    for number in (1, 2, 3):
        await put(book, order(number))
    assert await book.changed(1) == (3, ["main-2", "main-3"])
    await put(book, order(1, reference="again"))
    assert await book.changed(3) == (4, ["main-1"])
    assert await book.changed(4) == (4, [])
    # The book went back to an older copy: what was remembered is worth nothing.
    assert await book.changed(99) == (4, ["main-2", "main-3", "main-1"])


async def test_who_follows_misses_nothing_whoever_writes(book: SqlOrderBook, other: SqlOrderBook) -> None:
    """Writers take their number at the same time, and commit when they please."""
    done = asyncio.Event()
    seen: dict[str, str] = {}

    async def write(writer: int) -> None:
        for turn in range(10):
            await put((book, other)[writer % 2], order(writer, reference=str(turn)))

    async def follow() -> None:
        since = 0
        while True:
            last_look = done.is_set()
            since, order_ids = await other.changed(since)
            for order_id in order_ids:
                known = await other.read(order_id)
                assert known is not None
                seen[order_id] = known.reference
            if last_look:
                assert since == 80
                return

    follower = asyncio.create_task(follow())
    await asyncio.gather(*(write(writer) for writer in range(8)))
    done.set()
    await follower
    assert seen == {f"main-{writer}": "9" for writer in range(8)}


# ---- the inbox


async def test_twenty_copies_at_once_are_one_delivery(book: SqlOrderBook, other: SqlOrderBook) -> None:
    took = await asyncio.gather(*((book, other)[copy % 2].take_in(delivery(1)) for copy in range(20)))
    assert sorted(took) == [False] * 19 + [True]
    assert await book.next_delivery(1000, 50) == delivery(1)
    assert await book.next_delivery(1000, 50) is None


async def test_a_delivery_is_for_one_alone_until_patience_ends(book: SqlOrderBook, other: SqlOrderBook) -> None:
    for number in range(10):
        await book.take_in(delivery(number, 1000 + number))
    taken = await asyncio.gather(*((book, other)[turn % 2].next_delivery(1009, 50) for turn in range(12)))
    assert sorted(each.delivery_id for each in taken if each) == [f"delivery-{number}" for number in range(10)]
    assert await book.next_delivery(1058, 50) is None
    again = [await book.next_delivery(1059, 50) for _ in range(11)]
    assert sorted(each.delivery_id for each in again if each) == [f"delivery-{number}" for number in range(10)]


async def test_the_oldest_comes_first_and_nothing_before_its_time(book: SqlOrderBook) -> None:
    for number, received_at in ((1, 3000), (2, 1000), (3, 2000)):
        await book.take_in(delivery(number, received_at))
    assert await book.next_delivery(999, 50) is None
    taken = [await book.next_delivery(2500, 5000) for _ in range(3)]
    assert [each and each.delivery_id for each in taken] == ["delivery-2", "delivery-3", None]


async def test_what_is_done_is_known_without_its_body(book: SqlOrderBook, place: Place) -> None:
    await book.take_in(delivery(1))
    taken = await book.next_delivery(1000, 50)
    assert taken is not None
    await book.delivered(taken)
    assert await book.take_in(delivery(1)) is False
    await book.postpone(taken, 1000, "a slow worker that was overtaken")
    assert await book.next_delivery(9_999_999, 50) is None
    assert await place.run("SELECT headers, body, due_at, attempts FROM gateway_deliveries") == [(None, None, None, 1)]


async def test_a_poisoned_delivery_holds_up_nobody(book: SqlOrderBook, place: Place) -> None:
    """Neither one that fails, nor one with which its worker dies."""
    await book.take_in(delivery(0, 1))
    await book.take_in(delivery(1, 2))
    now, done = 1000, []
    for number in range(2, 7):
        await book.take_in(delivery(number, now))
        for _ in range(3):
            taken = await book.next_delivery(now, 10)
            if taken is None or taken.delivery_id == "delivery-0":
                continue
            if taken.delivery_id == "delivery-1":
                await book.postpone(taken, now + 10, "cannot be read \0")
            else:
                await book.delivered(taken)
                done.append(taken.delivery_id)
        now += 10
    assert done == [f"delivery-{number}" for number in range(2, 7)]
    rows = await place.run("SELECT attempts, why FROM gateway_deliveries WHERE due_at IS NOT NULL ORDER BY delivery_id")
    assert rows == [(5, ""), (5, "cannot be read ")]


# ---- mails, and the outbox


async def test_of_each_mail_there_is_one(book: SqlOrderBook) -> None:
    for _ in range(2):
        async with book.change("main-1") as draft:
            draft.order = order()
            draft.mails += [mail(1), mail(2, to="odd\0@example.com")]
    async with book.change("main-1") as draft:
        draft.mails.append(replace(mail(1), mail_id="another"))
    assert await book.mails("main-1") == [mail(1), mail(2, to="odd@example.com")]
    assert await book.mails("main-2") == []
    assert [await book.mail(name) for name in ("mail-1", "another", "", "\0", "\ud800")] == [mail(1), *[None] * 4]


async def test_a_mail_is_for_one_alone_until_its_fate_is_noted(book: SqlOrderBook, other: SqlOrderBook) -> None:
    async with book.change("main-1") as draft:
        draft.order = order()
        draft.mails += [mail(number, due_at=number) for number in range(1, 6)]
    assert await book.next_mail(0, 50) is None
    taken = await asyncio.gather(*((book, other)[turn % 2].next_mail(1000, 50) for turn in range(7)))
    got = sorted((each for each in taken if each), key=lambda each: each.number)
    assert got == [mail(number, due_at=1050, attempts=1) for number in range(1, 6)]
    assert await book.next_mail(1049, 50) is None

    accepted = replace(got[0], state="accepted", answer="250 ok \0")
    await book.note_mail(accepted, [{"id": "1", "type": "mail.accepted"}])
    await book.note_mail(replace(got[1], due_at=2000, answer="451 later"), [])
    await book.note_mail(replace(got[0], state="queued"), [])  # from one who was overtaken
    again = [await book.next_mail(1050, 1000) for _ in range(5)]
    assert [each and (each.number, each.attempts) for each in again] == [(3, 2), (4, 2), (5, 2), None, None]
    later = await book.next_mail(2000, 50)
    assert later == mail(2, due_at=2050, attempts=2, answer="451 later")
    assert (await book.mails("main-1"))[0] == replace(accepted, answer="250 ok ")
    assert [each.fields for each in await book.outgoing(10)] == [{"id": "1", "type": "mail.accepted"}]
    await book.note_mail(replace(accepted, state="bounced", answer="550 no"), [])
    assert (await book.mails("main-1"))[0].state == "bounced"


async def test_events_wait_until_they_are_sent(book: SqlOrderBook) -> None:
    async with book.change("main-1") as draft:
        draft.order = order()
        draft.events += [{"id": "1", "odd": "\0\ud800"}, {"id": "2"}]
        draft.links.append(({"id": "3"}, '{"jti":"x"}'))
    async with book.change("main-1") as draft:
        draft.events.append({"id": "4"})
    waiting = await book.outgoing(10)
    assert [(each.fields, each.link) for each in waiting] == [
        ({"id": "1", "odd": "\0\ud800"}, ""),
        ({"id": "2"}, ""),
        ({"id": "3"}, '{"jti":"x"}'),
        ({"id": "4"}, ""),
    ]
    assert await book.outgoing(2) == waiting[:2]
    await book.sent([each.number for each in waiting])
    await book.sent([])
    assert await book.outgoing(10) == []
    async with book.change("main-1") as draft:
        draft.events.append({"id": "5"})
    # A number is never given again: who is slow forgets nothing that others have not sent.
    await book.sent([each.number for each in waiting])
    assert [each.fields["id"] for each in await book.outgoing(10)] == ["5"]
    assert await book.latest() == 1


# ---- opening, and what is down


async def test_a_book_of_another_version_is_not_opened(book: SqlOrderBook, place: Place) -> None:
    await place.run("UPDATE gateway_book SET version = 2")
    later = SqlOrderBook(place.url)
    try:
        with pytest.raises(SettingsError, match="version 2, and this gateway keeps version 1; run"):
            await later.open()
    finally:
        await later.close()


async def failure(url: str) -> SettingsError:
    """What `open` says of a wrong setting."""
    book = SqlOrderBook(url)
    try:
        with pytest.raises(SettingsError) as caught:
            await book.open()
    finally:
        await book.close()
    assert postgresql.PASSWORD not in str(caught.value)
    assert "wrong-word" not in str(caught.value)
    return caught.value


async def test_wrong_addresses_of_postgresql_are_explained(server: Server) -> None:
    name = await server.new_database()
    await server.run("CREATE ROLE guest LOGIN PASSWORD 'made-up'")
    guest = server.url(name, password="made-up").replace("gateway:", "guest:")
    told = [
        await failure(server.url(name, password="wrong-word")),
        await failure(server.url("nowhere")),
        await failure(guest),
        await failure(server.url(name) + "?surprise=1"),
        await failure(server.url(name).replace(f":{server.port}", ":port")),
    ]
    for said, text in zip(
        told, ["wrong user or password", "createdb", "GRANT", "behind its ?", "write it like"], strict=True
    ):
        assert text in str(said)


async def test_wrong_files_are_explained(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database at all, and longer than a header is" * 100)
    (tmp_path / "folder").mkdir()
    for name, text in (("text", "is no database"), ("folder", "cannot be made"), ("text/orders.db", "cannot be made")):
        assert text in str(await failure(f"sqlite:///{tmp_path}/{name}"))
    with pytest.raises(SettingsError, match="names no file"):
        SqlOrderBook("sqlite:///:memory:")


async def test_a_file_is_for_its_user_alone_and_in_wal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    book = SqlOrderBook("sqlite:///var/orders.db")
    await book.open()
    await put(book, order())
    assert (tmp_path / "var").stat().st_mode & 0o777 == 0o700
    kinds = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "var").iterdir()}
    assert kinds == {"orders.db": 0o600, "orders.db-wal": 0o600, "orders.db-shm": 0o600}
    await book.close()
    again = SqlOrderBook("sqlite:///var/orders.db")
    await again.open()
    assert await again.read("main-1") == order()
    await again.close()


async def test_a_file_that_somebody_holds_is_down_and_then_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    book = SqlOrderBook(f"sqlite:///{tmp_path}/orders.db")
    await book.open()
    holder = sqlite3.connect(tmp_path / "orders.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with monkeypatch.context() as patch:
        patch.setattr(order_calls, "LIMIT", 0.3)
        with pytest.raises(OrdersDown):
            await book.take_in(delivery(1))
        assert await book.read("main-1") is None  # who reads is not held up
    holder.execute("ROLLBACK")
    holder.close()
    assert await book.take_in(delivery(1)) is True
    await book.close()


async def test_a_server_that_is_killed_is_down_and_then_well(server: Server) -> None:
    book = SqlOrderBook(server.url(await server.new_database()))
    await book.open()
    await put(book, order())
    await asyncio.gather(*(book.read("main-1") for _ in range(4)))
    loop = asyncio.get_running_loop()

    async def cut() -> None:
        async with book.change("main-1") as draft:
            draft.order = order(reference="half")
            server.kill()

    try:
        with pytest.raises(OrdersDown):
            await cut()
        for call in (book.read("main-1"), put(book, order(2)), book.next_delivery(1, 1)):
            began = loop.time()
            with pytest.raises(OrdersDown):
                await call
            assert loop.time() - began < 6
        unborn = SqlOrderBook(server.url("nowhere"))
        with pytest.raises(OrdersDown):
            await unborn.open()
        await unborn.close()
    finally:
        server.start()
    assert [await book.read("main-1") for _ in range(5)] == [order()] * 5
    await put(book, order(2))
    await book.close()


async def test_a_restart_is_not_noticed(server: Server) -> None:
    """No connection is used that the server has closed."""
    book = SqlOrderBook(server.url(await server.new_database()))
    await book.open()
    await asyncio.gather(*(book.read("main-1") for _ in range(4)))
    await asyncio.to_thread(server.kill)
    server.start()
    await asyncio.gather(*(put(book, order(number)) for number in range(4)))
    await book.close()


async def test_a_server_that_falls_silent_is_down_in_time(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    assert order_calls.LIMIT + order_calls.GRACE < 6
    async with postgresql.Hose(server.port) as hose:
        book = SqlOrderBook(server.url(await server.new_database(), port=hose.port))
        await book.open()
        await put(book, order())
        with monkeypatch.context() as patch:
            patch.setattr(order_calls, "LIMIT", 0.3)
            hose.silence()
            # More than there are connections, so that new ones are tried too.
            calls = [book.read("main-1") if turn % 2 else put(book, order(turn)) for turn in range(12)]
            async with asyncio.timeout(1):
                said = await asyncio.gather(*calls, return_exceptions=True)
            assert {type(each) for each in said} == {OrdersDown}
        hose.speak()
        assert await book.read("main-1") == order()
        await book.close()


async def test_mails_of_every_purpose_are_numbered_by_their_moment(book: SqlOrderBook) -> None:
    moment = 1_795_228_200_000
    links = mail(moment)
    async with book.change("main-1") as draft:
        draft.order = order()
        draft.mails += [links, replace(links, mail_id="other", purpose="code")]
    kept = {(each.purpose, each.number) for each in await book.mails("main-1")}
    assert kept == {("links", moment), ("code", moment)}
