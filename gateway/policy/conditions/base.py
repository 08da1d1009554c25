"""What a condition is: how its written form is read, and whom it means. Read with `Reader`, kept in CONDITIONS."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import tzinfo
from typing import ClassVar, Generic, Protocol, Self, TypeVar, cast

from gateway.document import Mistakes, Node, join, shown
from gateway.policy.conditions.schemas import TEXT, Schema, values_of
from gateway.policy.model import Facts
from gateway.policy.tree_reader import TreeReader, unknown

__all__ = ["Asks", "Condition", "OneOf", "Reader", "When", "holds", "unknown"]

T = TypeVar("T")
S = TypeVar("S")
F = TypeVar("F")

WRONG_ENTRIES_MAX = 50
"""A list with more wrong entries than this is wrong as a whole: more lines would tell nothing new."""


class Condition(Protocol):
    """One key of a `when:`. `needs`: the geo database it asks, of `city`, `asn`, `anonymous`.

    It is either an Asks, which looks at one fact of a request, or made of other conditions (see combined).
    """

    key: ClassVar[str]
    needs: ClassVar[str | None]

    @classmethod
    def read(cls, node: Node, key: str, reader: Reader) -> Self:
        """From its written form. Mistakes go to the reader; where it has any, what is returned is never used."""

    def matches(self, facts: Facts) -> bool:
        """Whether the request is meant."""

    @classmethod
    def schema(cls) -> Schema:
        """JSON Schema of its written form."""


class Asks(ABC, Generic[F]):
    """A condition on one fact of the request, so that it can be said what it saw, and asked what it would say of
    another one.
    """

    __slots__ = ()
    key: ClassVar[str]
    needs: ClassVar[str | None] = None

    @staticmethod
    @abstractmethod
    def fact(facts: Facts) -> F:
        """What it looks at; None where it is not known."""

    @abstractmethod
    def meets(self, fact: F) -> bool:
        """Whether a request with this fact is meant."""

    def in_words(self, fact: F) -> str:
        """The fact for people, on one line."""
        if fact is None:
            return "unknown" if self.needs is not None else "none"
        return shown(Node("", str(fact))) or "none"

    @classmethod
    def ways(cls, conditions: Sequence[Self]) -> Iterable[int] | None:
        """Each combination of these conditions that one fact can meet, as a number with a bit for each condition, the
        first one lowest. More than there are is no harm, a missing one is (policy.reach). None: that cannot be said.
        """
        return None

    @classmethod
    def schema(cls) -> Schema:
        """JSON Schema of all that `read` accepts; more is no harm."""
        return values_of(TEXT)

    def matches(self, facts: Facts) -> bool:
        """Whether the request is meant. The conditions that are asked one by one say it without these two calls."""
        return self.meets(self.fact(facts))


@dataclass(frozen=True, slots=True)
class OneOf(Asks[Hashable]):
    """One fact of the request is among some values. `word` reads one of them; its ValueError says what is wrong.

    All conditions of this kind are answered by one look-up for all rules (policy.index).
    """

    word: ClassVar[Callable[[str], Hashable]]
    values: frozenset[Hashable]

    @classmethod
    def read(cls, node: Node, key: str, reader: Reader) -> Self:
        return cls(reader.values(node, key, cls.word, frozenset))

    def meets(self, fact: Hashable) -> bool:
        return fact in self.values

    @classmethod
    def ways(cls, conditions: Sequence[Self]) -> Iterable[int] | None:
        found: dict[Hashable, int] = {}
        for number, condition in enumerate(conditions):
            for value in condition.values:
                found[value] = found.get(value, 0) | 1 << number
        return {0, *found.values()}


When = tuple[Condition, ...]
"""One `when:`, all of which must hold."""


def holds(when: When, facts: Facts) -> bool:
    """Whether all of these conditions hold."""
    for condition in when:  # noqa: SIM110  all() makes a generator, which costs more than most conditions
        if not condition.matches(facts):
            return False
    return True


@dataclass(slots=True)
class Reader(TreeReader):
    """What a condition may ask while it is read. `zone` gives an IANA time zone or raises ValueError; `databases` are
    the geo databases there are, None where that is not known; `plans` the names of the file's plans. `needs` becomes
    the databases that conditions ask, each with the first that does and its key; `used` the names of lists in use.
    """

    conditions: Mapping[str, type[Condition]]
    mistakes: Mistakes
    lists: Mapping[str, Iterable[Node]]
    plans: Iterable[str]
    zone: Callable[[str], tzinfo]
    databases: Iterable[str] | None = None
    needs: dict[str, tuple[Node, str]] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    _built: dict[tuple[Hashable, ...], object] = field(default_factory=dict)

    def when(self, node: Node, key: str) -> When:
        """The conditions of a mapping."""
        found: list[Condition] = []
        for name, child in self.members(node, key, "condition", "country: PL").items():
            condition = self.conditions.get(name)
            if condition is None:
                self.mistakes.add(child.named, join(key, name), unknown("condition", name, self.conditions))
            elif child.value is None:
                self.wrong(child, join(key, name), "has no value; give it one or remove the line")
            else:
                self._need(condition, child, join(key, name))
                found.append(condition.read(child, join(key, name), self))
        return tuple(found)

    def members(self, node: Node, key: str, what: str, example: str) -> dict[str, Node]:
        """A mapping's members; anything else, and an empty one, is a mistake. `what` names them, like `example`."""
        if node.value is None:
            self.wrong(node, key, f"has no value; write {{{example}}}")
        elif not isinstance(node.value, dict):
            self.mistakes.add(node, key, f"is no mapping; write {{{example}}} or one `{what}: value` a line")
        elif not node.value:
            self.wrong(node, key, f"is empty; name at least one {what}, such as {{{example}}}")
        else:
            return node.value
        return {}

    def values(self, node: Node, key: str, read: Callable[[str], T], build: Callable[[Iterable[T]], S]) -> S:
        """One value, a list of values, `$name` of a list, or a list with such names in it: all of them, built into one.

        `read` raises ValueError saying what is wrong. A list that stands alone is read once, however many rules use it.
        """
        if not (isinstance(node.value, str) and node.value.startswith("$")):
            return build(self._read(self._entries(node, key), read))
        known = (node.value, read, build)
        if known not in self._built:
            self._built[known] = build(self._read(self._entries(node, key), read))
        return cast(S, self._built[known])

    def _read(self, entries: Iterable[tuple[Node, str]], read: Callable[[str], T]) -> Iterator[T]:
        wrong = 0
        for entry, key in entries:
            if entry.value is None or not isinstance(entry.value, str):
                continue
            try:
                yield read(entry.value)
            except ValueError as error:
                wrong += 1
                if wrong > WRONG_ENTRIES_MAX:
                    self.mistakes.add(entry, key, "and what follows is not looked at; correct the others first")
                    return
                self.wrong(entry, key, str(error))

    def _entries(self, node: Node, key: str) -> Iterator[tuple[Node, str]]:
        if isinstance(node.value, list):
            if not node.value:
                self.wrong(node, key, "is an empty list; give it a value or remove the line")
            for index, item in enumerate(node.value):
                if self.text(item, join(key, index), "write one value") is not None:
                    yield from self._entries(item, join(key, index))
        elif self.text(node, key, "write one value, or a list of them: [a, b]") is None:
            return
        elif isinstance(node.value, str) and node.value.startswith("$"):
            self.used.add(node.value[1:])
            entries = self.lists.get(node.value[1:])
            if entries is None:
                names = [f"${name}" for name in self.lists]
                self.mistakes.add(node, key, unknown("list", node.value, names, "add it under lists"))
            else:
                yield from ((entry, key) for entry in entries)
        else:
            yield node, key

    def _need(self, condition: type[Condition], node: Node, key: str) -> None:
        if condition.needs is None:
            return
        self.needs.setdefault(condition.needs, (node.named, key))
        if self.databases is not None and condition.needs not in self.databases:
            name = f"geo.{condition.needs}"
            self.mistakes.add(node.named, key, f"needs {name} in the settings; name the database there")
