"""The rules as a worker begins with them: from the file, or from a copy where that version was rolled back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from pathlib import Path

import pytest

from gateway.backends.redis_client import Wire, connect
from gateway.backends.redis_events import RedisEventLog
from gateway.backends.redis_shards import RedisShards
from gateway.backends.redis_verdicts import RedisVerdicts
from gateway.backends.rules_file import read_rules
from gateway.bootstrap.rules import Rules, open_rules
from gateway.bootstrap.told import Told
from gateway.errors import SettingsError
from gateway.policy.rollback import Return, Tally
from gateway.settings import Settings, load

OPEN = "version: 1\notherwise: allow\n"
SHUT = "version: 1\notherwise: deny\n"
MENDED = "version: 1\notherwise: allow # again\n"


class Supervisor:
    """Holds what a worker gave it, for the next one."""

    def __init__(self) -> None:
        self.held: dict[str, int] = {}

    def keep(self, what: str, copies: Mapping[str, int]) -> None:
        assert what == "rules"
        self.held = dict(copies)

    def kept(self, what: str) -> Mapping[str, int]:
        return self.held


@pytest.fixture
async def wire(redis_db: str) -> AsyncIterator[Wire]:
    wire = Wire(connect(redis_db))
    yield wire
    await wire.close()


@pytest.fixture
def settings(tmp_path: Path, redis_db: str) -> Settings:
    (tmp_path / "rules.yaml").write_text(OPEN)
    path = tmp_path / "gateway.yaml"
    path.write_text(
        f"redis: {redis_db}\norigin: {{url: 'file://{tmp_path}'}}\nissuer: shop.example.com\n"
        f"rules: {tmp_path}/rules.yaml\nrollback: {{factor: 2.5, within: 1m, least: 10}}\n"
        "keys: [{kid: a, alg: HS256, secret: 0123456789abcdef0123456789abcdef, use: sign}]\n"
    )
    return load(path, {})


async def worker(settings: Settings, wire: Wire, keeper: Supervisor) -> Rules:
    told = Told(*[lambda *_: None] * 7, reload=asyncio.Event(), keeper=keeper)
    return await open_rules(settings, wire, RedisEventLog(wire, 1, RedisShards(wire, 1)), told)


def version(tmp_path: Path, text: str) -> str:
    path = tmp_path / "one.yaml"
    path.write_text(text)
    return read_rules(path, None).version


WHY = Tally(20, 20, 0, 20)


def held(keeper: Supervisor) -> list[str]:
    return [name.rpartition(" ")[2] for name in keeper.held]


async def test_who_starts_after_a_rollback_has_what_was_before(settings: Settings, wire: Wire, tmp_path: Path) -> None:
    keeper = Supervisor()
    opened, shut, mended = (version(tmp_path, text) for text in (OPEN, SHUT, MENDED))
    first = await worker(settings, wire, keeper)
    await first.live.load()
    (tmp_path / "rules.yaml").write_text(SHUT)
    await first.live.reload()
    assert held(keeper) == [shut, opened], "both, what is in force first"
    await RedisVerdicts(wire, 60).refuse(shut, Return(opened, 5, WHY))
    later = await worker(settings, wire, keeper)
    assert "was rolled back at 1970-01-01T00:00:05Z" in await later.live.load()
    assert later.live.version == opened
    (tmp_path / "rules.yaml").write_text(MENDED)
    assert await later.live.reload()
    assert held(keeper) == [mended, opened], "the refused one is not kept"


async def test_the_proven_copy_outlives_two_bad_saves(settings: Settings, wire: Wire, tmp_path: Path) -> None:
    keeper = Supervisor()
    opened, shut, mended = (version(tmp_path, text) for text in (OPEN, SHUT, MENDED))
    rules = await worker(settings, wire, keeper)
    await rules.live.load()
    for text in (SHUT, MENDED):
        (tmp_path / "rules.yaml").write_text(text)
        await rules.live.reload()
    assert held(keeper) == [mended, opened]
    copies = rules.rollback._copies
    assert (copies.held(opened).otherwise, copies.held(shut)) == (True, None)
    copies.prove(shut)
    assert held(keeper) == [mended, opened], "what it has not it cannot hold"
    copies.prove(mended)
    assert held(keeper) == [mended]


async def test_where_nobody_has_a_copy_it_starts_with_the_file_and_so_does_the_next(
    settings: Settings, wire: Wire, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keeper, path, shut = Supervisor(), tmp_path / "rules.yaml", version(tmp_path, SHUT)
    path.write_text(SHUT)
    await RedisVerdicts(wire, 60).refuse(shut, Return("old", 5, WHY))
    for text in (SHUT, "what is this\n"):
        path.write_text(text)
        caplog.clear()
        rules = await worker(settings, wire, keeper)
        assert await rules.live.load()
        assert (rules.live.version, held(keeper)) == (shut, [shut])
        [said] = [each for each in caplog.records if "no copy of better ones" in each.getMessage()]
        assert said.levelname == "CRITICAL"


async def test_a_refused_file_does_not_bring_back_what_was_in_force_earlier(
    settings: Settings, wire: Wire, tmp_path: Path
) -> None:
    keeper = Supervisor()
    opened, shut, mended = (version(tmp_path, text) for text in (OPEN, SHUT, MENDED))
    first = await worker(settings, wire, keeper)
    await first.live.load()
    (tmp_path / "rules.yaml").write_text(MENDED)
    await first.live.reload()
    assert held(keeper) == [mended, opened]
    await RedisVerdicts(wire, 60).refuse(shut, Return(opened, 5, WHY))
    (tmp_path / "rules.yaml").write_text(SHUT)
    later = await worker(settings, wire, keeper)
    assert await later.live.load()
    assert later.live.version == mended, "the others have it"


async def test_what_is_told_of_the_file_is_of_the_last_look_at_it(
    settings: Settings, wire: Wire, tmp_path: Path
) -> None:
    """So it is true in a worker that is replaced, and where the same text is written again."""
    keeper, path = Supervisor(), tmp_path / "rules.yaml"
    opened, shut = version(tmp_path, OPEN), version(tmp_path, SHUT)
    first = await worker(settings, wire, keeper)
    await first.live.load()
    await RedisVerdicts(wire, 60).refuse(shut, Return(opened, 5, WHY))
    later = await worker(settings, wire, keeper)
    await later.live.load()
    told = []
    for text in (OPEN, SHUT, SHUT, "what is this\n", SHUT, MENDED):
        path.write_text(text)
        with suppress(SettingsError):
            await later.live.reload()
        told.append(later.rollback._returns.why(later.rollback._copies.file) is not None)
    assert told == [False, True, True, False, True, False]
    path.write_text(SHUT)
    replaced = await worker(settings, wire, keeper)
    await replaced.live.load()
    assert replaced.rollback._returns.why(replaced.rollback._copies.file) is not None


async def test_a_new_list_is_another_version_of_the_same_text(settings: Settings, tmp_path: Path) -> None:
    path, lists = tmp_path / "rules.yaml", tmp_path / "bad.txt"
    path.write_text(
        "version: 1\nlists: {bad: {file: bad.txt}}\n"
        "rules: [{name: r, when: {ip: $bad}, then: deny}]\notherwise: allow\n"
    )
    lists.write_text("192.0.2.1\n")
    one = read_rules(path, None)
    lists.write_text("192.0.2.2\n")
    two = read_rules(path, None)
    assert (one.text, one.version == two.version) == (two.text, False)
    assert len(one.text) == 12


async def test_without_rollback_one_copy_is_kept_and_nobody_counts(
    settings: Settings, wire: Wire, tmp_path: Path
) -> None:
    keeper = Supervisor()
    rules = await worker(settings.model_copy(update={"rollback": None}), wire, keeper)
    await rules.live.load()
    (tmp_path / "rules.yaml").write_text(SHUT)
    await rules.live.reload()
    assert (len(keeper.held), rules.rollback) == (1, None)


async def test_the_live_rules_have_to_pass_their_tests(settings: Settings, wire: Wire, tmp_path: Path) -> None:
    tests = tmp_path / "tests.yaml"
    tests.write_text("- {given: {}, expect: deny}\n")
    live = (await worker(settings, wire, Supervisor())).live
    with pytest.raises(SettingsError, match=r"tests.yaml:1: tests\[0\]: expected deny, is allow by otherwise"):
        await live.load()
    tests.write_text("- {given: {}, expect: allow}\n")
    assert await live.load() == ""
