from __future__ import annotations

from typing import Any

import pytest

from gateway.policy.checkup import (
    DAY,
    GEO_OLD,
    JournalFacts,
    Line,
    of_clock,
    of_descriptors,
    of_files,
    of_freeze,
    of_geo,
    of_journal,
    of_keys,
    of_management,
    of_public_url,
    of_redis,
    of_shards,
)

GOOD: dict[str, Any] = {
    "redis_version": "7.0.15",
    "maxmemory_policy": "noeviction",
    "maxmemory": 0,
    "used_memory": 1_000_000,
    "aof_enabled": 1,
    "aof_last_write_status": "ok",
    "aof_last_bgrewrite_status": "ok",
    "rdb_last_bgsave_status": "ok",
    "loading": 0,
    "role": "master",
    "connected_slaves": 0,
}
WELL = {"redis": "ok", "eviction": "ok", "persistence": "ok", "memory": "ok"}


def worst(lines: list[Line]) -> dict[str, str]:
    order = ["ok", "warn", "FAIL"]
    found: dict[str, str] = {}
    for line in lines:
        found[line.check] = max(found.get(line.check, "ok"), line.state, key=order.index)
    return found


@pytest.mark.parametrize(
    ("info", "differs"),
    [
        ({}, {}),
        ({"redis_version": "6.2.0"}, {}),
        ({"redis_version": "6.0.16"}, {"redis": "FAIL"}),
        ({"redis_version": "junk"}, {"redis": "FAIL"}),
        ({"redis_version": "7.2.4", "valkey_version": "8.0.1"}, {}),
        ({"maxmemory_policy": "allkeys-lru"}, {"eviction": "warn"}),
        ({"maxmemory_policy": "allkeys-lru", "maxmemory": 10**9}, {"eviction": "FAIL"}),
        ({"aof_enabled": 0}, {"persistence": "warn"}),
        ({"aof_last_write_status": "err"}, {"persistence": "FAIL"}),
        ({"aof_last_bgrewrite_status": "err"}, {"persistence": "warn"}),
        ({"rdb_last_bgsave_status": "err"}, {"persistence": "FAIL"}),
        ({"loading": 1}, {"persistence": "warn"}),
        ({"maxmemory": 2_000_000}, {}),
        ({"maxmemory": 1_200_000}, {"memory": "warn"}),
        ({"maxmemory": 1_000_001}, {"memory": "FAIL"}),
        ({"role": "slave"}, {"replication": "FAIL"}),
        ({"connected_slaves": 1, "slave0": {"state": "online", "lag": 0}}, {"replication": "ok"}),
        ({"connected_slaves": 1, "slave0": {"state": "online", "lag": 60}}, {"replication": "warn"}),
        ({"connected_slaves": 1, "slave0": {"state": "wait_bgsave", "lag": 0}}, {"replication": "warn"}),
    ],
)
def test_redis(info: dict[str, Any], differs: dict[str, str]) -> None:
    assert worst(list(of_redis({**GOOD, **info}, 1.0))) == {**WELL, **differs}


def test_valkey_is_called_by_its_name() -> None:
    assert next(of_redis({**GOOD, "valkey_version": "8.0.1"}, 1.4)).text == "Valkey 8.0.1, answered in 1 ms"


@pytest.mark.parametrize(("first", "state"), [(None, "ok"), ("4", "ok"), ("8", "FAIL")])
def test_shards(first: str | None, state: str) -> None:
    assert of_shards(first, 4).state == state


@pytest.mark.parametrize(
    ("ahead", "uncertain", "state"),
    [
        (0, 0, "ok"),
        (2, 0, "ok"),
        (2.1, 0, "warn"),
        (-2.1, 0, "warn"),
        (2.4, 0.5, "ok"),
        (60, 0, "warn"),
        (-61, 0, "FAIL"),
        (1e9, 0.5, "FAIL"),
    ],
)
def test_clocks(ahead: float, uncertain: float, state: str) -> None:
    line = of_clock("Redis", ahead, uncertain)
    assert line.state == state
    assert state == "ok" or ("behind" if ahead < 0 else "ahead of") + " Redis" in line.text


