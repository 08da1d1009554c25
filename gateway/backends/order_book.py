"""The order book in SQL: gateway.order_ports.OrderBook on SQLite and PostgreSQL, by the same statements."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from sqlalchemy import ColumnElement, Delete, Update, case, delete, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.backends.order_calls import Calls, Database
from gateway.backends.order_documents import read_order, read_texts, write_texts
from gateway.backends.order_rows import (
    TEXT_MAX,
    exact,
    fate_of_mail,
    kept,
    loose,
    mail_of,
    named,
    reference,
    row_of_mail,
    row_of_order,
)
from gateway.backends.order_tables import VERSION, book, deliveries, mails, orders, outbox, tables
from gateway.errors import OrdersDown, SettingsError
from gateway.order_ports import Delivery, Draft, Fields, Mail, Outgoing
from gateway.policy.orders import Order

FOUND_MAX = 100
WHY_MAX = 500
ERASED = "not sent: its buyer's personal data were erased"


class SqlOrderBook:
    """See OrderBook. Who changes an order holds a lock meanwhile: no slow work in it, and no other call that writes."""

    def __init__(self, url: str) -> None:
        """`url` as in the settings: sqlite:///path or postgresql://…; nothing is opened yet. Raises SettingsError."""
        self._database = _database(url)
        self._calls = Calls(self._database)

    async def open(self) -> None:
        """See OrderBook.open. Several processes may do it at once."""
        await self._calls.open(self._make_tables)

    async def close(self) -> None:
        """See OrderBook.close."""
        await self._calls.close()

    async def take_in(self, delivery: Delivery) -> bool:
        """See OrderBook.take_in. Raises ValueError for an id that is too long, or no text."""
        _check(delivery.delivery_id, "a delivery's")
        row = {
            "shop": delivery.shop,
            "delivery_id": delivery.delivery_id,
            "received_at": delivery.received_at,
            "due_at": delivery.received_at,
            "attempts": 0,
            "why": "",
            "headers": write_texts(delivery.headers),
            "body": delivery.body,
        }
        statement = self._database.insert(deliveries).values(row).on_conflict_do_nothing()

        async def work(connection: AsyncConnection) -> bool:
            return (await connection.execute(statement.returning(deliveries.c.shop))).first() is not None

        return await self._calls.write(work)

    async def next_delivery(self, now: int, patience: int) -> Delivery | None:
        """See OrderBook.next_delivery. What failed, or lost its worker, comes after what waits for longer."""
        chosen = (
            select(deliveries)
            .where(deliveries.c.due_at <= now)
            .order_by(deliveries.c.due_at, deliveries.c.received_at)
            .limit(1)
            .with_for_update(skip_locked=True)
        )

        async def work(connection: AsyncConnection) -> Delivery | None:
            row = (await connection.execute(chosen)).first()
            if row is None:
                return None
            taken = update(deliveries).where(_is(row.shop, row.delivery_id))
            await connection.execute(taken.values(due_at=now + patience, attempts=row.attempts + 1))
            return Delivery(row.shop, row.delivery_id, row.received_at, read_texts(row.headers), row.body)

        return await self._calls.write(work)

    async def delivered(self, delivery: Delivery) -> None:
        """See OrderBook.delivered."""
        done = {"due_at": None, "headers": None, "body": None, "why": ""}
        await self._execute(update(deliveries).where(_is(delivery.shop, delivery.delivery_id)).values(done))

    async def postpone(self, delivery: Delivery, until: int, why: str) -> None:
        """See OrderBook.postpone. What somebody else has done meanwhile stays done."""
        due = _is(delivery.shop, delivery.delivery_id) & deliveries.c.due_at.is_not(None)
        await self._execute(update(deliveries).where(due).values(due_at=until, why=kept(why)[:WHY_MAX]))

    @asynccontextmanager
    async def change(self, order_id: str) -> AsyncIterator[Draft]:
        """See OrderBook.change. Raises ValueError for an id that is too long, or no text, and for a draft that forgets
        the order or is of another.
        """
        _check(order_id, "an order's")
        found: Order | None = None

        async def before(connection: AsyncConnection) -> Draft:
            nonlocal found
            await self._database.alone(connection, order_id)
            found = await _order(connection, order_id)
            return Draft(found)

        async def after(connection: AsyncConnection, draft: Draft) -> None:
            if draft.order != found and (draft.order is None or draft.order.order_id != order_id):
                raise ValueError("the draft has lost its order, or has another one; set it to what it shall be")
            if draft.mails:
                rows = [row_of_mail(mail) for mail in draft.mails]
                await connection.execute(self._database.insert(mails).on_conflict_do_nothing(), rows)
            if draft.forgets_recipients:
                await _forget_recipients(connection, order_id)
            await _put_out(connection, draft.events, draft.links)
            if draft.order is not None and draft.order != found:
                # Last, for all others who change an order wait from here on.
                await _put_order(connection, draft.order, known=found is not None)

        async with self._calls.hold(before, after) as draft:
            yield draft

    async def read(self, order_id: str) -> Order | None:
        """See OrderBook.read."""
        if not named(order_id):
            return None
        return await self._calls.read(lambda connection: _order(connection, order_id))

    async def find(self, text: str) -> Sequence[Order]:
        """See OrderBook.find. Of e-mail addresses the case plays no part, of references neither that nor a # before."""
        columns = orders.c
        wanted = (
            (columns.order_id, exact(text)),
            (columns.shop_order_id, exact(text)),
            (columns.reference, reference(text)),
            (columns.email, loose(text)),
        )
        conditions = [column == value for column, value in wanted if value]
        if not conditions:
            return ()
        called = or_(*conditions)
        statement = select(columns.document).where(or_(called, columns.customer_id == exact(text)))
        statement = statement.order_by(case((called, 0), else_=1), columns.first.desc()).limit(FOUND_MAX)

        async def work(connection: AsyncConnection) -> list[Order]:
            return [_known(row.document) for row in await connection.execute(statement)]

        return await self._calls.read(work)

    async def of_customer(
        self, customer_id: str, *, shops: Sequence[str] = (), before: int | None = None, most: int
    ) -> tuple[Sequence[Order], int | None]:
        """See OrderBook.of_customer."""
        columns = orders.c
        if not customer_id or not exact(customer_id):
            return (), None
        own = columns.customer_id == exact(customer_id)
        if shops:
            own &= columns.shop.in_([kept(shop) for shop in shops])
        if before is not None:
            own &= columns.first < before
        # One more than is wanted tells whether there are more.
        statement = select(columns.first, columns.document).where(own).order_by(columns.first.desc()).limit(most + 1)

        async def work(connection: AsyncConnection) -> tuple[list[Order], int | None]:
            rows = (await connection.execute(statement)).all()
            found = [_known(row.document) for row in rows[:most]]
            # What is looked up is trimmed, and a long id hashed.
            mine = [each for each in found if each.buyer.value.customer_id == customer_id]
            return mine, rows[most - 1].first if len(rows) > most else None

        return await self._calls.read(work)

    async def latest(self) -> int:
        """See OrderBook.latest."""
        return await self._calls.read(_latest)

    async def changed(self, since: int) -> tuple[int, Sequence[str]]:
        """See OrderBook.changed. Where the book is an older copy than the one that was followed, all orders have."""

        async def work(connection: AsyncConnection) -> tuple[int, list[str]]:
            # In this sequence: what is committed between the two is named now, and named again the next time.
            latest = await _latest(connection)
            after = orders.c.latest > (since if since <= latest else 0)
            rows = await connection.execute(select(orders.c.order_id).where(after).order_by(orders.c.latest))
            return latest, [row.order_id for row in rows]

        return await self._calls.read(work)

    async def next_mail(self, now: int, patience: int) -> Mail | None:
        """See OrderBook.next_mail. `attempts` has this one counted; from `due_at` on others may have it."""
        columns = mails.c
        chosen = (
            select(mails)
            .where(columns.state == "queued", columns.due_at <= now)
            .order_by(columns.due_at, columns.created_at, columns.mail_id)
            .limit(1)
            .with_for_update(skip_locked=True)
        )

        async def work(connection: AsyncConnection) -> Mail | None:
            row = (await connection.execute(chosen)).first()
            if row is None:
                return None
            mail = replace(mail_of(row), due_at=now + patience, attempts=row.attempts + 1)
            taken = update(mails).where(columns.mail_id == mail.mail_id)
            await connection.execute(taken.values(due_at=mail.due_at, attempts=mail.attempts))
            return mail

        return await self._calls.write(work)

    async def note_mail(self, mail: Mail, events: Sequence[Fields]) -> None:
        """See OrderBook.note_mail. A mail whose fate is known is not queued again by a slow worker."""
        own = mails.c.mail_id == mail.mail_id
        if mail.state == "queued":
            own &= mails.c.state == "queued"

        async def work(connection: AsyncConnection) -> None:
            await connection.execute(update(mails).where(own).values(fate_of_mail(mail)))
            await _put_out(connection, events, ())

        await self._calls.write(work)

    async def mail(self, mail_id: str) -> Mail | None:
        """See OrderBook.mail."""
        if not named(mail_id):
            return None

        async def work(connection: AsyncConnection) -> Mail | None:
            row = (await connection.execute(select(mails).where(mails.c.mail_id == mail_id))).first()
            return None if row is None else mail_of(row)

        return await self._calls.read(work)

    async def mails(self, order_id: str) -> Sequence[Mail]:
        """See OrderBook.mails."""
        if not named(order_id):
            return ()
        own = select(mails).where(mails.c.order_id == order_id)

        async def work(connection: AsyncConnection) -> list[Mail]:
            rows = await connection.execute(own.order_by(mails.c.created_at, mails.c.number, mails.c.mail_id))
            return [mail_of(row) for row in rows]

        return await self._calls.read(work)

    async def outgoing(self, most: int) -> Sequence[Outgoing]:
        """See OrderBook.outgoing."""

        async def work(connection: AsyncConnection) -> list[Outgoing]:
            rows = await connection.execute(select(outbox).order_by(outbox.c.number).limit(most))
            return [Outgoing(row.number, read_texts(row.fields), row.link) for row in rows]

        return await self._calls.read(work)

    async def sent(self, numbers: Sequence[int]) -> None:
        """See OrderBook.sent."""
        if numbers:
            await self._execute(delete(outbox).where(outbox.c.number.in_(numbers)))

    async def _execute(self, statement: Update | Delete) -> None:
        async def work(connection: AsyncConnection) -> None:
            await connection.execute(statement)

        await self._calls.write(work)

    async def _make_tables(self, connection: AsyncConnection) -> None:
        await self._database.alone(connection, "")
        await connection.run_sync(tables.create_all)
        version = (await connection.execute(select(book.c.version))).scalar()
        if version is None:
            await connection.execute(insert(book).values(id=1, version=VERSION, latest=0))
        elif version != VERSION:
            raise SettingsError(
                f"orders.url leads to an order book of version {version}, and this gateway keeps version {VERSION}; "
                "run the gateway that made it, or name another database"
            )


