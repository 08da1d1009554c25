"""Content-Disposition (RFC 6266, RFC 8187): one printable ASCII line of at most 1,000 bytes, whatever the name is.

The name that arrives is a bare file name that every system can store; it is never empty and never a path.
"""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import quote

_BYTES_MAX = 230
"""UTF-8 bytes of a name: three times that, plus the fallback, stays below 1,000; file systems take 255."""
_SUFFIX_BYTES_MAX = 24
_FALLBACK_NAME = "download"
# Bidirectional controls and the byte order mark make `exe.pdf` out of `fdp.exe` on the screen.
_INVISIBLE = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")
# C0, DEL and C1 controls, the line and paragraph separators, unpaired surrogates.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_DEVICES = re.compile("(?:CON|PRN|AUX|NUL|COM[0-9¹²³]|LPT[0-9¹²³]) *(?:\\.|$)", re.IGNORECASE)
# The semicolon is legal in quotes, but widely used parsers split on it.
_NOT_IN_QUOTES = re.compile(r"[^\x20-\x7e]|[\"\\/%;]")
_ATTR_CHARS = "!#$&+-.^_`|~"


def content_disposition(name: str, *, inline: bool = False) -> str:
    """The header's value for a file shown to the buyer as `name`; `inline` only where media.may_view says so."""
    kept = file_name(name)
    fallback = _storable(_NOT_IN_QUOTES.sub("_", "".join(map(_ascii, kept))))
    kind = "inline" if inline else "attachment"
    return f"{kind}; filename=\"{fallback}\"; filename*=UTF-8''{quote(kept, safe=_ATTR_CHARS)}"


def file_name(name: str) -> str:
    """The name under which the buyer's computer will store the file: what `name` means, without its path."""
    base = re.split(r"[/\\]", name.rstrip("/\\"))[-1]
    return _storable(_UNPRINTABLE.sub("_", _INVISIBLE.sub("", base)))


def _storable(name: str) -> str:
    """Short enough, no end that Windows would cut off, no device name, never empty."""
    clipped = _clipped(name.strip(" ").rstrip(". ")).rstrip(". ") or _FALLBACK_NAME
    return f"_{clipped}" if _DEVICES.match(clipped) else clipped


def _clipped(name: str) -> str:
    if len(name.encode()) <= _BYTES_MAX:
        return name
    stem, dot, suffix = name.rpartition(".")
    ending = dot + suffix
    if not stem or len(ending.encode()) > _SUFFIX_BYTES_MAX:
        stem, ending = name, ""
    room = _BYTES_MAX - len(ending.encode())
    return stem.encode()[:room].decode(errors="ignore").rstrip(". ") + ending


def _ascii(character: str) -> str:
    """The letters of the character without their accents, or `_`; a combining accent by itself is nothing."""
    if character.isascii():
        return character
    if unicodedata.combining(character):
        return ""
    plain = "".join(part for part in unicodedata.normalize("NFKD", character) if part.isascii())
    return plain or "_"
