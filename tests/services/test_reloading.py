"""Files that change under a running worker, on a real disk and a real Redis; two Reloadings stand for two workers."""

from __future__ import annotations

import asyncio
import os
import re
import threading
import time
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gateway.backends.embedded_redis import EmbeddedRedis
from gateway.backends.redis_client import Wire, connect
from gateway.backends.redis_events import RedisEventLog, stream
from gateway.backends.redis_shards import RedisShards
from gateway.backends.rules_file import RulesFile
from gateway.errors import LedgerDown, SettingsError
from gateway.ports import Fields
from gateway.services.reloading import EVERY, PATIENCE, TOLD_ONCE_SECONDS, Reloading, Watched

WITHIN = 1.0
QUIET = EVERY * (PATIENCE + 1)


@dataclass
class Text:
    """What these tests read: a file's own words are its version."""

    version: str


@dataclass
class Worker:
    """One Reloading over one file, and what it told."""

    path: Path
    reading: Callable[[], None] = lambda: None
    wanted: asyncio.Event = field(default_factory=asyncio.Event)
    counted: list[tuple[str, str]] = field(default_factory=list)
    shown: list[tuple[str, str, str]] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    kept: list[Text] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.watched = Watched(
            "rules",
            self.read,
            self.look,
            lambda text: self.replaced.append(text.version),
            keep=self.kept.append,
            last_good=lambda: self.kept[-1] if self.kept else None,
        )

    @property
    def version(self) -> str:
        return self.watched.current.version

    def read(self) -> Text:
        self.reading()
        try:
            text = self.path.read_text()
        except FileNotFoundError:
            raise SettingsError(f"{self.path}: cannot be read") from None
        if text.startswith("bad"):
            raise SettingsError(
                "\n".join(f"{self.path}:{number}: is {line}" for number, line in enumerate(text.split()))
            )
        return Text(text)

    def look(self) -> Hashable:
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return None
        return (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)

    @asynccontextmanager
    async def running(self, wire: Wire, *others: Watched[Text]) -> AsyncIterator[Reloading]:
        reloading = Reloading(
            [self.watched, *others],
            RedisEventLog(wire, 1, RedisShards(wire, 1)),
            wanted=self.wanted,
            versions=lambda: {"rules.version": self.version, "geo.version": "g"},
            count=lambda what, outcome: self.counted.append((what, outcome)),
            show=lambda what, version, wrong: self.shown.append((what, version, wrong)),
        )
        await reloading.start()
        try:
            yield reloading
        finally:
            await reloading.stop()


@pytest.fixture
def worker(tmp_path: Path) -> Worker:
    path = tmp_path / "rules.yaml"
    path.write_text("one")
    return Worker(path)


