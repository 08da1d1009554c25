"""Decisions as a table: a token's own conditions, and that nothing unenforced is let through."""

from __future__ import annotations

from dataclasses import fields, replace
from ipaddress import ip_address, ip_network

import pytest

from gateway.policy.decide import decide, requested_file
from gateway.policy.limits import ENFORCED_LIMITS, unenforced
from gateway.policy.model import Allow, Charge, Claims, Deny, DownloadRequest, FileEntry, Limits
from gateway.policy.reasons import Reason

FILE = FileEntry(key="a.bin")
CLAIMS = Claims(issuer="shop", token_id="t", expires_at=100, files=(FILE, FileEntry(key="b.bin")))
REQUEST = DownloadRequest(
    request_id="r",
    token="",
    file_number=1,
    method="GET",
    client_address=ip_address("203.0.113.9"),
    client_network="203.0.113.0/24",
)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"ip": (ip_network("198.51.100.0/24"), ip_network("2001:db8::/32"))}, Reason.TOKEN_IP),
        ({"account": True}, Reason.ACCOUNT_REQUIRED),
        ({"plan": "gold"}, Reason.TOKEN_CLAIMS),
        ({"limits": Limits(networks=1)}, Reason.TOKEN_CLAIMS),
        ({"limits": Limits(downloads=1, rate=1)}, Reason.TOKEN_CLAIMS),
    ],
)
def test_denied(changes: dict[str, object], reason: Reason) -> None:
    decision = decide(replace(CLAIMS, **changes), FILE, REQUEST)
    assert isinstance(decision, Deny)
    assert decision.reason is reason


@pytest.mark.parametrize("changes", [{}, {"ip": (ip_network("203.0.113.0/24"),)}, {"expires_at": 0}])
@pytest.mark.parametrize("downloads", [None, 5])
def test_allowed_with_its_charge(changes: dict[str, object], downloads: int | None) -> None:
    claims = replace(CLAIMS, limits=Limits(downloads=downloads), **changes)
    charge = Charge("count", downloads, Reason.LIMIT_DOWNLOADS)
    assert decide(claims, FILE, REQUEST) == Allow("a.bin", (charge,), claims.expires_at)


def test_external_files_and_views_are_refused() -> None:
    external = decide(CLAIMS, FileEntry(key=None, url="https://example.com/x"), REQUEST)
    assert isinstance(external, Deny)
    view = decide(CLAIMS, FILE, replace(REQUEST, view=True))
    assert view == Deny(Reason.VIEW_NOT_ALLOWED)


@pytest.mark.parametrize(("number", "key"), [(1, "a.bin"), (2, "b.bin"), (0, None), (3, None), (-1, None)])
def test_files_are_counted_from_one(number: int, key: str | None) -> None:
    file = requested_file(CLAIMS, number)
    assert file == (Deny(Reason.FILE_UNKNOWN) if key is None else FileEntry(key=key))


def test_every_limit_is_enforced_or_refused() -> None:
    everything = Limits(**dict.fromkeys((field.name for field in fields(Limits)), 1))
    assert set(unenforced(everything)) | ENFORCED_LIMITS == {field.name for field in fields(Limits)}
    assert unenforced(Limits(downloads=1)) == ()
