"""Conditions made of conditions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Self

from gateway.document import Node, join
from gateway.policy.conditions.base import Asks, Condition, Reader, When, holds
from gateway.policy.conditions.schemas import WHEN, Schema
from gateway.policy.model import Facts

_WHENS: Schema = {"type": "array", "minItems": 1, "items": WHEN}


@dataclass(frozen=True, slots=True)
class Any:
    """At least one of these holds."""

    key: ClassVar[str] = "any"
    needs: ClassVar[str | None] = None
    of: tuple[When, ...]

    @classmethod
    def read(cls, node: Node, key: str, reader: Reader) -> Self:
        return cls(_whens(node, key, reader))

    def matches(self, facts: Facts) -> bool:
        return any(holds(when, facts) for when in self.of)

    @classmethod
    def schema(cls) -> Schema:
        return _WHENS


@dataclass(frozen=True, slots=True)
class All:
    """Every one of these holds."""

    key: ClassVar[str] = "all"
    needs: ClassVar[str | None] = None
    of: tuple[When, ...]

    @classmethod
    def read(cls, node: Node, key: str, reader: Reader) -> Self:
        return cls(_whens(node, key, reader))

    def matches(self, facts: Facts) -> bool:
        return all(holds(when, facts) for when in self.of)

    @classmethod
    def schema(cls) -> Schema:
        return _WHENS


@dataclass(frozen=True, slots=True)
class Not:
    """These do not hold all together."""

    key: ClassVar[str] = "not"
    needs: ClassVar[str | None] = None
    when: When

    @classmethod
    def read(cls, node: Node, key: str, reader: Reader) -> Self:
        return cls(reader.when(node, key))

    def matches(self, facts: Facts) -> bool:
        return not holds(self.when, facts)

    @classmethod
    def schema(cls) -> Schema:
        return WHEN


def _whens(node: Node, key: str, reader: Reader) -> tuple[When, ...]:
    if not isinstance(node.value, list):
        reader.mistakes.add(node, key, "is no list; write [{country: PL}, {tier: gold}]")
        return ()
    if not node.value:
        reader.wrong(node, key, "is an empty list; give it a value or remove the line")
    return tuple(reader.when(item, join(key, index)) for index, item in enumerate(node.value))


def leaves(when: Iterable[Condition]) -> Iterator[Asks[object]]:
    """The conditions on single facts that these rest on, in the order of the file."""
    for condition in when:
        if isinstance(condition, Not):
            yield from leaves(condition.when)
        elif isinstance(condition, All | Any):
            for each in condition.of:
                yield from leaves(each)
        elif isinstance(condition, Asks):
            yield condition
