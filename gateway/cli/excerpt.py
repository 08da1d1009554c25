"""One line of a file with a part underlined, as a terminal shows it: wide, combining and tabulated letters too."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from itertools import accumulate

from gateway.cli.output import visible

_TAB = 4
_CUT = "…"
_NEAR = 4
"""So many times the room is looked at on each side: some letters take no cell."""


def excerpt(line: str, column: int, width: int, room: int) -> tuple[str, str]:
    """What is shown of the line, and the underline below it. `column` from 1, `width` in characters, 0 for all that
    follows; `room`: so many cells of the terminal at most.
    """
    line = line.rstrip()
    # A whole file can be one line, and have a mistake at every word of it.
    at = min(column - 1, len(line))
    start = max(0, at - _NEAR * room)
    letters, cells = _laid_out(line[start : at + _NEAR * room])
    offsets = [0, *accumulate(cells)]
    first = at - start
    last = min(first + width, len(letters)) if width else len(letters)
    left, right = _window(offsets, first, room, whole=len(letters) == len(line))
    begins, ends = start + left == 0, start + right == len(line)
    shown = f"{'' if begins else _CUT}{''.join(letters[left:right])}{'' if ends else _CUT}"
    before = offsets[first] - offsets[left] + len(_CUT) * (not begins)
    return shown, " " * before + "^" * max(1, offsets[min(last, right)] - offsets[first])


def _laid_out(line: str) -> tuple[list[str], list[int]]:
    """Each letter as it is shown, and how many cells it takes."""
    letters, cells, at = [], [], 0
    for letter in line:
        if letter == "\t":
            taken = _TAB - at % _TAB
            letters.append(" " * taken)
        else:
            letters.append(visible(letter))
            taken = _cells(letters[-1])
        cells.append(taken)
        at += taken
    return letters, cells


def _cells(letter: str) -> int:
    if unicodedata.category(letter) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in ("W", "F") else 1


def _window(offsets: Sequence[int], first: int, room: int, *, whole: bool) -> tuple[int, int]:
    """From which letter to which one is shown, so that the marked one is among them. `whole`: they are all the line."""
    if whole and offsets[-1] <= room:
        return 0, len(offsets) - 1
    wanted = offsets[first] - room // 3 if offsets[first] > room // 2 else 0
    left = next(at for at, offset in enumerate(offsets) if offset >= wanted)
    right = max(at for at, offset in enumerate(offsets) if offset - offsets[left] <= room - 2 * len(_CUT))
    return left, right
