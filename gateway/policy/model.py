"""The nouns of the policy core, in the field's words (JWT, RFC 9110, XACML). Frozen; no behaviour that decides."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from gateway.policy.customers import shop_of
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
    def recorded(self) -> str:
        """What events and addresses may hold: an external address without its query, which may be a signature."""
        return self.identity if self.url is None else re.split(r"[?#]", self.identity, maxsplit=1)[0]

    @property
    def recorded_id(self) -> str | None:
        """What tells it from others that are `recorded` alike: 12 hex digits of SHA-256 of its identity."""
        if self.recorded == self.identity:
            return None
        return hashlib.sha256(self.identity.encode(errors="surrogatepass")).hexdigest()[:12]

    @property
    def shown_name(self) -> str:
        """What the buyer sees: the given name, else the last part of the key or address."""
        return self.name or self.recorded.rsplit("/", 1)[-1]


@dataclass(frozen=True, slots=True, init=False)
class Limits:
    """Limits by their names in tokens and plans, as numbers (`rate` in bytes/s, `valid_after_first` in s)."""

    values: tuple[tuple[str, int], ...]

    def __init__(self, **values: int | None) -> None:
        """None: not limited, as if the name were left out."""
        kept = sorted((name, value) for name, value in values.items() if value is not None)
        object.__setattr__(self, "values", tuple(kept))

    def get(self, name: str) -> int | None:
        """The limit of this name; None: not limited here."""
        return dict(self.values).get(name)

    def __str__(self) -> str:
        """`downloads=5,rate=2000000`, as events hold them."""
        return ",".join(f"{name}={value}" for name, value in self.values)

    def without(self, name: str) -> Limits:
        """The same, and not limited in this one."""
        return Limits(**{own: value for own, value in self.values if own != name})

    def tightened(self, other: Limits) -> Limits:
        """Both at once: of each limit the smaller number, so that neither can loosen the other."""
        if not other.values:
            return self
        merged = dict(self.values)
        for name, value in other.values:
            merged[name] = min(value, merged.get(name, value))
        return Limits(**merged)


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
class Manner:
    """How a client asks, as far as it tells people from programs (see policy.scanners).

    `gesture`: a click on a page of ours led here, or our cookie tells of one. `navigated`: a click anywhere, by the
    client's own word (Fetch Metadata, `Sec-Fetch-User`). `ahead`: to prefetch or to preview. `bare`: without what each
    current browser sends. `wrapped`: from an address that rewrites the links in mails.
    """

    gesture: bool = False
    navigated: bool = False
    ahead: bool = False
    bare: bool = False
    wrapped: bool = False


@dataclass(frozen=True, slots=True)
class Account:
    """Who has signed in, by the shop's id. `shops`: whose customers (empty: the one shop's); `others`: whose not."""

    customer_id: str
    shops: tuple[str, ...] = ()
    others: tuple[str, ...] = ()

    def owns(self, claims: Claims) -> bool:
        """Whether the token was made for this customer. Two shops may both have a customer 7."""
        return self.bought(claims.customer_id, claims.order_id)

    def bought(self, customer_id: str | None, order_id: str | None) -> bool:
        """Whether an order of that customer is this one's."""
        if customer_id is None or customer_id != self.customer_id:
            return False
        return not self.shops or shop_of(order_id or "", (*self.shops, *self.others)) in self.shops


