from __future__ import annotations

from ipaddress import ip_address

import pytest

from gateway.http.forwarded import parse_address
from gateway.policy.networks import is_near, network_of


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("203.0.113.77", "203.0.113.0/24"),
        ("2001:db8:1:2ff:3::4", "2001:db8:1:200::/56"),
        ("::ffff:203.0.113.77", "203.0.113.0/24"),
        ("fe80::1%eth0", "fe80::/56"),
    ],
)
def test_the_network_that_counts_as_one_place(text: str, network: str) -> None:
    address = parse_address(text)
    assert address is not None
    assert network_of(address) == network


@pytest.mark.parametrize(
    ("client", "known", "near"),
    [
        ("203.0.113.9", "203.0.113.9", True),
        ("203.0.113.9", "203.0.113.250", True),
        ("203.0.113.9", "203.0.114.9", False),
        ("203.0.113.9", "::ffff:203.0.113.1", True),
        ("2001:db8:1:2ff::1", "2001:db8:1:200::9", True),
        ("2001:db8:1:2ff::1", "2001:db8:1:300::9", False),
        ("203.0.113.9", "2001:db8::1", False),
        ("203.0.113.9", "", False),
        ("203.0.113.9", "203.0.113.0/24", False),
        ("203.0.113.9", "unknown", False),
    ],
)
def test_near_is_in_the_same_network_and_nothing_else(client: str, known: str, near: bool) -> None:
    assert is_near(ip_address(client), known) is near
