"""What a request's path names. Only the token names files: the rest of a path is decoration and never a storage key."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import unquote

_NUMBER = re.compile(r"[1-9][0-9]{0,3}")


@dataclass(frozen=True, slots=True)
class LinkAddress:
    """`/l/{token}`: the page that e-mails link to."""

    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class FileAddress:
    """`/d/{token}`, `/d/{token}/{n}` or `/d/{token}/{n}/{name}`: the bytes of file `number`, from 1."""

    token: str = field(repr=False)
    number: int


@dataclass(frozen=True, slots=True)
class ZipAddress:
    """`/z/{token}` or `/z/{token}/{name}`: all files of the link as one ZIP."""

    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class HookAddress:
    """`/hooks/{shop}`: where a shop sends its webhooks."""

    shop: str


@dataclass(frozen=True, slots=True)
class AuthAddress:
    """`/auth`: where another proxy asks whether it may answer."""


@dataclass(frozen=True, slots=True)
class RefusedAddress:
    """`/auth/refused`: where it has the refusal shown that it was told, or that of bytes that never came."""


@dataclass(frozen=True, slots=True)
class LibraryAddress:
    """`/account`: what the customer who has signed in has bought."""


@dataclass(frozen=True, slots=True)
class OrderAddress:
    """`/o/{id}`: an order, or a link, for who has signed in as its customer. `name` is decoded."""

    name: str


@dataclass(frozen=True, slots=True)
class AccountAddress:
    """`/account/{step}`: the steps of signing in and out."""

    step: Literal["sign-in", "return", "enter", "sign-out"]


@dataclass(frozen=True, slots=True)
class HelpAddress:
    """`/help`: where buyers have their links mailed to them again."""


Address = (
    LinkAddress
    | FileAddress
    | ZipAddress
    | HookAddress
    | AuthAddress
    | RefusedAddress
    | OrderAddress
    | AccountAddress
    | HelpAddress
    | LibraryAddress
)


_FIXED: Mapping[str, Address] = {
    "/account": LibraryAddress(),
    "/help": HelpAddress(),
    "/auth": AuthAddress(),
    "/auth/refused": RefusedAddress(),
    "/account/sign-in": AccountAddress("sign-in"),
    "/account/return": AccountAddress("return"),
    "/account/enter": AccountAddress("enter"),
    "/account/sign-out": AccountAddress("sign-out"),
}


def parse_path(raw_path: str) -> Address | None:
    """The address in a path as it came over the wire, not decoded; None for every other path."""
    match raw_path.split("/"):
        case ["", "l", token] if token:
            return LinkAddress(token)
        case ["", "d", token] if token:
            return FileAddress(token, 1)
        case ["", "d", token, number] | ["", "d", token, number, _] if token and _NUMBER.fullmatch(number):
            return FileAddress(token, int(number))
        case ["", "z", token] | ["", "z", token, _] if token:
            return ZipAddress(token)
        case ["", "o", name] if name:
            return OrderAddress(unquote(name, errors="replace"))
        case ["", "hooks", shop] if shop:
            return HookAddress(shop)
    return _FIXED.get(raw_path)
