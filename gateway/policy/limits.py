"""One class per limit: its name in tokens and plans, how it is written, and the charge that the ledger checks.

A new limit is a class here and its line in LIMITS. A limit touches nothing itself: it describes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

from gateway.policy.model import Charge, Device, Limits
from gateway.policy.reasons import Reason
from gateway.policy.units import format_duration, format_rate, parse_duration, parse_rate

LIMIT_MAX = 10**12
"""Far below 2**53, up to which the numbers of the ledger's script are exact."""


class Limit(Protocol):
    """`at_most` is the number that the token, its plan and the rules allow together."""

    name: ClassVar[str]
    about: ClassVar[str]
    """What it bounds, in one sentence for people."""
    parse: ClassVar[Callable[[str], int] | None]
    """Reads the written form, raising ValueError; None for a plain number."""
    write: ClassVar[Callable[[int], str]]

    def __init__(self, at_most: int) -> None: ...

    def charge(self, device: Device) -> Charge | None:
        """What opening a transfer from this device costs; None where the ledger has nothing to check."""


@dataclass(frozen=True, slots=True)
class ValidAfterFirst:
    """Refuses what would begin later than this many seconds after the token's first download."""

    name: ClassVar[str] = "valid_after_first"
    about: ClassVar[str] = "How long the link is valid after its first download."
    parse: ClassVar[Callable[[str], int] | None] = parse_duration
    write: ClassVar[Callable[[int], str]] = format_duration
    at_most: int

    def charge(self, device: Device) -> Charge | None:
        return Charge("since_first", self.at_most * 1000, Reason.TOKEN_EXPIRED)


@dataclass(frozen=True, slots=True)
class Downloads:
    """At most this many downloads of each of a token's files."""

    name: ClassVar[str] = "downloads"
    about: ClassVar[str] = "Downloads of each file."
    parse: ClassVar[Callable[[str], int] | None] = None
    write: ClassVar[Callable[[int], str]] = str
    at_most: int

    def charge(self, device: Device) -> Charge | None:
        return Charge("count", self.at_most, Reason.LIMIT_DOWNLOADS)


@dataclass(frozen=True, slots=True)
class Networks:
    """At most this many different networks (IPv4 /24, IPv6 /56) open transfers of a token."""

    name: ClassVar[str] = "networks"
    about: ClassVar[str] = "Different networks that may download."
    parse: ClassVar[Callable[[str], int] | None] = None
    write: ClassVar[Callable[[int], str]] = str
    at_most: int

    def charge(self, device: Device) -> Charge | None:
        return Charge("distinct", self.at_most, Reason.LIMIT_NETWORKS, self.name, device.network)


@dataclass(frozen=True, slots=True)
class Devices:
    """At most this many different devices open transfers of a token.

    A device without our cookie is known by its headers and network, and from then on by the cookie it was offered.
    """

    name: ClassVar[str] = "devices"
    about: ClassVar[str] = "Different devices that may download."
    parse: ClassVar[Callable[[str], int] | None] = None
    write: ClassVar[Callable[[int], str]] = str
    at_most: int

    def charge(self, device: Device) -> Charge | None:
        return Charge("distinct", self.at_most, Reason.LIMIT_DEVICES, self.name, device.id, device.cookie or "")


@dataclass(frozen=True, slots=True)
class Concurrent:
    """At most this many of a token's transfers live at once."""

    name: ClassVar[str] = "concurrent"
    about: ClassVar[str] = "Downloads at the same time."
    parse: ClassVar[Callable[[str], int] | None] = None
    write: ClassVar[Callable[[int], str]] = str
    at_most: int

    def charge(self, device: Device) -> Charge | None:
        return Charge("concurrent", self.at_most, Reason.LIMIT_CONCURRENT)


@dataclass(frozen=True, slots=True)
class Rate:
    """Bytes a second for all of a token's transfers together: it paces and never refuses, so it charges nothing."""

    name: ClassVar[str] = "rate"
    about: ClassVar[str] = "Speed, like 2MB/s."
    parse: ClassVar[Callable[[str], int] | None] = parse_rate
    write: ClassVar[Callable[[int], str]] = format_rate
    at_most: int

    def charge(self, device: Device) -> Charge | None:
        return None


LIMITS: tuple[type[Limit], ...] = (ValidAfterFirst, Downloads, Networks, Devices, Concurrent, Rate)
"""In the order in which they refuse."""

BY_NAME = {limit.name: limit for limit in LIMITS}


def charges(limits: Limits, device: Device) -> tuple[Charge, ...]:
    """What opening a transfer under these limits costs. Downloads are counted also where they are not limited."""
    asked = [limit(at_most) for limit in LIMITS if (at_most := limits.get(limit.name)) is not None]
    described = [charge for limit in asked if (charge := limit.charge(device)) is not None]
    if limits.get(Downloads.name) is None:
        described.append(Charge("count", None, Reason.LIMIT_DOWNLOADS))
    return tuple(described)


def code_charge(device: Device) -> Charge:
    """What a device costs that has not entered a code, where a plan asks for one: only the first may do without.

    It stands last: nobody is asked for a code who would then be refused all the same.
    """
    return Charge("distinct", 1, Reason.DEVICE_CODE, "guests", device.id, device.cookie or "")


def read_limit(name: str, given: object) -> int:
    """One limit's number from its written form. Raises ValueError, or KeyError for what is no limit's name."""
    parse = BY_NAME[name].parse
    number = parse(given) if parse is not None and isinstance(given, str) else given
    # type() and not isinstance(): True is an int in Python, not in JSON. Zero is refused: to some shops it means none.
    if type(number) is not int or not 1 <= number <= LIMIT_MAX:
        raise ValueError(f"is not a whole number from 1 to {LIMIT_MAX}")
    return number
