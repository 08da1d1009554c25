"""The few Protocols the services speak to. Their docstrings are the contract; tests/conformance holds stores to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from gateway.policy.counting import CountingRules
from gateway.policy.model import (
    Address,
    Charge,
    Claims,
    Deny,
    Device,
    Grant,
    Mark,
    Outcome,
    Place,
    Reservation,
    Slot,
    StoredObject,
)
from gateway.policy.standing import Command

Fields = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ReserveAsk:
    """Everything the ledger needs to join or open a transfer. Byte counts are body bytes."""

    request_id: str
    shard: int
    token_key: str
    file_identity: str
    size: int
    etag: str
    start: int
    """First byte asked for, or −1 where the answer is multipart."""
    asked: int
    full: bool
    """Whether every byte of the file is asked for in one answer."""
    elsewhere: bool
    """Whether the answer only sends the client to another address (302): no bytes of ours, `asked` and `size` are 0."""
    device: Device
    charges: tuple[Charge, ...]
    expires_at: int
    token_expires_at: int
    """The token's own `exp`: its counters are kept beyond the later of the two (both in Unix s)."""
    rules: CountingRules
    status: int
    """The status of the answer if it is allowed."""
    stamp: Fields
    """What only this request's first event has: its id and time."""
    event: Fields
    """What all events of this request say alike; the ledger adds what it alone knows (type, counted, transfer.id …)."""
    look: bool = False
    """Whether a scanner seems to ask: it may have the one look at a file for which nothing is charged."""


@dataclass(frozen=True, slots=True)
class DeviceSlot:
    """A device that counts against a link's `devices`. `slot` names it, for this link; `at`: when it last began a
    download (Unix ms; None: not known); `about`: its User-Agent then, as it was sent, or "".
    """

    slot: str
    at: int | None
    about: str


Freed = Literal["freed", "unknown", "limit"]


class DeviceList(Protocol):
    """The devices of links. Every call raises LedgerDown."""

    async def of(self, shard: int, token_key: str) -> list[DeviceSlot]:
        """Those that hold a slot, the last seen first; none where the link does not limit them."""

    async def free(self, shard: int, token_key: str, slot: str, *, most: int, span: int, event: Fields) -> Freed:
        """Remove one, with this event in the same step; what it has begun it may finish. `limit`: as many as `most`
        were removed in the last `span` seconds; `unknown`: it holds no slot.
        """


class Ledger(Protocol):
    """Reservations, counted atomically. Every call raises LedgerDown within about a second when Redis is not there."""

    async def reserve(self, ask: ReserveAsk, *, attempt: bool = False) -> Reservation | Deny:
        """Check every charge, then apply all or none, and write download.allowed or download.denied in the same step.

        Called again with the same request_id it answers as before and charges nothing. Never retried by itself.
        An `attempt` that limit.concurrent refuses writes no event: it will be tried again in a moment.
        """

    async def peek(self, ask: ReserveAsk) -> Deny | None:
        """What `reserve` would refuse, for answers without a body; changes nothing but writes download.denied."""

    async def confirm(self, ask: ReserveAsk) -> bool:
        """The device of this ask is a person's: charge the look at the file that it opened, and write
        download.confirmed. False where it opened none, and where a limit is in the way.
        """

    async def renew(self, reservation: Reservation, acknowledged: int, granted: int) -> Grant:
        """Report bytes acknowledged (absolute), prolong the lease, and ask that `granted` (absolute) may be sent.

        May grant less than asked; with a reason it grants no more at all: cut. Idempotent. Raises ReservationGone.
        """

    async def pace(self, reservation: Reservation, rate: int) -> Slot:
        """The next piece of the token's shared `rate` (bytes/s, at least 1) that is this request's to send, and when.

        All live transfers of the token, over all workers, draw from one schedule in turn, so together they never
        exceed the rate by more than what 0.2 s of it are worth.
        """

    async def settle(self, reservation: Reservation, outcome: Outcome) -> bool:
        """Close the reservation and write download.finished; False where it was closed before (first closing wins)."""

    async def ping(self) -> None:
        """Return when the ledger answers."""

    async def agree(self, proposed_secret: str) -> str:
        """Check at start that the ledger may be used, and return the device secret that all gateways on it share.

        Raises SettingsError where it must not be used, with what would be right.
        """

    async def has_transfers(self, shard: int, token_key: str, file_identity: str) -> bool:
        """Whether anything of this file was begun with this token, so that a late request might still join."""

    async def usage(self, shard: int, token_key: str, identities: Sequence[str]) -> Mapping[str, int]:
        """Downloads charged so far for each of a token's files; asking counts nothing. Raises LedgerDown."""

    async def is_unfinished(self, shard: int, token_key: str, file_identity: str, repeat_window: int) -> bool:
        """Whether a transfer of this file may still be joined by its device, for nothing. Raises LedgerDown.

        `repeat_window` in seconds: so long after its opening also one that is complete.
        """

    async def first_download(self, shard: int, token_key: str) -> float | None:
        """When the token's first download that is still charged began, in Unix seconds. Raises LedgerDown."""

    async def reap(self, stamp: Callable[[], Fields]) -> int:
        """Close reservations whose lease has lapsed as download.lost; returns how many this call closed.

        `stamp` gives each closing event's id and time. Two reapers at once close each reservation once.
        """


