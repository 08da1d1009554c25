"""Sets of networks whose look-up costs the same for ten entries and ten thousand: one probe per prefix length."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from gateway.policy.model import Address, Network

_MAPPED = IPv6Network("::ffff:0:0/96")
_LENGTH = {4: 32, 6: 128}
_NEAR_IPV4, _NEAR_IPV6 = 24, 56
_WRITTEN = re.compile(r"[0-9a-fA-F:.]{2,45}(?:/(?:0|[1-9][0-9]{0,2}))?")

Place = tuple[int, int, int]
"""A network as IP version, host bits, and its number without them."""


@dataclass(frozen=True, slots=True)
class NetworkSet:
    """Addresses in any of these networks. `tables`: per IP version the host bits and the networks' numbers."""

    tables: Mapping[int, tuple[tuple[int, frozenset[int]], ...]]

    def __contains__(self, address: Address) -> bool:
        number = int(address)
        for bits, numbers in self.tables[address.version]:  # noqa: SIM110  any() makes a generator, which costs more
            if number >> bits in numbers:
                return True
        return False


def network_set(networks: Iterable[Network]) -> NetworkSet:
    """The set of these networks."""
    grouped: dict[int, dict[int, set[int]]] = {4: {}, 6: {}}
    for network in networks:
        version, bits, number = place(network)
        grouped[version].setdefault(bits, set()).add(number)
    return NetworkSet(
        {
            version: tuple((bits, frozenset(numbers)) for bits, numbers in sorted(groups.items()))
            for version, groups in grouped.items()
        }
    )


Numbered = Mapping[int, Sequence[tuple[int, Mapping[int, int]]]]
"""Several sets at once, each known by bits of a number: per IP version the host bits, and for each network's number the
bits of the sets that hold it.
"""


def numbered(sets: Iterable[tuple[NetworkSet, int]]) -> Numbered:
    """These sets, each with its bits, as one table."""
    merged: dict[int, dict[int, dict[int, int]]] = {4: {}, 6: {}}
    for networks, own in sets:
        for version, tables in networks.tables.items():
            for bits, numbers in tables:
                found = merged[version].setdefault(bits, {})
                for number in numbers:
                    found[number] = found.get(number, 0) | own
    return {version: tuple(sorted(tables.items())) for version, tables in merged.items()}


def ways(sets: Iterable[tuple[NetworkSet, int]]) -> set[int]:
    """Each combination of these sets that some address is in, as their bits."""
    found: set[int] = set()
    for version, tables in numbered(sets).items():
        longest = _LENGTH[version]
        edges = {0}
        for bits, numbers in tables:
            edges.update(edge << bits for number in numbers for edge in (number, number + 1))
        for edge in edges:
            if edge >> longest:
                continue
            inside = 0
            for bits, numbers in tables:
                inside |= numbers.get(edge >> bits, 0)
            found.add(inside)
    return found


def place(network: Network) -> Place:
    """Where a network stands among those of its size."""
    bits = network.max_prefixlen - network.prefixlen
    return network.version, bits, int(network.network_address) >> bits


def network_of(address: Address) -> str:
    """The network that counts as one place: the /24 of an IPv4 address, the /56 of an IPv6 address."""
    prefix = _NEAR_IPV4 if isinstance(address, IPv4Address) else _NEAR_IPV6
    return str(ip_network((address.packed, prefix), strict=False))


def is_near(address: Address, known: str) -> bool:
    """Whether the address is in the network of the known one, as text. Nothing is near what is no address."""
    try:
        return network_of(address) == network_of(unmapped(ip_address(known)))
    except ValueError:
        return False


def near(known: str) -> str:
    """The first address of the network that a known one is in, all that `is_near` asks for; "" for no address."""
    try:
        return network_of(unmapped(ip_address(known))).partition("/")[0]
    except ValueError:
        return ""


def unmapped(address: Address) -> Address:
    """An IPv4 address that came as ::ffff:a.b.c.d, as itself."""
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def read_network(text: str) -> Network:
    """An address or a network as people write them. Raises ValueError saying what is wrong and what would be right."""
    right = "write an address or a network, such as 203.0.113.9 or 203.0.113.0/24"
    if "%" in text:
        raise ValueError(f"has a zone (%…); {right}")
    if not _WRITTEN.fullmatch(text):
        raise ValueError(f"is no address or network; {right}")
    try:
        network = ip_network(text, strict=False)
        address = ip_address(text.partition("/")[0])
    except ValueError:
        raise ValueError(f"is no address or network; {right}") from None
    if address != network.network_address:
        raise ValueError(f"has host bits set; write {_native(network)}, or {address} for one address")
    return _native(network)


def _native(network: Network) -> Network:
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        address = IPv4Address(int(network.network_address) & 0xFFFF_FFFF)
        return IPv4Network((address, network.prefixlen - _MAPPED.prefixlen))
    return network
