"""Which rules may mean a request, by one look-up per kind of fact instead of one per rule.

A set of rules is a number with a bit for each, the first one lowest. What this leaves open is asked rule by rule:
of `file` only the top folder, and all conditions that are not about one fact.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from gateway.policy.conditions import INDEXED
from gateway.policy.conditions.base import When
from gateway.policy.conditions.places import Ip
from gateway.policy.conditions.requests import File
from gateway.policy.model import Facts
from gateway.policy.networks import NetworkSet, Numbered, numbered, unmapped


@dataclass(frozen=True, slots=True)
class _Column:
    """One kind of fact: the rules that each value leaves, `free` those that do not ask."""

    fact: Callable[[Facts], Hashable]
    free: int
    rules: Mapping[Hashable, int]


@dataclass(frozen=True, slots=True)
class _Networks:
    """The same for addresses: per IP version the host bits and which rules ask for the network of this number."""

    free: int
    tables: Numbered


@dataclass(frozen=True, slots=True)
class Index:
    """The rules' conditions. `rest`: of each rule, those that candidates() has not answered."""

    every: int
    columns: tuple[_Column, ...]
    networks: _Networks | None
    rest: tuple[When, ...]

    def candidates(self, facts: Facts) -> int:
        """The rules whose indexed conditions all hold."""
        found = self.every
        for column in self.columns:
            found &= column.rules.get(column.fact(facts), column.free)
        if found and self.networks is not None:
            address = unmapped(facts.address)
            number, inside = int(address), self.networks.free
            for bits, rules in self.networks.tables[address.version]:
                inside |= rules.get(number >> bits, 0)
            found &= inside
        return found


def build_index(whens: Sequence[When]) -> Index:
    """The index over the rules' conditions, in the rules' order."""
    columns: dict[type, dict[frozenset[Hashable], int]] = {}
    roots: dict[frozenset[Hashable], int] = {}
    networks: dict[int, tuple[NetworkSet, int]] = {}
    rest: list[When] = []
    for number, when in enumerate(whens):
        bit = 1 << number
        for condition in when:
            if isinstance(condition, Ip):
                # By identity: hundreds of rules may share one list, and its entries are gone through once.
                known, rules = networks.get(id(condition.networks), (condition.networks, 0))
                networks[id(known)] = (known, rules | bit)
            elif isinstance(condition, File) and condition.roots is not None:
                roots[condition.roots] = roots.get(condition.roots, 0) | bit
            elif isinstance(condition, INDEXED):
                column = columns.setdefault(type(condition), {})
                column[condition.values] = column.get(condition.values, 0) | bit
        rest.append(tuple(each for each in when if not isinstance(each, (Ip, *INDEXED))))
    every = (1 << len(whens)) - 1
    indexed = [_column(kind.fact, sets, every) for kind in INDEXED if (sets := columns.get(kind))]
    indexed += [_column(File.root, roots, every)] if roots else []
    return Index(
        every,
        tuple(indexed),
        _networks(list(networks.values()), every) if networks else None,
        tuple(rest),
    )


def _column(fact: Callable[[Facts], Hashable], sets: Mapping[frozenset[Hashable], int], every: int) -> _Column:
    free = every & ~_union(sets.values())
    rules: dict[Hashable, int] = {}
    for values, asking in sets.items():
        for value in values:
            rules[value] = rules.get(value, free) | asking
    return _Column(fact, free, rules)


def _networks(sets: Sequence[tuple[NetworkSet, int]], every: int) -> _Networks:
    return _Networks(every & ~_union(asking for _, asking in sets), numbered(sets))


def _union(sets: Iterable[int]) -> int:
    union = 0
    for rules in sets:
        union |= rules
    return union