@dataclass(frozen=True, slots=True)
class Summed:
    """The CRC-32 of an object's first `length` bytes."""

    length: int = 0
    crc32: int = 0


class CodeStore(Protocol):
    """One-time codes of devices, hashed, until they are used or end. `device` is an opaque name of one.

    Every call raises LedgerDown.
    """

    async def put(self, shard: int, token_key: str, device: str, hashed: str) -> bool:
        """Keep the device's code in place of the one before; False where too many were made of late."""

    async def take_try(self, shard: int, token_key: str, device: str) -> tuple[str, int] | None:
        """Count a try: the hashed code, and how many tries are left after this one. None: no code, or no try left."""

    async def spend(self, shard: int, token_key: str, device: str, hashed: str) -> bool:
        """Forget this code; False where somebody else has done so, or another one is there."""


class SumMemory(Protocol):
    """Checksums of what was sent, kept for a while for every worker: with them a broken archive can be resumed."""

    async def recall(self, objects: Sequence[StoredObject]) -> list[Summed]:
        """The longest beginning that is remembered of each of them, of 0 bytes where nothing is. Never raises."""

    def remember(self, stored: StoredObject, summed: Summed) -> None:
        """Keep it, soon, unless a longer beginning is kept. Never waits, never raises."""


class AfterwardsLedger(Ledger, Protocol):
    """A ledger that can be told afterwards of what was given while it was down."""

    def assume(self, ask: ReserveAsk) -> tuple[Reservation, Unasked]:
        """The reservation as if nothing refused it, and the step that tells of it afterwards. Asks nobody."""

    def assume_settled(self, reservation: Reservation, outcome: Outcome) -> Unasked:
        """The step that tells afterwards how such a reservation ended. Asks nobody."""

    async def tell(self, step: Unasked) -> None:
        """Enter a step that was taken without asking: charged whatever the limits say. Again it does no harm."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One write of a shard: its place among them, and what was written, as the backend's own text."""

    mark: Mark
    text: str


@dataclass(frozen=True, slots=True)
class Meeting:
    """How a shard stands: `open`, `closed`, or to be put back by who reads this (`apply`).

    `mark`: its epoch and last write. `closing` names the time that it was closed last. `base`: while it is closed, the
    last write that is there, and `complete` the workers of which everything is handed in.
    """

    state: Literal["open", "closed", "apply"]
    mark: Mark
    closing: str
    base: Mark
    complete: frozenset[str]


@dataclass(frozen=True, slots=True)
class Unasked:
    """A step that was taken while the ledger could not be asked, and is to be told to it: `reserve` or `settle` of a
    request, an `event` (of that id), or `done` when that was told.
    """

    verb: str
    request_id: str
    document: Mapping[str, Any]


class Shards(Protocol):
    """The shards as a whole: whether any of their writes may be missing, and what is done about it.

    Every call raises LedgerDown.
    """

    count: int

    async def meet(self, shard: int, known: Mark, handed_in: str) -> Meeting:
        """Look how the shard stands, and be counted among those who are here. `known`: the latest write that is known
        of; `handed_in`: the closing for which this gateway has handed in everything, or "".
        """

    def enter(self, shard: int, epoch: int) -> None:
        """Use the shard in this epoch, until it turns out to be closed."""

    def is_entered(self, shard: int) -> bool:
        """Whether the shard is used."""

    async def hand_in(self, shard: int, entries: Sequence[Entry]) -> None:
        """Give in what may be missing; the same entry from several gateways is one."""

    async def vouch(self, shard: int, worker: str, closing: str) -> None:
        """Everything of another worker, a dead one, has been handed in for this closing."""

    async def put_back(self, shard: int, closing: str) -> int:
        """Put back what all have handed in, in its order, each once; returns how many. Ends where another took over."""


