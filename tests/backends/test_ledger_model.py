"""The ledger's scripts against a naive model, step by step, on a real server with a clock that the test moves.

What counts as one download; all other limits are test_ledger_limits.py's.
"""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gateway.policy.counting import MIB
from gateway.policy.model import Limits

_spec = importlib.util.spec_from_file_location("ledger_player", Path(__file__).with_name("ledger_player.py"))
ledger_player = importlib.util.module_from_spec(_spec)
sys.modules["ledger_player"] = ledger_player
_spec.loader.exec_module(ledger_player)
Who, play, is_caught = ledger_player.Who, ledger_player.play, ledger_player.is_caught

SIZES = st.sampled_from([1, 1000, 300_000, 3 * MIB, 80 * MIB])
WHO = st.builds(
    Who,
    cookie=st.sampled_from([None, "c1", "c2"]),
    network=st.sampled_from(["n1", "n2"]),
    agent=st.sampled_from([None, "a1", "a2"]),
)
FRACTION = st.sampled_from([0.0, 0.001, 0.1, 0.5, 0.9, 1.0])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("request"), WHO, FRACTION, FRACTION, st.booleans()),
        st.tuples(st.just("renew"), st.integers(0, 9), FRACTION),
        st.tuples(st.just("settle"), st.integers(0, 9), FRACTION),
        st.tuples(st.just("advance"), st.sampled_from([500, 9_000, 30_000, 61_000, 1_800_000, 3_700_000])),
        st.tuples(st.just("fail"), st.integers(0, 9)),
        st.tuples(st.just("reap")),
    ),
    max_size=40,
)


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


D = Who("c1", "n1", "a1")
OTHER_NETWORK = Who(None, "n2", "a1")
WHOLE = ("request", D, 0.0, 1.0, False)
TAIL = ("request", D, 0.95, 1.0, False)
TRAPS = {
    "a complete transfer takes no tail after repeat_window": [WHOLE, ("settle", 0, 1.0), ("advance", 61_000), TAIL],
    "but does before": [WHOLE, ("settle", 0, 1.0), ("advance", 30_000), TAIL],
    "an overlap is not completeness": [
        WHOLE,
        ("settle", 0, 0.9),
        ("request", D, 0.0, 0.1, False),
        ("settle", 0, 1.0),
        ("advance", 61_000),
        TAIL,
    ],
    "a third repeat is another download": [step for _ in range(4) for step in (WHOLE, ("settle", 0, 1.0))],
    "repeats all in flight": [WHOLE] * 5,
    "a refund is charged again": [WHOLE, ("settle", 0, 0.0), WHOLE, ("settle", 0, 1.0)],
    "eight refunds": [step for _ in range(10) for step in (WHOLE, ("settle", 0, 0.0), ("advance", 3_700_000))],
    "a resume after expiry": [WHOLE, ("settle", 0, 0.5), ("advance", 61_000), ("request", D, 0.5, 1.0, False)],
    "the user agent resumes but does not begin": [
        WHOLE,
        ("settle", 0, 0.5),
        ("request", OTHER_NETWORK, 0.5, 1.0, False),
        ("request", OTHER_NETWORK, 0.0, 1.0, False),
    ],
    "past the resume window": [WHOLE, ("settle", 0, 0.5), ("advance", 3_700_000), ("request", D, 0.5, 1.0, False)],
    "a stalled reader stays joinable": [WHOLE, ("advance", 3_700_000), ("request", D, 0.5, 0.1, False)],
    "past its budget a renewal opens the next": [
        ("request", D, 0.0, 0.9, False),
        *[("renew", 0, 1.0)] * 32,
        ("settle", 0, 1.0),
        ("advance", 61_000),
        WHOLE,
        *[("renew", 0, 1.0)] * 32,
    ],
    "a failed origin costs nothing, however often": [step for _ in range(12) for step in (WHOLE, ("fail", 0))],
    "two devices of one network, one budget after the other": [
        WHOLE,
        ("advance", 61_000),
        ("request", Who("c2", "n1", "a1"), 0.0, 1.0, False),
        *[step for _ in range(32) for step in (("renew", 0, 1.0), ("renew", 1, 1.0))],
    ],
    "sixteen open-ended ranges": [
        WHOLE,
        *[("request", D, n / 16, 1.0, False) for n in range(1, 16)],
        *[("settle", 0, 0.06)] * 15,
    ],
    "33 requests at once": [WHOLE] + [("request", D, 0.5, 0.0, False)] * 33,
}