@dataclass(frozen=True, slots=True)
class DownloadRequest:
    """One request for a file as every front door states it. Header values are None where the header is absent.

    `client_network` is the address's IPv4 /24 or IPv6 /56; `device_cookie` our own cookie's value, `offered_cookie`
    the one that the answer will set where the request brought none. `account`: who has signed in.
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
    offered_cookie: str | None = field(default=None, repr=False)
    view: bool = False
    campaign: str = ""
    front: str = "http"
    manner: Manner = Manner()
    account: Account | None = None

    def unconditional(self) -> DownloadRequest:
        """The same without preconditions and ranges (RFC 9110 §13, §14)."""
        return replace(
            self,
            range=None,
            if_range=None,
            if_match=None,
            if_none_match=None,
            if_modified_since=None,
            if_unmodified_since=None,
        )


@dataclass(frozen=True, slots=True)
class Place:
    """What the geo data say of an address; None where they do not know it. `version` names the databases asked.

    `country` ISO 3166-1 alpha-2, `region` ISO 3166-2 (`PL-14`), `continent` AF AN AS EU NA OC SA, `city` its English
    name, `asn` a number, `network` a subset of NETWORK_TYPES (empty: known, and none of these).
    """

    country: str | None = None
    continent: str | None = None
    region: str | None = None
    city: str | None = None
    asn: int | None = None
    network: frozenset[str] | None = None
    version: str = ""


NETWORK_TYPES = ("hosting", "vpn", "proxy", "tor", "anonymous")


@dataclass(frozen=True, slots=True)
class Facts:
    """All that a rule may ask about one request. `plan` is the effective one, `now` Unix seconds."""

    claims: Claims
    file: FileEntry
    plan: str | None
    address: Address
    place: Place
    method: str
    user_agent: str
    now: float


@dataclass(frozen=True, slots=True)
class Plan:
    """Named limits of the rules file. `valid_for` in seconds from the token's `iat`; `view`: may be shown inline.

    `bind_ip`: only from the network that the order came from. `new_device`: a device after the first one needs a code
    from the order's mail. `renewals`: how often the buyer may have a used-up link renewed without asking anybody.
    """

    name: str
    limits: Limits = field(default_factory=Limits)
    valid_for: int | None = None
    view: bool = False
    bind_ip: bool = False
    new_device: bool = False
    renewals: int = 0


@dataclass(frozen=True, slots=True)
class Deny:
    """A refusal, as a value. `retry_after` in seconds; `rule` names the deciding rule, `plan` the effective plan;
    `would_deny` and `beside` as in Allow.
    """

    reason: Reason
    rule: str | None = None
    message: str | None = None
    retry_after: int | None = None
    plan: str | None = None
    would_deny: tuple[str, ...] = ()
    beside: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Charge:
    """What one limit asks the ledger to check and apply when a transfer is opened. `kind` is a word of its scripts.

    `count`: at most `limit` of this file. `distinct`: at most `limit` different values under `name` for the token;
    this request's is `value`, and it will also be known under `alias`. `since_first`: no more than `limit` ms after
    the token's first charged transfer. `concurrent`: at most `limit` transfers of the token live at once.
    """

    kind: str
    limit: int | None
    reason: Reason
    name: str = ""
    value: str = ""
    alias: str = ""


@dataclass(frozen=True, slots=True)
class Allow:
    """Yes to this file, if the ledger can apply every charge.

    `expires_at` (Unix s) is refused by the ledger, on its clock. `rate`: bytes/s for all the token's transfers
    together. `would_deny`: rules that only observe and would have refused. `limits`: those that are in force; of them
    `waived` are not kept, because the door cannot and the settings say that it need not.
    `beside`: limits and observing rules that matched (see Verdict).
    """

    file: FileEntry
    charges: tuple[Charge, ...]
    expires_at: int
    plan: str | None = None
    rate: int | None = None
    limits: Limits = field(default_factory=Limits)
    waived: tuple[str, ...] = ()
    rule: str | None = None
    would_deny: tuple[str, ...] = ()
    beside: tuple[tuple[str, str], ...] = ()


Decision = Allow | Deny


@dataclass(frozen=True, slots=True)
class Sums:
    """Checksums of an object's bytes, as far as they are known: SHA-256 in hex, or "", and CRC-32, or None."""

    sha256: str = ""
    crc32: int | None = None


@dataclass(frozen=True, slots=True)
class StoredObject:
    """What the store says of one version of an object. `etag` is strong and quoted; `last_modified` Unix s.

    `sums` are those that the store keeps beside it.
    """

    key: str
    size: int
    etag: str
    last_modified: int
    content_type: str
    sums: Sums = Sums()


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
    """Who a request seems to come from: each part a short opaque string, or None where unknown.

    `cookie` is the one that the request brought, else the one that its answer offers; `id` the request's own.
    """

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


@dataclass(frozen=True, slots=True, order=True)
class Mark:
    """The place of a write among those of its shard: in the how manieth `epoch` of it, and its number there, from 1."""

    epoch: int
    seq: int


@dataclass(frozen=True, slots=True)
class Grant:
    """The ledger's answer to a renewal: bytes that may be sent in all; with a `reason` no more will be granted."""

    granted: int
    reason: Reason | None = None


@dataclass(frozen=True, slots=True)
class Slot:
    """This request's turn in its token's shared rate: `size` bytes, to be sent after `wait` seconds."""

    size: int
    wait: float


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
