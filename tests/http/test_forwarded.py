from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http.forwarded import client_address, is_trusted, parse_address

TRUSTED = [ip_network("10.0.0.0/8"), ip_network("fd00::/8")]
PROXY = "10.0.0.1"


def client(*headers: tuple[str, str], peer: str = PROXY) -> str | None:
    address = client_address(peer, headers, TRUSTED)
    return None if address is None else str(address)


def test_an_untrusted_peer_is_the_client_whatever_it_says() -> None:
    assert client(("X-Forwarded-For", "10.0.0.9"), ("Forwarded", "for=10.0.0.9"), peer="203.0.113.9") == "203.0.113.9"


@pytest.mark.parametrize(("peer", "address"), [("::ffff:10.0.0.1", "1.2.3.4"), ("fd00::1%eth0", "1.2.3.4")])
def test_the_peer_is_unmapped_and_loses_its_scope(peer: str, address: str) -> None:
    assert client(("X-Forwarded-For", "1.2.3.4"), peer=peer) == address
    assert client(peer="fe80::1%eth0") == "fe80::1"


@pytest.mark.parametrize(
    ("peer", "trusted"),
    [
        ("10.0.0.1", True),
        ("::ffff:10.0.0.1", True),
        ("fd00::1", True),
        ("fd00::1%eth0", True),
        ("11.0.0.1", False),
        ("::1", False),
        ("2001:db8::10.0.0.1", False),
        ("", False),
        ("unix:", False),
        ("10.0.0.1:80", False),
        ("10.0.0", False),
    ],
)
def test_which_peers_are_believed(peer: str, trusted: bool) -> None:
    assert is_trusted(peer, TRUSTED) is trusted
    assert is_trusted(peer, []) is False


def test_a_peer_without_an_address_is_nobody() -> None:
    assert client(("X-Forwarded-For", "1.2.3.4"), peer="") is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("evil, 203.0.113.9, 10.0.0.5", "203.0.113.9"),
        ("10.0.0.7, 10.0.0.5", "10.0.0.7"),
        ("203.0.113.9:4711", "203.0.113.9"),
        ("[2001:db8::9]:443", "2001:db8::9"),
        ("[2001:db8::9]", "2001:db8::9"),
        ("2001:db8::9", "2001:db8::9"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("[::ffff:10.0.0.7]:80", "10.0.0.7"),
        ("203.0.113.9,, \t,10.0.0.5,", "203.0.113.9"),
        ("", PROXY),
        (" , ", PROXY),
        # what a trusted proxy passed on is no address: nobody, never the proxy itself
        ("203.0.113.9, unknown", None),
        ("203.0.113.9, evil, 10.0.0.5", None),
        ("203.0.113.9:99999999", None),
        ("203.0.113.9 10.0.0.1", None),
        ("[2001:db8::9", None),
        ("[2001:db8::9]443", None),
        ("[203.0.113.9]", None),
        ("0x7f.1", None),
        ("203.0.113.9%eth0", None),
    ],
)
def test_x_forwarded_for(value: str, expected: str | None) -> None:
    assert client(("x-forwarded-FOR", value)) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("for=203.0.113.9", "203.0.113.9"),
        ('FOR="[2001:db8::9]:443";proto=https;by=10.0.0.1', "2001:db8::9"),
        ("for=198.51.100.1, for=203.0.113.9; proto=http , for=10.0.0.5", "203.0.113.9"),
        ('for="203.0.113.9:_port"', "203.0.113.9"),
        ('by="a,for=1.1.1.1;";for=203.0.113.9', "203.0.113.9"),
        (r'for="203.0.113\.9"', "203.0.113.9"),
        ("for=unknown, for=203.0.113.9", "203.0.113.9"),
        ("for=203.0.113.9;", "203.0.113.9"),
        ("for=203.0.113.9, for=unknown", None),
        ("for=203.0.113.9, for=_hidden", None),
        ("for=203.0.113.9, proto=https", None),
        ("for=203.0.113.9;for=1.1.1.1", None),
        ('for="203.0.113.9', None),
        ('for=", for=203.0.113.9', None),
        ('for="" , by=";for=203.0.113.9', None),
        ("203.0.113.9", None),
        ('for="' + r"\"" * 50_000, None),
        ("for=203.0.113.9" + ' "' * 50_000, None),
    ],
)
def test_forwarded(value: str, expected: str | None) -> None:
    assert client(("Forwarded", value)) == expected


def test_lines_are_joined_in_their_order() -> None:
    assert client(("X-Forwarded-For", "1.1.1.1"), ("X-Forwarded-For", "203.0.113.9")) == "203.0.113.9"
    assert client(("Forwarded", "for=1.1.1.1"), ("Forwarded", "for=203.0.113.9")) == "203.0.113.9"


def test_x_forwarded_for_wins_over_forwarded() -> None:
    assert client(("Forwarded", "for=1.1.1.1"), ("X-Forwarded-For", "203.0.113.9")) == "203.0.113.9"


@pytest.mark.parametrize("name", ["X_Forwarded_For", "x-forwarded-for ", "X-Real-IP", "X-Client-IP", "True-Client-IP"])
def test_no_other_header_is_read(name: str) -> None:
    assert client((name, "1.1.1.1")) == PROXY


def test_the_walk_is_bounded() -> None:
    assert client(("X-Forwarded-For", "203.0.113.9" + ", 10.0.0.5" * 31)) == "203.0.113.9"
    assert client(("X-Forwarded-For", "203.0.113.9" + ", 10.0.0.5" * 40)) is None
    assert client(("X-Forwarded-For", "1.1.1.1, " * 50_000 + "203.0.113.9")) == "203.0.113.9"


@given(st.lists(st.text(alphabet='for="[]:;,_\\ .019af%x', max_size=30), max_size=4))
def test_what_a_client_prepends_never_changes_an_unbroken_answer(lines: list[str]) -> None:
    for name, own in (
        ("X-Forwarded-For", "2001:db8::9"),
        ("Forwarded", 'for="[2001:db8::9]:443"'),
        ("Forwarded", 'proto=https;for="[2001:db8::9]", for=10.0.0.5'),
    ):
        spoofed = [(name, line) for line in lines]
        assert client(*spoofed, (name, own)) in ("2001:db8::9", None)


@given(st.ip_addresses())
def test_addresses_round_trip(address: object) -> None:
    parsed = parse_address(str(address))
    assert parsed is not None
    assert parse_address(str(parsed)) == parsed


@pytest.mark.parametrize(
    "text",
    [
        "",
        " 1.2.3.4",
        "1.2.3.4\n",
        "01.2.3.4",
        "1.2.3",
        "1",
        "[::1]",
        "\uff11.2.3.4",
        "fe80::1%",
        "1.2.3.4:80",
        "x" * 9999,
    ],
)
def test_parse_address_is_strict(text: str) -> None:
    assert parse_address(text) is None
    assert ip_address("1.2.3.4") == parse_address("1.2.3.4")
