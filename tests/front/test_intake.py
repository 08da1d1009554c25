"""What is taken of an HTTP request: who asked, by the hops that are trusted, and headers as they were meant."""

from __future__ import annotations

from ipaddress import IPv4Network, ip_address, ip_network

import pytest
from multidict import CIMultiDict, MultiDict

from gateway.front.head import Head
from gateway.front.intake import read_request
from gateway.policy.model import DownloadRequest

PEER = "198.51.100.7"
TRUSTED = [ip_network(f"{PEER}/32")]


def asked(*headers: tuple[str, str], path: str = "/", trusted: list[IPv4Network] = TRUSTED) -> DownloadRequest | None:
    head = Head("GET", path, MultiDict(), CIMultiDict(headers), PEER)
    return read_request(head, token="a secret token", number=1, request_id="r", trusted=trusted)


def test_without_trusted_proxies_no_header_names_the_client() -> None:
    named = (("X-Forwarded-For", "10.0.0.1"), ("Forwarded", "for=10.0.0.1"), ("X-Real-IP", "10.0.0.1"))
    for trusted, client in (([], PEER), ([ip_network("192.0.2.0/24")], PEER), (TRUSTED, "10.0.0.1")):
        request = asked(*named, trusted=trusted)
        assert request is not None
        assert request.client_address == ip_address(client)


def test_a_trusted_proxy_that_names_nobody_is_nobody() -> None:
    assert asked(("X-Forwarded-For", "unknown")) is None


@pytest.mark.parametrize(
    ("name", "field"), [("Range", "range"), ("If-Match", "if_match"), ("If-None-Match", "if_none_match")]
)
def test_several_lines_of_a_header_are_one(name: str, field: str) -> None:
    request = asked((name, "one"), (name.lower(), "two"))
    assert getattr(request, field) == "one, two"
    assert getattr(asked(), field) is None


def test_no_secret_is_in_a_repr() -> None:
    told = repr(asked(("Cookie", f"gw_device={'c' * 22}"))) + repr(asked())
    assert "secret" not in told
    assert "c" * 22 not in told
    assert "offered_cookie" not in told


@pytest.mark.parametrize(
    ("cookie", "brought"),
    [
        (f"gw_device={'c' * 22}", "c" * 22),
        (f"a=b; gw_device={'c' * 22}; d=e", "c" * 22),
        (f"xgw_device={'c' * 22}", None),
        (f"gw_device={'c' * 23}", None),
        ("gw_device=", None),
    ],
)
def test_our_own_cookie_alone_is_taken(cookie: str, brought: str | None) -> None:
    request = asked(("Cookie", cookie))
    assert request is not None
    assert (request.device_cookie, request.offered_cookie is None) == (brought, brought is not None)


ONE, TWO = "0123456789ab" * 3 + "01234567", "f" * 44


@pytest.mark.parametrize(
    ("cookies", "known"),
    [
        (f"gw_known={ONE}", ONE),
        (f"a=1; gw_known={ONE}.{TWO}; gw_device=x", f"{ONE}.{TWO}"),
        (f"gw_known={'.'.join([ONE] * 20)}", ".".join([ONE] * 20)),
        (f"gw_known={'.'.join([ONE] * 21)}", None),
        (f"gw_known={ONE}.", None),
        (f"gw_known={ONE.upper()}", None),
        (f"xgw_known={ONE}", None),
        ("gw_known=", None),
    ],
)
def test_for_which_links_a_device_says_that_it_is_known(cookies: str, known: str | None) -> None:
    request = asked(("Cookie", cookies))
    assert request is not None
    assert request.known_cookie == known
    assert ONE not in repr(request)
