"""Devices that people remove, against the naive model: the slot is free, what runs goes on, and that has a bound."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gateway.backends.redis_client import Wire, connect
from gateway.backends.redis_devices import RedisDevices
from gateway.backends.redis_ledger import ABOUT_MAX, RedisLedger
from gateway.backends.redis_shards import RedisShards
from gateway.errors import LedgerFault
from gateway.policy.model import Device, Limits
from gateway.policy.orders import NEVER

_spec = importlib.util.spec_from_file_location("ledger_player", Path(__file__).with_name("ledger_player.py"))
assert _spec is not None
assert _spec.loader is not None
ledger_player = importlib.util.module_from_spec(_spec)
sys.modules["ledger_player"] = ledger_player
_spec.loader.exec_module(ledger_player)
Who, model, mutant, TEST_CLOCK = (
    ledger_player.Who,
    ledger_player.model,
    ledger_player.mutant,
    ledger_player.TEST_CLOCK,
)
SPAN = 3600
EVENT = {"id": "e", "type": "buyer.acted"}
TOKEN = "gw:{0}:token:token"
LIMITS = [Limits(devices=2, downloads=9), Limits(devices=1, networks=1)]


class Player(ledger_player.Player):
    """Also removes devices: at most `most` in SPAN."""

    def __init__(self, wire: Wire, ledger: RedisLedger, devices: RedisDevices) -> None:
        super().__init__(wire, ledger, LIMITS, 10**6, 300_000)
        self.devices = devices
        self.freed: list[int] = []

    async def _compare(self) -> None:
        await super()._compare()
        listed = await self.devices.of(0, "token")
        assert len(listed) == len(self.model.slots("devices"))
        assert [each.at for each in listed] == sorted((each.at or NEVER for each in listed), reverse=True)

    async def _free(self, index: int, most: int = 1) -> None:
        listed = await self.devices.of(0, "token")
        if not listed:
            return
        number = listed[index % len(listed)].slot
        names = set(json.loads(await self.wire.execute("HGET", TOKEN, f"s:devices:{number}"))["names"])
        recent = [at for at in self.freed if at > self.model.now - SPAN * 1000]
        expected = "freed" if len(recent) < most else "limit"
        got = await self.devices.free(0, "token", number, most=most, span=SPAN, event=EVENT)
        assert got == expected
        if got == "freed":
            self.freed = [*recent, self.model.now]
            for transfer in self.model.transfers:
                if (slot := transfer.slots.get("devices")) is not None and slot.names & names:
                    del transfer.slots["devices"]
            again = await self.devices.free(0, "token", number, most=99, span=SPAN, event=EVENT)
            assert again == "unknown"


async def play(redis_url: str, steps: list[tuple], mutate: Callable[[Any], None] = lambda _: None) -> None:
    wire = Wire(connect(redis_url))
    try:
        await wire.execute("FLUSHDB")
        shards = RedisShards(wire, 1, clock=TEST_CLOCK)
        ledger = RedisLedger(wire, shards, lease_ms=model.LEASE_MS, keep_ms=10**9, clock=TEST_CLOCK)
        devices = RedisDevices(wire, shards, clock=TEST_CLOCK)
        mutate(devices)
        await Player(wire, ledger, devices).play(steps)
    finally:
        await wire.close()


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def whole(cookie: str | None, network: str, file: int = 0, limits: int = 0) -> tuple:
    return ("request", Who(cookie, network, "a"), 0.0, 1.0, False, file, limits)


DONE, NOTHING, LATER = ("settle", 0, 1.0), ("settle", 0, 0.0), ("advance", 61_000)
FREE, MUCH_LATER = ("free", 0), ("advance", SPAN * 1000)
TRAPS = {
    "another has its place": [whole("c1", "n1", 0, 1), DONE, LATER, FREE, whole("c2", "n1", 0, 1)],
    "what runs goes on, and gives nothing back twice": [
        whole("c1", "n1"),
        FREE,
        whole("c2", "n2"),
        whole("c3", "n3"),
        NOTHING,
        whole("c4", "n4"),
    ],
    "it may come again, in a place of its own": [
        whole("c1", "n1", 0, 1),
        DONE,
        LATER,
        FREE,
        whole("c1", "n1", 0, 1),
        whole("c2", "n1", 0, 1),
    ],
    "as often as there are places": [
        *(whole("c1", "n1"), DONE, LATER, FREE, whole("c2", "n2"), DONE, LATER, FREE, FREE),
        *(MUCH_LATER, FREE, FREE),
    ],
    "all that it has begun is free": [whole("c1", "n1"), whole("c1", "n1", 1), FREE, DONE, DONE, whole("c2", "n2")],
}
STEPS = st.lists(
    st.one_of(
        st.builds(whole, st.sampled_from([None, "c1", "c2", "c3"]), st.sampled_from(["n1", "n2"]), st.integers(0, 1)),
        st.tuples(st.just("settle"), st.integers(0, 9), st.sampled_from([0.0, 1.0])),
        st.tuples(st.just("advance"), st.sampled_from([500, 61_000, SPAN * 1000])),
        st.tuples(st.just("free"), st.integers(0, 3), st.integers(1, 2)),
    ),
    max_size=25,
)


def with_traps(test: Callable[..., None]) -> Callable[..., None]:
    for steps in TRAPS.values():
        test = example(steps=steps)(test)
    return test


@with_traps
@given(steps=STEPS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_scripts_agree_with_the_model(redis_url: str, loop: asyncio.AbstractEventLoop, steps: list[tuple]) -> None:
    loop.run_until_complete(play(redis_url, steps))


MUTANTS = {
    "as many may be freed as one likes": ("if #freed >= most then", "if false then"),
    "what was freed is never forgotten": ("if at > now - span then", "if true then"),
    "what was freed is forgotten at once": ("if at > now - span then", "if false then"),
    "a freed slot is counted on": ("  increase(TOKEN, 'n:' .. set, -1)", ""),
    "a freed slot keeps its names": ("write('HDEL', TOKEN, 'v:' .. set .. ':' .. name)", ""),
    "a free slot is freed again": ("if not text then return done({'unknown'}) end", "text = text or '{\"names\":[]}'"),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_the_traps_catch_each_mutant(redis_url: str, loop: asyncio.AbstractEventLoop, name: str) -> None:
    def is_caught(steps: list[tuple]) -> bool:
        try:
            loop.run_until_complete(play(redis_url, steps, mutant(*MUTANTS[name])))
        except (AssertionError, KeyError, LedgerFault):
            return True
        return False

    assert any(is_caught(steps) for steps in TRAPS.values()), "no trap tells this mutant from the real thing"


async def test_a_device_says_what_it_is_and_when_it_was_seen(wire: Wire) -> None:
    await wire.execute("SET", "test:clock", model.EPOCH)
    shards = RedisShards(wire, 1, clock=TEST_CLOCK)
    ledger = RedisLedger(wire, shards, lease_ms=model.LEASE_MS, keep_ms=10**9, clock=TEST_CLOCK)
    devices = RedisDevices(wire, shards, clock=TEST_CLOCK)
    assert await devices.of(0, "token") == []
    for number, agent in enumerate(("Browser/1 \u017c\u00f3\u0142w \"'", "x" * 500, "")):
        device = Device(f"c{number}", f"n{number}", None, f"c{number}")
        asked = model.ask_of(
            model.Request(model.File("file", 1000), 0, 1000, device, Limits(devices=5)),
            f"r{number}",
            f"e{number}",
            token="token",
            expires=model.EPOCH + 10**9,
        )
        asked.event["user_agent.original"] = agent
        await wire.execute("INCRBY", "test:clock", 10)
        await ledger.reserve(asked)
    listed = await devices.of(0, "token")
    assert [(each.about, each.at) for each in listed] == [
        ("", model.EPOCH + 30),
        ("x" * ABOUT_MAX, model.EPOCH + 20),
        ("Browser/1 \u017c\u00f3\u0142w \"'", model.EPOCH + 10),
    ]
    await devices.free(0, "token", listed[0].slot, most=1, span=SPAN, event=EVENT)
    rows = await wire.execute("XREVRANGE", "gw:{0}:events", "+", "-", "COUNT", 1)
    assert rows[0][1] == EVENT
