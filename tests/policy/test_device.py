"""Who a request seems to come from: what tells two devices apart, and that nothing raw is kept."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from gateway.policy.device import KNOWN_MAX, confirmed_cookie, identify, is_confirmed
from gateway.policy.model import Claims, DownloadRequest

REQUEST = DownloadRequest(
    request_id="r",
    token="",
    file_number=1,
    method="GET",
    client_address=ip_address("203.0.113.9"),
    client_network="203.0.113.0/24",
    user_agent="Browser/1",
    accept_language="pl",
)


@pytest.mark.parametrize(
    "change",
    [
        {"user_agent": "Browser/2"},
        {"accept_language": "en"},
        {"client_hints": "x"},
        {"client_network": "198.51.100.0/24"},
        {"device_cookie": "c" * 22},
        {"user_agent": "Browser/1\udcff"},
    ],
)
def test_other_headers_are_another_device(change: dict[str, str]) -> None:
    assert identify(replace(REQUEST, **change), b"s").id != identify(REQUEST, b"s").id


@pytest.mark.parametrize(
    "change", [{"campaign": "utm_source=mail"}, {"request_id": "s"}, {"range": "bytes=5-"}, {"view": True}]
)
def test_how_it_was_asked_makes_no_other_device(change: dict[str, object]) -> None:
    assert identify(replace(REQUEST, **change), b"s") == identify(REQUEST, b"s")


def test_the_cookie_alone_makes_the_device_where_there_is_one() -> None:
    one = replace(REQUEST, device_cookie="c" * 22)
    other = replace(one, user_agent="Browser/2", client_network="198.51.100.0/24")
    assert identify(one, b"s").id == identify(other, b"s").id
    assert identify(one, b"s").cookie == identify(other, b"s").cookie
    assert identify(one, b"s").cookie != identify(one, b"t").cookie


def test_nothing_raw_is_kept() -> None:
    told = repr(identify(replace(REQUEST, device_cookie="c" * 22), b"s"))
    assert "Browser" not in told
    assert "ccc" not in told


def test_without_a_user_agent_there_is_none_to_match() -> None:
    assert identify(replace(REQUEST, user_agent=""), b"s").user_agent is None


SECRET = b"shared"
LINK = Claims("shop", "t1", 1, ())
BROUGHT = replace(REQUEST, device_cookie="c" * 22)


def test_a_confirmed_device_is_known_for_its_link_and_no_other() -> None:
    shown = replace(BROUGHT, known_cookie=confirmed_cookie(BROUGHT, LINK, SECRET))
    assert is_confirmed(shown, LINK, SECRET)
    assert not is_confirmed(shown, replace(LINK, token_id="t2"), SECRET)
    assert not is_confirmed(shown, replace(LINK, issuer="other"), SECRET)
    assert not is_confirmed(shown, LINK, b"another")
    assert not is_confirmed(BROUGHT, LINK, SECRET)


@pytest.mark.parametrize("device", [None, "", "d" * 22])
def test_what_it_shows_is_worth_nothing_without_its_own_cookie(device: str | None) -> None:
    shown = confirmed_cookie(BROUGHT, LINK, SECRET)
    assert not is_confirmed(replace(REQUEST, device_cookie=device, known_cookie=shown), LINK, SECRET)


def test_it_is_known_for_the_last_so_many_links_each_once() -> None:
    links = [replace(LINK, token_id=f"t{number}") for number in range(KNOWN_MAX + 1)]
    shown = BROUGHT
    for each in [*links, links[-1]]:
        shown = replace(shown, known_cookie=confirmed_cookie(shown, each, SECRET))
    assert [is_confirmed(shown, each, SECRET) for each in links] == [False] + [True] * KNOWN_MAX
    assert len((shown.known_cookie or "").split(".")) == KNOWN_MAX


@pytest.mark.parametrize("known", ["", ".", "x", "0" * 44, "é" * 44, ".".join(["0" * 44] * 30)])
def test_nothing_else_confirms_anybody(known: str) -> None:
    assert not is_confirmed(replace(BROUGHT, known_cookie=known), LINK, SECRET)
