"""How many events noise may write: some for each token, fewer for all without one together, anew each second."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from gateway.policy.model import Claims
from gateway.services import flood
from gateway.services.flood import JUNK_EVENTS_PER_SECOND, TOKEN_EVENTS_PER_SECOND, FloodLimit


def test_each_has_its_share_and_has_it_again_in_the_next_second(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=7.0)
    monkeypatch.setattr(flood, "time", SimpleNamespace(monotonic=lambda: clock.now))
    limit = FloodLimit()
    one, other = (Claims("shop", name, 1, ()) for name in ("1", "2"))
    for _ in range(2):
        for claims, share in ((one, TOKEN_EVENTS_PER_SECOND), (None, JUNK_EVENTS_PER_SECOND), (other, 50)):
            assert sum(limit.allows(claims) for _ in range(200)) == share
        clock.now += 0.9
        assert not limit.allows(one)
        clock.now += 0.1
    assert (TOKEN_EVENTS_PER_SECOND, JUNK_EVENTS_PER_SECOND) == (50, 10)
