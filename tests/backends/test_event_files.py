"""Exports as files: whole or not there, straight into what is no regular file, and several read as one."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from gateway.backends.event_files import Exports, writing
from gateway.errors import GatewayError
from gateway.policy.events import rfc3339

HOUR_MS = 3_600_000


def event(number: int, hours: float = 0, **more: str) -> dict[str, str]:
    return {"id": f"e{number}", "time": rfc3339(1_795_176_000_000 + int(hours * HOUR_MS)), **more}


def written(path: Path, *events: dict[str, str]) -> Path:
    with writing(path) as write:
        for fields in events:
            write(fields)
    return path


def read(*paths: Path) -> tuple[list[dict[str, str]], Path | None]:
    exports = Exports(paths)
    return list(exports.read(lambda _: None)), exports.overlap


@pytest.mark.parametrize("name", ["x.jsonl", "x.jsonl.gz"])
def test_what_is_written_is_read_back(tmp_path, name) -> None:
    path = written(tmp_path / name, event(1), event(2))
    assert read(path) == ([event(1), event(2)], None)
    assert [each.name for each in tmp_path.iterdir()] == [name]


def test_a_link_goes_on_being_one(tmp_path) -> None:
    target = tmp_path / "target.jsonl"
    link = tmp_path / "link.jsonl"
    link.symlink_to(target)
    written(link, event(1))
    assert link.is_symlink()
    assert read(target)[0] == [event(1)]


def test_a_pipe_is_written_to_as_it_goes(tmp_path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.append(pipe.read_bytes()))
    reader.start()
    written(pipe, event(1))
    reader.join(5)
    assert found[0].count(b"\n") == 1
    assert pipe.is_fifo()


def test_two_at_once_do_not_meet(tmp_path) -> None:
    path = tmp_path / "x.jsonl"
    with writing(path) as one:
        one(event(1))
        written(path, event(2))
        one(event(3))
    assert read(path)[0] == [event(1), event(3)]


def test_an_error_of_what_gives_the_events_stays_what_it_is_and_leaves_nothing(tmp_path) -> None:
    def broken() -> None:
        with writing(tmp_path / "x.jsonl") as write:
            write(event(1))
            raise ConnectionResetError(104, "Connection reset by peer")

    with pytest.raises(ConnectionResetError):
        broken()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("count", [1, 20_000])
def test_a_reader_that_is_gone_is_said(tmp_path, count) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)

    def broken() -> None:
        with writing(pipe) as write:
            os.close(reader)
            for number in range(count):
                write(event(number, more="x" * 100))

    with pytest.raises(GatewayError, match="cannot be written"):
        broken()


def test_each_event_is_read_once_and_those_without_an_id_each_time(tmp_path) -> None:
    nameless = {"time": event(0)["time"], "type": "x"}
    one = written(tmp_path / "one.jsonl", event(1), event(2, 1), nameless, nameless)
    other = written(tmp_path / "other.jsonl", event(2, 1), event(3, 2), nameless)
    events, _ = read(other, one)
    assert [each.get("id") for each in events] == ["e1", "e2", None, None, "e3", None]


@pytest.mark.parametrize(
    ("later", "overlaps"),
    [
        ([event(3, 2), event(4, 3)], False),
        ([event(2, 2), event(3, 2.5)], False),
        ([event(3, 1.9), event(4, 3)], False),
        ([event(3, 0.5), event(4, 3)], True),
    ],
)
def test_files_of_the_same_time_with_different_events_are_told(tmp_path, later, overlaps) -> None:
    one = written(tmp_path / "one.jsonl", event(1), event(2, 2))
    other = written(tmp_path / "other.jsonl", *later)
    assert read(one, other)[1] == (other if overlaps else None)


def test_a_pipe_is_not_read(tmp_path) -> None:
    ours, theirs = os.pipe()
    try:
        with pytest.raises(GatewayError, match="save what it gives to a file"):
            Exports([Path(f"/dev/fd/{ours}")])
    finally:
        os.close(ours)
        os.close(theirs)
