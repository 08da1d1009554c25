"""Globs in linear time: a set of states is carried over the text, nothing is ever tried again.

In paths `*` and `?` stop at /, `**` does not, and a whole `**/` stands for any number of folders, none included.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import groupby, takewhile


class _Wild(Enum):
    ONE = "?"
    SEGMENT = "*"
    ANY = "**"
    FOLDERS = "**/"


_Token = str | _Wild
_PATH = re.compile(r"(?:(?<=/)|\A)(?:\*\*/)+|\*+|\?|[^*?]", re.DOTALL)
_WORD = re.compile(r"\*+|\?|[^*?]", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Glob:
    """A pattern that must match a whole text. What it begins and ends with is compared first, since that tells most."""

    text: str
    separator: str
    head: str
    tail: str
    pieces: tuple[str, ...] | None
    machine: Machine | None

    def matches(self, text: str) -> bool:
        """Whether the whole text is meant."""
        length = len(text) - len(self.tail)
        if length < len(self.head) or not text.startswith(self.head) or not text.endswith(self.tail):
            return False
        if self.machine is not None:
            return self.machine.accepts(text[len(self.head) : length])
        if self.pieces is None:
            return length == len(self.head)
        start = len(self.head)
        for piece in self.pieces:
            found = text.find(piece, start, length)
            if found < 0:
                return False
            start = found + len(piece)
        return True


def path_glob(pattern: str) -> Glob:
    """A glob over a path: case-sensitive, with folders."""
    return _glob(pattern, "/")


def word_glob(pattern: str) -> Glob:
    """A glob over a text without folders: `*` is any text, `?` any one character."""
    return _glob(pattern, "")


def whole(glob: Glob) -> Machine:
    """The machine for all of a glob, heads and tails too: to go letter by letter through several at once."""
    return _machine(_tokens(glob.text, glob.separator), glob.separator)


def _tokens(pattern: str, separator: str) -> list[_Token]:
    if not separator:
        wild = {"*": _Wild.ANY, "?": _Wild.ONE}
        return [wild.get(word[0], word) for word in _WORD.findall(pattern)]
    tokens: list[_Token] = []
    for word in _PATH.findall(pattern):
        if word.endswith("**/"):
            tokens.append(_Wild.FOLDERS)
        elif word.startswith("*"):
            tokens.append(_Wild.SEGMENT if word == "*" else _Wild.ANY)
        else:
            tokens.append(_Wild.ONE if word == "?" else word)
    return tokens


def _glob(text: str, separator: str) -> Glob:
    tokens = _tokens(text, separator)
    head = _text(takewhile(_is_literal, tokens))
    rest = tokens[len(head) :]
    tail = _text(takewhile(_is_literal, reversed(rest)))[::-1]
    middle = rest[: len(rest) - len(tail)]
    if not middle:
        return Glob(text, separator, head + tail, "", None, None)
    if all(_is_literal(token) or token is _Wild.ANY for token in middle):
        runs = groupby(middle, _is_literal)
        return Glob(text, separator, head, tail, tuple(_text(run) for is_literal, run in runs if is_literal), None)
    return Glob(text, separator, head, tail, None, _machine(middle, separator))


def _is_literal(token: _Token) -> bool:
    return isinstance(token, str)


def _text(tokens: Iterable[_Token]) -> str:
    return "".join(token for token in tokens if isinstance(token, str))


@dataclass(frozen=True, slots=True)
class Machine:
    """State N: the first N steps have matched. States are bits of one number: a character costs a few operations."""

    steps: dict[str, int]
    other: int
    stay: int
    stay_at_separator: int
    skip: int
    free: int
    last: int
    separator: str

    def accepts(self, text: str) -> bool:
        states = self.first
        for letter in text:
            states = self.after(states, letter)
            if not states:
                return False
        return bool(states & self.last)

    @property
    def first(self) -> int:
        """The states before any character."""
        return self._freed(1)

    def after(self, states: int, letter: str) -> int:
        """The states that one more character leads to."""
        stay = self.stay_at_separator if letter == self.separator else self.stay
        return self._freed((states & self.steps.get(letter, self.other)) << 1 | states & stay)

    def _freed(self, states: int) -> int:
        """With the states that are reached without a character; two free steps stand in a row at most."""
        states |= (states & self.skip) << 3
        states |= (states & self.free) << 1
        return states | (states & self.free) << 1


def _machine(tokens: Sequence[_Token], separator: str) -> Machine:
    # `**/` is: leave the next two out (skip), or any text and then the separator.
    plain: list[_Token | None] = []
    for token in tokens:
        plain.extend([None, _Wild.ANY, separator] if token is _Wild.FOLDERS else [token])
    ones = segments = anys = skip = 0
    steps: dict[str, int] = {}
    for index, step in enumerate(plain):
        bit = 1 << index
        if isinstance(step, str):
            steps[step] = steps.get(step, 0) | bit
        elif step is _Wild.ONE:
            ones |= bit
        elif step is _Wild.SEGMENT:
            segments |= bit
        elif step is _Wild.ANY:
            anys |= bit
        else:
            skip |= bit
    steps = {letter: bits if letter == separator else bits | ones for letter, bits in steps.items()}
    if separator:
        steps.setdefault(separator, 0)
    return Machine(
        steps=steps,
        other=ones,
        stay=segments | anys,
        stay_at_separator=anys,
        skip=skip,
        free=segments | anys | skip,
        last=1 << len(plain),
        separator=separator,
    )
