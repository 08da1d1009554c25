"""Failures by network: when waiting begins, when it ends, and that a worker's memory of them is bounded."""

from __future__ import annotations

import logging

import pytest

from gateway.services import throttle as module
from gateway.services.throttle import FAILURES_MAX, Throttle

OFFICE, HOME = "192.0.2.0/24", "2001:db8::/56"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def throttle(clock: Clock) -> Throttle:
    return Throttle(clock=clock)


def test_it_begins_after_so_many_in_a_minute(throttle: Throttle) -> None:
    for _ in range(FAILURES_MAX):
        throttle.failed(OFFICE)
        assert throttle.is_over(OFFICE) is None
    throttle.failed(OFFICE)
    assert throttle.is_over(OFFICE) == 60
    assert throttle.is_over(HOME) is None


def test_it_goes_on_while_it_lasts_and_a_minute_more(throttle: Throttle, clock: Clock) -> None:
    for _ in range(600):
        throttle.failed(OFFICE)
        clock.now += 0.5
    assert throttle.is_over(OFFICE) == 60
    clock.now += 59
    assert throttle.is_over(OFFICE) == 1
    clock.now += 1
    assert throttle.is_over(OFFICE) is None
    throttle.failed(OFFICE)
    assert throttle.is_over(OFFICE) is None, "what was long ago is forgotten"


def test_a_few_all_day_long_are_never_too_many(throttle: Throttle, clock: Clock) -> None:
    for _ in range(3000):
        throttle.failed(OFFICE)
        clock.now += 1.05
        assert throttle.is_over(OFFICE) is None


def test_two_bursts_around_the_turn_of_a_minute_are_one(throttle: Throttle, clock: Clock) -> None:
    throttle.failed(OFFICE)
    clock.now += 58
    for _ in range(FAILURES_MAX - 1):
        throttle.failed(OFFICE)
    clock.now += 4
    for _ in range(10):
        throttle.failed(OFFICE)
    assert throttle.is_over(OFFICE) is not None


def test_the_memory_is_bounded(throttle: Throttle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NETWORKS_MAX", 3)
    for _ in range(FAILURES_MAX + 1):
        throttle.failed(OFFICE)
    for other in range(3):
        throttle.failed(f"198.51.{other}.0/24")
    assert len(throttle._networks) == 3
    assert throttle.is_over(OFFICE) is None


def test_the_log_says_it_once_an_hour(throttle: Throttle, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    for _ in range(1000):
        throttle.failed(OFFICE)
    assert [record.message for record in caplog.records] == [
        "failures from 192.0.2.0/24 are throttled: more than 60 in a minute"
    ]
    clock.now += 3600
    for _ in range(1000):
        throttle.failed(OFFICE)
    assert len(caplog.records) == 2


def test_this_very_machine_is_no_office() -> None:
    throttle = Throttle(clock=lambda: 0.0)
    for network in ("127.0.0.0/24", "127.1.2.0/24", "::/56"):
        for _ in range(2 * FAILURES_MAX):
            throttle.failed(network)
        assert throttle.is_over(network) is None
