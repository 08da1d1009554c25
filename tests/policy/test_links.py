from __future__ import annotations

import pytest

from gateway.policy.links import state
from gateway.policy.model import Claims, FileEntry, Limits

NOW = 1_800_000_000


def claims(expires_at: int = NOW + 1, not_before: int | None = None, downloads: int | None = None) -> Claims:
    files = (FileEntry("a"), FileEntry("b"))
    limits = Limits(downloads=downloads)
    return Claims("shop", "t", expires_at, files, not_before=not_before, limits=limits)


@pytest.mark.parametrize(
    ("link", "used", "expected"),
    [
        (claims(), {}, "valid"),
        (claims(expires_at=NOW), {}, "expired"),
        (claims(not_before=NOW + 1), {}, "not yet valid"),
        (claims(not_before=NOW), {}, "valid"),
        (claims(downloads=2), {"a": 2, "b": 1}, "valid"),
        (claims(downloads=2), {"a": 2, "b": 2}, "used up"),
        (claims(), {"a": 9, "b": 9}, "valid"),
        (claims(expires_at=NOW - 1, downloads=1), {"a": 1, "b": 1}, "expired"),
    ],
)
def test_state(link: Claims, used: dict[str, int], expected: str) -> None:
    assert state(link, link.limits, used, NOW, expires_at=link.expires_at, revoked=False) == expected
    assert state(link, link.limits, used, NOW, expires_at=link.expires_at, revoked=True) == "revoked"


def test_state_goes_by_the_expiry_that_holds() -> None:
    assert state(claims(expires_at=NOW - 1), Limits(), {}, NOW, expires_at=NOW + 1, revoked=False) == "valid"
    assert state(claims(expires_at=NOW + 9), Limits(), {}, NOW, expires_at=NOW, revoked=False) == "expired"
