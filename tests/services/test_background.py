"""Work that is done beside answering requests: it begins at a ring, goes on after every failure, and ends when told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from gateway.errors import OrdersDown
from gateway.services import background as module
from gateway.services.background import Background


class Bell:
    """Rings when the test says so; `heard` breaks as often as it was told to."""

    def __init__(self) -> None:
        self.rung = asyncio.Condition()
        self.rings = 0
        self.broken: list[Exception] = []

    async def ring(self) -> None:
        async with self.rung:
            self.rings += 1
            self.rung.notify_all()

    async def heard(self) -> AsyncGenerator[None, None]:
        seen = -1
        while True:
            if self.broken:
                raise self.broken.pop()
            async with self.rung:
                while self.rings <= seen:
                    await self.rung.wait()
                seen = self.rings
            yield


class Pile:
    """So many pieces of work; what is in `failures` is raised first."""

    def __init__(self, count: int = 0, failures: list[Exception] | None = None) -> None:
        self.count = count
        self.done = 0
        self.failures = failures or []
        self.tried = asyncio.Event()
        self.at_once = 0
        self.most_at_once = 0

    async def step(self) -> bool:
        self.tried.set()
        if self.failures:
            raise self.failures.pop(0)
        if not self.count:
            return False
        self.count -= 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0.001)
        self.at_once -= 1
        self.done += 1
        return True


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE", 0.02)


async def soon(pile: Pile, done: int) -> None:
    for _ in range(1000):
        if pile.done >= done:
            return
        await asyncio.sleep(0.005)
    raise AssertionError(f"{pile.done} of {done} were done")


async def test_a_ring_has_all_of_it_done_so_many_at_a_time() -> None:
    bell, pile, states = Bell(), Pile(20), []
    work = Background({"mails": (pile.step, 3)}, bell, lambda *state: states.append(state))
    work.start()
    await soon(pile, 20)
    assert pile.most_at_once == 3
    pile.count = 2
    await asyncio.sleep(0.02)
    assert pile.done == 20, "nobody has rung"
    await bell.ring()
    await soon(pile, 22)
    await work.stop()
    assert states == []


async def test_one_kind_of_work_that_fails_leaves_the_other_alone(caplog: pytest.LogCaptureFixture) -> None:
    bell, good, bad = Bell(), Pile(3), Pile(1, [OrdersDown("the database is away")] * 3)
    states: list[tuple[str, str]] = []
    work = Background({"orders": (good.step, 1), "mails": (bad.step, 1)}, bell, lambda *state: states.append(state))
    work.start()
    await soon(good, 3)
    for _ in range(3):
        await asyncio.sleep(0.05)
        await bell.ring()
    await soon(bad, 1)
    await bell.ring()
    await asyncio.sleep(0.05)
    await work.stop()
    assert states[0] == ("mails", "the database is away")
    assert states[-1] == ("mails", "")
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == [
        "mails wait: the database is away"
    ]


async def test_what_broke_is_told_without_its_text(caplog: pytest.LogCaptureFixture) -> None:
    bell, bad, states = Bell(), Pile(1, [RuntimeError("secret")]), []
    work = Background({"mails": (bad.step, 1)}, bell, lambda *state: states.append(state))
    work.start()
    await bad.tried.wait()
    await asyncio.sleep(0.03)
    await bell.ring()
    await soon(bad, 1)
    await work.stop()
    assert "RuntimeError" in caplog.text
    assert "secret" not in caplog.text + str(states)


async def test_a_bell_that_breaks_is_listened_to_again() -> None:
    bell, pile = Bell(), Pile(1)
    bell.broken = [RuntimeError("a reply that nobody understands")]
    work = Background({"mails": (pile.step, 1)}, bell, lambda *_: None)
    work.start()
    await soon(pile, 1)
    await work.stop()


async def test_stop_ends_also_what_is_under_way() -> None:
    bell = Bell()
    begun, ended = asyncio.Event(), asyncio.Event()

    async def step() -> bool:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return True

    work = Background({"mails": (step, 1)}, bell, lambda *_: None)
    work.start()
    await begun.wait()
    async with asyncio.timeout(1):
        await work.stop()
    assert ended.is_set()
