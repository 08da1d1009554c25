"""A journal's folder as its readers find it: torn, damaged, hostile, packed in between, and claimed by one of many."""

from __future__ import annotations

import gzip
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.backends import journal_file
from gateway.backends.journal import FileJournal
from gateway.backends.journal_file import Header, pack, packed, write_line
from gateway.backends.journal_folder import JournalFolder, Known, new_worker
from gateway.backends.journal_tidy import Tidier
from gateway.policy.model import Mark
from gateway.ports import Entry

SEEN = Mark(0, 0)
ROOT = Path(__file__).parents[2]
DEAD = "1700000000000-0123abcd"
CLAIMERS = """
import os, sys
from pathlib import Path
from gateway.backends.journal_folder import JournalFolder
from gateway.backends.journal_tidy import Tidier

folder, dead, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
ready, go = os.pipe()
told, tell = os.pipe()
for _ in range(count):
    if os.fork() == 0:
        os.close(go)
        os.read(ready, 1)
        own = Tidier(JournalFolder(folder), "mine", keep_seconds=3600, bytes_max=10**9, learnt=lambda known: None)
        own.tidy()
        os.write(tell, b"1" if own.claimed == [dead] else b"0")
        sys.stdin.read()  # alive, and with it its claim
        os._exit(0)
os.close(go)
answers = b""
while len(answers) < count:
    answers += os.read(told, count)
print(answers.decode(), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path: Path) -> JournalFolder:
    return JournalFolder(tmp_path)


def entry(number: int, text: str = "what was written: Łódź") -> Entry:
    return Entry(Mark(1, number), text)


def lines(*places: int) -> list[bytes]:
    return [write_line(0, entry(number)) for number in places]


def put(folder: JournalFolder, *parts: bytes, worker: str = DEAD, number: int = 1) -> Path:
    path = folder.new_segment(worker, number)
    path.write_bytes(b"".join(parts))
    return path


def places(folder: JournalFolder, worker: str = DEAD) -> list[int]:
    found = list(folder.entries(worker, 0, SEEN))
    assert all(each.text == entry(0).text for each in found)
    return [each.mark.seq for each in found]


def tidier(folder: JournalFolder, worker: str = "mine", *, keep: float = 3600, size: int = 10**9) -> Tidier:
    return Tidier(folder, worker, keep_seconds=keep, bytes_max=size, learnt=lambda known: None)


def levels(caplog: pytest.LogCaptureFixture) -> set[int]:
    return {record.levelno for record in caplog.records}


def test_an_end_that_was_never_finished(folder: JournalFolder, caplog: pytest.LogCaptureFixture) -> None:
    *whole, last = lines(1, 2, 3)
    for cut in range(len(last)):
        folder = JournalFolder(folder.path)
        put(folder, *whole, last[:cut])
        for _ in range(2):
            assert places(folder) == [1, 2]
        assert folder.torn == bool(cut)
    assert levels(caplog) == {logging.WARNING}
    assert len(caplog.records) == len(last) - 1  # told once, however often it is read


@pytest.mark.parametrize("flip", [0x01, 0x20, 0x80])
def test_every_byte_of_a_line_counts(folder: JournalFolder, caplog: pytest.LogCaptureFixture, flip: int) -> None:
    before, line, after = lines(1, 2, 3)
    for at in range(len(line)):
        folder = JournalFolder(folder.path)
        damaged = bytearray(line)
        damaged[at] ^= flip
        put(folder, before, bytes(damaged), after)
        # Without its end it is one with the next line.
        assert places(folder) == ([1] if at == len(line) - 1 else [1, 3]), damaged
        assert 1 <= folder.torn <= 2
    assert logging.ERROR in levels(caplog)


def test_each_damage_of_a_file_is_counted(folder: JournalFolder) -> None:
    first, second, third = lines(1, 2, 3)
    put(folder, first, b"x\n", second, b"y\nz\n", third, b"w")
    assert places(folder) == [1, 2, 3]
    assert folder.torn == 4


def test_what_only_looks_like_a_journal(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = JournalFolder(tmp_path)
    names = [f"{1_700_000_000_001 + number}-0123abcd" for number in range(8)]
    folder.new_segment(names[0], 1).mkdir()
    os.mkfifo(folder.new_segment(names[1], 1))
    put(folder, worker=names[2])
    put(folder, b"\0" * 5000, worker=names[3])
    kinds = (b"J", b"W", b"O", b"U", b"X", b"")
    texts = ("", "{}", "[]", "null", "1 2 3", '{"marks": {"0": 7}}', '["reserve"]', "[" * 5000, "a b c d", '{"v": "1"}')
    nonsense = b"".join(journal_file._line(kind, text) for kind in kinds for text in texts)  # right CRCs
    put(folder, nonsense, *lines(1), worker=names[4])
    packed(folder.new_segment(names[5], 1)).write_bytes(b"not packed at all")
    folder.new_segment(names[6], 1).symlink_to("/etc/passwd")
    (tmp_path / f"{names[2]}.lock").mkdir()
    for name in ("x.journal", "1.journal", f"{names[7]}.1.journal", f"{names[7]}.000001.journal.part", "folder.lock"):
        (tmp_path / name).write_bytes(lines(9)[0])
    began = time.monotonic()
    journal = FileJournal(tmp_path, keep_seconds=3600, bytes_max=10**9)
    journal.open()
    assert journal.trouble == ""
    found = [entry for worker in journal.workers() for entry in journal.entries(0, SEEN, worker)]
    assert [entry.mark.seq for entry in found] == [1]
    journal.revive()
    journal.close()
    assert time.monotonic() - began < 3
    assert journal.torn > 50
    assert (journal.trouble, journal.known(0)) == ("", Mark(1, 1))
    assert any("cannot be tidied" in record.message for record in caplog.records)


def packed_alone(folder: JournalFolder) -> bool:
    """Whether it was packed here; the journal's own thread would pack it too, and tidy what it does not know."""
    with folder.whole() as mine:
        if mine:
            pack(put(folder, *lines(1)))
        return mine


