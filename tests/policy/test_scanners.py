"""Who looks like a scanner: by several signs, soon after the mail, and never who showed a gesture."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.model import NETWORK_TYPES, Manner
from gateway.policy.scanners import CLOCKS, SOON, Signals, manner_of, suspected

CHROME = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/146.0.0.0 Safari/537.36"
)
BROWSER = {
    "User-Agent": CHROME,
    "Accept-Language": "en-US,en;q=0.9",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Site": "none",
    "Sec-Fetch-User": "?1",
}
REFRESHED = {name: value for name, value in BROWSER.items() if name != "Sec-Fetch-User"} | {
    "Sec-Fetch-Site": "same-origin"
}
CLICKED = BROWSER | {"Sec-Fetch-Site": "same-origin"}
CURL = {"User-Agent": "curl/8.5.0"}
BARE = {"User-Agent": CHROME}
MAILED, MADE = True, False


def signs(
    headers: Mapping[str, str],
    mailed: bool,
    network: str = "",
    *,
    since: float | None = 20.0,
    person: bool = False,
    page: bool = False,
) -> str:
    manner = manner_of(headers.get, person=person)
    kinds = frozenset({network, "anonymous"} if network else ())
    return " ".join(suspected(Signals(since, mailed, manner, kinds, headers.get("User-Agent", ""), page)))


@pytest.mark.parametrize(
    ("headers", "mailed", "network", "expected"),
    [
        # Mailed by us: a mail scanner is to be expected, whatever it says of itself.
        (BROWSER, MAILED, "", "soon no_gesture"),
        (BROWSER, MAILED, "hosting", "soon no_gesture network.hosting"),
        (REFRESHED, MAILED, "", "soon no_gesture"),
        (CURL, MAILED, "", "soon no_gesture"),
        ({}, MAILED, "", "soon no_gesture"),
        (BARE, MAILED, "", "soon no_gesture bare_headers"),
        (CLICKED, MAILED, "", ""),
        (CLICKED, MAILED, "vpn", ""),
        # Only made: it takes a weighty sign and one more.
        (BROWSER, MADE, "", ""),
        (CURL, MADE, "", ""),
        (CURL, MADE, "hosting", ""),
        (CURL | {"Accept-Language": "en"}, MADE, "vpn", ""),
        ({}, MADE, "hosting", ""),
        (BARE, MADE, "", ""),
        (BROWSER | {"User-Agent": "Barracuda Sentinel (EE)"}, MADE, "", ""),
        (BROWSER, MADE, "hosting", "soon no_gesture network.hosting"),
        (REFRESHED, MADE, "vpn", "soon no_gesture network.vpn"),
        (BARE, MADE, "tor", "soon no_gesture network.tor bare_headers"),
        (CLICKED, MADE, "hosting", ""),
        ({"User-Agent": "Barracuda Sentinel (EE)"}, MADE, "hosting", "soon network.hosting agent"),
        (BROWSER | {"x-native-host": "OneOutlook/1.2023"}, MADE, "", "soon no_gesture prefetch"),
        (CURL | {"Purpose": "prefetch"}, MADE, "", ""),
        (BROWSER | {"Sec-Purpose": "prefetch;prerender"}, MADE, "", "soon no_gesture prefetch"),
        (CURL | {"X-Purpose": "preview"}, MADE, "proxy", "soon network.proxy prefetch"),
        (
            CURL | {"Referer": "https://eur01.safelinks.protection.outlook.com/?url=x"},
            MADE,
            "hosting",
            "soon network.hosting link_wrapper",
        ),
        (CURL | {"Referer": "https://mysafelinks.protection.outlook.com.example/"}, MADE, "hosting", ""),
        (CURL | {"Referer": "http://[broken"}, MADE, "hosting", ""),
    ],
)
def test_files(headers: Mapping[str, str], mailed: bool, network: str, expected: str) -> None:
    assert signs(headers, mailed, network) == expected
    assert not signs(headers, mailed, network, person=True), "the cookie tells of a person"
    assert not signs(headers, mailed, network, since=None), "nothing was sent"
    assert not signs(headers, mailed, network, since=SOON + 1), "scanners come soon"


@pytest.mark.parametrize(
    ("headers", "mailed", "network", "expected"),
    [
        (BROWSER, MAILED, "", ""),
        (BROWSER, MAILED, "hosting", "soon network.hosting"),
        (BARE, MAILED, "", "soon no_gesture bare_headers"),
        (BROWSER, MADE, "", ""),
        (BROWSER, MADE, "vpn", "soon network.vpn"),
        (CURL, MADE, "hosting", ""),
    ],
)
def test_a_click_in_a_mail_leads_to_the_page(
    headers: Mapping[str, str], mailed: bool, network: str, expected: str
) -> None:
    assert signs(headers, mailed, network, page=True) == expected


@pytest.mark.parametrize(
    ("since", "expected"),
    [(-CLOCKS - 1, False), (-CLOCKS, True), (0, True), (SOON, True), (SOON + 0.1, False)],
)
def test_only_soon_after_sending(since: float, expected: bool) -> None:
    assert bool(signs(BROWSER, MAILED, since=since)) is expected


SIGNALS = st.builds(
    Signals,
    since=st.one_of(st.none(), st.floats(-1000, 2000)),
    mailed=st.booleans(),
    manner=st.builds(Manner, *[st.booleans()] * 5),
    network=st.frozensets(st.sampled_from(NETWORK_TYPES)),
    user_agent=st.sampled_from(["", CHROME, "curl/8", "ms-office; MSOffice 16", "Mozilla/5.0 SkypeUriPreview"]),
    page=st.booleans(),
)


@given(SIGNALS)
def test_never_by_one_sign_alone_nor_against_a_gesture(signals: Signals) -> None:
    names = suspected(signals)
    assert len(names) != 1
    assert sum(name.startswith("network.") for name in names) <= 1
    assert len(names) == len(set(names))
    if signals.manner.gesture or signals.since is None or signals.since > SOON:
        assert not names
    if not signals.mailed and not signals.network and not signals.manner.ahead:
        assert not names, "the User-Agent alone says nothing"


MATERIAL = Path(__file__).parents[2].parent / "shared" / "material" / "names_urls_ips" / "link_scanners.json"


@pytest.mark.skipif(not MATERIAL.exists(), reason="no material here")
def test_each_known_scanner_is_told_from_people() -> None:
    known = json.loads(MATERIAL.read_text(encoding="utf-8"))
    for each in known["user_agents"]:
        assert signs({"User-Agent": each["ua"]}, MAILED, "hosting"), each["who"]
    for header in known["other_signals"]["headers"]:
        name, _, value = header.partition(": ")
        assert "prefetch" in signs(BROWSER | {name: value}, MADE), header
    for host in known["other_signals"]["wrapped_referers"]:
        referer = f"https://{host.replace('*', 'eu')}/x"
        assert "link_wrapper" in signs(CURL | {"Referer": referer}, MADE, "hosting"), host
