"""Too much is refused before anything is charged; what runs, links' pages and all that costs nothing go on."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.errors import SettingsError
from gateway.settings import Settings
from gateway.web import overload
from gateway.web.overload import BODY, STARTS, WORKER, Memory, Turns, memory_here, memory_of_worker, resident

MIB = 1 << 20
SECRET = "a secret of a shop, for tests only, 40 long"
HALF = 250_000_000


class Taken:
    """What the process is said to hold."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bytes = 0
        monkeypatch.setattr(overload, "resident", lambda: self.bytes)


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> Taken:
    return Taken(monkeypatch)


def settings(**changes: object) -> Settings:
    keys = [{"kid": "a", "alg": "HS256", "secret": SECRET}]
    origin = {"url": "s3://shop-files"}
    needed = {"origin": origin, "redis": "redis://127.0.0.1:6379/0", "keys": keys, "issuer": "shop.example.com"}
    return Settings.model_validate({**needed, "workers": "2", **changes})


def test_bodies_end_before_connections_and_both_before_the_cap(taken: Taken) -> None:
    memory = Memory(160 * MIB, body=MIB)
    taken.bytes = 139 * MIB
    assert memory.has_room()
    taken.bytes += 1
    assert not memory.has_room()
    assert not memory.is_spent()
    taken.bytes = 150 * MIB
    assert not memory.is_spent()
    taken.bytes += 1
    assert memory.is_spent()


def test_a_young_body_counts_as_what_it_may_take(taken: Taken, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory(160 * MIB, body=10 * MIB)
    taken.bytes = 110 * MIB
    with memory.body("a"), memory.body("b"):
        assert memory.has_room()
        with memory.body("c"):
            assert not memory.has_room()
        assert memory.has_room()
        with memory.body("d"):
            monkeypatch.setattr(memory._bodies, "_age", 0.0)
            assert memory.has_room()  # by now what they took is in the process's own


def test_a_platform_that_cannot_tell_caps_nothing(taken: Taken) -> None:
    taken.bytes = 0
    assert Memory(WORKER, BODY["s3"]).has_room()


@pytest.mark.skipif(not resident(), reason="reads /proc")
def test_what_was_freed_makes_room_again() -> None:
    held = [bytearray(100_000) for _ in range(800)]
    for piece in held:
        piece[::4096] = b"x" * len(piece[::4096])
    last = held.pop()  # what is freed before it stays with malloc
    full = resident()
    held.clear()
    memory = Memory((full - 20_000_000) * 8 // 7, body=1)
    assert memory.has_room()
    assert resident() < full - 20_000_000
    del last


async def test_some_begin_at_once_and_the_rest_in_later_turns_of_the_loop_in_order() -> None:
    turns = Turns()
    begun: list[int] = []

    async def one(number: int) -> None:
        assert await turns.take(str(number))
        begun.append(number)
        turns.end(str(number))

    tasks = [asyncio.create_task(one(number)) for number in range(3 * STARTS)]
    await asyncio.sleep(0)
    assert begun == list(range(STARTS))
    await asyncio.gather(*tasks)
    assert begun == list(range(3 * STARTS))


async def test_who_is_being_decided_holds_up_the_others_until_it_only_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overload, "DECIDED", 0.2)
    turns = Turns()
    waiting = [asyncio.create_task(turns.take(str(number))) for number in range(overload.AT_ONCE + 2)]
    await asyncio.sleep(0.1)
    assert sum(task.done() for task in waiting) == overload.AT_ONCE
    turns.end("0")
    await asyncio.sleep(0.02)
    assert sum(task.done() for task in waiting) == overload.AT_ONCE + 1
    assert await asyncio.wait_for(waiting[-1], 1)


async def test_whose_turn_does_not_come_is_told_and_who_left_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overload, "PATIENCE", 0.1)
    monkeypatch.setattr(overload, "AT_ONCE", 1)
    turns = Turns()
    assert await turns.take("runs")
    left = asyncio.create_task(turns.take("left"))
    late = asyncio.create_task(turns.take("late"))
    await asyncio.sleep(0.01)
    left.cancel()
    assert not await late
    turns.end("runs")
    assert await turns.take("next")


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/", {"sys/fs/cgroup/memory.max": "500000000\n"}, 500_000_000),
        ("0::/a/b", {"sys/fs/cgroup/a/memory.max": "400000000", "sys/fs/cgroup/a/b/memory.max": "max"}, 400_000_000),
        ("9:memory:/host", {"sys/fs/cgroup/memory/memory.limit_in_bytes": "300000000"}, 300_000_000),
        ("9:cpu:/\n8:memory:/a", {"sys/fs/cgroup/memory/a/memory.limit_in_bytes": "200000000"}, 200_000_000),
        ("0::/", {"sys/fs/cgroup/memory.max": "max"}, None),
        ("9:memory:/", {"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712"}, None),
    ],
)
def test_a_container_has_what_its_group_may_take(
    tmp_path: Path, groups: str, files: dict[str, str], expected: int | None
) -> None:
    for name, text in {"proc/self/cgroup": groups, **files}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert memory_here(tmp_path) == (expected or memory_here(tmp_path / "nothing"))


def test_the_workers_share_half_of_what_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overload, "memory_here", lambda: 4 * HALF)
    assert memory_of_worker(settings(), 90_000_000).cap == HALF
    assert memory_of_worker(settings(workers="8"), 90_000_000).cap == WORKER
    assert memory_of_worker(settings(), 4 * HALF).cap > 4 * HALF  # large geo databases do not keep it from serving


def test_too_little_for_a_worker_is_refused_with_what_would_do() -> None:
    assert memory_of_worker(settings(memory="500MB"), 90_000_000).cap == HALF
    with pytest.raises(SettingsError, match=r"^memory: is 100MB for each of 2 workers, .* write 260MB or more") as told:
        memory_of_worker(settings(memory="200MB"), 90_000_000)
    assert memory_of_worker(settings(memory="260MB"), 90_000_000).cap == 130_000_000, str(told.value)
