"""A written file as a tree of texts that remember where they stand, and what is found wrong with them.

Every scalar stays text: whoever asks for a value gives it its type.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

_SHOWN_MAX = 80
_NAME_MAX = 31
"""No name of ours is longer, and no signing secret is as short."""


@dataclass(frozen=True, slots=True)
class Node:
    """One value and where it was written: `source` is `file:line`, or a variable's name; `column` from 1, 0 where it is
    not known; `width` in characters on that line, 0 for all that follows. `size`: nodes in it, aliases expanded.
    `label` is the name before it, where it is a mapping's member.
    """

    source: str
    value: str | dict[str, Node] | list[Node] | None = field(repr=False)
    size: int = 1
    column: int = 0
    width: int = 0
    label: Node | None = field(default=None, repr=False)

    @property
    def named(self) -> Node:
        """Where its name stands, else it itself: for what is wrong with the name and not with the value."""
        return self.label or self


@dataclass(frozen=True, slots=True, order=True)
class Mistake:
    """What is wrong at one place. `line` and `column` from 1, 0 where they are not known; `width` as in Node."""

    file: str
    line: int
    column: int
    width: int
    key: str
    text: str

    def __str__(self) -> str:
        source = f"{self.file}:{self.line}" if self.line else self.file
        return printable(f"{source}: {self.key}: {self.text}" if self.key else f"{source}: {self.text}")


@dataclass(slots=True)
class Mistakes:
    """What is wrong, one line each, and at which key: so that a later check does not report it twice."""

    keys: set[str] = field(default_factory=set)
    _found: dict[str, Mistake] = field(default_factory=dict)

    def add(self, at: Node | str, key: str, text: str) -> None:
        """`text` says what is wrong with the value at `key` and, behind a semicolon, what would be right. `at`: the
        node, or a source as in Node.
        """
        place = Node(at, None) if isinstance(at, str) else at
        name, _, number = place.source.rpartition(":")
        file, line = (name, int(number)) if number.isdecimal() else (place.source, 0)
        mistake = Mistake(file, line, place.column, place.width, printable(key), text)
        self._found.setdefault(str(mistake), mistake)
        self.keys.add(mistake.key)

    @property
    def count(self) -> int:
        """How many lines there are to report."""
        return len(self._found)

    @property
    def found(self) -> list[Mistake]:
        """All of them, in the order of the file."""
        return [mistake for _, mistake in sorted(self._found.items(), key=_in_order)]

    def report(self) -> str:
        """A line for each, in the order of the file."""
        return "\n".join(str(mistake) for mistake in self.found)


def _in_order(entry: tuple[str, Mistake]) -> tuple[str, int, str]:
    line, mistake = entry
    return mistake.file, mistake.line, line


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


def shown(node: Node) -> str:
    """A value on one line, as it could be written, and cut where it is long."""
    pieces: list[str] = []
    length = 0
    for piece in _pieces(node):
        pieces.append(piece)
        length += len(piece)
        if length > _SHOWN_MAX:
            return "".join(pieces)[: _SHOWN_MAX - 1] + "…"
    return "".join(pieces)


def _pieces(node: Node) -> Iterator[str]:
    """Its text in parts, so that a large one need not be written to its end."""
    if isinstance(node.value, dict):
        for index, (name, child) in enumerate(node.value.items()):
            yield f"{', ' if index else '{'}{printable(name)}: "
            yield from _pieces(child)
        yield "}" if node.value else "{}"
    elif isinstance(node.value, list):
        yield "["
        for index, child in enumerate(node.value):
            yield ", " if index else ""
            yield from _pieces(child)
        yield "]"
    else:
        yield printable(node.value or "")


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