def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        journal = FileJournal(tmp_path / "a/journal", keep_seconds=3600, bytes_max=10**9)
        journal.open()
        while not packed_alone(journal.folder):
            time.sleep(0.01)
    finally:
        os.umask(before)
    modes = {path.suffix: path.stat().st_mode & 0o777 for path in journal.folder.path.iterdir()}
    assert modes == {".journal": 0o600, ".lock": 0o600, ".gz": 0o600}
    assert journal.folder.path.stat().st_mode & 0o777 == 0o700
    journal.close()


def test_a_packed_file_is_the_same_file(folder: JournalFolder) -> None:
    path = put(folder, *lines(1, 2, 3), lines(4)[0][:-9])
    os.utime(path, (1_700_000_000, 1_700_000_000))
    pack(path)
    assert [each.name for each in folder.path.iterdir()] == [packed(path).name]
    assert packed(path).stat().st_mtime == 1_700_000_000
    assert folder.by_worker() == {DEAD: [path]}
    assert (places(folder), folder.torn) == ([1, 2, 3], 1)


@pytest.mark.parametrize("step", ["write", "utime", "fsync", "rename", "sync_folder", "unlink"])
def test_a_packing_that_ends_at_any_step(folder: JournalFolder, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """As by SIGKILL: what comes after it, the tidying up too, does not happen any more."""
    path = put(folder, *lines(1, 2, 3))

    class Killed(BaseException):
        pass

    where = {
        "write": gzip.GzipFile,
        "utime": os,
        "fsync": os,
        "rename": Path,
        "sync_folder": journal_file,
        "unlink": Path,
    }
    with monkeypatch.context() as patched:

        def kill(*arguments: object, **options: object) -> None:
            patched.setattr(Path, "unlink", lambda self, missing_ok=False: None)
            raise Killed

        patched.setattr(where[step], step, kill)
        with pytest.raises(Killed):
            pack(path)
    assert places(folder) == [1, 2, 3]
    pack(path)
    assert (places(folder), [each.name for each in folder.path.iterdir()]) == ([1, 2, 3], [packed(path).name])


def test_who_reads_while_it_is_packed_sees_all_once(folder: JournalFolder) -> None:
    for number in range(40):
        put(folder, *lines(*range(number * 50 + 1, number * 50 + 51)), number=number + 1)
    paths = folder.segments(DEAD)
    packing = threading.Thread(target=lambda: [pack(path) for path in paths])
    packing.start()
    while packing.is_alive():
        assert places(folder) == list(range(1, 2001))
    packing.join()
    assert places(folder) == list(range(1, 2001))
    assert not list(folder.path.glob("*.journal"))


def test_a_damaged_packed_file_is_loud(folder: JournalFolder, caplog: pytest.LogCaptureFixture) -> None:
    path = put(folder, *lines(*range(1, 200)))
    pack(path)
    whole = packed(path).read_bytes()
    for at in (0, 3, 12, len(whole) // 2, len(whole) - 6):
        folder = JournalFolder(folder.path)
        packed(path).write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        assert set(places(folder)) <= set(range(1, 200))
        assert folder.torn
        packed(path).write_bytes(whole[:at])
        assert set(places(folder)) <= set(range(1, 200))
        assert folder.torn
    assert logging.ERROR in levels(caplog)


def test_the_end_of_what_is_being_written_is_not_torn(folder: JournalFolder) -> None:
    folder.writing = put(folder, *lines(1), lines(2)[0][:-5])
    assert (places(folder), folder.torn) == ([1], 0)


@pytest.fixture
def both(folder: JournalFolder) -> Iterator[tuple[JournalFolder, str]]:
    """The folder, and one living worker in it with four segments; a dead one has three."""
    living = new_worker()
    lock = folder.lock(living)
    assert lock is not None
    for number in range(1, 5):
        put(folder, *lines(number), worker=living, number=number)
    for number in range(1, 4):
        put(folder, *lines(number), number=number)
    yield folder, living
    os.close(lock)


def aged(folder: JournalFolder, seconds: float) -> None:
    """Written that long ago, each a second after the one before."""
    for at, path in enumerate(sorted(path for own in folder.by_worker().values() for path in own)):
        os.utime(path, (time.time() - seconds + at, time.time() - seconds + at))


def test_what_is_over_goes_but_never_what_a_living_worker_writes_to(both: tuple[JournalFolder, str]) -> None:
    folder, living = both
    aged(folder, 7200)
    own = tidier(folder)
    own.tidy()
    assert folder.by_worker().keys() == {living}
    assert len(folder.segments(living)) == 4  # those are its own to look after
    assert not (folder.path / f"{DEAD}.lock").exists()
    assert own.claimed == []
    tidier(folder, living).tidy()
    assert places(folder, living) == [4]


def test_the_oldest_go_where_there_is_too_much(
    both: tuple[JournalFolder, str], caplog: pytest.LogCaptureFixture
) -> None:
    folder, living = both
    aged(folder, 60)
    size = sum(path.stat().st_size for path in folder.path.glob("*.journal"))
    own = tidier(folder, size=size - 1)
    own.tidy()
    assert (places(folder), places(folder, living)) == ([2, 3], [1, 2, 3, 4])
    assert "journal.size is reached" in caplog.text
    tidier(folder, size=1).tidy()
    assert places(folder, living) == [4]
    own.close()


def test_while_another_one_acts_for_all_nothing_goes(both: tuple[JournalFolder, str]) -> None:
    folder, living = both
    own = tidier(folder, size=1)
    with JournalFolder(folder.path).whole() as mine:
        assert mine
        own.tidy()
        assert (places(folder), places(folder, living)) == ([1, 2, 3], [1, 2, 3, 4])
    own.close()


def test_finished_segments_are_packed_by_who_looks_after_them(both: tuple[JournalFolder, str]) -> None:
    folder, living = both
    own = tidier(folder, living)
    own.tidy()
    plain = {path.name for path in folder.path.glob("*.journal")}
    assert plain == {f"{living}.000004.journal"}
    assert (places(folder), places(folder, living)) == ([1, 2, 3], [1, 2, 3, 4])
    own.close()


def test_what_came_before_is_not_read_where_nothing_later_is_in_it(folder: JournalFolder) -> None:
    for number in range(1, 4):
        header = journal_file.header_line(Header({}, {0: Mark(1, number * 10 - 10)}))
        put(folder, header, *lines(number * 10 - 9, number * 10), number=number)
    folder.segments(DEAD)[0].write_bytes(b"never read\n")
    assert [found.mark.seq for found in folder.entries(DEAD, 0, Mark(1, 10))] == [11, 20, 21, 30]
    assert folder.torn == 0
    assert [found.mark.seq for found in folder.entries(DEAD, 0, Mark(1, 9))] == [11, 20, 21, 30]
    assert folder.torn == 1


def test_exactly_one_of_many_claims_a_dead_journal(folder: JournalFolder) -> None:
    put(folder, *lines(1))
    command = [sys.executable, "-c", CLAIMERS, str(folder.path), DEAD, "6"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True) as them:
        assert them.stdout is not None
        assert sorted(them.stdout.readline().strip()) == list("000001")
        own = tidier(folder)
        own.tidy()
        assert own.claimed == []
    own.tidy()
    assert own.claimed == [DEAD]  # with its keeper it is free again
    own.close()


def test_what_a_dead_worker_knew_is_learnt_when_it_is_claimed(folder: JournalFolder) -> None:
    put(folder, journal_file.header_line(Header({"shards": 4}, {2: Mark(3, 4)})), *lines(7))
    learnt: list[Known] = []
    own = Tidier(folder, "mine", keep_seconds=3600, bytes_max=10**9, learnt=learnt.append)
    own.tidy()
    own.tidy()
    assert learnt == [Known({"shards": 4}, {2: Mark(3, 4), 0: Mark(1, 7)})]
    own.close()
