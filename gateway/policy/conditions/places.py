"""Where a request comes from: its address, and what the geo data say of that address.

What they do not know is None, which `unknown` means and nothing else does.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import ClassVar, Self

from gateway.document import Node
from gateway.policy.conditions.base import Asks, OneOf, Reader
from gateway.policy.conditions.words import as_number, continent_code, country_code, network_type, region_code
from gateway.policy.model import Address, Facts
from gateway.policy.networks import NetworkSet, network_set, read_network, unmapped


@dataclass(frozen=True, slots=True)
class Ip(Asks[Address]):
    """The client's address is one of these, or in one of these networks."""

    key: ClassVar[str] = "ip"
    networks: NetworkSet

    @classmethod
    def read(cls, node: Node, key: str, reader: Reader) -> Self:
        return cls(reader.values(node, key, read_network, network_set))

    @staticmethod
    def fact(facts: Facts) -> Address:
        return unmapped(facts.address)

    def in_words(self, fact: Address) -> str:
        return "unknown" if fact.is_unspecified else str(fact)

    def meets(self, fact: Address) -> bool:
        return fact in self.networks


@dataclass(frozen=True, slots=True)
class Country(OneOf):
    """The address's country is one of these."""

    key: ClassVar[str] = "country"
    needs: ClassVar[str | None] = "city"
    word: ClassVar[Callable[[str], Hashable]] = country_code

    @staticmethod
    def fact(facts: Facts) -> str | None:
        return facts.place.country


@dataclass(frozen=True, slots=True)
class Continent(OneOf):
    """The address's continent is one of these."""

    key: ClassVar[str] = "continent"
    needs: ClassVar[str | None] = "city"
    word: ClassVar[Callable[[str], Hashable]] = continent_code

    @staticmethod
    def fact(facts: Facts) -> str | None:
        return facts.place.continent


@dataclass(frozen=True, slots=True)
class Region(OneOf):
    """The address's region (ISO 3166-2) is one of these."""

    key: ClassVar[str] = "region"
    needs: ClassVar[str | None] = "city"
    word: ClassVar[Callable[[str], Hashable]] = region_code

    @staticmethod
    def fact(facts: Facts) -> str | None:
        return facts.place.region


@dataclass(frozen=True, slots=True)
class Asn(OneOf):
    """The address's autonomous system is one of these."""

    key: ClassVar[str] = "asn"
    needs: ClassVar[str | None] = "asn"
    word: ClassVar[Callable[[str], Hashable]] = as_number

    @staticmethod
    def fact(facts: Facts) -> int | None:
        return facts.place.asn


@dataclass(frozen=True, slots=True)
class NetworkType(Asks[frozenset[str] | None]):
    """The address's network is of one of these types."""

    key: ClassVar[str] = "network"
    needs: ClassVar[str | None] = "anonymous"
    types: frozenset[str | None]

    @classmethod
    def read(cls, node: Node, key: str, reader: Reader) -> Self:
        return cls(reader.values(node, key, network_type, frozenset))

    @staticmethod
    def fact(facts: Facts) -> frozenset[str] | None:
        return facts.place.network

    def in_words(self, fact: frozenset[str] | None) -> str:
        return "unknown" if fact is None else " ".join(sorted(fact)) or "none of these types"

    def meets(self, fact: frozenset[str] | None) -> bool:
        return None in self.types if fact is None else not self.types.isdisjoint(fact)
