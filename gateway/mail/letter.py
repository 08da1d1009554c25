"""What a mail to a buyer says, as data: the shop's brand, the order, and the links with their files and limits."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from gateway.mail.pictures import check_logo
from gateway.policy.model import Limits

_ADDRESS = re.compile(r"https?://[^\s\"'<>\\]+")


@dataclass(frozen=True, slots=True)
class Brand:
    """How the shop looks. `color` as `#1d4ed8`; `logo` is a PNG, JPEG or GIF file, or empty; see check_logo."""

    name: str
    color: str = "#1d4ed8"
    contact: str = ""
    logo: bytes = field(default=b"", repr=False)

    def __post_init__(self) -> None:
        if self.logo:
            check_logo(self.logo)


@dataclass(frozen=True, slots=True)
class FileAddress:
    """One file of a link: the name the buyer sees, its size in bytes where that is known, and its own address."""

    name: str
    address: str = field(repr=False)
    size: int | None = None

    def __post_init__(self) -> None:
        _check(self.address)


@dataclass(frozen=True, slots=True)
class LinkAddresses:
    """One link of an order. `address` is the page with all its files; `limits` are those of token and plan together.

    `expires_at` in Unix seconds. `title` is shown where an order has several links. `guests`: what the plan asks of
    guests (see Plan). Raises ValueError for an address that is not http(s), or not fit to stand in quotes.
    """

    address: str = field(repr=False)
    files: tuple[FileAddress, ...]
    expires_at: int
    limits: Limits = field(default_factory=Limits)
    title: str = ""
    account: bool = False
    guests: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check(self.address)


@dataclass(frozen=True, slots=True)
class Letter:
    """One mail: with `links`, or with a one-time `code` and no link at all.

    `sent_at` in Unix seconds, `message_id` without angle brackets, `language` a tag (BCP 47).
    """

    brand: Brand
    language: str
    sender: str = field(repr=False)
    to: str = field(repr=False)
    message_id: str
    sent_at: int
    links: tuple[LinkAddresses, ...] = ()
    code: str = field(default="", repr=False)
    reference: str = ""
    buyer_name: str = field(default="", repr=False)
    reply_to: str = field(default="", repr=False)


def _check(address: str) -> None:
    if not _ADDRESS.fullmatch(address):
        raise ValueError("a link's address is no http(s) address")
