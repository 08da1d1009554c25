"""Durations, sizes and rates as people write them: one whole number, one unit, nothing else.

What `format_*` writes, `parse_*` reads back as the same number. Only ASCII digits count as digits.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_DURATIONS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "y": 365 * 86_400}
_SIZES = {
    "": 1,
    "B": 1,
    "KB": 1000,
    "KiB": 1024,
    "MB": 1000**2,
    "MiB": 1024**2,
    "GB": 1000**3,
    "GiB": 1024**3,
    "TB": 1000**4,
    "TiB": 1024**4,
}
_NUMBER_AND_UNIT = re.compile(r"([0-9]{1,15})([A-Za-z]*)")

DURATION_PATTERN = f"[0-9]{{1,15}}({'|'.join(_DURATIONS)})"
RATE_PATTERN = f"[0-9]{{1,15}}({'|'.join(_SIZES)})/s"
"""How durations and rates are written, for readers that have regular expressions alone."""


def parse_duration(text: str) -> int:
    """Seconds of `90s`, `15m`, `12h`, `30d` or `1y` (365 days). Raises ValueError for anything else."""
    return _parse(text, _DURATIONS, "write a number and a unit, such as 30d (units: s m h d y)")


def parse_size(text: str) -> int:
    """Bytes of `500KB` (powers of 1000), `64KiB` (powers of 1024) or `1234`. Raises ValueError for anything else."""
    return _parse(text, _SIZES, "write a number and a unit, such as 20MB (units: B KB MB GB TB KiB MiB GiB TiB)")


def parse_rate(text: str) -> int:
    """Bytes per second of a size with `/s` behind it, such as `2MB/s`. Raises ValueError for anything else."""
    right = "write a size per second, such as 2MB/s"
    if not text.endswith("/s"):
        raise ValueError(right)
    return _parse(text.removesuffix("/s"), _SIZES, right)


def format_duration(seconds: int) -> str:
    """The shortest exact way to write `seconds` (0 or more): `30d`, not `720h`; 365 days are `1y`."""
    return _format(seconds, _DURATIONS)


def format_size(size: int) -> str:
    """The shortest exact way to write `size` bytes (0 or more): `64KiB`, `20MB`, `1234B`."""
    return _format(size, _SIZES)


def format_rate(rate: int) -> str:
    """The shortest exact way to write `rate` bytes per second (0 or more): `2MB/s`."""
    return format_size(rate) + "/s"


def human_size(size: int) -> str:
    """About `size` bytes in decimal units, for people who choose and wait: `734 B`, `3.4 MB`, `1.2 GB`."""
    value, unit = float(size), "B"
    for larger in ("KB", "MB", "GB", "TB"):
        if round(value, 1) < _SIZES["KB"]:
            break
        value, unit = value / _SIZES["KB"], larger
    return f"{size} B" if unit == "B" else f"{value:.1f} {unit}"


def _parse(text: str, units: Mapping[str, int], right: str) -> int:
    match = _NUMBER_AND_UNIT.fullmatch(text)
    if match is None or match[2] not in units:
        raise ValueError(right)
    return int(match[1]) * units[match[2]]


def _format(value: int, units: Mapping[str, int]) -> str:
    if value < 0:
        raise ValueError("a negative number cannot be written as a duration, size or rate")
    if value == 0:
        return "0s" if units is _DURATIONS else "0B"
    exact = [(value // factor, unit) for unit, factor in units.items() if unit and value % factor == 0]
    number, unit = min(exact)
    return f"{number}{unit}"
