"""All limits against the naive model: networks, devices, valid_after_first, concurrent, and files elsewhere.

Each rule has a trap by name, and a mutant of the scripts that the traps must tell from the real thing.
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

SIZES = (300_000, 3 * MIB)
"""One window, and several, so that the first is complete at once and the second can come to the end of its budget."""
NAMES = ("downloads", "networks", "devices", "concurrent")
LIMITS = st.builds(
    Limits,
    **{name: st.sampled_from([None, 1, 2]) for name in NAMES},
    valid_after_first=st.sampled_from([None, None, 45, 4000]),
)
WHO = st.builds(
    Who,
    cookie=st.sampled_from([None, "c1", "c2", "offered"]),
    network=st.sampled_from(["n1", "n2", "n3"]),
    agent=st.sampled_from(["a1", "a2"]),
)
FRACTION = st.sampled_from([0.0, 0.001, 0.5, 1.0])
STEPS = st.lists(
    st.one_of(
        st.tuples(
            *(st.just("request"), WHO, st.sampled_from([0.0, 0.0, 0.5]), st.just(1.0), st.just(False)),
            *(st.integers(0, 1), st.integers(0, 1)),
        ),
        st.tuples(st.just("visit"), WHO, st.integers(0, 1)),
        st.tuples(st.just("renew"), st.integers(0, 9), FRACTION),
        st.tuples(st.just("beat")),
        st.tuples(st.just("settle"), st.integers(0, 9), FRACTION),
        st.tuples(st.just("advance"), st.sampled_from([500, 9_000, 15_000, 30_000, 61_000, 3_700_000])),
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


def whole(cookie: str | None, network: str, file: int = 0, limits: int = 0, start: float = 0.0) -> tuple:
    """A request for a file to its end."""
    return ("request", Who(cookie, network, "a" + network), start, 1.0, False, file, limits)


def resume(cookie: str | None, network: str, file: int = 0) -> tuple:
    return whole(cookie, network, file, start=0.5)


def had(cookie: str | None, network: str, file: int = 0, share: float = 1.0) -> list[tuple]:
    """A download that is over, its repeat window too."""
    return [whole(cookie, network, file), ("settle", 0, share), ("advance", 61_000)]


DONE, NOTHING, HALF, LATER = ("settle", 0, 1.0), ("settle", 0, 0.0), ("settle", 0, 0.5), ("advance", 61_000)
VISIT = ("visit", Who("c1", "n1", "a1"), 0)
TO_THE_END_OF_A_BUDGET = [
    ("request", Who("c1", "n1", "a1"), 0.0, 0.9, False),
    *[("renew", 0, 1.0)] * 3,
    DONE,
    LATER,
    whole("c1", "n1"),
    *[("renew", 0, 1.0)] * 3,
]
TRAPS: dict[str, tuple[list[Limits], list[tuple]]] = {
    "a third network": (
        [Limits(networks=2)],
        [*had("c1", "n1"), *had("c2", "n2"), whole("c3", "n3"), whole("c4", "n1"), whole("c5", "n2", 1)],
    ),
    "a join takes no slot": (
        [Limits(networks=1, devices=1)],
        [whole("c1", "n1"), whole("c1", "n2"), whole("c2", "n1"), DONE, DONE, DONE, LATER, whole("c1", "n2")],
    ),
    "a refund frees the slots": (
        [Limits(networks=1, devices=1)],
        [whole("c1", "n1"), NOTHING, whole("c2", "n2"), whole("c1", "n1"), DONE, NOTHING, whole("c1", "n1")],
    ),
    "a refund does not free what another download holds": (
        [Limits(networks=1)],
        [whole("c1", "n1"), whole("c1", "n1", 1), NOTHING, whole("c2", "n2"), NOTHING, whole("c2", "n2")],
    ),
    "paying again from another network": (
        [Limits(networks=1)],
        [whole("c1", "n1"), NOTHING, whole("c1", "n2"), DONE, LATER, whole("c1", "n1", 1), whole("c1", "n2", 1)],
    ),
    "a device is known by the cookie that it was offered": (
        [Limits(devices=1)],
        [*had(None, "n1"), *had("offered", "n2"), whole(None, "n1", 1), whole("c2", "n1", 1), whole(None, "n3")],
    ),
    "and by one that it was offered later": (
        [Limits(devices=1)],
        [*had(None, "n1"), *had(None, "n1"), *had("offered", "n2"), whole("c2", "n1", 1)],
    ),
    "a freed slot is known by no name": (
        [Limits(devices=1)],
        [whole(None, "n1"), NOTHING, whole("c1", "n2"), DONE, LATER, whole("offered", "n3"), whole(None, "n1")],
    ),
    "too late for another, not for a resume": (
        [Limits(valid_after_first=100)],
        [*had("c1", "n1", share=0.5), *had("c2", "n2"), whole("c3", "n3"), resume("c1", "n1"), DONE],
    ),
    "at the last moment": (
        [Limits(valid_after_first=61)],
        [*had("c1", "n1"), whole("c2", "n2"), ("advance", 1), whole("c3", "n3")],
    ),
    "too late, but what gave its charge back may go on": (
        [Limits(valid_after_first=100)],
        [whole("c1", "n1"), whole("c1", "n1", 1), NOTHING, LATER, LATER, resume("c1", "n1")],
    ),
    "the clock does not start before a download counts": (
        [Limits(valid_after_first=45)],
        [*had("c1", "n1", share=0.0), *had("c2", "n2"), whole("c3", "n3")],
    ),
    "but runs on while one counts": (
        [Limits(valid_after_first=45)],
        [whole("c1", "n1"), whole("c1", "n1", 1), NOTHING, LATER, whole("c2", "n2")],
    ),
    "two at once, over both files": (
        [Limits(concurrent=2)],
        [
            whole("c1", "n1"),
            whole("c1", "n1", 1),
            whole("c2", "n2"),
            resume("c1", "n1"),
            DONE,
            whole("c2", "n2"),
            DONE,
            whole("c2", "n2"),
        ],
    ),
    "the place is left with the last request": (
        [Limits(concurrent=1)],
        [whole("c1", "n1"), resume("c1", "n1"), DONE, whole("c2", "n2"), DONE, whole("c2", "n2")],
    ),
    "a resume of what is at rest takes a place": (
        [Limits(concurrent=1)],
        [whole("c1", "n1"), HALF, whole("c2", "n2"), resume("c1", "n1"), DONE, resume("c1", "n1"), whole("c2", "n2")],
    ),
    "a dead worker's place, with a reaper": (
        [Limits(concurrent=1)],
        [whole("c1", "n1"), ("advance", 15_000), whole("c2", "n2"), ("reap",), whole("c2", "n2")],
    ),
    "and without one": (
        [Limits(concurrent=1)],
        [whole("c1", "n1"), ("advance", 15_000), whole("c2", "n2"), ("advance", 9_000), whole("c2", "n2")],
    ),
    "a living worker keeps it": (
        [Limits(concurrent=1)],
        [whole("c1", "n1"), *[("advance", 9_000), ("beat",)] * 4, whole("c2", "n2")],
    ),
    "a lost place that another took": (
        [Limits(concurrent=1)],
        [
            whole("c1", "n1"),
            ("advance", 30_000),
            whole("c2", "n2"),
            ("beat",),
            whole("c1", "n1"),
            ("settle", 1, 1.0),
            ("beat",),
            whole("c2", "n2"),
        ],
    ),
    "a lost place that is still free": (
        [Limits(concurrent=1)],
        [whole("c1", "n1"), ("advance", 30_000), ("beat",), whole("c2", "n2")],
    ),
    "the end of a budget leaves the place for the next": ([Limits(concurrent=1)], TO_THE_END_OF_A_BUDGET),
    "unless another request is still in it": (
        [Limits(concurrent=1)],
        [*TO_THE_END_OF_A_BUDGET[:-3], resume("c1", "n1"), *[("renew", 0, 1.0)] * 3],
    ),
    "the end of a budget, and another's place": (
        [Limits(concurrent=2)],
        [*TO_THE_END_OF_A_BUDGET[:-3], whole("c2", "n2"), *[("renew", 0, 1.0)] * 3, whole("c3", "n3")],
    ),
    "the end of a budget is too late for another": ([Limits(valid_after_first=45)], TO_THE_END_OF_A_BUDGET),
    "the end of a budget pays for another": ([Limits(downloads=1, networks=1, devices=1)], TO_THE_END_OF_A_BUDGET),
    "elsewhere, again and again": ([Limits(downloads=1)], [*[VISIT] * 40, LATER, VISIT]),
    "elsewhere costs all the same": (
        [Limits(downloads=2, networks=1)],
        [VISIT, DONE, VISIT, ("fail", 0), LATER, VISIT, DONE, ("visit", Who("c2", "n2", "a2"), 0), LATER, VISIT],
    ),
    "elsewhere counts as live until it is answered": (
        [Limits(concurrent=1)],
        [whole("c1", "n1"), VISIT, DONE, VISIT, whole("c1", "n1"), DONE, whole("c1", "n1")],
    ),
    "nothing is paid where one charge is refused": (
        [Limits(downloads=1, networks=2, devices=2, concurrent=1), Limits(downloads=3, devices=1)],
        [
            whole("c1", "n1"),
            whole("c2", "n2", 1),
            DONE,
            LATER,
            whole("c2", "n2", 0),
            whole("c2", "n2", 0, 1),
            whole("c2", "n2", 1),
            whole("c3", "n3", 1),
            DONE,
            whole("c3", "n1", 1),
        ],
    ),
    "what was not limited holds no slot": (
        [Limits(networks=1), Limits()],
        [whole("c1", "n1", 0, 1), DONE, LATER, whole("c2", "n2"), whole("c3", "n3", 1)],
    ),
}


def with_traps(test: Callable[..., None]) -> Callable[..., None]:
    for limits, steps in TRAPS.values():
        for size in SIZES:
            test = example(limits=limits, size=size, life=10**6, steps=steps)(test)
    return test


@with_traps
@given(
    limits=st.lists(LIMITS, min_size=1, max_size=2),
    size=st.sampled_from([1000, *SIZES]),
    life=st.sampled_from([60, 10**6, 10**6]),
    steps=STEPS,
)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_scripts_agree_with_the_model(
    redis_url: str, loop: asyncio.AbstractEventLoop, limits: list[Limits], size: int, life: int, steps: list[tuple]
) -> None:
    loop.run_until_complete(play(redis_url, limits, life, size, steps))


MUTANTS: dict[str, tuple[str, str, str]] = {
    "a charge is applied while others are checked": (
        "return tonumber(redis.call('HGET', FILE, 'used') or '0') >= charge.limit",
        "return increase(FILE, 'used', 1) > charge.limit",
        "the end of a budget pays for another",
    ),
    "only the first charge is checked": (
        "    local exceeded = EXCEEDED[charge.kind]",
        "    if _ > 1 then break end\n%s",
        "nothing is paid where one charge is refused",
    ),
    "a join takes a slot": ("if joined and joined.charged == 1 or slot", "if slot", "a join takes no slot"),
    "known values are counted again": (
        "== 1 or slot_known_by(charge.name, charge.value) then",
        "== 1 then",
        "a third network",
    ),
    "a refund keeps the slots": (
        "for set, slot in pairs(paid.slots) do free_slot(set, slot) end",
        "",
        "a refund frees the slots",
    ),
    "a refund frees what others hold": (
        "if held.refs > 0 then",
        "if false then",
        "a refund does not free what another download holds",
    ),
    "a freed slot keeps its names": (
        "write('HDEL', TOKEN, 'v:' .. set .. ':' .. name)",
        "",
        "a refund frees the slots",
    ),
    "only the first of a slot's names is freed": (
        "ipairs(held.names) do write",
        "ipairs({held.names[1]}) do write",
        "a freed slot is known by no name",
    ),
    "an offered cookie is not remembered": (
        "if charge.alias then",
        "if false then",
        "a device is known by the cookie that it was offered",
    ),
    "a resume may be too late": (
        "local first = not joined and",
        "local first =",
        "too late for another, not for a resume",
    ),
    "nothing is too late": (
        "return first and now > tonumber(first) + charge.limit",
        "return false",
        "too late for another, not for a resume",
    ),
    "a refund leaves the first mark": ("write('HDEL', TOKEN, 'first')", "", "a refund frees the slots"),
    "any refund removes the first mark": (
        "'charged', -1) == 0 then",
        "'charged', -1) >= 0 then",
        "a refund does not free what another download holds",
    ),
    "the first mark moves on": (
        "if redis.call('HEXISTS', TOKEN, 'first') == 0 then",
        "if true then",
        "a third network",
    ),
    "concurrent counts requests": (
        "hold_place(id, ask.lease_ms)",
        "hold_place(ask.request, ask.lease_ms)",
        "a third network",
    ),
    "a join of a live transfer needs a place": (
        "if joined and holds_place(id) then return false end",
        "",
        "two at once, over both files",
    ),
    "a resume needs no place": (
        "if joined and holds_place(id) then",
        "if joined then",
        "a resume of what is at rest takes a place",
    ),
    "a settled transfer keeps its place": (
        "transfer.live == 0 then leave_place(request.transfer) end\nredis",
        "false then end\nredis",
        "a third network",
    ),
    "the first request to end leaves the place": (
        "if not transfer or transfer.live == 0 then leave",
        "if true then leave",
        "a join takes no slot",
    ),
    "a place without expiry": (
        "now + 2 * lease_ms",
        "now + 1000000000000",
        "too late, but what gave its charge back may go on",
    ),
    "a place for one lease": ("now + 2 * lease_ms", "now + lease_ms", "a dead worker's place, with a reaper"),
    "a renewal does not hold the place": ("  keep_place(request.transfer, lease_ms)\n", "", "a living worker keeps it"),
    "a lost place is taken back unasked": (
        "reason = refused(ask, request.transfer, transfer, 0)",
        "",
        "a lost place that another took",
    ),
    "what goes on in the next transfer needs two places": (
        "local leaving = transfer.live == 1 and 1 or 0",
        "local leaving = 0",
        "the end of a budget leaves the place for the next",
    ),
    "what others are still in counts as left": (
        "local leaving = transfer.live == 1 and 1 or 0",
        "local leaving = 1",
        "unless another request is still in it",
    ),
    "the used-up transfer keeps its place": (
        "if transfer.live == 0 then leave_place(request.transfer) end\n      save",
        "save",
        "the end of a budget leaves the place for the next",
    ),
    "elsewhere is given back": (
        "if not ask.elsewhere and transfer.live",
        "if transfer.live",
        "elsewhere costs all the same",
    ),
    "elsewhere is joined for ever": (
        "if now <= transfer.opened + ask.repeat_ms then return 0, 0 end",
        "if true then return 0, 0 end",
        "elsewhere, again and again",
    ),
    "elsewhere is joined 32 times": (
        "  if ask.elsewhere then\n",
        "  if ask.elsewhere and transfer.live < 32 then\n",
        "elsewhere, again and again",
    ),
    "a renewal pays nothing": (
        "if other.charged == 0 then request",
        "if false then request",
        "the end of a budget leaves the place for the next",
    ),
    "a look reserves": ("if peek then return done({'allow', '', '0', 0}) end", "", "a third network"),
}
"""What is changed into what, and the trap that tells."""


@pytest.mark.parametrize("name", MUTANTS)
def test_its_trap_catches_each_mutant(redis_url: str, loop: asyncio.AbstractEventLoop, name: str) -> None:
    old, new, trap = MUTANTS[name]
    limits, steps = TRAPS[trap]
    for size in SIZES:
        if loop.run_until_complete(is_caught(redis_url, limits, 10**6, size, steps, (old, new))):
            return
    pytest.fail("the trap does not tell this mutant from the real thing")
