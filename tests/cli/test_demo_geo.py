"""The demo's geo data mean what their table says, and are the same every time."""

from __future__ import annotations

import sys
from dataclasses import replace
from ipaddress import ip_address, ip_network
from itertools import combinations
from pathlib import Path

import pytest

from gateway.backends.maxmind import Databases
from gateway.cli.demo_geo import NETWORKS, OFFICE, build_demo_databases
from gateway.errors import SettingsError
from gateway.policy.model import NETWORK_TYPES, Place

EXAMPLES = [ip_network(text) for text in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32")]


@pytest.fixture(scope="module")
def databases(tmp_path_factory: pytest.TempPathFactory) -> Databases:
    return Databases.load(**build_demo_databases(tmp_path_factory.mktemp("geo")))


@pytest.mark.parametrize("text", NETWORKS)
def test_every_network_is_where_the_table_says(databases: Databases, text: str) -> None:
    network = ip_network(text)
    middle = network.network_address + network.num_addresses // 2
    for address in (network.network_address, middle, network.broadcast_address):
        assert databases.look_up(address) == replace(NETWORKS[text], version=databases.version)


@pytest.mark.parametrize("text", ["192.0.1.255", "192.0.3.0", "203.0.114.0", "127.0.0.1", "::1", "2001:db8:43::1"])
def test_all_else_is_unknown(databases: Databases, text: str) -> None:
    assert databases.look_up(ip_address(text)) == Place(version=databases.version)


@pytest.mark.parametrize(
    ("address", "country", "network"),
    [
        ("203.0.113.9", "PL", None),
        ("198.51.100.7", "PL", None),
        ("198.51.100.70", "CU", None),
        ("198.51.100.200", None, None),
        ("192.0.2.44", "US", {"hosting", "anonymous"}),
        ("192.0.2.130", "DE", {"vpn", "anonymous"}),
        ("192.0.2.200", "NL", {"tor", "anonymous"}),
    ],
)
def test_the_addresses_that_the_demo_plays_with(
    databases: Databases, address: str, country: str | None, network: set[str] | None
) -> None:
    place = databases.look_up(ip_address(address))
    assert (place.country, place.network) == (country, network)


def test_only_example_networks_are_in_it_and_no_two_overlap() -> None:
    networks = [ip_network(text) for text in NETWORKS]
    assert all(
        any(network.version == example.version and network.subnet_of(example) for example in EXAMPLES)
        for network in networks
    )
    assert not any(one.overlaps(other) for one, other in combinations(networks, 2))
    assert ip_network(OFFICE) in networks


def test_every_kind_of_network_is_in_it() -> None:
    assert set().union(*(place.network or () for place in NETWORKS.values())) == set(NETWORK_TYPES)


def test_the_same_bytes_every_time_but_for_the_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmdb_writer.time.time", lambda: 1_800_000_000.0)
    written = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        written.append({key: path.read_bytes() for key, path in build_demo_databases(tmp_path / name).items()})
    assert written[0] == written[1]
    assert list(written[0]) == ["city", "asn", "anonymous"]


def test_without_the_extra_the_error_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mmdb_writer", None)
    with pytest.raises(SettingsError, match="make setup"):
        build_demo_databases(tmp_path)
    assert list(tmp_path.iterdir()) == []
