"""Mails out of a real order book, through a real mail server, and what is written of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from email import message_from_bytes
from email.policy import default
from pathlib import Path

import pytest
from aiosmtpd.smtp import SMTP, Envelope, Session

from gateway.backends.order_book import SqlOrderBook
from gateway.backends.smtp import SmtpPostman
from gateway.errors import OrdersDown
from gateway.mail.bounces import Report
from gateway.mail.composing import Composer
from gateway.mail.letter import Brand, FileAddress, LinkAddresses
from gateway.mail.writer import Writer
from gateway.order_ports import Fields, Mail, Posted
from gateway.policy.model import FileEntry
from gateway.policy.orders import ALL, Buyer, Entitlement, Holding, Line, Order, Said, SoldFile, Told
from gateway.services import mailing as module
from gateway.services.mailing import BACK_OFF, GIVE_UP_AFTER, Mailing, note_report
from gateway.settings_sections import MailSettings

NOW = 1_795_228_200_000
MAIL_ID = "0a1b2c3d4e5f0a1b2c3d4e5f"
COMPOSER = Composer()
FILE = FileEntry("ebooks/sea.pdf")
ORDER = Order(
    "main-1",
    "main",
    "1",
    reference="10001",
    paid=Said(True, (1,)),
    buyer=Told(Buyer("jan@example.com", "Jan", language="pl"), 1),
    lines=Told((Line("l1", sku="SEA"),), 1),
    entitlements=(Entitlement("l1", "Sea", (SoldFile(FILE, "e", 5),), 1),),
)
MAIL = Mail(MAIL_ID, "main-1", "links", 1, "jan@example.com", "pl", created_at=NOW, due_at=NOW)


@dataclass
class Clock:
    now: int = NOW

    def __call__(self) -> int:
        return self.now


@dataclass
class Scripted:
    """A postman that was told what to say."""

    answers: list[Posted]
    posted: list[tuple[bytes, str, str]] = field(default_factory=list)

    async def post(self, message: bytes, *, sender: str, to: str) -> Posted:
        self.posted.append((message, sender, to))
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@pytest.fixture
async def book(tmp_path: Path) -> AsyncIterator[SqlOrderBook]:
    opened = SqlOrderBook(f"sqlite:///{tmp_path}/orders.db")
    await opened.open()
    yield opened
    await opened.close()


async def kept(book: SqlOrderBook, order: Order = ORDER, mail: Mail = MAIL) -> None:
    async with book.change(order.order_id) as draft:
        draft.order = order
        draft.mails.append(mail)


async def events(book: SqlOrderBook) -> list[Fields]:
    return [each.fields for each in await book.outgoing(100)]


def holding(order: Order) -> Holding:
    return order.holding(needs_confirmation=False)


def links(order: Order) -> Sequence[LinkAddresses]:
    file = FileAddress("Sea.pdf", "https://dl.example.com/d/t/1", 5)
    return [LinkAddresses("https://dl.example.com/l/t", (file,), NOW // 1000 + 86_400)]


SETTINGS = MailSettings.model_validate(
    {"server": "smtp+plain://127.0.0.1:1", "sender": "shop@example.com", "bounces": "bounces@example.com"}
)


def mailing(book: SqlOrderBook, postman: Scripted | SmtpPostman, clock: Clock) -> Mailing:
    writer = Writer(COMPOSER, Brand("Sea Shop"), SETTINGS, addresses=links, code=lambda _: "012345", clock=clock)
    return Mailing(book, postman, writer.compose, sender=writer.sender, holding=holding, clock=clock)


class Server:
    """Answers 451 first, then takes what comes."""

    def __init__(self) -> None:
        self.answers = ["451 4.7.1 <jan@example.com> later"]
        self.envelopes: list[Envelope] = []

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802  aiosmtpd's name
        if self.answers:
            return self.answers.pop(0)
        self.envelopes.append(envelope)
        return "250 queued"


@asynccontextmanager
async def listening(server: Server) -> AsyncIterator[int]:
    loop = asyncio.get_running_loop()
    opened = await loop.create_server(lambda: SMTP(server, hostname="mx", loop=loop), "127.0.0.1", 0)
    try:
        yield opened.sockets[0].getsockname()[1]
    finally:
        opened.close()


async def test_a_mail_is_deferred_then_accepted_and_both_are_told(book: SqlOrderBook) -> None:
    await kept(book)
    clock, server = Clock(), Server()
    async with listening(server) as port:
        url = {"server": f"smtp+plain://127.0.0.1:{port}", "sender": "shop@example.com"}
        work = mailing(book, SmtpPostman(MailSettings.model_validate(url)), clock)
        assert await work.work() is True
        assert await work.work() is False, "not due yet"
        clock.now += BACK_OFF[0] * 1000
        assert await work.work() is True
        clock.now += 10**9
        assert await work.work() is False, "once accepted it is never sent again"
    [envelope] = server.envelopes
    assert (envelope.mail_from, envelope.rcpt_tos) == (f"bounces+{MAIL_ID}@example.com", ["jan@example.com"])
    assert isinstance(envelope.content, bytes)
    message = message_from_bytes(envelope.content, policy=default)
    assert message["Message-ID"] == f"<{MAIL_ID}@example.com>"
    assert message["Subject"] == "Sea Shop: pliki z zamówienia 10001"
    [mail] = await book.mails("main-1")
    assert (mail.state, mail.attempts, mail.answer) == ("accepted", 2, "250 queued")
    told = await events(book)
    names = ("type", "order.id", "mail.id", "mail.attempt", "mail.answer")
    assert [[event.get(name) for name in names] for event in told] == [
        ["mail.deferred", "main-1", MAIL_ID, "1", "451 4.7.1 (address) later"],
        ["mail.accepted", "main-1", MAIL_ID, "2", "250 queued"],
    ]
    assert all("@" not in text for event in told for text in event.values())


@pytest.mark.parametrize(("seconds", "sent_at"), [(20, 7), (61, NOW + 61_000)])
async def test_a_mail_that_waited_was_sent_when_it_was_accepted(book: SqlOrderBook, seconds: int, sent_at: int) -> None:
    await kept(book, replace(ORDER, mailed_at=7))
    clock = Clock(NOW + seconds * 1000)
    assert await mailing(book, Scripted([Posted("accepted", "250 queued")]), clock).work() is True
    order = await book.read("main-1")
    assert order is not None
    assert order.mailed_at == sent_at


async def test_its_links_are_new_before_it_is_with_the_server(book: SqlOrderBook) -> None:
    """A scanner comes within a second, and the worker may die before it can write anything."""

    class Dying(Scripted):
        async def post(self, message: bytes, *, sender: str, to: str) -> Posted:
            raise asyncio.CancelledError

    await kept(book, replace(ORDER, mailed_at=7))
    with pytest.raises(asyncio.CancelledError):
        await mailing(book, Dying([]), Clock(NOW + 61_000)).work()
    order = await book.read("main-1")
    assert order is not None
    assert order.mailed_at == NOW + 61_000


async def test_a_refusal_ends_it(book: SqlOrderBook) -> None:
    await kept(book)
    clock = Clock()
    work = mailing(book, Scripted([Posted("refused", "550 5.1.1 unknown")]), clock)
    assert await work.work() is True
    clock.now += 10**9
    assert await work.work() is False
    [mail] = await book.mails("main-1")
    assert (mail.state, mail.answer) == ("failed", "550 5.1.1 unknown")
    assert [event["type"] for event in await events(book)] == ["mail.failed"]


async def test_it_is_tried_for_three_days_and_then_given_up(book: SqlOrderBook) -> None:
    await kept(book)
    clock = Clock()
    postman = Scripted([Posted("later", "451 busy")])
    work = mailing(book, postman, clock)
    tried: list[int] = []
    while (mail := (await book.mails("main-1"))[0]).state == "queued":
        clock.now = max(clock.now, mail.due_at)
        assert await work.work() is True
        tried.append((clock.now - NOW) // 1000)
    assert tried[:7] == [0, 10, 70, 370, 1270, 4870, 4870 + 3 * 3600]
    assert GIVE_UP_AFTER - 3 * 3600 < tried[-1] <= GIVE_UP_AFTER
    assert (mail.state, mail.attempts) == ("failed", len(tried))
    told = [event["type"] for event in await events(book)]
    assert told == ["mail.deferred"] * (len(tried) - 1) + ["mail.failed"]
    assert len(postman.posted) == len(tried)


async def test_a_gateway_that_was_down_for_a_week_still_tries(book: SqlOrderBook) -> None:
    await kept(book)
    clock = Clock(NOW + 7 * 86_400_000)
    work = mailing(book, Scripted([Posted("later", "busy"), Posted("accepted", "250 ok")]), clock)
    await work.work()
    clock.now += 10_000
    await work.work()
    assert (await book.mails("main-1"))[0].state == "accepted"


@pytest.mark.parametrize(
    ("order", "why"),
    [
        (replace(ORDER, paid=Said(False, (2,))), "not paid any more"),
        (replace(ORDER, refunded=Said(True, (2,))), "nothing of the order"),
        (ORDER.withdrew(ALL, True, 3), "nothing of the order"),
        (replace(ORDER, entitlements=()), "nothing of the order"),
        (replace(ORDER, ends_at=Told(NOW // 1000 - 1, 2)), "nothing of the order"),
    ],
    ids=["unpaid", "refunded", "withdrawn", "nothing granted", "lapsed"],
)
async def test_what_is_not_the_buyers_any_more_is_not_mailed(book: SqlOrderBook, order: Order, why: str) -> None:
    await kept(book, order)
    postman = Scripted([Posted("accepted", "250")])
    assert await mailing(book, postman, Clock()).work() is True
    assert postman.posted == []
    [mail] = await book.mails("main-1")
    [event] = await events(book)
    assert mail.state == "failed"
    assert event["type"] == "mail.failed"
    assert why in event["mail.answer"]


@pytest.mark.parametrize("to", ["", "nobody", "a>b@example.com", "a b@example.com"])
async def test_an_address_that_is_none_gets_nothing(book: SqlOrderBook, to: str) -> None:
    await kept(book, replace(ORDER, buyer=Told(Buyer(to), 5)), replace(MAIL, to=to))
    postman = Scripted([Posted("accepted", "250")])
    await mailing(book, postman, Clock()).work()
    assert postman.posted == []
    [mail] = await book.mails("main-1")
    assert (mail.state, "no address" in mail.answer) == ("failed", True)


async def test_an_address_in_another_script_is_sent_to_in_ascii_where_that_can_be(book: SqlOrderBook) -> None:
    await kept(book, replace(ORDER, buyer=Told(Buyer("jan@łódź.example"), 5)), replace(MAIL, to="jan@łódź.example"))
    postman = Scripted([Posted("accepted", "250")])
    await mailing(book, postman, Clock()).work()
    assert postman.posted[0][2] == "jan@xn--d-uga0v4h.example"


async def test_a_mail_goes_where_the_order_says_now(book: SqlOrderBook) -> None:
    await kept(book, replace(ORDER, corrected=(ORDER.buyer.value.email, "right@example.com")))
    postman = Scripted([Posted("accepted", "250")])
    await mailing(book, postman, Clock()).work()
    assert postman.posted[0][2] == "right@example.com"


async def test_a_mail_in_hand_does_not_leave_for_an_address_that_was_just_erased(
    book: SqlOrderBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    await kept(book)
    next_mail, postman = book.next_mail, Scripted([Posted("accepted", "250")])

    async def erased_meanwhile(now: int, patience: int) -> Mail | None:
        mail = await next_mail(now, patience)
        async with book.change("main-1") as draft:
            assert draft.order is not None
            draft.order, draft.forgets_recipients = draft.order.erased(now), True
        return mail

    monkeypatch.setattr(book, "next_mail", erased_meanwhile)
    assert await mailing(book, postman, Clock()).work()
    assert postman.posted == []


async def test_what_was_taken_is_written_down_when_the_book_is_back(
    book: SqlOrderBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "NOTE_PAUSES", (0.0, 0.0, 0.0))
    await kept(book)
    postman, away = Scripted([Posted("accepted", "250")]), [OrdersDown("away"), OrdersDown("away")]
    really = book.note_mail

    async def note(mail: Mail, events: Sequence[Fields]) -> None:
        if away:
            raise away.pop()
        await really(mail, events)

    monkeypatch.setattr(book, "note_mail", note)
    assert await mailing(book, postman, Clock()).work() is True
    assert [mail.state for mail in await book.mails("main-1")] == ["accepted"]
    assert len(postman.posted) == 1


async def test_what_cannot_be_composed_waits_and_stops_no_other(
    book: SqlOrderBook, caplog: pytest.LogCaptureFixture
) -> None:
    await kept(book)
    await kept(book, replace(ORDER, order_id="main-2"), replace(MAIL, mail_id="b", order_id="main-2", due_at=NOW + 1))

    async def compose(order: Order, mail: Mail) -> bytes:
        if order.order_id == "main-1":
            raise RuntimeError("jan@example.com")
        return b"Subject: x\r\n\r\n"

    postman = Scripted([Posted("accepted", "250")])
    work = Mailing(book, postman, compose, sender=lambda _: "s@example.com", holding=holding, clock=Clock(NOW + 1))
    assert [await work.work(), await work.work(), await work.work()] == [True, True, False]
    assert [mail.state for mail in await book.mails("main-1")] == ["queued"]
    assert [mail.state for mail in await book.mails("main-2")] == ["accepted"]
    assert "RuntimeError" in caplog.text
    assert "jan@" not in caplog.text


async def test_a_book_that_is_away_is_the_workers_affair(book: SqlOrderBook) -> None:
    await kept(book)

    def compose(order: Order, mail: Mail) -> bytes:
        raise OrdersDown("away")

    work = Mailing(
        book, Scripted([Posted("accepted", "")]), compose, sender=lambda _: "", holding=holding, clock=Clock()
    )
    with pytest.raises(OrdersDown):
        await work.work()
    assert await events(book) == []


async def test_two_workers_never_send_the_same_mail(book: SqlOrderBook) -> None:
    await kept(book)
    postman = Scripted([Posted("accepted", "250")])
    clock = Clock()
    done = await asyncio.gather(*(mailing(book, postman, clock).work() for _ in range(4)))
    assert sorted(done) == [False, False, False, True]
    assert len(postman.posted) == 1


async def test_a_bounce_is_written_once(book: SqlOrderBook) -> None:
    await kept(book, mail=replace(MAIL, state="accepted", attempts=1))
    failed = Report(MAIL_ID, "failed", "5.1.1", "x")
    delayed = replace(failed, action="delayed", status="4.4.1")
    assert await note_report(book, delayed, "mailbox busy", NOW) == "delayed"
    assert (await book.mails("main-1"))[0].state == "accepted"
    assert await note_report(book, failed, "no such user", NOW) == "bounced"
    assert await note_report(book, failed, "no such user", NOW) == "known"
    assert await note_report(book, delayed, "", NOW) == "known"
    assert await note_report(book, replace(failed, mail_id="ffff"), "", NOW) == "unknown"
    [mail] = await book.mails("main-1")
    assert (mail.state, mail.answer) == ("bounced", "5.1.1 no such user")
    assert [(event["type"], event["mail.answer"]) for event in await events(book)] == [
        ("mail.deferred", "4.4.1 mailbox busy"),
        ("mail.bounced", "5.1.1 no such user"),
    ]


async def test_a_code_that_could_not_be_sent_while_it_was_good_is_not_sent_any_more(book: SqlOrderBook) -> None:
    await kept(book, mail=replace(MAIL, purpose="code"))
    clock, postman = Clock(NOW + 599_999), Scripted([Posted("later", "busy"), Posted("accepted", "ok")])
    work = mailing(book, postman, clock)
    assert await work.work()
    assert b"012345" in postman.posted[0][0]
    clock.now += 20_000
    assert await work.work()
    assert len(postman.posted) == 1
    last = (await events(book))[-1]
    assert (last["type"], last["mail.purpose"]) == ("mail.failed", "code")
    assert last["mail.answer"] == "the code in it is not good any more"