class Journal(Protocol):
    """What this gateway has written to Redis in the last hours, on its own disk, and what is known of dead ones."""

    worker: str
    """This process's name in it."""
    trouble: str
    """Why it cannot be written, in words for ops, or ""."""

    @property
    def torn(self) -> int:
        """Lines that could not be read back."""

    @property
    def header(self) -> Mapping[str, str | int]:
        """What this journal, or one that was here before it, was told to tell."""

    def tell(self, **header: str | int) -> None:
        """Have it known to who comes after. Never waits; sets `trouble` where it fails."""

    def keep(self, shard: int, entry: Entry) -> None:
        """Write it where it outlives this process, and soon the machine. Never waits; sets `trouble` where it fails."""

    def keep_command(self, command: Command) -> None:
        """Keep a command of the ops as long as there is a journal. Never waits; sets `trouble` where it fails."""

    def keep_unasked(self, step: Unasked) -> None:
        """Keep a step for when the ledger is back. Never waits; sets `trouble` where it fails."""

    async def synced(self) -> None:
        """Return when everything kept until now outlives the machine (fsync). Raises JournalDown."""

    def revive(self) -> None:
        """Try again after a failure, and do what is due: new segments, old ones away, dead gateways' taken over."""

    def note(self, shard: int, mark: Mark) -> None:
        """Have it known that this place was reached. Never waits; sets `trouble` where it fails."""

    def known(self, shard: int) -> Mark:
        """The latest place that this journal, or one that was here before it, knows of."""

    def entries(self, shard: int, since: Mark, worker: str) -> Iterator[Entry]:
        """Everything later than `since` in the journal of a worker of this machine.

        To be run in a thread; what cannot be read is skipped, said, and counted.
        """

    def unasked(self) -> Iterator[Unasked]:
        """The steps that are still to be told, in the journals of dead workers that this one has taken over since it
        was asked last. To be run in a thread. Raises OSError.
        """

    def workers(self) -> list[str]:
        """Those of this machine of whom there is a journal. Raises OSError."""

    def whole_folder(self, shard: int) -> AbstractContextManager[bool]:
        """Be the one worker of this machine that hands in for the dead; False where another one is."""

    def commands(self) -> Iterator[Command]:
        """Every command that the journals of this machine know."""


class EventLog(Protocol):
    """Events that no ledger call writes: denials before the ledger, link and rules events."""

    async def append(self, shard: int, fields: Fields) -> None:
        """Store one event. Raises LedgerDown; the caller decides whether the answer waits for it."""

    async def append_once(self, shard: int, mark: str, fields: Fields, seconds: int) -> bool:
        """Store an event that others tell too, unless one with its `mark` was stored, whatever came after it.

        The mark is remembered for `seconds`. Returns whether this call stored it. Raises LedgerDown.
        """

    async def trim(self, shard: int, keep_seconds: int) -> int:
        """Drop events older than `keep_seconds` that every group has read; returns how many. Raises LedgerDown."""


class GeoLookup(Protocol):
    """Where an address is, by the databases that are loaded now."""

    def look_up(self, address: Address) -> Place:
        """What is known of the address; an address that is in no database is a Place of Nones with their version.

        Takes microseconds and does no I/O. Raises GeoDown where a database turns out to be broken.
        """


class ControlLog(Protocol):
    """The one stream of revocations and extensions that every worker follows."""

    async def append(self, command: Command) -> None:
        """Store one; it is in force when the workers have read it. Raises LedgerDown."""

    async def missing(self, commands: Iterable[Command]) -> list[Entry]:
        """What puts back those of the commands that the stream has lost. Raises LedgerDown, LedgerFault as `follow`."""

    def follow(self, last: str) -> AsyncIterator[tuple[str, list[Command] | None]]:
        """Pages of (id of the last entry, commands) after `last` ("0": all), at least one a second, empty ones too.

        The first page that is empty says that everything there was has been read, and one of None that the stream has
        lost the last entry: it comes again from its beginning. Raises LedgerDown, and LedgerFault at an entry that
        cannot be read: it may be a revocation, so nobody gets past it.
        """


class LinkRegistry(Protocol):
    """The links that were made here, without their tokens."""

    async def add(self, claims: Claims, created_ms: int) -> None:
        """Store a link; again does no harm. Raises LedgerDown."""


class Allowance(Protocol):
    """How often something may be had; a limit is how many in how many seconds from the first. All workers share it."""

    async def take(self, name: str, limits: Sequence[tuple[int, int]]) -> int | None:
        """Take one of all the limits, or none: then the seconds until there is one. Raises LedgerDown."""

    async def give_back(self, name: str, limits: Sequence[tuple[int, int]]) -> None:
        """Give back one that was taken, and not needed. Raises LedgerDown."""


class Inspectable(Protocol):
    """A client connection whose acknowledged body bytes can be read after the handler has ended."""

    def acknowledged(self) -> int | None:
        """Body bytes the client's TCP has acknowledged so far (RFC 9293); None where the platform cannot tell."""

    def peer_gone(self) -> bool:
        """Whether the connection is reset or closed by the peer, so that nothing more will be acknowledged."""

    def release(self) -> None:
        """Close what was kept open for the reading (a dup of the socket). Call it once."""
