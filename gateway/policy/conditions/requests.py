"""What is asked for, by which link and with what: facts of the token and of the request itself.

A claim that the token has not is None, which matches nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

from gateway.document import Node
from gateway.policy.conditions.base import Asks, OneOf, Reader, unknown
from gateway.policy.conditions.schemas import ANY_TEXT, Schema, values_of
from gateway.policy.conditions.words import METHODS, agent_pattern, exact_text, method_name, path_pattern
from gateway.policy.glob_ways import ways
from gateway.policy.globs import Glob, path_glob, word_glob
from gateway.policy.model import Facts


@dataclass(frozen=True, slots=True)
class Patterns:
    """Texts that are meant whole, which one look-up finds, and globs, which are tried one by one."""

    exact: frozenset[str]
    globs: tuple[Glob, ...]

    def __contains__(self, text: str) -> bool:
        if text in self.exact:
            return True
        for glob in self.globs:  # noqa: SIM110  any() makes a generator, which costs more than most globs
            if glob.matches(text):
                return True
        return False


@dataclass(frozen=True, slots=True)
class _Matches(Asks[str]):
    """One text of the request is meant by one of these."""

    patterns: Patterns

    def meets(self, fact: str) -> bool:
        return fact in self.patterns

    @classmethod
    def ways(cls, conditions: Sequence[Self]) -> Iterable[int] | None:
        return ways([(each.patterns.exact, each.patterns.globs) for each in conditions])


@dataclass(frozen=True, slots=True)
class File(_Matches):
    """The file's key, or an external file's address without its query, is meant by one of these globs."""

    key: ClassVar[str] = "file"

    @classmethod
    def read(cls, node: Node, key: str, reader: Reader) -> Self:
        return cls(reader.values(node, key, path_pattern, _paths))

    def matches(self, facts: Facts) -> bool:
        return self.fact(facts) in self.patterns

    @property
    def roots(self) -> frozenset[str] | None:
        """The top folders (or names) that files must be in to be meant; None: that cannot be said."""
        heads = [glob.head for glob in self.patterns.globs]
        if not all("/" in head for head in heads):
            return None
        return frozenset(text.partition("/")[0] for text in (*heads, *self.patterns.exact))

    @staticmethod
    def root(facts: Facts) -> str:
        """The top folder that the file is in, or its name."""
        return File.fact(facts).partition("/")[0]

    @staticmethod
    def fact(facts: Facts) -> str:
        file = facts.file
        # As events hold it: what is decided now is decided alike when it is replayed.
        return file.key or "" if file.url is None else file.recorded.removeprefix("url:")


@dataclass(frozen=True, slots=True)
class Tier(OneOf):
    """The token's tier is one of these."""

    key: ClassVar[str] = "tier"
    word: ClassVar[Callable[[str], Hashable]] = exact_text

    @staticmethod
    def fact(facts: Facts) -> str | None:
        return facts.claims.tier


@dataclass(frozen=True, slots=True)
class InPlan(OneOf):
    """The plan in force, the token's own or the default one, is one of these."""

    key: ClassVar[str] = "plan"
    word: ClassVar[Callable[[str], Hashable]] = exact_text

    @classmethod
    def read(cls, node: Node, key: str, reader: Reader) -> Self:
        values = reader.values(node, key, exact_text, frozenset)
        for name in sorted(values.difference(reader.plans)) if reader.plans else ():
            # No token can have a plan that the file has not: the rule would never match.
            reader.mistakes.add(node, key, unknown("plan of this file", name, reader.plans))
        return cls(values)

    @staticmethod
    def fact(facts: Facts) -> str | None:
        return facts.plan


@dataclass(frozen=True, slots=True)
class OfOrder(OneOf):
    """The token's order is one of these."""

    key: ClassVar[str] = "order"
    word: ClassVar[Callable[[str], Hashable]] = exact_text

    @staticmethod
    def fact(facts: Facts) -> str | None:
        return facts.claims.order_id


@dataclass(frozen=True, slots=True)
class Customer(OneOf):
    """The token's customer is one of these."""

    key: ClassVar[str] = "customer"
    word: ClassVar[Callable[[str], Hashable]] = exact_text

    @staticmethod
    def fact(facts: Facts) -> str | None:
        return facts.claims.customer_id


@dataclass(frozen=True, slots=True)
class Method(OneOf):
    """The request's method is one of these."""

    key: ClassVar[str] = "method"
    word: ClassVar[Callable[[str], Hashable]] = method_name

    @staticmethod
    def fact(facts: Facts) -> str | None:
        return facts.method

    @classmethod
    def ways(cls, conditions: Sequence[Self]) -> Iterable[int] | None:
        # Any other method is answered with 405 and never gets as far as the rules.
        return {sum(each.meets(name) << number for number, each in enumerate(conditions)) for name in METHODS}

    @classmethod
    def schema(cls) -> Schema:
        return values_of({"enum": [*METHODS]})


@dataclass(frozen=True, slots=True)
class UserAgent(_Matches):
    """The whole User-Agent, in any case, is meant by one of these globs."""

    key: ClassVar[str] = "user_agent"

    @classmethod
    def read(cls, node: Node, key: str, reader: Reader) -> Self:
        return cls(reader.values(node, key, agent_pattern, _agents))

    def matches(self, facts: Facts) -> bool:
        return facts.user_agent.lower() in self.patterns

    @staticmethod
    def fact(facts: Facts) -> str:
        return facts.user_agent.lower()

    @classmethod
    def schema(cls) -> Schema:
        return values_of(ANY_TEXT)


def _paths(patterns: Iterable[str]) -> Patterns:
    return _patterns(patterns, path_glob)


def _agents(patterns: Iterable[str]) -> Patterns:
    return _patterns(patterns, word_glob)


def _patterns(texts: Iterable[str], compiled: Callable[[str], Glob]) -> Patterns:
    given = set(texts)
    wild = sorted(text for text in given if "*" in text or "?" in text)
    return Patterns(frozenset(given.difference(wild)), tuple(compiled(text) for text in wild))
