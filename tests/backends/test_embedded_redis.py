"""The private server against real programs: it keeps data, keeps to itself and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisGone

from gateway.backends import embedded_redis
from gateway.backends.embedded_redis import EmbeddedRedis, find_server
from gateway.errors import LedgerDown, SettingsError

ROOT = Path(__file__).parents[2]
PROGRAMS = list(embedded_redis._candidates())


@pytest.fixture(params=PROGRAMS, ids=lambda program: "/".join(Path(program).parts[-2:]))
def program(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(embedded_redis, "_candidates", lambda: iter([request.param]))
    return str(request.param)


def ask(url: str, *words: str) -> Any:
    with Redis.from_url(url, decode_responses=True) as client:
        return client.execute_command(*words)


def of_session(session: int) -> list[str]:
    """The live processes of a session; the dead that nobody has collected yet do not count."""
    shown = subprocess.run(["ps", "-e", "-o", "sid=,stat=,pid="], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in shown.splitlines()]
    return [pid for sid, state, pid in rows if sid == str(session) and not state.startswith("Z")]


@pytest.mark.usefixtures("program")
def test_keeps_what_was_written_when_it_is_stopped_and_started(tmp_path: Path) -> None:
    for expected in ("1", "2", "3"):
        with EmbeddedRedis(tmp_path) as url:
            assert str(ask(url, "INCR", "downloads")) == expected


@pytest.mark.usefixtures("program")
def test_never_evicts_never_listens_on_tcp_and_logs_every_second(tmp_path: Path) -> None:
    expected = {"maxmemory-policy": "noeviction", "port": "0", "appendonly": "yes", "appendfsync": "everysec"}
    with EmbeddedRedis(tmp_path) as url:
        assert ask(url, "CONFIG", "GET", *expected) == expected


def test_others_cannot_enter_a_new_folder_nor_read_the_data_in_an_old_one(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir(mode=0o755)
    with EmbeddedRedis(tmp_path / "new"), EmbeddedRedis(tmp_path / "old"):
        assert (tmp_path / "new").stat().st_mode & 0o077 == 0
        open_to_others = {path.name for path in (tmp_path / "old").rglob("*") if path.lstat().st_mode & 0o077}
    assert open_to_others <= {"url", "redis.log"}  # neither holds data or a secret


def test_who_comes_second_joins_and_leaves_the_server_alone(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path) as first:
        run_id = ask(first, "INFO", "server")["run_id"]
        with EmbeddedRedis(tmp_path) as second:
            assert ask(second, "INFO", "server")["run_id"] == run_id
        assert ask(first, "INFO", "server")["run_id"] == run_id


def test_stop_ends_the_server_and_may_be_called_twice(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path)
    url = server.start()
    server.stop()
    server.stop()
    with pytest.raises(RedisGone):
        ask(url, "PING")


CHILD = """
import sys, time
from pathlib import Path
from gateway.backends.embedded_redis import EmbeddedRedis
print(EmbeddedRedis(Path(sys.argv[1])).start(), flush=True)
time.sleep(60)
"""


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Another process that has started the server of `tmp_path` and knows a secret."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "GATEWAY_LINK_SECRET": "hunter2"}
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=env
    ) as process:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
        process.kill()


@pytest.mark.usefixtures("program")
def test_a_killed_gateway_leaves_no_process_and_the_next_one_finds_the_data(
    tmp_path: Path, gateway: tuple[subprocess.Popen[str], str]
) -> None:
    process, url = gateway
    pid = int(ask(url, "INFO", "server")["process_id"])
    ask(url, "SET", "kept", "yes")
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    with EmbeddedRedis(tmp_path) as again:  # at once, as a supervisor restarts it
        assert ask(again, "GET", "kept") == "yes"
    deadline = time.monotonic() + 10
    while of_session(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert of_session(pid) == []


@pytest.mark.usefixtures("gateway")
def test_the_folder_is_taken_while_its_server_lives(tmp_path: Path) -> None:
    assert EmbeddedRedis(tmp_path)._lock() is None


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="reads /proc")
def test_secrets_of_our_environment_do_not_reach_it(gateway: tuple[subprocess.Popen[str], str]) -> None:
    processes = of_session(ask(gateway[1], "INFO", "server")["process_id"])
    assert len(processes) == 2
    assert not [pid for pid in processes if "hunter2" in Path(f"/proc/{pid}/environ").read_text()]


def test_a_path_too_long_for_a_socket_gets_a_short_one(tmp_path: Path) -> None:
    deep = tmp_path / ("deep" * 30)
    with EmbeddedRedis(deep) as url:
        ask(url, "SET", "kept", "yes")
        with EmbeddedRedis(deep) as joined:
            assert ask(joined, "GET", "kept") == "yes"
    assert not Path(url.removeprefix("unix://").partition("?")[0]).parent.exists()


def test_names_with_spaces_and_percent_signs_work(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path / "50% of ż") as url:
        ask(url, "SET", "kept", "yes")
        assert ask(url, "GET", "kept") == "yes"


@pytest.mark.usefixtures("program")
def test_a_damaged_log_is_a_loud_end_with_the_servers_own_words(tmp_path: Path) -> None:
    (tmp_path / "appendonlydir").mkdir()
    (tmp_path / "appendonlydir" / "appendonly.aof.manifest").write_text("no manifest\n")
    with pytest.raises(LedgerDown, match=r"did not start: .*\w.*redis\.log"):
        EmbeddedRedis(tmp_path).start()


def test_a_held_folder_that_does_not_answer_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded_redis, "READY_SECONDS", 0.2)
    held = EmbeddedRedis(tmp_path)._lock()
    assert held is not None
    with pytest.raises(LedgerDown, match="held by another process"):
        EmbeddedRedis(tmp_path).start()
    os.close(held)


def test_a_folder_that_cannot_be_used_is_a_wrong_setting(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="cannot be used"):
        EmbeddedRedis(tmp_path / "file" / "data").start()


def fake(folder: Path, name: str, says: str) -> str:
    folder.mkdir(exist_ok=True)
    program = folder / name
    program.write_text(f"#!/bin/sh\necho '{says}'\n")
    program.chmod(0o755)
    return str(program)


@pytest.mark.parametrize(
    ("says", "usable"),
    [
        ("Redis server v=6.0.16 sha=00000000:0 malloc=jemalloc-5.2.1 bits=64", False),
        ("Redis server v=6.2.0 sha=00000000:0 malloc=jemalloc-5.2.1 bits=64", True),
        ("Redis server v=10.0.1 sha=00000000:0 malloc=jemalloc-5.2.1 bits=64", True),
        ("Valkey server v=7.2.5 sha=00000000:0 malloc=libc bits=64", True),
        ("nothing that says a version", False),
    ],
)
def test_programs_are_taken_by_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str, usable: bool
) -> None:
    program = fake(tmp_path / "bin", "redis-server", says)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(embedded_redis.importlib.util, "find_spec", lambda _: None)
    if usable:
        assert find_server() == program
    else:
        with pytest.raises(SettingsError, match=r"6\.2 or later"):
            find_server()


def test_an_old_program_on_the_path_gives_way_to_a_newer_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = fake(tmp_path, "old", "Redis server v=5.0.3 sha=0")
    new = fake(tmp_path, "new", "Redis server v=7.0.15 sha=0")
    monkeypatch.setattr(embedded_redis, "_candidates", lambda: iter([old, str(tmp_path / "absent"), new]))
    assert find_server() == new
