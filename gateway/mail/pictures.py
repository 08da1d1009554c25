"""The pictures that a mail carries in itself: the shop's logo, and a link as a QR code. None is loaded from afar."""

from __future__ import annotations

import io
from dataclasses import dataclass, field

import segno

LOGO_BYTES_MAX = 24 * 1024
LOGO_HEIGHT_MAX = 56
LOGO_WIDTH_MAX = 240
QR_ADDRESS_MAX = 1200
"""Bytes of an address; the code of a longer one is too fine for a phone's camera."""
QR_WIDTH = 168
"""CSS pixels, about: a module is shown as a whole number of them, two at least."""

_QR_SCALE = 4
_QR_BORDER = 4  # modules of quiet zone (ISO/IEC 18004 §6.3.8)
_PNG = b"\x89PNG\r\n\x1a\n"
_GIFS = (b"GIF87a", b"GIF89a")
_JPEG = b"\xff\xd8"
_MARKER = 0xFF
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""JPEG's markers SOF0 to SOF15 (ITU-T T.81, table B.1), which name the size; the three others are tables."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture, the second part of its media type, and how large it is shown (CSS pixels)."""

    content: bytes = field(repr=False)
    subtype: str
    width: int
    height: int


def check_logo(content: bytes) -> Picture:
    """The logo of this file, scaled to fit. Raises ValueError: what is wrong; what would be right."""
    if len(content) > LOGO_BYTES_MAX:
        raise ValueError("the logo is larger than 24 KB; make it smaller, every mail carries it")
    subtype, width, height = _measured(content)
    if not width or not height:
        raise ValueError("the logo is no PNG, JPEG or GIF file; save it as a PNG")
    scale = min(1.0, LOGO_WIDTH_MAX / width, LOGO_HEIGHT_MAX / height)
    return Picture(content, subtype, max(1, round(width * scale)), max(1, round(height * scale)))


def qr_code(address: str) -> Picture | None:
    """The address as a QR code (ISO/IEC 18004) with its quiet zone; None where it is too long for a camera."""
    if len(address.encode()) > QR_ADDRESS_MAX:
        return None
    code = segno.make(address, error="l", micro=False, boost_error=False)
    drawn = io.BytesIO()
    code.save(drawn, kind="png", scale=_QR_SCALE, border=_QR_BORDER)
    modules = int(code.symbol_size(border=_QR_BORDER)[0])
    width = modules * max(2, QR_WIDTH // modules)
    return Picture(drawn.getvalue(), "png", width, width)


def _measured(content: bytes) -> tuple[str, int, int]:
    if content.startswith(_PNG) and content[12:16] == b"IHDR":
        return "png", int.from_bytes(content[16:20]), int.from_bytes(content[20:24])
    if content.startswith(_GIFS):
        return "gif", int.from_bytes(content[6:8], "little"), int.from_bytes(content[8:10], "little")
    if content.startswith(_JPEG):
        return "jpeg", *_jpeg_size(content)
    return "", 0, 0


def _jpeg_size(content: bytes) -> tuple[int, int]:
    at = len(_JPEG)
    while at + 9 <= len(content) and content[at] == _MARKER:
        marker = content[at + 1]
        if marker in _FRAMES:
            return int.from_bytes(content[at + 7 : at + 9]), int.from_bytes(content[at + 5 : at + 7])
        at += 2 + max(2, int.from_bytes(content[at + 2 : at + 4]))
    return 0, 0
