"""A letter to compose, and pictures made here."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

import pytest

from gateway.mail.letter import Brand, FileAddress, Letter, LinkAddresses
from gateway.policy.model import Limits

NOW = 1_795_228_200
BASE = "https://dl.example.com"


def png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + b"\x14\x3c\x78" * width) * height
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


@pytest.fixture
def logo() -> bytes:
    """300 × 80 pixels."""
    return png(300, 80)


@pytest.fixture
def link() -> Callable[..., LinkAddresses]:
    def made(
        *names: str, token: str = "to.k.en", limits: Limits | None = None, title: str = "", account: bool = False
    ) -> LinkAddresses:
        files = tuple(
            FileAddress(name, f"{BASE}/d/{token}/{number}", 1_234_567) for number, name in enumerate(names, 1)
        )
        given = Limits(downloads=5, networks=3, valid_after_first=72 * 3600) if limits is None else limits
        return LinkAddresses(f"{BASE}/l/{token}", files, NOW + 30 * 86_400, given, title, account)

    return made


@pytest.fixture
def letter(link: Callable[..., LinkAddresses]) -> Letter:
    return Letter(
        brand=Brand("Sea Shop", "#0b5d54", "https://shop.example.com/help"),
        language="en",
        sender="shop@example.com",
        to="jan@example.com",
        message_id="0a1b2c@example.com",
        sent_at=NOW + 5,
        links=(link("Sea & Sand.pdf", "Żółta łódź.epub"),),
        reference="10001",
        buyer_name="Jan Kowalski",
    )
