"""What shops tell of an order, and what comes of it: whether it is paid, and who owns which files until when.

Law: `Order.heard` gives the same order whatever the sequence of the notices, and however often each of them comes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass, field, replace
from typing import Generic, TypeVar

from gateway.policy.model import Address, FileEntry, Limits
from gateway.policy.networks import near

T = TypeVar("T")

_FIRST, _LAST = 20, 20
"""Times of one word that are kept: a shop may repeat itself for years."""

NEVER = -1
"""A time before every other, in Unix ms: nothing of the kind has been told yet."""


@dataclass(frozen=True, slots=True)
class Buyer:
    """Whom the shop sold to; "" is what it did not tell. `language` as in BCP 47. Never in a token, event or log."""

    email: str = field(default="", repr=False)
    name: str = field(default="", repr=False)
    customer_id: str = ""
    language: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of an order. A product is named by whichever of `sku`, `variant_id` and `product_id` is not ""."""

    line_id: str
    quantity: int = 1
    sku: str = ""
    product_id: str = ""
    variant_id: str = ""
    title: str = ""


@dataclass(frozen=True, slots=True)
class Refund:
    """One refund: how many of each line, by line id. Without lines it is money alone, and takes nothing back."""

    refund_id: str
    quantities: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Notice:
    """What a shop said of one order, and that it was so `at` (Unix ms, by the shop's clock). None: it did not say.

    `reference` is the number that the buyer knows. `refunded`: the whole order is. `ends_at` (Unix s): until when a
    subscription is paid. `address`: the one that the buyer ordered from.
    """

    shop_order_id: str
    at: int
    reference: str = ""
    paid: bool | None = None
    confirmed: bool | None = None
    cancelled: bool | None = None
    refunded: bool | None = None
    charged_back: bool | None = None
    ends_at: int | None = None
    buyer: Buyer | None = None
    lines: tuple[Line, ...] | None = None
    refunds: tuple[Refund, ...] = ()
    address: Address | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Told(Generic[T]):
    """The latest word on one thing, and when it was said (Unix ms)."""

    value: T
    at: int = NEVER

    def heard(self, value: T | None, at: int) -> Told[T]:
        """With one more word; of two at the same time the greater stands, so that their sequence does not matter."""
        if value is None or at < self.at:
            return self
        if at == self.at and _rank(value) <= _rank(self.value):
            return self
        return Told(value, at)


@dataclass(frozen=True, slots=True)
class Said:
    """The latest word on a yes or no, and how long it has been the same: a shop that repeats itself says nothing new.

    `times` (Unix ms, ascending) are those of this word since the last other one, which was at `other`. Of two at the
    same time yes stands.
    """

    value: bool = False
    times: tuple[int, ...] = ()
    other: int = NEVER

    @property
    def at(self) -> int:
        """When it was said last, or NEVER."""
        return self.times[-1] if self.times else NEVER

    @property
    def since(self) -> int:
        """When it was said first, after the last other word; or NEVER."""
        return self.times[0] if self.times else NEVER

    def heard(self, value: bool | None, at: int) -> Said:
        """With one more word; in whichever sequence words come, the same of them say the same."""
        if value is None:
            return self
        if not self.times:
            return Said(value, (at,))
        if value == self.value:
            return self if (at, value) < (self.other, not value) else self._with(at)
        if (at, value) > (self.at, self.value):
            return Said(value, (at,), self.at)
        other = max(at, self.other)
        return Said(self.value, tuple(time for time in self.times if (time, self.value) > (other, value)), other)

    def _with(self, at: int) -> Said:
        times = tuple(sorted({*self.times, at}))
        return Said(self.value, times[:_FIRST] + times[max(_FIRST, len(times) - _LAST) :], self.other)


def _rank(value: object) -> tuple[int, str]:
    """Puts values of one kind in a sequence. A repr hides a buyer's address, and has 9 behind 10."""
    number = value if isinstance(value, int) else 0
    return number, repr(astuple(value) if isinstance(value, Buyer) else value)


@dataclass(frozen=True, slots=True)
class SoldFile:
    """One file as it was when it was sold; `etag` "" and `size` −1 where the store could not be asked."""

    file: FileEntry
    etag: str = ""
    size: int = -1


