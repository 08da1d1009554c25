"""`gateway rules replay` and `gateway events export`, as ops run them."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from redis import Redis

from gateway.policy.events import rfc3339
from gateway.policy.shards import shard_of

NOW_MS = int(time.time() * 1000)
SIGNED = {"token.expires_at": "4000000000", "http.request.method": "GET", "client.address": "203.0.113.9"}
DENY = "version: 1\nrules:\n  - {name: not-this, when: {file: 'masters/**'}, then: deny}\notherwise: allow\n"


def event(number: int, kind: str = "download.allowed", **more: str) -> dict[str, str]:
    """The request of buyer `number`, so many minutes ago."""
    fields = {
        "id": f"e{number}{kind}",
        "time": rfc3339(NOW_MS - number * 60_000),
        "type": kind,
        "request.id": f"r{number}",
        "token.id": f"t{number}",
        "order.id": f"{number}",
        "file.key": "masters/a.wav",
        "rule": "otherwise",
        "transfer.id": f"r{number}",
        **SIGNED,
    }
    return fields | {name.replace("__", "."): text for name, text in more.items()}


@pytest.fixture
def candidate(tmp_path: Path) -> Path:
    path = tmp_path / "new.yaml"
    path.write_text(DENY)
    return path


@pytest.fixture
def fill(redis_db: str) -> Callable[..., None]:
    """Puts events into their shards, as the gateway would have."""

    def filled(*events: dict[str, str]) -> None:
        with Redis.from_url(redis_db) as client:
            for fields in events:
                client.xadd(f"gw:{{{shard_of(fields['order.id'], 4)}}}:events", fields)

    return filled


def test_the_events_in_redis_are_decided_again(run, config, candidate, fill) -> None:
    fill(event(3), event(2, file__key="ebooks/a.pdf"), event(1, geo__country__iso_code="PL"))
    shown = run("rules", "replay", "--against", candidate, "--config", config)
    assert (shown.returncode, shown.stderr) == (0, "")
    lines = [" ".join(line.split()) for line in shown.stdout.splitlines()]
    assert "requests read 3" in lines
    assert "now refused 2" in lines
    assert "2 in all: rule not-this" in lines
    assert "order 1: 1 request, rule not-this" in lines
    assert f"{rfc3339(NOW_MS - 60_000)} masters/a.wav from 203.0.113.9 (PL)" in lines


def test_as_json_for_programs(run, config, candidate, fill) -> None:
    fill(*[event(number) for number in (*range(120, 100, -1), *range(10, 0, -1))])
    shown = run("rules", "replay", "--against", candidate, "--config", config, "--json", "--since", "1h")
    document = json.loads(shown.stdout)
    assert document["counts"] == {
        "read": 10, "redecided": 10, "unchanged": 0, "now_refused": 10, "now_allowed": 0, "another_reason": 0,
        "not_redecidable": {}, "ends_unread": 0,
    }  # fmt: skip
    assert {flip["after"]["rule"] for flip in document["flips"]} == {"not-this"}


def test_long_lists_are_cut_and_all_shows_them(run, config, candidate, fill) -> None:
    fill(*[event(number) for number in range(30, 0, -1)])
    cut = run("rules", "replay", "--against", candidate, "--config", config).stdout
    assert cut.count("1 request, ") == 20
    assert "… and 10 more (--all)" in cut
    assert run("rules", "replay", "--against", candidate, "--config", config, "--all").stdout.count("1 request, ") == 30


def test_a_wrong_candidate_is_told_as_at_a_load(run, config, candidate, fill) -> None:
    candidate.write_text(DENY.replace("file:", "fiel:"))
    shown = run("rules", "replay", "--against", candidate, "--config", config)
    assert (shown.returncode, shown.stdout) == (1, "")
    assert "new.yaml:3" in shown.stderr
    assert "did you mean file?" in shown.stderr


@pytest.mark.parametrize("name", ["all.jsonl", "all.jsonl.gz"])
def test_exports_are_replayed_without_any_settings(run, config, candidate, fill, tmp_path, name) -> None:
    fill(event(2), event(1))
    exported = run("events", "export", "-o", tmp_path / name, "--config", config)
    assert (exported.returncode, exported.stdout, exported.stderr) == (
        0,
        "",
        f"2 events written to {tmp_path / name}\n",
    )
    twice = (tmp_path / name, tmp_path / name)
    shown = run("rules", "replay", "--against", candidate, *twice, "--json")
    assert json.loads(shown.stdout)["counts"]["now_refused"] == 2


def test_exports_of_the_same_time_are_told_of(run, config, candidate, fill, tmp_path) -> None:
    for number in (60, 1):
        fill(event(number), event(number, "download.finished"))
    paths = [tmp_path / "allowed.jsonl", tmp_path / "finished.jsonl"]
    for path in paths:
        run("events", "export", "--type", f"download.{path.stem}", "-o", path, "--config", config)
    shown = run("rules", "replay", "--against", candidate, *paths)
    assert "has other events of the same time" in shown.stderr


def test_what_is_exported_is_chosen(run, config, fill, tmp_path) -> None:
    fill(event(3), event(2, "download.denied"), event(1))
    path = tmp_path / "some.jsonl.gz"

    def exported(*options: str) -> set[str]:
        assert run("events", "export", *options, "-o", path, "--config", config).returncode == 0
        with gzip.open(path, "rt") as lines:
            return {json.loads(line)["order.id"] for line in lines}

    assert exported() == {"1", "2", "3"}
    assert exported("--order", "2") == {"2"}
    assert exported("--type", "download.allowed") == {"1", "3"}
    assert exported("--until", "1h") == set()
    assert exported("--since", "1h", "--until", "2100-01-01") == {"1", "2", "3"}


def test_without_a_file_they_are_printed(run, config, fill) -> None:
    fill(event(1))
    shown = run("events", "export", "--config", config)
    assert json.loads(shown.stdout) == event(1)
    assert shown.stderr == "1 events written\n"


@pytest.mark.parametrize(
    ("content", "wrong"),
    [(b'{"type": "x"}\nno event\n', "bad.jsonl:2: is no event"), (b"[1]\n", "bad.jsonl:1: is no event"),
     (gzip.compress(b'{"a": "b"}\n' * 9, mtime=0)[:-9], "ends too early"),
     (gzip.compress(b'{"a": "' + b"x" * 20_000_000 + b'"}', mtime=0), "bad.jsonl:1: is no event")],
)  # fmt: skip
def test_a_file_that_is_none_is_said(run, candidate, tmp_path, content, wrong) -> None:
    (tmp_path / "bad.jsonl").write_bytes(content)
    shown = run("rules", "replay", "--against", candidate, tmp_path / "bad.jsonl")
    assert (shown.returncode, shown.stdout) == (1, "")
    assert wrong in shown.stderr
    assert "cannot be read" in run("rules", "replay", "--against", candidate, tmp_path / "none").stderr


def test_a_folder_that_is_not_there_is_said_and_leaves_nothing(run, config, tmp_path) -> None:
    shown = run("events", "export", "-o", tmp_path / "none" / "x.jsonl", "--config", config)
    assert shown.returncode == 1
    assert "cannot be written" in shown.stderr
