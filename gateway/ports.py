"""The few Protocols the services speak to. Their docstrings are the contract; tests/conformance holds stores to it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from gateway.policy.counting import CountingRules
from gateway.policy.model import (
    Address,
    ByteRange,
    Charge,
    Claims,
    Deny,
    Device,
    Grant,
    Outcome,
    Place,
    Reservation,
    Slot,
    StoredObject,
)
from gateway.policy.standing import Order

Fields = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class FileBody:
    """Bytes that lie in an open local file: send `length` bytes from `offset` of `fd`; the holder closes it."""

    fd: int
    offset: int
    length: int

    async def aclose(self) -> None:
        """Close the descriptor. Call it once."""
        os.close(self.fd)


class StreamBody(Protocol):
    """Bytes that arrive from elsewhere, in order and exactly as many as were asked for."""

    async def read(self) -> bytes:
        """The next bytes as they arrived, never re-cut, at most 256 KiB; b"" once all have been read.

        Continues by itself (If-Match and Range) when the connection dies in mid-body. Raises OriginDown,
        OriginTimeout or OriginChanged when it cannot: the caller must then abort the response.
        """

    async def aclose(self) -> None:
        """Give the connection back or drop it. May be called at any time, twice too; never raises."""


Body = FileBody | StreamBody


class ObjectStore(Protocol):
    """A folder or a bucket. Keys are text, relative, and come from tokens only, never from a request's path."""

    async def stat(self, key: str, *, fresh: bool = False) -> StoredObject:
        """Size, strong ETag, time and type of the object now; cached for a few seconds unless `fresh`.

        Raises FileMissing, OriginDown, OriginTimeout. A key that would leave the folder is FileMissing.
        """

    async def open(self, stored: StoredObject, part: ByteRange) -> Body:
        """The bytes of `part` of exactly this version (If-Match on its ETag); `part` is never empty.

        Returns only when the first byte is sure to be the file's: status, Content-Range, ETag and length were
        checked. Raises FileMissing, OriginChanged, OriginDown, OriginTimeout.
        """

    async def close(self) -> None:
        """Drop every connection and descriptor the store itself holds."""


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


class Ledger(Protocol):
    """Reservations, counted atomically. Every call raises LedgerDown within about a second when Redis is not there."""

    async def reserve(self, ask: ReserveAsk, *, attempt: bool = False) -> Reservation | Deny:
        """Check every charge, then apply all or none, and write download.allowed or download.denied in the same step.

        Called again with the same request_id it answers as before and charges nothing. Never retried by itself.
        An `attempt` that limit.concurrent refuses writes no event: it will be tried again in a moment.
        """

    async def peek(self, ask: ReserveAsk) -> Deny | None:
        """What `reserve` would refuse, for answers without a body; changes nothing but writes download.denied."""

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

    async def first_download(self, shard: int, token_key: str) -> float | None:
        """When the token's first download that is still charged began, in Unix seconds. Raises LedgerDown."""

    async def reap(self, stamp: Callable[[], Fields]) -> int:
        """Close reservations whose lease has lapsed as download.lost; returns how many this call closed.

        `stamp` gives each closing event's id and time. Two reapers at once close each reservation once.
        """


class EventLog(Protocol):
    """Events that no ledger call writes: denials before the ledger, link and rules events."""

    async def append(self, shard: int, fields: Fields) -> None:
        """Store one event. Raises LedgerDown; the caller decides whether the answer waits for it."""

    async def append_once(self, shard: int, subject: str, mark: str, fields: Fields, seconds: int) -> bool:
        """Store an event that others tell of the same `subject` too, unless the last one had its `mark`.

        The last one is remembered for `seconds`. Returns whether this call stored it. Raises LedgerDown.
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

    async def append(self, order: Order) -> None:
        """Store one; it is in force when the workers have read it. Raises LedgerDown."""

    def follow(self, last: str) -> AsyncIterator[tuple[str, list[Order]]]:
        """Pages of (id of the last entry, orders) after `last` ("0": all), at least one a second, empty ones too.

        The first page that is empty says that everything there was has been read. Raises LedgerDown, and LedgerFault
        at an entry that cannot be read: it may be a revocation, so nobody gets past it.
        """


class LinkRegistry(Protocol):
    """The links that were made here, without their tokens."""

    async def add(self, claims: Claims, created_ms: int) -> None:
        """Store a link; again does no harm. Raises LedgerDown."""


class Inspectable(Protocol):
    """A client connection whose acknowledged body bytes can be read after the handler has ended."""

    def acknowledged(self) -> int | None:
        """Body bytes the client's TCP has acknowledged so far (RFC 9293); None where the platform cannot tell."""

    def peer_gone(self) -> bool:
        """Whether the connection is reset or closed by the peer, so that nothing more will be acknowledged."""

    def release(self) -> None:
        """Close what was kept open for the reading (a dup of the socket). Call it once."""
