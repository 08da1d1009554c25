"""What a customer's library shows: whose an order is, what of it is gone and why, and which links stand for it."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from gateway.policy.accounts import Account
from gateway.policy.orders import Holding, IssuedLink, Order
from gateway.policy.renewing import Offer


@dataclass(frozen=True, slots=True)
class Gone:
    """Something of the order that is not the buyer's now. `why`: as Order.taken_back says, or `unpaid`, or `lapsed`."""

    title: str
    why: str


@dataclass(frozen=True, slots=True)
class DeviceName:
    """What people call a device, as its User-Agent says; "" where that says nothing."""

    browser: str = ""
    system: str = ""


@dataclass(frozen=True, slots=True)
class ShownDevice:
    """A device of a link. `slot` and `at` (Unix ms) as in DeviceSlot."""

    slot: str
    name: DeviceName
    at: int | None


@dataclass(frozen=True, slots=True)
class ShownFile:
    """A file of a link; `size` in bytes. `left`: downloads, None where that is not known, or not limited."""

    name: str
    size: int | None
    left: int | None


@dataclass(frozen=True, slots=True)
class ShownLink:
    """One link as it stands. `state`: as LinkDesk's, or "" where it is not known; `ends_at` in Unix seconds.

    `token`: signed anew, None where it cannot be made. `downloads`: how many of each file; `networks` and
    `devices`: how many are taken of how many. None is what is not limited, or not known.
    """

    token_id: str
    title: str
    state: str
    files: tuple[ShownFile, ...]
    ends_at: int
    token: str | None = field(default=None, repr=False)
    downloads: int | None = None
    networks: tuple[int, int] | None = None
    devices: tuple[int, int] | None = None
    removable: tuple[ShownDevice, ...] = ()
    offer: Offer | None = None


@dataclass(frozen=True, slots=True)
class Purchase:
    """One order. `paid_at` in Unix seconds, None while it is not paid; `erased`: whether its buyer was forgotten."""

    order_id: str
    reference: str
    shop: str
    paid_at: int | None
    links: tuple[ShownLink, ...]
    gone: tuple[Gone, ...]
    erased: bool


@dataclass(frozen=True, slots=True)
class Shelf:
    """A page of the library. `older`: where the next one begins; `counted`: whether Redis was there to be asked."""

    purchases: tuple[Purchase, ...]
    older: int | None
    counted: bool


def is_of(account: Account, order: Order) -> bool:
    """Whether the order is this customer's. Two shops may both have a customer 7."""
    customer = order.buyer.value.customer_id
    return bool(customer) and customer == account.customer_id and (not account.shops or order.shop in account.shops)


def gone(order: Order, holding: Holding, now: int) -> list[Gone]:
    """What is not the buyer's at `now` (Unix s). Of an unpaid order that is all of it."""
    if not holding.paid:
        return [Gone(line.title, order.taken_back(line.line_id) or "unpaid") for line in order.lines.value]
    found = []
    for each in order.entitlements:
        ends = order.lapses_at(each)
        why = order.taken_back(each.line_id) or ("lapsed" if ends is not None and ends <= now else "")
        if why:
            found.append(Gone(each.title, why))
    return found


def held(holding: Holding, now: int) -> frozenset[str]:
    """The files that are the buyer's at `now` (Unix s), by their identity."""
    return frozenset(name for name, until in holding.until.items() if until is None or until > now)


def newest(links: Iterable[IssuedLink], files: Collection[str]) -> list[IssuedLink]:
    """Of these links, the oldest first, those that stand for the files (identities): of each file the newest."""
    chosen: list[IssuedLink] = []
    for link in reversed(list(links)):
        own = {file.identity for file in link.files} & set(files)
        if own - {file.identity for other in chosen for file in other.files}:
            chosen.insert(0, link)
    return chosen


def titles(order: Order, link: IssuedLink) -> str:
    """What the link's lines are called, those that are still the buyer's."""
    kept = (each for each in order.entitlements if each.line_id in link.line_ids)
    return ", ".join(dict.fromkeys(each.title for each in kept if each.title and not order.taken_back(each.line_id)))
