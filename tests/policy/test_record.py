"""What an event says of a request: all of it under its name, and nothing of what is not known."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from ipaddress import ip_address

from gateway.policy.model import Allow, Claims, Deny, Device, DownloadRequest, FileEntry, Limits, Place, StoredObject
from gateway.policy.reasons import Reason
from gateway.policy.record import describe

REQUEST = DownloadRequest(
    request_id="r1",
    token="a secret token",
    file_number=1,
    method="GET",
    client_address=ip_address("203.0.113.9"),
    client_network="203.0.113.0/24",
    range="bytes=5-",
    user_agent="Browser/1",
    device_cookie="a secret cookie",
    campaign="utm_source=mail",
)
CLAIMS = Claims("shop", "t1", 1, (), order_id="10001", customer_id="c1", plan="gold", tier="vip")
FILE = FileEntry(key="a.pdf")
DEVICE = Device(cookie="c", network="n", user_agent="a", id="d1")
PLACE = Place("PL", "EU", "PL-14", "Warsaw", 64496, frozenset({"vpn", "hosting"}), "City 2026-11-01")
SURE = {
    "request.id": "r1",
    "front": REQUEST.front,
    "http.request.method": "GET",
    "http.request.range": "bytes=5-",
    "client.address": "203.0.113.9",
    "client.network": "203.0.113.0/24",
    "user_agent.original": "Browser/1",
    "campaign": "utm_source=mail",
    "file.use": "download",
}


def test_a_request_by_itself() -> None:
    assert describe(REQUEST) == SURE
    assert describe(replace(REQUEST, view=True))["file.use"] == "view"


def test_all_that_is_known() -> None:
    told = describe(
        REQUEST,
        claims=CLAIMS,
        file=FILE,
        device=DEVICE,
        stored=StoredObject("a.pdf", 1000, '"e"', 0, "application/pdf"),
        asked=995,
        place=PLACE,
        decision=Allow(
            FILE, (), 1, plan="gold", rule="office", would_deny=("x", "y"), limits=Limits(downloads=5, rate=9)
        ),
    )
    assert told == {
        **SURE,
        "token.id": "t1",
        "order.id": "10001",
        "customer.id": "c1",
        "token.plan": "gold",
        "token.expires_at": str(CLAIMS.expires_at),
        "plan": "gold",
        "limits": "downloads=5,rate=9",
        "tier": "vip",
        "file.key": "a.pdf",
        "device.id": "d1",
        "device.cookie": "c",
        "file.size": "1000",
        "file.etag": '"e"',
        "bytes.asked": "995",
        "geo.version": "City 2026-11-01",
        "geo.country.iso_code": "PL",
        "geo.continent.code": "EU",
        "geo.region.iso_code": "PL-14",
        "geo.city.name": "Warsaw",
        "as.number": "64496",
        "client.network.type": "hosting,vpn",
        "rule": "office",
        "would_deny": "x,y",
    }
    assert "secret" not in str(told)


def test_the_door_and_what_it_did_not_keep() -> None:
    limits = Limits(downloads=5, concurrent=1, rate=9)
    told = describe(
        replace(REQUEST, front="nginx"), decision=Allow(FILE, (), 1, limits=limits, waived=("concurrent", "rate"))
    )
    assert told == {
        **SURE, "front": "nginx", "limits": "concurrent=1,downloads=5,rate=9", "limits.waived": "concurrent,rate"
    }  # fmt: skip
    assert "limits.waived" not in describe(REQUEST, decision=Allow(FILE, (), 1, limits=limits))


def test_an_external_file_without_what_may_be_a_signature() -> None:
    one, other = (describe(REQUEST, file=FileEntry(None, f"https://cdn.example/dl?id={number}")) for number in (1, 2))
    assert one["file.key"] == other["file.key"] == "url:https://cdn.example/dl"
    assert one["file.id"] == hashlib.sha256(b"url:https://cdn.example/dl?id=1").hexdigest()[:12] != other["file.id"]
    assert "file.id" not in describe(REQUEST, file=FileEntry(None, "https://cdn.example/dl"))


def test_the_plan_in_force_or_else_the_one_that_was_named() -> None:
    deny = Deny(Reason.RULE_DENIED)
    assert describe(REQUEST, claims=CLAIMS, decision=replace(deny, plan="standard"))["plan"] == "standard"
    assert describe(REQUEST, claims=CLAIMS, decision=deny)["plan"] == "gold"
    assert "plan" not in describe(REQUEST, decision=deny)


def test_what_geo_data_do_not_know() -> None:
    unknown = describe(REQUEST, place=Place(version="City"))
    assert (unknown["geo.country.iso_code"], unknown["client.network.type"]) == ("unknown", "unknown")
    assert "client.network.type" not in describe(REQUEST, place=Place(network=frozenset(), version="City"))
    assert describe(REQUEST, place=Place()) == SURE, "where none were asked, none are told of"