@dataclass(frozen=True, slots=True)
class Entitlement:
    """What one line of a paid order gives its buyer, as the products file said when it was granted (Unix ms).

    It outlives its links. `ends_at` (Unix s) is None where it does not end.
    """

    line_id: str
    title: str
    files: tuple[SoldFile, ...]
    granted_at: int
    plan: str | None = None
    tier: str | None = None
    account: bool = False
    ends_at: int | None = None


@dataclass(frozen=True, slots=True)
class IssuedLink:
    """One link of an order, from which its token can be made again at any time. Times in Unix seconds."""

    token_id: str
    line_ids: tuple[str, ...]
    files: tuple[FileEntry, ...]
    issued_at: int
    expires_at: int
    plan: str | None = None
    tier: str | None = None
    account: bool = False
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True)
class Order:
    """One order as far as it is known. `withdrawn`: what the ops or the shop's staff said of a line, or of ALL.

    `order_id` is what tokens and events carry.
    """

    order_id: str
    shop: str
    shop_order_id: str
    reference: str = ""
    paid: Said = Said()
    confirmed: Said = Said()
    cancelled: Said = Said()
    refunded: Said = Said()
    charged_back: Said = Said()
    ends_at: Told[int] = Told(0)
    buyer: Told[Buyer] = Told(Buyer())
    corrected: tuple[str, str] = field(default=("", ""), repr=False)
    """An address of the shop's, and what staff wrote in its place: it stands while the shop repeats that one."""
    lines: Told[tuple[Line, ...]] = Told(())
    refunds: tuple[tuple[Refund, int], ...] = ()
    """Each with its time (Unix ms), by their ids."""
    withdrawn: tuple[tuple[str, Told[bool]], ...] = ()
    entitlements: tuple[Entitlement, ...] = ()
    links: tuple[IssuedLink, ...] = ()
    address: Told[str] = field(default=Told(""), repr=False)
    """The IP address that the buyer ordered from, where the shop told."""
    mailed_at: int = NEVER
    """When a mail with its links was last on its way (Unix ms)."""
    renewed: int = 0
    """How often its buyer had used-up links renewed."""
    erased_at: int = NEVER
    """When its buyer's personal data were erased (Unix ms); what a shop says of the buyer after that is not kept."""

    @property
    def email(self) -> str:
        """Where its mails go: what the shop said, or what staff wrote in its place; "" where nobody knows."""
        wrong, right = self.corrected
        return right if right and self.buyer.value.email == wrong else self.buyer.value.email

    @property
    def customer_id(self) -> str | None:
        """Whose account it belongs to, by the shop's own id; None for a guest's, and where that id is an address."""
        customer = self.buyer.value.customer_id
        return customer if customer and "@" not in customer else None

    def heard(self, notice: Notice) -> Order:
        """The order with this notice taken in."""
        known = {refund.refund_id: (refund, at) for refund, at in self.refunds}
        for refund in notice.refunds:
            new = (refund, notice.at)
            known[refund.refund_id] = min(known.get(refund.refund_id, new), new, key=lambda pair: (pair[1], repr(pair)))
        at = notice.at
        # What was erased stays erased, whatever a shop repeats.
        buyer = notice.buyer if self.erased_at == NEVER else None
        return replace(
            self,
            reference=max(self.reference, notice.reference),
            paid=self.paid.heard(notice.paid, at),
            confirmed=self.confirmed.heard(notice.confirmed, at),
            cancelled=self.cancelled.heard(notice.cancelled, at),
            refunded=self.refunded.heard(notice.refunded, at),
            charged_back=self.charged_back.heard(notice.charged_back, at),
            ends_at=self.ends_at.heard(notice.ends_at, at),
            buyer=self.buyer.heard(buyer, at),
            address=self.address.heard(self._address_of(notice), at),
            lines=self.lines.heard(notice.lines, at),
            refunds=tuple(known[name] for name in sorted(known)),
        )

    def _address_of(self, notice: Notice) -> str | None:
        return None if notice.address is None or self.erased_at != NEVER else str(notice.address)

    def erased(self, at: int) -> Order:
        """The order without its buyer's personal data, erased at that time (Unix ms); as it was, where it has none.

        The shop's own id of the customer stays, unless it is an address, and so does the network that the order came
        from: without them nothing would be his any more, or nothing could be had where a plan has `bind_ip`.
        """
        bare = replace(
            self,
            buyer=replace(self.buyer, value=Buyer(customer_id=self.customer_id or "")),
            corrected=("", ""),
            address=replace(self.address, value=near(self.address.value)),
        )
        return self if self.erased_at != NEVER and bare == self else replace(bare, erased_at=at)

    def withdrew(self, line_id: str, gone: bool, at: int) -> Order:
        """The order after somebody took a line (or ALL of them) back, or gave it back, at that time (Unix ms)."""
        said = dict(self.withdrawn)
        said[line_id] = said.get(line_id, Told(False)).heard(gone, at)
        return replace(self, withdrawn=tuple(sorted(said.items())))

    def taken_back(self, line_id: str) -> str:
        """Why the line is not the buyer's any more: `charged_back`, `cancelled`, `refunded`, `removed` (from the order,
        by the shop), `withdrawn`, or "".
        """
        said = dict(self.withdrawn)
        both = (said.get(ALL, Told(False)), said.get(line_id, Told(False)))
        own = max(both, key=lambda each: (each.at, each.value))
        reasons = {
            "charged_back": self.charged_back.since if self.charged_back.value else NEVER,
            "cancelled": self.cancelled.since if self.cancelled.value else NEVER,
            "refunded": max(self.refunded.since if self.refunded.value else NEVER, self._all_refunded_at(line_id)),
            # At no time of its own: whoever gives it back means it, also when the shop repeats itself.
            "removed": 0 if self._is_removed(line_id) else NEVER,
            "withdrawn": own.at if own.value else NEVER,
        }
        # Whoever gives a line back means it, whatever was said before that.
        since = NEVER if own.value else own.at
        latest = max(reasons, key=lambda reason: reasons[reason])
        return latest if reasons[latest] > since else ""

    def _is_removed(self, line_id: str) -> bool:
        return self.lines.at != NEVER and all(line.line_id != line_id for line in self.lines.value)

    def _all_refunded_at(self, line_id: str) -> int:
        """When the last piece of the line was refunded (Unix ms), or NEVER."""
        bought = next((line.quantity for line in self.lines.value if line.line_id == line_id), 1)
        gone = 0
        for refund, at in sorted(self.refunds, key=lambda pair: pair[1]):
            gone += dict(refund.quantities).get(line_id, 0)
            if gone >= bought:
                return at
        return NEVER

    def lapses_at(self, entitlement: Entitlement) -> int | None:
        """When the buyer's right to it ends (Unix s): by itself, or with the subscription, whichever was said later."""
        return self.ends_at.value if self.ends_at.at != NEVER else entitlement.ends_at

    def is_paid(self, *, needs_confirmation: bool) -> bool:
        """Whether what it says may be given: paid, and confirmed by the shop where that is needed too."""
        return self.paid.value and (self.confirmed.value or not needs_confirmation)

    def holding(self, *, needs_confirmation: bool) -> Holding:
        """What the buyer holds of it, for a decision."""
        paid = self.is_paid(needs_confirmation=needs_confirmation)
        until: dict[str, int | None] = {}
        for entitlement in self.entitlements if paid else ():
            if self.taken_back(entitlement.line_id):
                continue
            ends = self.lapses_at(entitlement)
            for sold in entitlement.files:
                name = sold.file.identity
                before = until.get(name, 0)
                until[name] = None if ends is None or before is None else max(before, ends)
        return Holding(paid, until, None if self.mailed_at == NEVER else self.mailed_at, self.address.value)


ALL = "*"
"""In place of a line's id: every line of the order."""


@dataclass(frozen=True, slots=True)
class Holding:
    """What an order gives its buyer now: files by their identity, until when (Unix s; None: for ever).

    `mailed_at`: when its links were last mailed (Unix ms; None: never). `address`: the one that it was ordered from,
    "" where nobody told.
    """

    paid: bool
    until: Mapping[str, int | None]
    mailed_at: int | None = None
    address: str = field(default="", repr=False)


def order_id_of(shop: str, shop_order_id: str) -> str:
    """What an order of this shop is called in tokens, events and commands: shops may count alike."""
    return f"{shop}-{shop_order_id}"


def owned(order: Order) -> Iterable[Entitlement]:
    """The entitlements that have not been taken back; they may have lapsed."""
    return (each for each in order.entitlements if not order.taken_back(each.line_id))
