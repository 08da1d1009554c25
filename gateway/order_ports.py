"""What fulfilment speaks to: the order book, its inbox and outbox, and the mail server. Docstrings are the contract."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Literal, Protocol

from gateway.policy.orders import Order

Fields = Mapping[str, str]
Purpose = Literal["links", "code"]
"""`links`: the order's links; `code`: a one-time code for a new device (see services.codes)."""
CODE_SECONDS = 600
"""So long a code is good for; a mail that could not be sent until then is not sent any more."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One verified webhook as it came. `delivery_id` is the shop's own, the same in each copy; `received_at` Unix ms.

    `headers`: those that the shop's parser asks for, by their lower-case names.
    """

    shop: str
    delivery_id: str
    received_at: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Mail:
    """One mail to be sent, or that was. It is composed when it is sent, from the order as it is then.

    `purpose` and `number` make it one of its order: of each there is one. Times in Unix ms.
    """

    mail_id: str
    order_id: str
    purpose: Purpose
    number: int
    to: str = field(repr=False)
    language: str
    created_at: int
    state: Literal["queued", "accepted", "bounced", "failed"] = "queued"
    attempts: int = 0
    due_at: int = 0
    answer: str = ""
    """The mail server's last word, without addresses."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One event that is to be written to Redis: `fields` has its id, time, type and `order.id`, so again does no harm.

    `link`: the claims of a link to be registered with it, as JSON, or "".
    """

    number: int
    fields: Fields
    link: str = ""


@dataclass(slots=True)
class Draft:
    """An order that is being changed: what is set here is written all at once, or not at all."""

    order: Order | None
    """As it was found (None: not known yet); set it to what it shall be."""
    events: list[Fields] = field(default_factory=list)
    links: list[tuple[Fields, str]] = field(default_factory=list)
    """Events of new links, each with its link's claims as JSON."""
    mails: list[Mail] = field(default_factory=list)
    forgets_recipients: bool = False
    """Whether nobody shall be able to read any more where the order's mails went. What waits is then not sent."""


class OrderBook(Protocol):
    """Orders, and what is still to be done for them; it outlives Redis. Every call raises OrdersDown."""

    async def open(self) -> None:
        """Make the tables that are missing. Raises SettingsError where the database is of another version."""

    async def close(self) -> None:
        """Drop every connection."""

    async def take_in(self, delivery: Delivery) -> bool:
        """Keep a delivery until it is done; False where it is known already. It is there when this returns."""

    async def next_delivery(self, now: int, patience: int) -> Delivery | None:
        """The oldest delivery that is due at `now`, for the caller alone during `patience` ms; None: nothing is due."""

    async def delivered(self, delivery: Delivery) -> None:
        """It is done: its body is forgotten, its id is kept, so that a copy months later is known."""

    async def postpone(self, delivery: Delivery, until: int, why: str) -> None:
        """It failed; try again at `until` (Unix ms)."""

    def change(self, order_id: str) -> AbstractAsyncContextManager[Draft]:
        """Change one order, alone: two who change the same order do it one after the other. With an exception nothing
        of the draft is written. A mail whose order, purpose and number are there already is left out.
        """

    async def read(self, order_id: str) -> Order | None:
        """The order as it is now."""

    async def find(self, text: str) -> Sequence[Order]:
        """Orders with this id, reference or e-mail address, then those of the customer with this id: an order's number
        may be a customer's too. The newest first, 100 at most.
        """

    async def of_customer(
        self, customer_id: str, *, shops: Sequence[str] = (), before: int | None = None, most: int
    ) -> tuple[Sequence[Order], int | None]:
        """Orders of this customer alone, exactly so written, of these shops (empty: of all); the newest first.

        `most` of them at most, and where the older ones begin: say that as `before`; None where there are no more.
        """

    async def latest(self) -> int:
        """The number of the last change of any order; 0 where there is none."""

    async def changed(self, since: int) -> tuple[int, Sequence[str]]:
        """The number of the last change, and the ids of the orders changed after `since`. Nothing is ever passed over:
        numbers become visible in their sequence.
        """

    async def next_mail(self, now: int, patience: int) -> Mail | None:
        """A queued mail that is due at `now`, for the caller alone during `patience` ms."""

    async def note_mail(self, mail: Mail, events: Sequence[Fields]) -> None:
        """Write what became of a mail, and its events, all at once."""

    async def mail(self, mail_id: str) -> Mail | None:
        """The mail with this id."""

    async def mails(self, order_id: str) -> Sequence[Mail]:
        """All mails of the order, oldest first."""

    async def outgoing(self, most: int) -> Sequence[Outgoing]:
        """Events still to be written to Redis, oldest first."""

    async def sent(self, numbers: Sequence[int]) -> None:
        """These have been written; they are forgotten."""


class OrderBell(Protocol):
    """Wakes whoever works on deliveries and mails, at once and on every machine. What is to be done is in the book."""

    async def ring(self) -> None:
        """Say that there is something to do. Never raises: who is not woken looks by himself before long."""

    def heard(self) -> AsyncGenerator[None, None]:
        """Yields when it rang, and at least every second."""


@dataclass(frozen=True, slots=True)
class Posted:
    """What the mail server said: `accepted`, `later` (try again) or `refused` for good; `answer` without addresses."""

    outcome: Literal["accepted", "later", "refused"]
    answer: str


class Postman(Protocol):
    """Hands a composed message to the mail server."""

    async def post(self, message: bytes, *, sender: str, to: str) -> Posted:
        """Hand over one message (RFC 5322, CRLF) with this envelope. Never raises; takes 180 s at most."""
