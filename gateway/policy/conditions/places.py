"""Where a request comes from: its address, and what the geo data say of that address.

What they do not know is None, which `unknown` means and nothing else does.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import ClassVar, Self

from gateway.document import Node
from gateway.policy.conditions.base import Asks, OneOf, Reader
from gateway.policy.conditions.schemas import Schema, values_of
from gateway.policy.conditions.words import (
    ASN_MAX,
    UNKNOWN,
    as_number,
    continent_code,
    country_code,
    network_type,
    region_code,
)
from gateway.policy.countries import CONTINENTS, COUNTRIES
from gateway.policy.model import NETWORK_TYPES, Address, Facts
from gateway.policy.networks import NetworkSet, network_set, read_network, unmapped, ways


@dataclass(frozen=True, slots=True)
class Ip(Asks[Address]):
    """The client's address is one of these, or in one of these networks."""

    key: ClassVar[str] = "ip"
    networks: NetworkSet

    @classmethod
    def read(cls, node: Node, key: str, reader: Reader) -> Self:
        return cls(reader.values(node, key, read_network, network_set))

    def matches(self, facts: Facts) -> bool:
        return unmapped(facts.address) in self.networks

    @staticmethod
    def fact(facts: Facts) -> Address:
        return unmapped(facts.address)

    def in_words(self, fact: Address) -> str:
        return "unknown" if fact.is_unspecified else str(fact)

    def meets(self, fact: Address) -> bool:
        return fact in self.networks

    @classmethod
    def ways(cls, conditions: Sequence[Self]) -> Iterable[int] | None:
        return ways((condition.networks, 1 << number) for number, condition in enumerate(conditions))

    @classmethod
    def schema(cls) -> Schema:
        return values_of({"type": "string", "pattern": "^[0-9a-fA-F:.]{2,45}(/[0-9]{1,3})?$"})


@dataclass(frozen=True, slots=True)
class Country(OneOf):
    """The address's country is one of these."""

    key: ClassVar[str] = "country"
    needs: ClassVar[str | None] = "city"
    word: ClassVar[Callable[[str], Hashable]] = country_code

    @staticmethod
    def fact(facts: Facts) -> str | None:
        return facts.place.country

    @classmethod
    def schema(cls) -> Schema:
        return values_of({"enum": [*sorted(COUNTRIES), UNKNOWN]})


@dataclass(frozen=True, slots=True)
class Continent(OneOf):
    """The address's continent is one of these."""

    key: ClassVar[str] = "continent"
    needs: ClassVar[str | None] = "city"
    word: ClassVar[Callable[[str], Hashable]] = continent_code

    @staticmethod
    def fact(facts: Facts) -> str | None:
        return facts.place.continent

    @classmethod
    def schema(cls) -> Schema:
        return values_of({"enum": [*CONTINENTS, UNKNOWN]})


@dataclass(frozen=True, slots=True)
class Region(OneOf):
    """The address's region (ISO 3166-2) is one of these."""

    key: ClassVar[str] = "region"
    needs: ClassVar[str | None] = "city"
    word: ClassVar[Callable[[str], Hashable]] = region_code

    @staticmethod
    def fact(facts: Facts) -> str | None:
        return facts.place.region

    @classmethod
    def schema(cls) -> Schema:
        return values_of({"type": "string", "pattern": f"^([A-Z]{{2}}-[A-Z0-9]{{1,3}}|{UNKNOWN})$"})


@dataclass(frozen=True, slots=True)
class Asn(OneOf):
    """The address's autonomous system is one of these."""

    key: ClassVar[str] = "asn"
    needs: ClassVar[str | None] = "asn"
    word: ClassVar[Callable[[str], Hashable]] = as_number

    @staticmethod
    def fact(facts: Facts) -> int | None:
        return facts.place.asn

    @classmethod
    def schema(cls) -> Schema:
        number = {"type": "integer", "minimum": 1, "maximum": ASN_MAX}
        return values_of({"anyOf": [number, {"type": "string", "pattern": f"^([1-9][0-9]{{0,9}}|{UNKNOWN})$"}]})


@dataclass(frozen=True, slots=True)
class NetworkType(Asks[frozenset[str] | None]):
    """The address's network is of one of these types."""

    key: ClassVar[str] = "network"
    needs: ClassVar[str | None] = "anonymous"
    types: frozenset[str | None]

    @classmethod
    def read(cls, node: Node, key: str, reader: Reader) -> Self:
        return cls(reader.values(node, key, network_type, frozenset))

    def matches(self, facts: Facts) -> bool:
        return self.meets(facts.place.network)

    @staticmethod
    def fact(facts: Facts) -> frozenset[str] | None:
        return facts.place.network

    def in_words(self, fact: frozenset[str] | None) -> str:
        return "unknown" if fact is None else " ".join(sorted(fact)) or "none of these types"

    def meets(self, fact: frozenset[str] | None) -> bool:
        return None in self.types if fact is None else not self.types.isdisjoint(fact)

    @classmethod
    def ways(cls, conditions: Sequence[Self]) -> Iterable[int] | None:
        facts: list[frozenset[str] | None] = [None]
        for count in range(len(NETWORK_TYPES) + 1):
            facts += map(frozenset, combinations(NETWORK_TYPES, count))
        return {sum(each.meets(fact) << number for number, each in enumerate(conditions)) for fact in facts}

    @classmethod
    def schema(cls) -> Schema:
        return values_of({"enum": [*NETWORK_TYPES, UNKNOWN]})
