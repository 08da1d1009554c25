"""What an event says of a request is what decided it: written and read back, nothing that a rule asks is lost."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.conditions.requests import File
from gateway.policy.events import new_event
from gateway.policy.fronts import FRONTS
from gateway.policy.limits import BY_NAME
from gateway.policy.model import (
    NETWORK_TYPES,
    Allow,
    Claims,
    DownloadRequest,
    FileEntry,
    Limits,
    Place,
)
from gateway.policy.record import describe
from gateway.policy.recorded import NotRecorded, read_recorded, waived_of

WORD = st.text(
    st.characters(min_codepoint=33, max_codepoint=0x17F, exclude_characters="\x7f"), min_size=1, max_size=20
).filter(lambda text: all(letter.isprintable() for letter in text))
MAYBE = st.none() | WORD
SECONDS = st.integers(1, 10**11)
LIMITS = st.dictionaries(st.sampled_from(sorted(BY_NAME)), st.integers(1, 10**12)).map(lambda given: Limits(**given))
PLACES = st.builds(
    Place,
    country=st.sampled_from([None, "PL", "DE"]),
    continent=st.sampled_from([None, "EU"]),
    region=st.sampled_from([None, "PL-14"]),
    city=st.sampled_from([None, "Łódź"]),
    asn=st.none() | st.integers(1, 2**32 - 1),
    network=st.none() | st.frozensets(st.sampled_from(NETWORK_TYPES)),
    version=st.just("GeoLite2-City 2026-11-01"),
)


@given(
    claims=st.builds(
        Claims,
        issuer=st.just(""),
        token_id=WORD,
        expires_at=SECONDS,
        files=st.just(()),
        issued_at=st.none() | SECONDS,
        customer_id=MAYBE,
        order_id=MAYBE,
        plan=MAYBE,
        tier=MAYBE,
        account=st.booleans(),
        limits=LIMITS,
    ),
    place=st.just(Place()) | PLACES,
    file=st.sampled_from(
        [
            FileEntry("ebooks/Żółw.epub"),
            FileEntry(None, "https://cdn.example.com/a.zip"),
            FileEntry(None, "https://cdn.example.com/a.zip?sig=x#y"),
        ]
    ),
    agent=st.sampled_from(["", "curl/8.5.0", "x" * 511]),
    address=st.sampled_from(["203.0.113.9", "2001:db8::1"]),
    at_ms=st.integers(10**12, 2 * 10**12),
    view=st.booleans(),
    front=st.sampled_from(sorted(FRONTS)),
    waived=st.lists(st.sampled_from(sorted(BY_NAME)), unique=True),
)
def test_what_is_written_is_read_back(claims, place, file, agent, address, at_ms, view, front, waived) -> None:
    request = DownloadRequest(
        "r",
        "t",
        1,
        "GET",
        ip_address(address),
        str(ip_network(f"{address}/24", strict=False)),
        user_agent=agent,
        view=view,
        front=front,
    )
    allow = Allow(file, (), 1, limits=claims.limits, waived=tuple(waived))
    told = describe(request, claims=claims, file=file, place=place, decision=allow)
    event = new_event("download.allowed", "i", at_ms, told)
    found = read_recorded(event)
    assert (found.front, waived_of(event)) == (front, frozenset(waived))
    kept = FileEntry(file.key, file.url and file.url.partition("?")[0])
    assert File.fact(found.facts(None)) == File.fact(replace(found, file=file).facts(None))
    assert (found.claims.expires_at, found.claims.plan, found.claims.limits) == (
        claims.expires_at,
        claims.plan,
        claims.limits,
    )
    assert found.claims == Claims(
        issuer="",
        token_id=claims.token_id,
        expires_at=claims.expires_at,
        files=(kept,),
        issued_at=claims.issued_at,
        customer_id=claims.customer_id,
        order_id=claims.order_id,
        plan=claims.plan,
        tier=claims.tier,
        account=claims.account,
        limits=claims.limits,
    )
    assert (found.file, found.place, found.user_agent, found.view) == (kept, place, agent, view)
    assert (str(found.address), found.method) == (address, "GET")
    assert round(found.now * 1000) == at_ms


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"token.expires_at": ""}, "it has no token.expires_at"),
        ({"time": "yesterday"}, "its time cannot be read"),
        ({"client.address": "203.0.113"}, "its address cannot be read"),
        ({"token.limits": "downloads"}, "its limits are none of this version"),
        ({"token.limits": "magic=5"}, "its limits are none of this version"),
        ({"token.issued_at": "-1"}, "its token.issued_at cannot be read"),
        ({"user_agent.original": "x" * 512}, "its user agent was too long to be kept whole"),
        ({"file.key": ""}, "it has no file.key"),
        ({"front": "side"}, "its front door is none of this version"),
    ],
)
def test_what_is_missing_is_said(change: dict[str, str], said: str) -> None:
    whole = {
        "token.id": "t",
        "token.expires_at": "1",
        "time": "2026-11-21T09:30:00.125Z",
        "client.address": "203.0.113.9",
        "file.key": "a",
        "http.request.method": "GET",
    }
    assert read_recorded(whole).claims.token_id == "t"
    assert read_recorded(whole).front == "http", "as it was before there were others"
    with pytest.raises(NotRecorded, match=said):
        read_recorded({**whole, **change})