async def soon(holds: Callable[[], bool], within: float = WITHIN) -> float:
    """How long it took, in seconds."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < within, "it did not come to pass"
        await asyncio.sleep(0.01)
    return time.monotonic() - began


async def events(wire: Wire) -> list[dict[str, str]]:
    return [fields async for _, fields in RedisEventLog(wire, 1, RedisShards(wire, 1)).scan(0)]


async def told(wire: Wire) -> list[tuple[str, str, str]]:
    await asyncio.sleep(0.1)
    return [(event["type"], event["rules.version"], event["reason"]) for event in await events(wire)]


def in_place(path: Path, text: str) -> None:
    path.write_text(text)


def by_rename(path: Path, text: str) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    fresh.replace(path)


def by_touch_and_same_size(path: Path, text: str) -> None:
    """The time of the last change is set back, as `cp -p` and rsync do."""
    before = path.stat()
    path.write_text(text)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("change", [in_place, by_rename, by_touch_and_same_size])
async def test_a_changed_file_is_in_force_within_a_second(worker: Worker, wire: Wire, change) -> None:
    async with worker.running(wire):
        assert worker.shown == [("rules", "one", "")]
        change(worker.path, "two")
        await soon(lambda: worker.version == "two")
        assert await told(wire) == [("rules.reloaded", "two", "rules")]
        assert worker.counted == [("rules", "loaded")]
        assert worker.shown[1:] == [("rules", "two", "")]
        assert worker.replaced == ["one"]


async def test_the_event_is_as_documented(worker: Worker, wire: Wire) -> None:
    async with worker.running(wire):
        in_place(worker.path, "two")
        await soon(lambda: worker.version == "two")
        await told(wire)
    (event,) = await events(wire)
    assert event.keys() == {"id", "v", "time", "type", "reason", "rules.version", "geo.version"}


async def test_no_start_with_a_bad_file(worker: Worker, wire: Wire) -> None:
    in_place(worker.path, "bad one")
    with pytest.raises(SettingsError, match=r"rules.yaml:0: is bad\n.*rules.yaml:1: is one"):
        async with worker.running(wire):
            pass
    with pytest.raises(LookupError, match="were not loaded"):
        _ = worker.watched.current


async def test_the_last_good_one_stays_loudly(worker: Worker, wire: Wire, caplog: pytest.LogCaptureFixture) -> None:
    async with worker.running(wire):
        in_place(worker.path, "bad a b c")
        await soon(lambda: bool(worker.counted))
        await asyncio.sleep(QUIET)
        assert worker.version == "one"
        assert worker.replaced == []
        wrong = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
        assert [line.partition(": is ")[2] for line in wrong] == ["bad", "a", "b", "c"]
        reason = f"{worker.path}:0: is bad (+3 more)"
        assert await told(wire) == [("rules.rejected", "one", reason)]
        assert worker.shown[1:] == [("rules", "one", reason)]
        assert worker.counted == [("rules", "rejected")]
        in_place(worker.path, "two")
        await soon(lambda: worker.shown[2:] == [("rules", "two", "")])
        assert worker.version == "two"


async def test_a_start_with_a_bad_file_takes_what_was_good_before(
    worker: Worker, wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    async with worker.running(wire):
        in_place(worker.path, "two")
        await soon(lambda: worker.shown[1:] == [("rules", "two", "")])  # by then they are kept
    in_place(worker.path, "bad a")
    later = Worker(worker.path, kept=worker.kept)
    async with later.running(wire):
        assert later.version == "two"
        assert "starting with the last good rules" in caplog.text
        assert f"{worker.path}:1: is a" in caplog.text
        reason = f"{worker.path}:0: is bad (+1 more)"
        assert later.shown == [("rules", "two", reason)]
        assert (await told(wire))[1:] == [("rules.rejected", "two", reason)]
        await asyncio.sleep(QUIET)
        assert later.counted == [("rules", "rejected")], "a file that has not changed is not read again"
        in_place(worker.path, "three")
        await soon(lambda: later.shown[1:] == [("rules", "three", "")])
        assert later.version == "three"
    assert [text.version for text in worker.kept] == ["one", "two", "three"]


async def test_what_changes_at_every_reading_is_never_in_force(worker: Worker, wire: Wire) -> None:
    """Half of the one and half of the other might well be right by itself."""
    async with worker.running(wire):

        def torn() -> None:
            worker.path.write_text(f"half {time.monotonic()}")

        worker.reading = torn
        worker.wanted.set()
        await soon(lambda: bool(worker.counted))
        worker.reading = lambda: None
        assert worker.counted[0] == ("rules", "rejected")
        assert worker.version == "one"
        ((_, version, reason),) = await told(wire)
        assert (version, reason.partition(";")[0]) == ("one", "the rules changed each time they were read")
        in_place(worker.path, "two")
        await soon(lambda: worker.version == "two")


async def test_a_bad_file_is_told_of_once_and_again_when_it_is_bad_anew(worker: Worker, wire: Wire) -> None:
    async with worker.running(wire):
        for number, text in enumerate(("bad a", "bad a", "bad b", "one", "bad b"), 1):
            by_rename(worker.path, text)
            await soon(lambda count=number: len(worker.counted) == count)
        reasons = [reason.partition(" (")[0] for _, _, reason in await told(wire)]
        assert len(reasons) == 4
        assert reasons[2] == "rules"
        assert [outcome for _, outcome in worker.counted] == ["rejected"] * 3 + ["loaded", "rejected"]
        assert [wrong != "" for _, _, wrong in worker.shown] == [False, True, True, False, True]


async def test_mended_without_a_change_ends_the_alarm(
    worker: Worker, wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with worker.running(wire):
        in_place(worker.path, "bad")
        await soon(lambda: len(worker.counted) == 1)
        in_place(worker.path, "one")
        await soon(lambda: len(worker.counted) == 2)
        assert [kind for kind, *_ in await told(wire)] == ["rules.rejected", "rules.reloaded"]
        assert "the rules were loaded again: version one" in caplog.text
        assert worker.shown[-1] == ("rules", "one", "")


async def test_a_file_that_disappears(worker: Worker, wire: Wire) -> None:
    async with worker.running(wire):
        worker.path.unlink()
        await soon(lambda: bool(worker.counted))
        await asyncio.sleep(QUIET)
        assert await told(wire) == [("rules.rejected", "one", f"{worker.path}: cannot be read")]
        assert worker.version == "one"
        in_place(worker.path, "two")
        await soon(lambda: worker.version == "two")


async def test_touched_makes_no_event(worker: Worker, wire: Wire) -> None:
    async with worker.running(wire):
        worker.path.touch()
        await soon(lambda: bool(worker.counted))
        assert await told(wire) == []


async def test_sighup_reads_at_once_what_no_fingerprint_tells(
    worker: Worker, wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    worker.look = lambda: "always the same"
    worker.__post_init__()
    async with worker.running(wire):
        in_place(worker.path, "two")
        await asyncio.sleep(QUIET)
        assert worker.version == "one"
        worker.wanted.set()
        await soon(lambda: worker.version == "two", EVERY)
        assert not worker.wanted.is_set()
        worker.wanted.set()
        await soon(lambda: "in force is what was: version two" in caplog.text, EVERY)
        assert [kind for kind, *_ in await told(wire)] == ["rules.reloaded"]


async def test_truncated_and_written_is_no_mistake(worker: Worker, wire: Wire) -> None:
    async with worker.running(wire):
        for number in range(5):
            await asyncio.sleep(EVERY / 2)  # the last look was just now: the next one shall fall between the two steps
            with worker.path.open("w") as file:
                file.write("bad")
                file.flush()
                await asyncio.sleep(0.7 * EVERY)
                file.seek(0)
                file.write(f"good {number}")
            await soon(lambda number=number: worker.version == f"good {number}")
        assert {kind for kind, *_ in await told(wire)} == {"rules.reloaded"}
        assert ("rules", "rejected") not in worker.counted


async def test_a_file_that_never_rests_is_read_all_the_same(worker: Worker, wire: Wire) -> None:
    async with worker.running(wire):
        began = time.monotonic()
        while not worker.counted:
            assert time.monotonic() - began < WITHIN
            worker.path.write_text(f"{time.monotonic()}")
            await asyncio.sleep(EVERY / 4)


async def test_what_changes_while_it_is_read_is_read_again(worker: Worker, wire: Wire) -> None:
    """A half that was read in mid-write is neither taken nor told of, also at SIGHUP."""
    halves = ["bad half", "whole"]
    async with worker.running(wire):
        read_at = worker.read

        def slowly() -> Text:
            try:
                return read_at()
            finally:
                if halves:
                    by_rename(worker.path, halves.pop(0))

        worker.watched._read = slowly
        worker.wanted.set()
        await soon(lambda: worker.version == "whole")
        await asyncio.sleep(QUIET)
        assert await told(wire) == [("rules.reloaded", "whole", "rules")]
        assert worker.replaced == ["one", "one"], "what was read in vain is ended too"


async def test_half_of_one_and_half_of_the_next_is_never_in_force() -> None:
    """The file is replaced while it is read, and what was read of it is well-formed."""
    texts, fingerprints = iter(("half of a, half of b", "b")), iter("a")
    watched = Watched("rules", lambda: Text(next(texts)), lambda: next(fingerprints, "b"))
    assert await watched.load() == ""
    assert watched.version == "b"


async def test_list_files_are_watched_from_the_first_reading_on(tmp_path: Path, wire: Wire) -> None:
    rules, entries = tmp_path / "rules.yaml", tmp_path / "bad.txt"
    text = "version: 1\nlists: {bad: {file: %s}}\nrules:\n- {name: b, when: {ip: $bad}, then: deny}\notherwise: allow\n"
    entries.write_text("203.0.113.0/24\n")
    rules.write_text(text % "bad.txt")
    counted: list[str] = []
    file = RulesFile(rules, None)
    watched = Watched("rules", file.read, file.fingerprint)
    reloading = Reloading(
        [watched],
        RedisEventLog(wire, 1, RedisShards(wire, 1)),
        wanted=asyncio.Event(),
        versions=lambda: {"rules.version": watched.version},
        count=lambda _, outcome: counted.append(outcome),
    )
    await reloading.start()
    first = watched.version
    await asyncio.sleep(QUIET)
    assert counted == [], "nothing has changed, so nothing is read again"
    entries.write_text("203.0.113.0/25\n")
    await soon(lambda: watched.version != first)
    # Wrong in a way that also names another file: still one rejection, and one event.
    (tmp_path / "other.txt").write_text("nonsense\n")
    rules.write_text(text % "other.txt")
    await soon(lambda: "rejected" in counted)
    await asyncio.sleep(QUIET)
    assert counted == ["loaded", "rejected"]
    kinds = [kind for kind, *_ in await told(wire)]
    assert kinds == ["rules.reloaded", "rules.rejected"]
    (tmp_path / "other.txt").write_text("203.0.113.0/26\n")
    await soon(lambda: counted == ["loaded", "rejected", "loaded"])
    await reloading.stop()


async def test_a_failing_test_blocks_a_reload_until_it_passes(tmp_path: Path, wire: Wire) -> None:
    rules, tests = tmp_path / "rules.yaml", tmp_path / "tests.yaml"
    text = "version: 1\nrules:\n- {name: b, when: {country: %s}, then: deny}\notherwise: allow\n"
    rules.write_text(text % "[CU, IR]")
    file = RulesFile(rules, None, tested=True)
    watched = Watched("rules", file.read, file.fingerprint)
    counted: list[str] = []
    reloading = Reloading(
        [watched],
        RedisEventLog(wire, 1, RedisShards(wire, 1)),
        wanted=asyncio.Event(),
        versions=lambda: {"rules.version": watched.version},
        count=lambda _, outcome: counted.append(outcome),
    )
    await reloading.start()
    first = watched.version
    tests.write_text("- {name: Iran, given: {country: IR}, expect: deny, by: b}\n")
    await soon(lambda: counted == ["loaded"])
    assert watched.version == first, "what decides is the same"
    rules.write_text(text % "CU")
    await soon(lambda: counted[1:] == ["rejected"])
    assert watched.version == first
    tests.unlink()
    await soon(lambda: counted[2:] == ["loaded"])
    assert watched.version != first
    wrong = f'{tests}:1: tests[0]: "Iran": expected deny by b, is allow by otherwise; '
    wrong += "b needs country: CU, but country is IR"
    assert await told(wire) == [
        ("rules.rejected", first, wrong),
        ("rules.reloaded", watched.version, "rules"),
    ]
    await reloading.stop()


async def test_a_reader_that_breaks_is_a_bad_file(worker: Worker, wire: Wire) -> None:
    async with worker.running(wire):
        worker.reading = lambda: {}["a text that may hold anything"]
        in_place(worker.path, "two")
        await soon(lambda: bool(worker.counted))
        worker.reading = lambda: None
        ((kind, version, reason),) = await told(wire)
        assert (kind, version) == ("rules.rejected", "one")
        assert reason.startswith("KeyError at ")
        assert "anything" not in reason
        in_place(worker.path, "three")
        await soon(lambda: worker.version == "three")


async def test_a_slow_one_does_not_hold_up_another(worker: Worker, wire: Wire, tmp_path: Path) -> None:
    """Large databases take a while; the event loop and the rules do not wait for them."""
    other = Worker(tmp_path / "geo")
    other.path.write_text("one")
    go_on, begun = threading.Event(), threading.Event()
    async with worker.running(wire, other.watched):

        def wait() -> None:
            begun.set()
            go_on.wait(10)

        other.reading = wait
        in_place(other.path, "two")
        await soon(begun.is_set)
        in_place(worker.path, "two")
        await soon(lambda: worker.version == "two")
        assert other.version == "one"
        go_on.set()
        await soon(lambda: other.version == "two")


async def test_workers_of_a_host_tell_once(worker: Worker, wire: Wire) -> None:
    other, third = Worker(worker.path), Worker(worker.path)
    workers = (worker, other, third)
    async with worker.running(wire), other.running(wire), third.running(wire):
        for text in ("two", "bad", "three", "two"):
            before = [len(each.counted) for each in workers]
            in_place(worker.path, text)
            await soon(lambda before=before: all(len(w.counted) > b for w, b in zip(workers, before, strict=True)))
        kinds = [(kind, version) for kind, version, _ in await told(wire)]
    reloaded, rejected = "rules.reloaded", "rules.rejected"
    assert kinds == [(reloaded, "two"), (rejected, "two"), (reloaded, "three"), (reloaded, "two")]


async def test_a_swap_does_not_wait_for_redis_and_its_event_is_not_lost(
    worker: Worker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = EmbeddedRedis(tmp_path / "redis")
    wire = Wire(connect(await asyncio.to_thread(server.start)))
    other = Worker(worker.path)
    async with worker.running(wire), other.running(wire):
        await asyncio.to_thread(server.stop)
        for text in ("two", "three"):
            in_place(worker.path, text)
            await soon(lambda text=text: worker.version == text and other.version == text)
        await asyncio.sleep(1.5)
        assert len(re.findall("the event rules.reloaded is not stored yet", caplog.text)) == 2, "once a worker"
        await asyncio.to_thread(server.start)
        await asyncio.sleep(2.5)
        assert [version for _, version, _ in await told(wire)] == ["two", "three"]
    await wire.close()
    await asyncio.to_thread(server.stop)


async def test_a_server_that_says_nothing_delays_no_swap(worker: Worker, wire: Wire) -> None:
    async with worker.running(wire):
        await wire.execute("CLIENT PAUSE", 2500, "ALL")
        for text in ("two", "three", "four"):
            in_place(worker.path, text)
            await soon(lambda text=text: worker.version == text)


async def test_a_long_outage_keeps_the_last_events(worker: Worker, tmp_path: Path) -> None:
    async with worker.running(Wire(connect(f"unix://{tmp_path}/no-such-socket"))) as reloading:
        for number in range(15):
            in_place(worker.path, f"n{number}")
            worker.wanted.set()
            await soon(lambda number=number: worker.version == f"n{number}")
        waiting = [reloading._untold.get_nowait()[1]["rules.version"] for _ in range(reloading._untold.qsize())]
        assert waiting == [f"n{number}" for number in range(5, 15)]


async def test_a_novel_of_a_mistake_is_cut_but_its_count_is_not(worker: Worker, wire: Wire) -> None:
    async with worker.running(wire):
        in_place(worker.path, f"bad{'x' * 100_000} more")
        await soon(lambda: bool(worker.counted))
        ((_, _, reason),) = await told(wire)
        assert len(reason) < 600
        assert reason.endswith(" (+1 more)")


async def test_without_files_nothing_is_watched(wire: Wire) -> None:
    reads: list[str] = []

    def read() -> Text:
        reads.append("read")
        return Text("")

    wanted = asyncio.Event()
    nothing = Watched("rules", read, None)
    reloading = Reloading(
        [nothing],
        RedisEventLog(wire, 1, RedisShards(wire, 1)),
        wanted=wanted,
        versions=dict,
        count=lambda what, outcome: None,
    )
    await reloading.start()
    wanted.set()
    await asyncio.sleep(QUIET)
    assert reads == ["read"]
    assert not wanted.is_set()
    await reloading.stop()


async def test_what_is_told_once_may_come_again_later(wire: Wire) -> None:
    log = RedisEventLog(wire, 2, RedisShards(wire, 2))
    assert await log.append_once(1, "a", {"n": "1"}, 1)
    assert not await log.append_once(1, "a", {"n": "2"}, TOLD_ONCE_SECONDS)
    assert await log.append_once(1, "b", {"n": "3"}, TOLD_ONCE_SECONDS)
    assert not await log.append_once(1, "a", {"n": "4"}, TOLD_ONCE_SECONDS), "whatever came after it"
    assert await log.append_once(0, "a", {"n": "5"}, TOLD_ONCE_SECONDS), "each shard remembers its own"
    await asyncio.sleep(1.1)
    assert await log.append_once(1, "a", {"n": "6"}, 1)
    assert [fields["n"] async for _, fields in log.scan(1)] == ["1", "3", "6"]
    assert [fields["n"] async for _, fields in log.scan(0)] == ["5"]


class Late(RedisEventLog):
    """The real log of a worker whose events all wait until it may go on."""

    def __init__(self, wire: Wire) -> None:
        super().__init__(wire, 1, RedisShards(wire, 1))
        self.go_on = asyncio.Event()

    async def append_once(self, shard: int, mark: str, fields: Fields, seconds: int) -> bool:
        await self.go_on.wait()
        return await super().append_once(shard, mark, fields, seconds)


async def test_workers_out_of_step_tell_once(worker: Worker, wire: Wire) -> None:
    """One tells each as it comes, the other all of them at the end."""
    other, log = Worker(worker.path), Late(wire)
    async with worker.running(wire), other.running(wire) as late:
        late._events = log
        for text in ("two", "bad", "three", "two"):
            before = [len(each.counted) for each in (worker, other)]
            in_place(worker.path, text)
            await soon(lambda before=before: len(worker.counted) > before[0] and len(other.counted) > before[1])
        by_one = await told(wire)
        assert [version for _, version, _ in by_one] == ["two", "two", "three", "two"]
        assert late._untold.qsize() == 3, "and one is on its way"
        log.go_on.set()
        await late._untold.join()
        assert await told(wire) == by_one


async def test_files_that_come_back_as_they_were_are_told_again(worker: Worker, wire: Wire, tmp_path: Path) -> None:
    """By a symlink, which changes nothing of what it leads to; also where a worker has seen less than the others."""
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
        (folder / "rules.yaml").write_text(folder.name)

    def lead(to: str) -> None:
        fresh = tmp_path / "fresh"
        fresh.symlink_to(to)
        fresh.replace(tmp_path / "now")

    lead("a")
    old, other, young = (Worker(tmp_path / "now" / "rules.yaml") for _ in range(3))
    async with old.running(wire), other.running(wire):
        for to in ("b", "a"):
            lead(to)
            await soon(lambda to=to: old.version == to and other.version == to)
        async with young.running(wire):
            lead("b")
            await soon(lambda: old.version == "b" and other.version == "b" and young.version == "b")
            assert [version for _, version, _ in await told(wire)] == ["b", "a", "b"]


async def test_there_and_back_again_is_told_both_times(worker: Worker, wire: Wire) -> None:
    other = Worker(worker.path)
    async with worker.running(wire), other.running(wire):
        for text in ("two", "one", "two"):
            by_rename(worker.path, text)
            await soon(lambda text=text: worker.version == text and other.version == text)
        assert [version for _, version, _ in await told(wire)] == ["two", "one", "two"]


async def test_what_could_not_be_written_is_not_told(wire: Wire) -> None:
    log = RedisEventLog(wire, 1, RedisShards(wire, 1))
    await wire.execute("SET", stream(0), "not a stream")
    with pytest.raises(LedgerDown):
        await log.append_once(0, "a", {"n": "1"}, TOLD_ONCE_SECONDS)
    await wire.execute("DEL", stream(0))
    assert await log.append_once(0, "a", {"n": "1"}, TOLD_ONCE_SECONDS)
