"""The journal as its writer sees it: what is acknowledged is on the disk, and a disk that fails is said, and mended."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.backends import journal_file
from gateway.backends.journal import FileJournal
from gateway.errors import JournalDown
from gateway.policy.model import Mark
from gateway.policy.standing import Command
from gateway.ports import Entry, Unasked

SEEN = Mark(0, 0)
ROOT = Path(__file__).parents[2]
Open = Callable[..., FileJournal]
REVOKED = Command("revoke", 1_700_000_000, order_id="10001")
EXTENDED = Command("extend", 1_700_000_001, "ab" * 16, None, 1_900_000_000)
WRITER = """
import sys
from pathlib import Path
from gateway.backends.journal import FileJournal
from gateway.policy.model import Mark
from gateway.ports import Entry

journal = FileJournal(Path(sys.argv[1]), keep_seconds=3600, bytes_max=10**9)
journal.open()
for number in range(1, 201):
    journal.keep(0, Entry(Mark(7, number), "x" * 300))
print("kept", flush=True)
sys.stdin.read()
"""


def entry(number: int, text: str = "written") -> Entry:
    return Entry(Mark(1, number), text)


def numbers(journal: FileJournal) -> set[int]:
    return {found.mark.seq for worker in journal.workers() for found in journal.entries(0, SEEN, worker)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.fixture
def opened(folder: Path) -> Iterator[Open]:
    """Journals that are closed afterwards."""
    journals = []

    def open_one(path: Path = folder, *, keep: float = 3600.0, size: int = 10**9) -> FileJournal:
        journal = FileJournal(path, keep_seconds=keep, bytes_max=size)
        journals.append(journal)
        journal.open()
        return journal

    yield open_one
    for journal in journals:
        journal.close()


@pytest.fixture
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.backends.journal.SEGMENT_BYTES", 1 << 16)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k,mode=0700", "tmpfs", str(disk)]
    if (
        os.geteuid()
        or shutil.which("mount") is None
        or subprocess.run(mount, capture_output=True, check=False).returncode
    ):
        pytest.skip("no file system can be mounted here")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def everything(journal: FileJournal) -> set[Path]:
    return set(journal.folder.path.parent.rglob("*"))


def remount(disk: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(disk)], check=True)


def lose(folder: Path, renamed: bool) -> None:
    if renamed:
        folder.rename(folder.with_name("elsewhere"))
    else:
        shutil.rmtree(folder)


async def broken(journal: FileJournal, word: str) -> None:
    """It says so to whoever asks, and goes on saying so, without leaving anything behind."""
    assert word in journal.trouble
    with pytest.raises(JournalDown, match=word):
        await journal.synced()
    before = open_files(), everything(journal)
    for _ in range(20):
        journal.revive()
    assert word in journal.trouble
    await asyncio.sleep(0.03)  # the thread closes what was given up
    assert (open_files(), everything(journal)) == before


async def mended(journal: FileJournal, *, before: int) -> None:
    """Kept once more, in a file of its own, with all that could not be written meanwhile."""
    was = journal.folder.writing
    journal.revive()
    assert journal.trouble == ""
    assert journal.folder.writing != was
    journal.keep(0, entry(before + 1))
    await journal.synced()
    assert numbers(journal) == set(range(1, before + 2))


async def until(holds: Callable[[], bool], seconds: float = 5.0) -> None:
    by = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < by
        await asyncio.sleep(0.005)


async def test_synced_returns_after_an_fsync_that_came_after_the_write(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = opened()
    steps: list[str] = []
    gate = threading.Event()
    write, fdatasync = os.write, os.fdatasync

    def slow(descriptor: int) -> None:
        steps.append("fdatasync begins")
        gate.wait(5)
        fdatasync(descriptor)
        steps.append("fdatasync")

    def noted(descriptor: int, data: bytes) -> int:
        steps.append("write")
        return write(descriptor, data)

    await journal.synced()
    monkeypatch.setattr(journal_file.os, "fdatasync", slow)
    monkeypatch.setattr(journal_file.os, "write", noted)
    journal.keep(0, entry(1))
    first = asyncio.ensure_future(journal.synced())
    await until(lambda: "fdatasync begins" in steps)
    journal.keep(0, entry(2))
    second = asyncio.ensure_future(journal.synced())
    await asyncio.sleep(0.03)
    assert not first.done()
    first.add_done_callback(lambda _: steps.append("first"))
    second.add_done_callback(lambda _: steps.append("second"))
    gate.set()
    await second
    await asyncio.sleep(0)
    # What was written during an fsync waits for the next one.
    acknowledged = [step for step in steps if step != "fdatasync begins"]
    assert acknowledged.index("first") > acknowledged.index("fdatasync")
    assert acknowledged[:3] == ["write", "write", "fdatasync"]
    assert acknowledged.index("second") > len(acknowledged) - 1 - acknowledged[::-1].index("fdatasync")
    assert acknowledged.count("fdatasync") >= 2


async def test_what_is_kept_is_fsynced_soon_though_nobody_waits(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = opened()
    await journal.synced()
    calls: list[float] = []
    monkeypatch.setattr(journal_file.os, "fdatasync", lambda _: calls.append(time.monotonic()))
    began = time.monotonic()
    for number in range(1, 300):
        journal.keep(0, entry(number))
    await until(lambda: bool(calls))
    assert calls[0] - began < 0.5
    await asyncio.sleep(0.1)
    assert len(calls) < 20  # in groups
    quiet = len(calls)
    await asyncio.sleep(0.05)
    assert len(calls) == quiet  # and not without need


def test_what_was_kept_is_there_after_its_writer_was_killed(folder: Path, opened: Open) -> None:
    command = [sys.executable, "-c", WRITER, str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"kept\n"
        living = opened()
        assert living.known(0) == Mark(7, 200)
        writer.send_signal(signal.SIGKILL)
    assert numbers(living) == set(range(1, 201))
    assert living.torn == 0


async def test_a_full_disk(small_disk: Path, opened: Open) -> None:
    journal = opened(small_disk / "journal")
    journal.keep(0, entry(1))
    await journal.synced()
    ballast = small_disk / "ballast"
    with pytest.raises(OSError, match="No space"):
        ballast.write_bytes(bytes(1 << 20))
    for number in range(2, 40):  # a page or two may be left
        journal.keep(0, entry(number, "x" * 1000))
    await broken(journal, "No space left")
    ballast.unlink()
    await mended(journal, before=39)


async def test_a_disk_that_cannot_be_written_at_the_start(small_disk: Path, opened: Open) -> None:
    remount(small_disk, "ro")
    journal = opened(small_disk / "journal")
    journal.keep(0, entry(1))
    await broken(journal, "Read-only file system")
    remount(small_disk, "rw")
    await mended(journal, before=1)


async def test_a_file_that_may_not_grow(opened: Open) -> None:
    journal = opened()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))
    try:
        for number in range(1, 1200):
            journal.keep(0, entry(number, "x" * 1000))
        assert "File too large" in journal.trouble
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    await mended(journal, before=1199)


async def test_a_folder_that_cannot_be_one(tmp_path: Path, opened: Open) -> None:
    (tmp_path / "file").write_text("in the way")
    journal = opened(tmp_path / "file/journal")
    await broken(journal, "Not a directory")
    (tmp_path / "file").unlink()
    await mended(journal, before=0)


async def test_an_fsync_that_fails(
    opened: Open, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    journal = opened()
    journal.keep(0, entry(1))
    await journal.synced()
    fdatasync = os.fdatasync

    def fails(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(journal_file.os, "fdatasync", fails)
    journal.keep(0, entry(2))
    with pytest.raises(JournalDown, match="Input/output error"):
        await journal.synced()
    journal.keep(0, entry(3))
    await broken(journal, "Input/output error")
    assert sum("cannot be" in record.message for record in caplog.records) <= 2
    # What the kernel dropped may never be asked of it again: only what was written anew counts.
    asked: list[int] = []
    monkeypatch.setattr(
        journal_file.os, "fdatasync", lambda descriptor: (asked.append(descriptor), fdatasync(descriptor))
    )
    was = journal.folder.writing
    assert was is not None
    was.write_bytes(was.read_bytes().splitlines(keepends=True)[0])
    journal.revive()
    assert journal.trouble == ""
    await journal.synced()
    assert numbers(journal) == {2, 3}
    assert len(set(asked)) == 1


async def test_an_fsync_that_failed_is_not_asked_for_again(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one of the same file would say that all is well (fsync(2), after EIO)."""
    journal = opened()
    await journal.synced()
    asked: list[int] = []

    def fails(descriptor: int) -> None:
        asked.append(descriptor)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(journal_file.os, "fdatasync", fails)
    journal.keep(0, entry(1))
    await until(lambda: bool(journal.trouble))
    journal.close()
    assert len(asked) == 1