def _database(url: str) -> Database:
    # Each driver costs time to import, and who keeps orders in a file needs no other.
    if url.startswith("sqlite:"):
        from gateway.backends.order_sqlite import SqliteDatabase  # noqa: PLC0415  only the driver in use

        return SqliteDatabase(url)
    from gateway.backends.order_postgresql import PostgresqlDatabase  # noqa: PLC0415  only the driver in use

    return PostgresqlDatabase(url)


def _check(name: str, whose: str) -> None:
    if not named(name):
        raise ValueError(f"{whose} id is no text of 1 to {TEXT_MAX} characters without NUL")


def _is(shop: str, delivery_id: str) -> ColumnElement[bool]:
    return (deliveries.c.shop == shop) & (deliveries.c.delivery_id == delivery_id)


async def _latest(connection: AsyncConnection) -> int:
    return int((await connection.execute(select(book.c.latest))).scalar_one())


async def _order(connection: AsyncConnection, order_id: str) -> Order | None:
    row = (await connection.execute(select(orders.c.document).where(orders.c.order_id == order_id))).first()
    return None if row is None else _known(row.document)


def _known(document: str) -> Order:
    try:
        return read_order(document)
    except ValueError as error:
        raise OrdersDown(str(error)) from None


async def _put_order(connection: AsyncConnection, order: Order, *, known: bool) -> None:
    # Whoever increments the counter holds it until his transaction ends, so nobody sees a number before a lower one.
    counted = await connection.execute(update(book).values(latest=book.c.latest + 1).returning(book.c.latest))
    number = counted.scalar_one()
    if known:
        own = update(orders).where(orders.c.order_id == order.order_id)
        await connection.execute(own.values(latest=number, **row_of_order(order)))
    else:
        await connection.execute(insert(orders).values(first=number, latest=number, **row_of_order(order)))


async def _forget_recipients(connection: AsyncConnection, order_id: str) -> None:
    own = mails.c.order_id == order_id
    waiting = update(mails).where(own, mails.c.state == "queued")
    await connection.execute(waiting.values(state="failed", answer=ERASED))
    await connection.execute(update(mails).where(own).values(recipient=""))


async def _put_out(connection: AsyncConnection, events: Sequence[Fields], links: Sequence[tuple[Fields, str]]) -> None:
    rows = [
        {"fields": write_texts(fields), "link": kept(link)}
        for fields, link in [*((each, "") for each in events), *links]
    ]
    if rows:
        await connection.execute(insert(outbox), rows)
