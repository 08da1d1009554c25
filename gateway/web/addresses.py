"""What a request's path names. Only the token names files: the rest of a path is decoration and never a storage key."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import quote

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


def parse_path(raw_path: str) -> LinkAddress | FileAddress | None:
    """The address in a path as it came over the wire, not decoded; None for every other path."""
    match raw_path.split("/"):
        case ["", "l", token] if token:
            return LinkAddress(token)
        case ["", "d", token] if token:
            return FileAddress(token, 1)
        case ["", "d", token, number] | ["", "d", token, number, _] if token and _NUMBER.fullmatch(number):
            return FileAddress(token, int(number))
    return None


def file_path(prefix: str, token: str, number: int, name: str) -> str:
    """The path of one file of a token; `prefix` is what the public address has in front of it, or ''."""
    shown = quote(name.rsplit("/", 1)[-1].encode("utf-8", "replace"), safe="")
    return f"{prefix}/d/{token}/{number}" + (f"/{shown}" if shown.strip(".") else "")
