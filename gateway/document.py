"""A written file as a tree of texts that remember where they stand, and what is found wrong with them.

Every scalar stays text: whoever asks for a value gives it its type.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

_SHOWN_MAX = 80
_NAME_MAX = 31
"""No name of ours is longer, and no signing secret is as short."""


@dataclass(frozen=True, slots=True)
class Node:
    """One value and where it was written (`file:line`, or a variable's name). `size`: nodes in it, aliases expanded."""

    source: str
    value: str | dict[str, Node] | list[Node] | None = field(repr=False)
    size: int = 1


@dataclass(slots=True)
class Mistakes:
    """What is wrong, one line each, and at which key: so that a later check does not report it twice."""

    keys: set[str] = field(default_factory=set)
    _lines: set[tuple[str, int, str]] = field(default_factory=set)

    def add(self, source: str, key: str, text: str) -> None:
        """`text` says what is wrong with the value at `key` and, behind a semicolon, what would be right."""
        name, _, number = source.rpartition(":")
        key = printable(key)
        line = printable(f"{source}: {key}: {text}" if key else f"{source}: {text}")
        self._lines.add((name, int(number), line) if number.isdecimal() else (source, 0, line))
        self.keys.add(key)

    @property
    def count(self) -> int:
        """How many lines there are to report."""
        return len(self._lines)

    def report(self) -> str:
        """All lines, in the order of the file."""
        return "\n".join(line for _, _, line in sorted(self._lines))


def plain(node: Node) -> object:
    """The tree as plain dicts, lists and texts; a null is left as it is."""
    if isinstance(node.value, dict):
        return {name: plain(child) for name, child in node.value.items()}
    if isinstance(node.value, list):
        return [plain(child) for child in node.value]
    return node.value


def find(node: Node, location: Iterable[int | str]) -> Node:
    """The node at this place, or the last one there is on the way to it."""
    for step in location:
        if isinstance(node.value, dict) and step in node.value:
            node = node.value[str(step)]
        elif isinstance(node.value, list) and isinstance(step, int) and step < len(node.value):
            node = node.value[step]
        else:
            break
    return node


def join(key: str, step: int | str) -> str:
    """A key one step further down: `origin.url`, `keys[0]`."""
    if isinstance(step, int):
        return f"{key}[{step}]"
    return f"{key}.{short_name(step)}" if key else short_name(step)


def printable(text: str) -> str:
    """A text on one line, with nothing in it that a terminal acts on."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def short(text: str) -> str:
    """A text as an error shows it: on one line, and short in case that a secret was pasted in its place."""
    shown = printable(text)
    return shown if len(shown) <= _SHOWN_MAX else f"{shown[:20]}…"


def short_name(text: str) -> str:
    """A name as an error shows it. A value that slipped into its place, by a colon too few or too many, is cut."""
    shown = printable(text)
    return shown if len(shown) <= _NAME_MAX else f"{shown[:8]}…"
