"""What all readers of written files share: parts of a tree as values, and a sentence for each part that is none.

Law: nothing raises, nothing is guessed. Where there are mistakes afterwards, what was returned is never used.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from gateway.document import Mistakes, Node, join, short
from gateway.policy.units import parse_duration

T = TypeVar("T")

COMPARED_MAX = 100
"""Among so many names the one that was probably meant is looked for."""
NAMED_MAX = 30
"""So many names are listed where something has none of them."""


@dataclass(frozen=True, slots=True)
class Section:
    """A mapping, the node that it is, and its members whose names are known."""

    node: Node
    key: str
    members: Mapping[str, Node]


class TreeReader:
    """Reads parts of one tree; what is wrong goes to its `mistakes`. Keys are where in the file a part stands."""

    __slots__ = ()
    mistakes: Mistakes

    def wrong(self, node: Node, key: str, text: str) -> None:
        """What is wrong and, behind a semicolon, what would be right; the value itself goes in front."""
        shown = f"'{short(node.value)}' " if isinstance(node.value, str) else ""
        self.mistakes.add(node, key, f"{shown}{text}")

    def text(self, node: Node, key: str, right: str) -> str | None:
        """A single text; None where it is none, which is then reported."""
        if isinstance(node.value, str):
            return node.value
        state = "has no value" if node.value is None else "is not one single value"
        self.wrong(node, key, f"{state}; {right}")
        return None

    def section(self, node: Node, key: str, known: Iterable[str], what: str) -> Section:
        """A mapping with the members whose names are known; the others are reported as no `what`."""
        members = node.value if isinstance(node.value, dict) else {}
        for name, child in members.items():
            if name not in known:
                self.mistakes.add(child.named, join(key, name), unknown(what, name, known))
        return Section(node, key, {name: child for name, child in members.items() if name in known})

    def required(self, section: Section, name: str, right: str) -> Node | None:
        """A member that must be there."""
        if name not in section.members:
            self.mistakes.add(section.node, join(section.key, name), f"is missing; {right}")
        return section.members.get(name)

    def choice(self, node: Node | None, key: str, choices: tuple[str, ...]) -> str | None:
        """One of a few words; None where nothing is written, or no text."""
        if node is None:
            return None
        right = f"write {' or '.join(choices)}"
        text = self.text(node, key, right)
        if text is not None and text not in choices:
            self.wrong(node, key, f"is not what can stand here; {right}")
        return text

    def duration(self, node: Node, key: str) -> int | None:
        """Seconds, 1 or more."""
        return self.parsed(node, key, "write a duration, such as 30d", _duration)

    def parsed(self, node: Node, key: str, right: str, read: Callable[[str], T]) -> T | None:
        """What `read` makes of a single text. It raises ValueError saying what is wrong; that is None here."""
        text = self.text(node, key, right)
        if text is None:
            return None
        try:
            return read(text)
        except ValueError as error:
            self.wrong(node, key, str(error))
            return None

    def gives_up(self, node: Node, key: str, most: int) -> bool:
        """Whether more than `most` lines are reported: then this part and what follows need no look, which is said."""
        if self.mistakes.count <= most:
            return False
        self.mistakes.add(node, key, "and what follows is not looked at; correct the others first")
        return True


def unknown(what: str, name: str, known: Iterable[str], otherwise: str | None = None) -> str:
    """That there is nothing of this name, and what was probably meant."""
    names = sorted(known)
    # Comparing takes long, and so does reading: of very many names none is meant.
    nearest = difflib.get_close_matches(name.lower(), names, 1) if len(names) <= COMPARED_MAX else []
    if nearest:
        return f"{short(name)} is no {what}; did you mean {short(nearest[0])}?"
    listed = ", ".join(short(each) for each in names[:NAMED_MAX]) + (", …" if len(names) > NAMED_MAX else "")
    return f"{short(name)} is no {what}; {otherwise or f'write one of {listed}'}"


def _duration(text: str) -> int:
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise ValueError(f"is no duration; {error}") from None
    if seconds < 1:
        raise ValueError("is no time at all; write a longer one, such as 30d")
    return seconds