async def test_a_failure_is_not_forgotten_by_a_revival_in_between(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waited for the fsync that failed is told, though the journal can be written again before he wakes."""
    journal = opened()
    await journal.synced()
    fdatasync = os.fdatasync

    def fails_once(descriptor: int) -> None:
        monkeypatch.setattr(journal_file.os, "fdatasync", fdatasync)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(journal_file.os, "fdatasync", fails_once)
    journal.keep(0, entry(1))
    waiting = asyncio.ensure_future(journal.synced())
    await asyncio.sleep(0)
    while not journal.trouble:
        time.sleep(0.001)  # noqa: ASYNC251  the loop must not run the waiter before the revival
    journal.revive()
    assert journal.trouble == ""
    with pytest.raises(JournalDown):
        await waiting


@pytest.mark.parametrize("renamed", [False, True])
async def test_a_folder_that_disappears(opened: Open, folder: Path, renamed: bool) -> None:
    journal = opened()
    journal.keep_command(REVOKED)
    journal.tell(shards=4)
    await journal.synced()
    lose(folder, renamed)
    journal.keep(0, entry(1))
    with pytest.raises(JournalDown):
        await journal.synced()
    await mended(journal, before=1)
    other = opened()
    assert (dict(other.header), list(other.commands()), other.known(0)) == ({"shards": 4}, [REVOKED], Mark(1, 2))
    assert journal.folder.lock(journal.worker) is None  # nobody else takes it for dead


async def test_a_closed_journal_is_not_waited_for(opened: Open) -> None:
    journal = opened()
    journal.close()
    with pytest.raises(JournalDown):
        await asyncio.wait_for(journal.synced(), 1)
    journal.keep(0, entry(1))


async def test_the_next_segment_begins_by_size_and_by_age(opened: Open, folder: Path, small_segments: None) -> None:
    journal = opened()
    for number in range(1, 100):
        journal.keep(0, entry(number, "x" * 1000))
        journal.revive()
    assert len(journal.folder.segments(journal.worker)) == 2
    await journal.synced()
    assert numbers(journal) == set(range(1, 100))
    old = opened(folder.with_name("by-age"), keep=24 * 0.01)
    for _ in range(3):  # nothing in it, nothing to follow
        time.sleep(0.012)  # noqa: ASYNC251  nothing else is to happen
        old.revive()
    assert len(old.folder.segments(old.worker)) == 1
    old.keep(0, entry(1))
    old.revive()
    assert len(old.folder.segments(old.worker)) == 2


async def test_what_each_segment_begins_with(opened: Open, small_segments: None) -> None:
    """Orders, places and what was told outlive every segment that they were written to first."""
    journal = opened()
    journal.keep_command(REVOKED)
    journal.tell(shards=4, device_secret="old")
    journal.tell(device_secret="new")
    journal.keep(3, Entry(Mark(2, 9), "written"))
    for number in range(1, 200):
        journal.keep(0, entry(number, "x" * 1000))
        journal.revive()
    journal.keep_command(EXTENDED)
    await journal.synced()
    segments = journal.folder.segments(journal.worker)
    assert len(segments) > 2
    for path in segments[:-1]:
        path.unlink(missing_ok=True)
    successor = opened()
    assert dict(successor.header) == {"shards": 4, "device_secret": "new"}
    assert set(successor.commands()) == {REVOKED, EXTENDED}
    assert (successor.known(0), successor.known(3), successor.known(1)) == (Mark(1, 199), Mark(2, 9), SEEN)


def test_a_segment_whose_beginning_was_not_finished_does_not_hide_those_before_it(opened: Open, folder: Path) -> None:
    dead = opened()
    dead.keep_command(REVOKED)
    dead.keep_command(EXTENDED)
    dead.close()
    (first,) = folder.glob("*.journal")
    whole = first.read_bytes().splitlines(keepends=True)
    header = journal_file.header_line(journal_file.Header({}, {}, commands=2))
    first.with_name(first.name.replace("000001", "000002")).write_bytes(header + whole[1])
    assert set(opened().commands()) == {REVOKED, EXTENDED}


async def test_two_workers_at_once(opened: Open, folder: Path) -> None:
    one, two = opened(), opened()
    assert one.worker != two.worker
    for number in range(1, 50):
        (one if number % 2 else two).keep(0, entry(number))
    await asyncio.gather(one.synced(), two.synced())
    assert numbers(one) == numbers(two) == set(range(1, 50))
    own = {found.mark.seq for found in one.entries(0, Mark(1, 10), one.worker)}
    assert own == set(range(11, 50, 2))
    with one.whole_folder(0) as mine:
        assert mine
        with two.whole_folder(0) as theirs:
            assert not theirs
    with two.whole_folder(0) as mine:
        assert mine


async def test_a_dead_workers_steps_are_taken_over_once(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.backends.journal_tidy.EVERY", 0.02)
    dead, helper, living = opened(), opened(), opened()
    for name in ("a", "b", "c"):
        dead.keep_unasked(Unasked("reserve", name, {"shard": 0}))
    dead.keep_unasked(Unasked("done", "a", {}))
    helper.keep_unasked(Unasked("done", "b", {}))  # told for another one
    dead.keep_command(EXTENDED)
    dead.keep(0, entry(41))
    assert list(living.unasked()) == []
    for journal in (dead, helper):
        journal.close()
    told: list[Unasked] = []

    def has_told() -> bool:
        living.revive()
        told.extend(living.unasked())
        return living.known(0) == Mark(1, 41) and bool(told)

    await until(has_told)
    await asyncio.sleep(0.05)
    assert list(living.unasked()) == []
    assert [step for step in told if step.verb == "reserve"] == [Unasked("reserve", "c", {"shard": 0})]
    assert list(living.commands()) == [EXTENDED]