def test_keys() -> None:
    random = "wmW3aYQ2ZLx0f9Jt7HcVkR5uB1nEoGdS"
    assert [line.state for line in of_keys("a", {"a": random})] == ["ok"]
    assert [line.state for line in of_keys(None, {"a": random})] == ["warn"]
    guessed, signs = of_keys("a", {"a": "abcabcab" * 4})
    assert (guessed.state, signs.state) == ("warn", "ok")
    assert "abcabc" not in guessed.text


@pytest.mark.parametrize(
    ("address", "state"), [(None, "warn"), ("http://dl.example.com", "warn"), ("https://dl.example.com", "ok")]
)
def test_public_url(address: str | None, state: str) -> None:
    assert of_public_url(address, listens_with_tls=False).state == state


@pytest.mark.parametrize(("token", "state"), [(None, "warn"), ("hunter2", "warn"), ("0123456789abcdef", "ok")])
def test_management(token: str | None, state: str) -> None:
    line = of_management(token)
    assert line.state == state
    assert token is None or token not in line.text


def test_descriptors() -> None:
    assert of_descriptors(1024, 204).state == "warn"
    assert of_descriptors(65_536, 13_107).state == "ok"


@pytest.mark.parametrize(
    ("age", "state"), [(0, "ok"), (DAY, "ok"), (GEO_OLD, "ok"), (GEO_OLD + 1, "warn"), (-2 * DAY, "warn")]
)
def test_geo(age: int, state: str) -> None:
    assert of_geo("city", 10**9 - age, 10**9).state == state


def test_geo_without_a_date() -> None:
    assert of_geo("city", None, 10**9).state == "warn"


def test_files() -> None:
    assert (of_files(0, []).state, of_files(2, []).state) == ("ok", "ok")
    line = of_files(2, ["a.pdf", "b c.pdf"])
    assert (line.state, "a.pdf, b c.pdf" in line.text) == ("warn", True)


JOURNAL = {"is_there": True, "fsync_ms": 2.4, "free": 10**9, "used": 3 * 10**8, "since": 1000.0, "file_system": "ext4"}


@pytest.mark.parametrize(
    ("facts", "state", "said"),
    [
        ({}, "ok", "in 2 ms; 300.0 MB used, reaches back 2.0 h, 1.0 GB free"),
        ({"since": None}, "ok", "300.0 MB used, 1.0 GB free"),
        ({"is_there": False, "used": 0}, "ok", "not there yet"),
        ({"free": 7 * 10**8}, "ok", "700.0 MB free"),
        ({"free": 7 * 10**8 - 1}, "warn", "may still grow by 700.0 MB; a full disk refuses every download"),
        ({"file_system": "tmpfs"}, "warn", "forgets all when the machine restarts"),
        ({"file_system": "nfs4"}, "warn", "a disk of this machine"),
        ({"file_system": ""}, "ok", "fsynced"),
    ],
)
def test_a_journal(facts: dict[str, Any], state: str, said: str) -> None:
    line = of_journal("var/journal", 10**9, JournalFacts(**{**JOURNAL, **facts}), 8200.0)
    assert (line.state, line.check) == (state, "journal")
    assert said in line.text


@pytest.mark.parametrize(
    ("ordered", "workers", "state", "said"),
    [
        ("", None, "ok", "are allowed"),
        ("", "", "ok", "are allowed"),
        ("09:30", None, "warn", "every download is refused since 09:30;"),
        ("09:30", "09:31", "warn", "every download is refused since 09:30;"),
        ("09:30", "", "warn", "does not say so"),
        ("", "09:31", "warn", "refuses every download since 09:31, and Redis does not say so"),
    ],
)
def test_a_freeze_is_said_by_redis_or_by_the_workers(ordered: str, workers: str | None, state: str, said: str) -> None:
    line = of_freeze(ordered, workers)
    assert (line.state, line.check) == (state, "freeze")
    assert said in line.text
