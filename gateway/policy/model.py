"""The nouns of the policy core, in the field's words (JWT, RFC 9110, XACML). Frozen; no behaviour that decides."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from gateway.policy.reasons import Reason

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of a token: a storage `key` or an external `url` (exactly one), and the name the buyer sees."""

    key: str | None
    url: str | None = None
    name: str | None = None

    @property
    def identity(self) -> str:
        """What the file's downloads are counted under; the shown name plays no part in it."""
        return self.key if self.key is not None else f"url:{self.url}"

    @property
    def shown_name(self) -> str:
        """What the buyer sees: the given name, else the last part of the key or address."""
        return self.name or self.identity.rsplit("/", 1)[-1]


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits a token carries itself. None: not limited here. `rate` in bytes/s, `valid_after_first` in s."""

    downloads: int | None = None
    networks: int | None = None
    devices: int | None = None
    concurrent: int | None = None
    rate: int | None = None
    valid_after_first: int | None = None


@dataclass(frozen=True, slots=True)
class Claims:
    """A verified token (RFC 7519 §4.1); times are Unix seconds. It may be expired: the ledger refuses those."""

    issuer: str
    token_id: str
    expires_at: int
    files: tuple[FileEntry, ...]
    not_before: int | None = None
    issued_at: int | None = None
    customer_id: str | None = None
    order_id: str | None = None
    plan: str | None = None
    tier: str | None = None
    account: bool = False
    ip: tuple[Network, ...] = ()
    limits: Limits = field(default_factory=Limits)

    @property
    def token_key(self) -> str:
        """What all spellings of one token are counted under: 32 hex digits of SHA-256 over issuer and id."""
        return hashlib.sha256(f"{self.issuer}\x00{self.token_id}".encode()).hexdigest()[:32]

    @property
    def shard_key(self) -> str:
        """What places the token's keys on a shard: the order, else the token id."""
        return self.order_id if self.order_id is not None else self.token_id


@dataclass(frozen=True, slots=True)
class DownloadRequest:
    """One request for a file as every front door states it. Header values are None where the header is absent.

    `client_network` is the address's IPv4 /24 or IPv6 /56; `device_cookie` our own cookie's value.
    """

    request_id: str
    token: str = field(repr=False)
    file_number: int
    method: str
    client_address: Address
    client_network: str
    range: str | None = None
    if_range: str | None = None
    if_match: str | None = None
    if_none_match: str | None = None
    if_modified_since: str | None = None
    if_unmodified_since: str | None = None
    user_agent: str = ""
    accept_language: str = ""
    client_hints: str = ""
    device_cookie: str | None = field(default=None, repr=False)
    view: bool = False
    campaign: str = ""
    front: str = "http"


@dataclass(frozen=True, slots=True)
class Deny:
    """A refusal, as a value. `retry_after` in seconds; `rule` names the deciding rule."""

    reason: Reason
    rule: str | None = None
    message: str | None = None
    retry_after: int | None = None


@dataclass(frozen=True, slots=True)
class Charge:
    """What one limit asks the ledger to check and apply. `kind` is a word the ledger script knows."""

    kind: str
    limit: int | None
    reason: Reason


@dataclass(frozen=True, slots=True)
class Allow:
    """Yes to the object under `key`, if the ledger can apply every charge.

    `expires_at` (Unix s) is refused by the ledger, on its clock.
    """

    key: str
    charges: tuple[Charge, ...]
    expires_at: int


Decision = Allow | Deny


@dataclass(frozen=True, slots=True)
class StoredObject:
    """What the store says of one version of an object. `etag` is strong and quoted; `last_modified` Unix s."""

    key: str
    size: int
    etag: str
    last_modified: int
    content_type: str


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Bytes `start` … `stop` − 1 of an object (half-open, unlike the header's inclusive form)."""

    start: int
    stop: int

    @property
    def length(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class Device:
    """Who a request seems to come from, for joins: each part a short opaque string, or None where unknown."""

    cookie: str | None
    network: str
    user_agent: str | None
    id: str = ""


@dataclass(frozen=True, slots=True)
class Reservation:
    """The ledger's word that a request may send `granted` of its `asked` body bytes before it asks for a `window` more.

    `keys` is the ledger's own, handed back to it; `counted` is 1 where this request opened (and paid) a transfer.
    """

    request_id: str
    transfer_id: str
    shard: int
    keys: tuple[str, ...]
    asked: int
    granted: int
    window: int
    counted: int


@dataclass(frozen=True, slots=True)
class Grant:
    """The ledger's answer to a renewal: bytes that may be sent in all; with a `reason` no more will be granted."""

    granted: int
    reason: Reason | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a request ended: `complete` `client_left` `origin_failed` `cut`; bytes acknowledged by the client's TCP.

    `event_id` and `time` (RFC 3339) are those of the closing event; `status` is what was sent, if not as planned.
    """

    outcome: str
    delivered: int
    duration_ms: int
    event_id: str
    time: str
    reason: str = ""
    status: int | None = None