def with_traps(test: Callable[..., None]) -> Callable[..., None]:
    for steps in TRAPS.values():
        for size in (1000, 300_000, 80 * MIB):
            for downloads, life in ((1, 60), (1, 10**6), (2, 10**6)):
                test = example(size=size, downloads=downloads, life=life, steps=steps)(test)
    return test


@with_traps
@given(size=SIZES, downloads=st.sampled_from([None, 1, 2, 5]), life=st.sampled_from([60, 4000, 10**6]), steps=STEPS)
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_scripts_agree_with_the_model(
    redis_url: str, loop: asyncio.AbstractEventLoop, size: int, downloads: int | None, life: int, steps: list[tuple]
) -> None:
    loop.run_until_complete(play(redis_url, [Limits(downloads=downloads)], life, size, steps))


MUTANTS: dict[str, tuple[str, str, str]] = {
    "completeness forgotten": (
        "if not early and is_complete(transfer) then return nil end",
        "",
        "a complete transfer takes no tail after repeat_window",
    ),
    "completeness as a sum": (
        "return #transfer.spans == 2 and",
        "return transfer.acked >= transfer.size or",
        "an overlap is not completeness",
    ),
    "windows in flight forgotten": (
        "+ extra - transfer.acked - transfer.inflight",
        "+ extra - transfer.acked",
        "repeats all in flight",
    ),
    "a renewal always opens": (
        "local id, other = find_transfer(rest)",
        "local id, other",
        "two devices of one network, one budget after the other",
    ),
    "a failed origin costs a refund": (
        "local free = ARGV[3] == 'origin' and transfer.acked == 0",
        "local free = false",
        "a failed origin costs nothing, however often",
    ),
    "what is left of a budget is lost": (
        "if ask.start > 0 and left >= SMALLEST_WINDOW then return left end",
        "",
        "sixteen open-ended ranges",
    ),
    "any number of requests": (
        "if transfer.live >= REQUESTS_PER_TRANSFER then return nil end",
        "",
        "33 requests at once",
    ),
    "a user agent begins": ("or ask.start > 0 then", "or true then", "the user agent resumes but does not begin"),
    "expiry refuses joins": (
        "if not transfer and ask.expires <= now",
        "if ask.expires <= now",
        "an overlap is not completeness",
    ),
    "refunds without end": ("< ask.refunds_max)", "< 1000000)", "eight refunds"),
    "a refund is not charged again": (
        "if transfer.charged == 0 then",
        "if transfer.charged == 0 and id == ask.request then",
        "a refund is charged again",
    ),
    "a replayed renewal is granted more": (
        "local more, reason = wanted - request.granted, nil",
        "local more, reason = wanted - request.acked, nil",
        "past its budget a renewal opens the next",
    ),
    "the last closing wins": (
        "if not request then return done({0}) end",
        "if not request then return done({1}) end",
        "a complete transfer takes no tail after repeat_window",
    ),
}
"""What is changed into what, and the trap that tells."""


@pytest.mark.parametrize("name", MUTANTS)
def test_the_model_catches_each_mutant(redis_url: str, loop: asyncio.AbstractEventLoop, name: str) -> None:
    old, new, trap = MUTANTS[name]
    for size, downloads, life in (
        (300_000, 1, 60),
        (300_000, 1, 10**6),
        (80 * MIB, 1, 10**6),
        (80 * MIB, 2, 10**6),
    ):
        limits = [Limits(downloads=downloads)]
        if loop.run_until_complete(is_caught(redis_url, limits, life, size, TRAPS[trap], (old, new))):
            return
    pytest.fail("the trap does not tell this mutant from the real thing")
