"""Looks of scanners against the naive model: nothing is paid for them, once per file, and a person pays in the end."""

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
NAMES = ("downloads", "networks", "devices", "concurrent")
LIMITS = st.builds(
    Limits,
    **{name: st.sampled_from([None, 1, 1, 2]) for name in NAMES},
    valid_after_first=st.sampled_from([None, None, 45]),
)
WHO = st.builds(
    Who,
    cookie=st.sampled_from([None, "c1", "c2", "offered"]),
    network=st.sampled_from(["n1", "n2"]),
    agent=st.sampled_from(["a1", "a2"]),
    scanner=st.booleans(),
)
FRACTION = st.sampled_from([0.0, 0.001, 0.5, 1.0])
STEPS = st.lists(
    st.one_of(
        st.tuples(
            *(st.just("request"), WHO, st.sampled_from([0.0, 0.0, 0.5]), st.just(1.0), st.just(False)),
            *(st.integers(0, 1), st.integers(0, 1)),
        ),
        st.tuples(st.just("visit"), WHO, st.integers(0, 1)),
        st.tuples(st.just("confirm"), WHO, st.integers(0, 2), st.integers(0, 1)),
        st.tuples(st.just("renew"), st.integers(0, 9), FRACTION),
        st.tuples(st.just("beat")),
        st.tuples(st.just("settle"), st.integers(0, 9), FRACTION),
        st.tuples(st.just("advance"), st.sampled_from([500, 9_000, 15_000, 61_000, 3_700_000])),
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


def scans(cookie: str | None, network: str, file: int = 0, start: float = 0.0) -> tuple:
    return ("request", Who(cookie, network, "a" + network, scanner=True), start, 1.0, False, file)


def gets(cookie: str | None, network: str, file: int = 0, start: float = 0.0) -> tuple:
    return ("request", Who(cookie, network, "a" + network), start, 1.0, False, file)


def is_person(cookie: str | None, network: str, file: int = 0) -> tuple:
    return ("confirm", Who(cookie, network, "a" + network), file)


DONE, NOTHING, FAIL, LATER = ("settle", 0, 1.0), ("settle", 0, 0.0), ("fail", 0), ("advance", 61_000)
ONE = Limits(downloads=1, networks=1, devices=1, concurrent=1)
TRAPS: dict[str, tuple[Limits, list[tuple]]] = {
    "a scanner takes nothing from the person": (ONE, [scans(None, "n9"), gets("c1", "n1"), DONE, DONE]),
    "nor from one in the same office": (ONE, [scans(None, "n1"), gets("c1", "n1"), ("renew", 1, 1.0), DONE, DONE]),
    "also after the person": (ONE, [gets("c1", "n1"), scans(None, "n1"), DONE, DONE, LATER, gets("c1", "n1")]),
    "it asks twice and in ranges": (ONE, [scans("c9", "n9"), scans(None, "n9"), scans(None, "n9", start=0.5), DONE]),
    "a second look is charged like anyone": (
        Limits(downloads=1),
        [scans(None, "n9"), DONE, LATER, scans(None, "n8"), DONE, LATER, scans(None, "n7"), gets("c1", "n1")],
    ),
    "each file has its own": (ONE, [scans(None, "n9"), DONE, scans(None, "n9", 1), DONE, gets("c1", "n1", 1)]),
    "one that came to nothing is given back": (
        ONE,
        [step for n in range(10) for step in (scans(None, f"n{n}"), NOTHING, LATER)],
    ),
    "one that the store failed is given back, however often": (
        ONE,
        [step for n in range(10) for step in (scans(None, f"n{n}"), FAIL, LATER)],
    ),
    "elsewhere it is not": (
        Limits(downloads=1),
        [("visit", Who(None, "n9", None, scanner=True)), DONE, LATER, ("visit", Who(None, "n8", None, scanner=True))],
    ),
    "a spent look joins its own network's download": (
        ONE,
        [scans(None, "n9"), DONE, LATER, gets("c1", "n1"), scans(None, "n1", start=0.5), DONE, DONE],
    ),
    "it has no place to lose": (ONE, [scans(None, "n9"), gets("c1", "n1"), ("beat",), ("advance", 15_000), ("beat",)]),
    "past its budget it is charged": (
        Limits(downloads=1),
        [
            ("request", Who("c9", "n9", None, scanner=True), 0.0, 0.9, False),
            *[("renew", 0, 1.0)] * 3,
            DONE,
            LATER,
            scans("c9", "n9"),
            *[("renew", 0, 1.0)] * 3,
        ],
    ),
    "a download that ran over its budget goes on as the look": (
        Limits(downloads=1),
        [
            ("request", Who("c1", "n1", None), 0.0, 0.9, False),
            *[("renew", 0, 1.0)] * 3,
            DONE,
            LATER,
            scans("c1", "n1"),
            *[("renew", 0, 1.0)] * 3,
        ],
    ),
    "who was a person pays, once": (ONE, [scans("c1", "n1"), is_person("c1", "n1"), gets("c1", "n1"), DONE, DONE]),
    "and has a download like any": (ONE, [scans("c1", "n1"), is_person("c1", "n1"), gets("c2", "n1", start=0.5)]),
    "and after its end": (ONE, [scans("c1", "n1"), DONE, is_person("c1", "n2"), gets("c2", "n3")]),
    "also for one that a scanner of his office opened": (
        ONE,
        [scans("c9", "n1"), scans("c1", "n1"), is_person("c1", "n1"), gets("c2", "n2"), DONE, DONE, DONE],
    ),
    "and goes on with that from elsewhere": (
        ONE,
        [
            *(scans("c9", "n1"), DONE, scans("c1", "n1"), is_person("c1", "n1"), ("settle", 0, 0.5)),
            *(LATER, ("request", Who("c1", "n2", None), 0.5, 1.0, False), DONE),
        ],
    ),
    "and lacks nothing that the scanner fetched": (
        ONE,
        [*[scans("c9", "n1")] * 2, scans("c1", "n1"), *[DONE] * 3, is_person("c1", "n1"), gets("c1", "n2", start=0.5)],
    ),
    "and the scanner no more": (
        Limits(downloads=2),
        [scans("c9", "n1"), scans("c1", "n1"), is_person("c1", "n2"), gets("c9", "n1", start=0.5)],
    ),
    "and what runs is not cut": (
        ONE,
        [
            *(scans("c9", "n1"), scans("c1", "n1"), is_person("c1", "n1"), *[("renew", 0, 1.0), ("renew", 1, 1.0)] * 4),
            *(DONE, DONE, *[gets("c1", "n1")] * 3),
        ],
    ),
    "only for his own": (ONE, [scans("c9", "n1"), is_person("c1", "n1"), is_person("c9", "n1", 1)]),
    "not beyond a limit": (ONE, [scans("c1", "n1"), DONE, gets("c2", "n2"), DONE, is_person("c1", "n1")]),
    "what others download meanwhile is no reason": (
        Limits(concurrent=1),
        [gets("c2", "n2"), scans("c1", "n1"), is_person("c1", "n1"), DONE, gets("c3", "n3")],
    ),
    "his next request pays too": (ONE, [scans("c1", "n1"), gets("c1", "n1"), is_person("c1", "n1"), DONE, DONE]),
    "what he paid is given back": (
        ONE,
        [scans("c1", "n1"), is_person("c1", "n1"), NOTHING, gets("c2", "n2"), DONE, scans("c1", "n1")],
    ),
}


def with_traps(test: Callable[..., None]) -> Callable[..., None]:
    for limits, steps in TRAPS.values():
        for size in SIZES:
            test = example(size=size, limits=[limits], life=10**6, steps=steps)(test)
    return test


@with_traps
@given(
    size=st.sampled_from(SIZES),
    limits=st.lists(LIMITS, min_size=1, max_size=2),
    life=st.sampled_from([60, 10**6]),
    steps=STEPS,
)
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_looks_agree_with_the_model(
    redis_url: str, loop: asyncio.AbstractEventLoop, size: int, limits: list[Limits], life: int, steps: list[tuple]
) -> None:
    loop.run_until_complete(play(redis_url, limits, life, size, steps))


MUTANTS = {
    "looks without end": ("return not spent or spent == id", "return true"),
    "a look is refused by limits": ("not late and not look and refused", "not late and refused"),
    "a look takes a place": ("if not look then hold_place(id, ask.lease_ms) end", "hold_place(id, ask.lease_ms)"),
    "a renewal takes a place for a look": (
        "elseif transfer.charged == 1 then  -- a look has no place",
        "else",
    ),
    "people join looks": ("(transfer.look == 1) == (ask.look == true)", "true"),
    "a spent look joins nobody": ("if not found[1] and ask.look and look_of_file() then", "if false then"),
    "a look is never given back": ("and (transfer.charged == 1 or look) and", "and transfer.charged == 1 and"),
    "a look is given back, and is a refund of nothing": (
        "if look then\n      write('HDEL', FILE, 'look')",
        "if false then",
    ),
    "looks are given back without end": ("    if not free then increase", "    if not free and not look then increase"),
    "anyone pays for a look": (" or not is_looker(transfer, ask.cookie)", ""),
    "only who opened a look pays for it": ("and #lookers < LOOKERS and", "and #lookers < 1 and"),
    "who is a person pays beyond the limits": (
        "if refused(ask, id, transfer, math.huge) then return done({0}) end",
        "",
    ),
    "who is a person needs a place": ("if refused(ask, id, transfer, math.huge)", "if refused(ask, id, transfer, 0)"),
    "he pays for what a scanner fetched": (
        "if transfer.cookie ~= ask.cookie then hand_over(id, transfer, ask) end",
        "",
    ),
    "the scanner has it too": ("  unfile_transfer(id, transfer)\n  file_transfer(id, ask)", "  file_transfer(id, ask)"),
    "what the scanner fetched was his": ("transfer.repeats = transfer.repeats + 1", ""),
    "what the scanner completed is complete": (
        "transfer.last, transfer.spans = now, now, {}",
        "transfer.last = now, now",
    ),
    "he pays again": ("transfer.lookers, transfer.paid = 1, 0, nil, ", "transfer.paid = 1, 0, "),
    "what he paid for has no place": ("if transfer.live > 0 then hold_place", "if false then hold_place"),
    "a paid look is still one": (
        "transfer.charged, transfer.look, transfer.lookers, transfer.paid = 1, 0, nil, ",
        "transfer.charged, transfer.lookers, transfer.paid = 1, nil, ",
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_the_traps_catch_each_mutant(redis_url: str, loop: asyncio.AbstractEventLoop, name: str) -> None:
    for limits, steps in TRAPS.values():
        for size in SIZES:
            if loop.run_until_complete(is_caught(redis_url, [limits], 10**6, size, steps, MUTANTS[name])):
                return
    pytest.fail("no trap tells this mutant from the real thing")
