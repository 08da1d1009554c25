"""What workers hand to the supervisor outlives them, and reaches the workers that start later."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from gateway.backends.memory_file import MemoryFile
from gateway.web.last_good import VARIABLE, Inherited, LastGood

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="files in memory are Linux's")


@pytest.fixture
async def supervisor() -> Iterator[LastGood]:
    held = LastGood()
    held.start()
    yield held
    held.close()


@pytest.fixture
def worker(supervisor: LastGood, monkeypatch: pytest.MonkeyPatch) -> Iterator[Inherited]:
    # A real one inherits descriptors of its own.
    told = json.loads(supervisor.environment()[VARIABLE])
    monkeypatch.setenv(VARIABLE, json.dumps({**told, "channel": os.dup(told["channel"])}))
    with closing(Inherited()) as started:
        yield started


def in_memory(text: bytes) -> MemoryFile:
    file = MemoryFile.written("test", [text])
    assert file is not None
    return file


def held(supervisor: LastGood) -> dict[str, dict[str, bytes]]:
    """What a worker that started now would find."""
    told = json.loads(supervisor.environment()[VARIABLE])["held"]
    assert {number for copies in told.values() for number in copies.values()} <= set(supervisor.descriptors())
    return {
        what: {name: MemoryFile.of(number).read() for name, number in copies.items()} for what, copies in told.items()
    }


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_what_was_kept_last_is_held_when_its_worker_has_none_any_more(
    supervisor: LastGood, worker: Inherited
) -> None:
    before = descriptors()
    for number in range(5):
        one, two = in_memory(b"%d" % number), in_memory(b"two")
        worker.keep("geo databases", {"/geo/city": one.fileno(), "/geo/asn": two.fileno()})
        worker.keep("rules", {"/rules.yaml": two.fileno()})
        one.close()
        two.close()
    await asyncio.sleep(0.05)
    assert held(supervisor) == {
        "geo databases": {"/geo/city": b"4", "/geo/asn": b"two"},
        "rules": {"/rules.yaml": b"two"},
    }
    assert descriptors() == before + 3


async def test_a_worker_finds_what_was_held_when_it_started(
    supervisor: LastGood, worker: Inherited, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert worker.kept("rules") == {}
    file = in_memory(b"text")
    worker.keep("rules", {"a": file.fileno()})
    await asyncio.sleep(0.05)
    number = os.dup(json.loads(supervisor.environment()[VARIABLE])["held"]["rules"]["a"])
    monkeypatch.setenv(VARIABLE, json.dumps({"held": {"rules": {"a": number}}}))
    with closing(Inherited()) as later:
        assert MemoryFile.of(later.kept("rules")["a"]).read() == b"text"
        later.release()
        assert later.kept("rules") == {}
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(number)


async def test_junk_changes_nothing_and_leaves_nothing_open(supervisor: LastGood, worker: Inherited) -> None:
    file = in_memory(b"text")
    worker.keep("rules", {"a": file.fileno()})
    await asyncio.sleep(0.05)
    before = descriptors()
    channel = socket.socket(fileno=os.dup(supervisor.descriptors()[0]))
    with closing(channel):
        for junk in (b"", b"{", b"7", b'["rules", ["a"]]', b'["rules", ["a", "b"]]'):
            socket.send_fds(channel, [junk], [file.fileno()] * 3)
        await asyncio.sleep(0.05)
    assert held(supervisor) == {"rules": {"a": b"text"}}
    assert descriptors() == before


async def test_a_supervisor_that_does_not_read_holds_nobody_up(
    supervisor: LastGood, worker: Inherited, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("gateway.web.last_good._PATIENCE", 0.1)
    monkeypatch.setenv(VARIABLE, json.dumps({"channel": os.dup(supervisor.descriptors()[0])}))
    with closing(Inherited()) as hurried:
        file = in_memory(b"text")
        for _ in range(600):  # the loop does not run meanwhile
            hurried.keep("rules", {"a": file.fileno()})
            if caplog.records:
                break
    assert "cannot be kept for workers to come" in caplog.text
    await asyncio.sleep(0.1)
    assert held(supervisor) == {"rules": {"a": b"text"}}


async def test_without_a_supervisor_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    with closing(Inherited()) as alone:
        alone.keep("rules", {"a": 0})
        assert alone.kept("rules") == {}
