"""Mutations that keep most of a value's structure: of texts, numbers, and trees of tuples, lists and dicts.

A tuple keeps its length, and a list in one its members' types; what stands in a dict may become all that JSON has.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from random import Random

Value = object
"""None, bool, int, float, str, and tuples, lists and dicts of them: what `repr` writes, `ast.literal_eval` reads."""

LONGEST = 20_000
_NUMBER = re.compile(r"[0-9]+")
NUMBERS = (
    "0",
    "-0",
    "-1",
    "00",
    "1",
    "9" * 19,
    "9" * 400,
    "18446744073709551616",
    "1e3",
    "0x10",
    "1_0",
    "٣",
    "²",
    "+1",
)
LETTERS = (
    *("\x00", "\t", "\n", "\r", "\r\n", "\x0b", "\x1b", "\x7f", "\x85", "\xa0", " ", "  "),
    *(
        "\u2028",
        "\u202e",
        "\ufeff",
        "\ufffd",
        "\u212a",
        "\u0131",
        "ß",
        "é",
        "e\u0301",
        "\U0001d7d9",
        "😀",
        "\ud800",
        "\uff0e",
    ),
    *("%00", "%2e%2e", "%", "\\", "/", "..", '"', "'", "=", "==", ",", ";", ":", "-", "*", "?", "#", "$", "&", "."),
)
NESTS = (("[", "]"), ("{", "}"), ('{"a":', "}"), ("(", ")"), ('"', '"'), ("- ", ""))
LOOSE: tuple[Value, ...] = (
    *(None, True, False, 0, -1, 1, 2**53, 2**63, 10**30, 0.5, 1e308, float("inf"), float("nan")),
    *("", " ", "0", "null", "\x00", "\ud800", [], {}, [[]], [{}], {"": ""}, [None], "x" * 300),
)


class Mutator:
    """`words` are the field's own: they are inserted more often than anything else."""

    def __init__(self, rng: Random, words: Sequence[str], corpus: Sequence[Value]) -> None:
        self.rng, self.words, self.corpus = rng, words, corpus

    def mutated(self, value: Value) -> Value:
        """The value after one to four mutations."""
        for _ in range(self.rng.choice((1, 1, 2, 2, 3, 4))):
            value = self._value(value, loose=False)
        return value

    def _value(self, value: Value, *, loose: bool) -> Value:
        if loose and self.rng.random() < 0.1:
            return self.rng.choice(LOOSE) if self.rng.random() < 0.7 else self.rng.choice(self.words or ("",))
        match value:
            case bool() | None:
                return value if not loose else self.rng.choice(LOOSE)
            case int():
                return self._number(value)
            case str():
                return self.text(value)[:LONGEST]
            case tuple():
                # Texts and trees are where the mistakes are: the longer ones are touched more often.
                place = self.rng.choices(range(len(value)), [_weight(each) for each in value])[0]
                return (*value[:place], self._value(value[place], loose=False), *value[place + 1 :])
            case list():
                return self._list(value, loose=loose)
            case dict():
                return self._dict(value)
            case _:
                return value

    def _number(self, value: int) -> int:
        rng = self.rng
        return rng.choice((value + 1, value - 1, value * 2, -value, 0, 1, 10**12, 2**63, rng.randrange(2000), value))

    def _list(self, value: list[Value], *, loose: bool) -> list[Value]:
        rng, copy = self.rng, list(value)
        at = rng.randrange(len(copy) + 1)
        match rng.randrange(6):
            case 0 if copy:
                del copy[at - 1]
            case 1 if copy:
                copy.insert(at, copy[rng.randrange(len(copy))])
            case 2 if copy:
                rng.shuffle(copy)
            case 3 if copy and len(copy) < 64:
                copy *= 2
            case _ if copy:
                at = rng.choices(range(1, len(copy) + 1), [_weight(each) for each in copy])[0]
                copy[at - 1] = self._value(copy[at - 1], loose=loose)
            case _ if loose:
                copy = [rng.choice(LOOSE)] if not self.words or rng.random() < 0.5 else [rng.choice(self.words)]
        return copy

    def _dict(self, value: dict[Value, Value]) -> dict[Value, Value]:
        rng, copy = self.rng, dict(value)
        if not copy:
            return {rng.choice(self.words or ("a",)): rng.choice(LOOSE)}
        name = rng.choices(list(copy), [_weight(each) for each in copy.values()])[0]
        if isinstance(copy[name], (list, dict)) and rng.random() < 0.8:
            return {**copy, name: self._value(copy[name], loose=True)}
        match rng.randrange(7):
            case 0:
                del copy[name]
            case 1:
                copy[self.text(str(name))] = copy.pop(name)
            case 2:
                copy[rng.choice(self.words or ("a",))] = copy[name]
            case 3:
                other = rng.choice(list(copy))
                copy[name], copy[other] = copy[other], copy[name]
            case _:
                copy[name] = self._value(copy[name], loose=True)
        return copy

    def text(self, text: str) -> str:
        rng = self.rng
        first, last = sorted((rng.randrange(len(text) + 1), rng.randrange(len(text) + 1)))
        if rng.random() < 0.4:
            return self._relined(text) if rng.random() < 0.4 else self._renumbered(text)
        return rng.choice((self._cut, self._lettered, self._grown, self._spliced, self._worded))(text, first, last)

    def _cut(self, text: str, first: int, last: int) -> str:
        return text[:first] + text[self.rng.choice((first + 1, last)) :]

    def _lettered(self, text: str, first: int, _: int) -> str:
        rng = self.rng
        if text and rng.random() < 0.3:
            return text[:first] + chr(ord(text[first - 1]) ^ 1 << rng.randrange(7)) + text[first + 1 :]
        return text[:first] + rng.choice(LETTERS) + text[rng.choice((first, first + 1)) :]

    def _grown(self, text: str, first: int, last: int) -> str:
        rng, piece = self.rng, text[first:last]
        match rng.randrange(4):
            case 0:
                return text[:last] + piece + text[last:]
            case 1:
                return text[:last] + (piece or rng.choice(LETTERS)) * rng.choice((2, 20, 1000)) + text[last:]
            case 2:
                return text[:first] + piece.swapcase() + text[last:]
            case _:
                (opened, closed), deep = rng.choice(NESTS), rng.choice((1, 2, 10, 100, 1000))
                return text[:first] + opened * deep + piece + closed * deep + text[last:]

    def _spliced(self, text: str, first: int, _: int) -> str:
        other = _some_text(self.rng.choice(self.corpus), self.rng) if self.corpus else ""
        cut = self.rng.randrange(len(other) + 1)
        return text[:first] + other[cut:] if self.rng.random() < 0.5 else other[:cut] + text[first:]

    def _worded(self, text: str, first: int, last: int) -> str:
        return text[:first] + self.rng.choice(self.words or LETTERS) + text[self.rng.choice((first, last)) :]

    def _renumbered(self, text: str) -> str:
        found = list(_NUMBER.finditer(text))
        if not found:
            return text + self.rng.choice(NUMBERS)
        number = self.rng.choice(found)
        near = str(int(number[0][:18]) + self.rng.choice((-1, 1)))
        return text[: number.start()] + self.rng.choice((*NUMBERS, near, near, near)) + text[number.end() :]

    def _relined(self, text: str) -> str:
        rng, lines = self.rng, text.split("\n")
        at = rng.randrange(len(lines))
        match rng.randrange(5):
            case 0:
                del lines[at]
            case 1:
                lines.insert(rng.randrange(len(lines) + 1), lines[at])
            case 2:
                lines[at] = " " * rng.choice((1, 2, 4)) + lines[at]
            case 3:
                lines[at] = lines[at].removeprefix("  ")
            case _:
                name, colon, _ = lines[at].partition(":")
                lines[at] = name + colon
        return "\n".join(lines)


def _weight(value: Value) -> int:
    return 8 if isinstance(value, (str, list, dict)) else 2


def _some_text(value: Value, rng: Random) -> str:
    while isinstance(value, (tuple, list, dict)):
        members = list(value.values()) if isinstance(value, dict) else list(value)
        if not members:
            return ""
        value = rng.choice(members)
    return value if isinstance(value, str) else str(value)
