"""Sends the mails that are due, one at a time, from the order as it is now, and writes what became of each.

Law: no mail leaves for an order that gives its buyer nothing any more; one that is never accepted ends as failed.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Literal

from gateway.errors import OrdersDown
from gateway.mail.bounces import Report
from gateway.mail.envelope import sendable
from gateway.order_ports import CODE_SECONDS, Fields, Mail, OrderBook, Posted, Postman
from gateway.policy.events import new_event
from gateway.policy.orders import NEVER, Holding, Order
from gateway.services.faults import describe
from gateway.services.identifiers import new_id, now_ms

log = logging.getLogger(__name__)

PATIENCE = 240_000
"""Ms for which a mail is ours: longer than composing it, the postman's 150 s, and writing it down take together."""
NOTICEABLE = 60_000
"""Ms after which a mail that is sent was not sent when it was queued: its links are new only now."""
NOTE_PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds between tries to write down what became of a mail."""
BACK_OFF = (10, 60, 300, 900, 3600)
"""Seconds before each further try."""
BACK_OFF_LAST = 3 * 3600
GIVE_UP_AFTER = 3 * 86_400
"""Seconds since the mail was made; the quick tries are made however old it is."""

Compose = Callable[[Order, Mail], Awaitable[bytes] | bytes]


class Mailing:
    """What the background worker does with mails. `holding` says what an order gives, as it is asked at a decision."""

    def __init__(
        self,
        book: OrderBook,
        postman: Postman,
        compose: Compose,
        *,
        sender: Callable[[Mail], str],
        holding: Callable[[Order], Holding],
        clock: Callable[[], int] = now_ms,
    ) -> None:
        """`sender`: the envelope's sender of a mail; `clock` in Unix ms."""
        self._book = book
        self._postman = postman
        self._compose = compose
        self._sender = sender
        self._holding = holding
        self._clock = clock

    async def work(self) -> bool:
        """Send one mail that is due; False where there is none. Raises OrdersDown; the mail is then due again soon."""
        mail = await self._book.next_mail(self._clock(), PATIENCE)
        if mail is None:
            return False
        order = await self._book.read(mail.order_id)
        if order is not None:
            # Since the mail was queued staff may have corrected the address, or it was erased.
            mail = replace(mail, to=order.email or ("" if order.erased_at != NEVER else mail.to))
        why_not = self._void(order, mail)
        if order is None or why_not:
            await self._note(mail, Posted("refused", why_not))
        else:
            # Before it: scanners come within a second, and a crash after it would leave the links old.
            await self._redate(mail)
            await self._note(mail, await self._post(order, mail))
        return True

    def _void(self, order: Order | None, mail: Mail) -> str:
        """Why nothing is sent, or ""."""
        if order is None:
            return "the order is not known"
        holding = self._holding(order)
        if not holding.paid:
            return "the order is not paid any more"
        if not any(until is None or until > self._clock() // 1000 for until in holding.until.values()):
            return "nothing of the order is the buyer's any more"
        if mail.purpose == "code" and mail.created_at + CODE_SECONDS * 1000 <= self._clock():
            return "the code in it is not good any more"
        try:
            sendable(mail.to)
        except ValueError:
            return "the buyer has no address that mail can be sent to"
        return ""

    async def _post(self, order: Order, mail: Mail) -> Posted:
        try:
            composed = self._compose(order, mail)
            message = await composed if inspect.isawaitable(composed) else composed
            sender = self._sender(mail)
        except OrdersDown:
            raise
        except Exception as error:  # noqa: BLE001  one mail that cannot be composed must not stop the others
            log.error("mail %s of order %s cannot be composed: %s", mail.mail_id, mail.order_id, describe(error))
            return Posted("later", "the mail could not be composed; see the log")
        return await self._postman.post(message, sender=sender, to=sendable(mail.to))

    async def _note(self, mail: Mail, posted: Posted) -> None:
        now = self._clock()
        mail = replace(mail, answer=posted.answer)
        match posted.outcome:
            case "accepted":
                mail, kind = replace(mail, state="accepted"), "mail.accepted"
            case "later" if (due_at := _next_try(mail, now)) is not None:
                mail, kind = replace(mail, state="queued", due_at=due_at), "mail.deferred"
            case _:
                mail, kind = replace(mail, state="failed"), "mail.failed"
                log.warning("mail %s of order %s was not sent: %s", mail.mail_id, mail.order_id, posted.answer)
        await self._write(mail, [_event(kind, mail, now)])

    async def _redate(self, mail: Mail) -> None:
        now = self._clock()
        if mail.purpose == "links" and now - mail.created_at > NOTICEABLE:
            async with self._book.change(mail.order_id) as draft:
                if draft.order is not None:
                    draft.order = replace(draft.order, mailed_at=now)

    async def _write(self, mail: Mail, events: list[Fields]) -> None:
        """What the server has taken must be written down, or it is sent again: so it is tried for a while."""
        for pause in NOTE_PAUSES:
            try:
                return await self._book.note_mail(mail, events)
            except OrdersDown:
                await asyncio.sleep(pause)
        return await self._book.note_mail(mail, events)


def _next_try(mail: Mail, now: int) -> int | None:
    """When to try again (Unix ms); None: it has been tried for long enough."""
    tries = max(1, mail.attempts)  # the book counts a try when it hands the mail out
    if tries <= len(BACK_OFF):
        return now + BACK_OFF[tries - 1] * 1000
    due_at = now + BACK_OFF_LAST * 1000
    return due_at if due_at <= mail.created_at + GIVE_UP_AFTER * 1000 else None


Noted = Literal["bounced", "delayed", "known", "unknown"]


async def note_report(book: OrderBook, report: Report, answer: str, now: int | None = None) -> Noted:
    """Write what a delivery report says of a mail; `answer` is its text without addresses, `now` Unix ms.

    `known`: it bounced or failed before; a delay that is told after that changes nothing. Raises OrdersDown.
    """
    mail = await book.mail(report.mail_id)
    if mail is None:
        return "unknown"
    if mail.state in ("bounced", "failed"):
        return "known"
    at = now_ms() if now is None else now
    said = replace(mail, answer=" ".join(part for part in (report.status, answer) if part))
    if report.action == "delayed":
        await book.note_mail(said, [_event("mail.deferred", said, at)])
        return "delayed"
    bounced = replace(said, state="bounced")
    await book.note_mail(bounced, [_event("mail.bounced", bounced, at)])
    return "bounced"


def _event(kind: str, mail: Mail, now: int) -> Fields:
    told = {"mail.purpose": mail.purpose, "mail.attempt": str(max(1, mail.attempts)), "mail.answer": mail.answer}
    return new_event(kind, new_id(), now, {"order.id": mail.order_id, "mail.id": mail.mail_id, **told})
