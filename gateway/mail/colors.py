"""Which colours can be read on which (WCAG 2.2, contrast ratio). Colours are written `#rrggbb`."""

from __future__ import annotations

INK = "#1d2327"
PAPER = "#ffffff"
CARD = PAPER
DARK_CARD = "#1d2327"
DARK_INK = "#eef1f2"
EDGE = "#868f97"
DARK_EDGE = "#a7b2ba"

_EDGE_MIN = 3.0
"""What WCAG 1.4.11 asks of the edge of a button."""
_LINEAR_MAX = 0.04045
_WEIGHTS = (0.2126, 0.7152, 0.0722)


def text_on(color: str) -> str:
    """White or nearly black, whichever can be read better on this colour: always at least 4.5 to 1."""
    return max((PAPER, "#000000"), key=lambda text: contrast(text, color))


def edge_on(color: str, ground: str, otherwise: str) -> str:
    """The edge that a button of this colour needs on that ground: none of its own, where it can be seen without."""
    return color if contrast(color, ground) >= _EDGE_MIN else otherwise


def contrast(one: str, other: str) -> float:
    """From 1 (the same) to 21 (black on white)."""
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def _luminance(color: str) -> float:
    parts = (int(color[at : at + 2], 16) / 255 for at in (1, 3, 5))
    return sum(weight * _linear(part) for weight, part in zip(_WEIGHTS, parts, strict=True))


def _linear(part: float) -> float:
    return part / 12.92 if part <= _LINEAR_MAX else float(((part + 0.055) / 1.055) ** 2.4)
