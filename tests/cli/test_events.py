from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

Run = Callable[..., subprocess.CompletedProcess[str]]


def tailed(run: Run, config: Path, *options: str) -> list[dict[str, str]]:
    shown = run("events", "tail", "--no-follow", *options, "--config", config)
    assert (shown.returncode, shown.stderr) == (0, "")
    return [json.loads(line) for line in shown.stdout.splitlines()]


def test_past_events_as_json_lines(run: Run, config: Path) -> None:
    for order in ("1", "2", "3", "4"):
        assert run("link", "create", "--file", "a", "--order", order, "--config", config).returncode == 0
    events = tailed(run, config)
    assert {event["type"] for event in events} == {"staff.acted", "link.created"}
    assert [event["order.id"] for event in events if event["type"] == "link.created"] == ["1", "2", "3", "4"]
    assert list(events[0])[:4] == ["id", "v", "time", "type"]
    assert {event["order.id"] for event in tailed(run, config, "--order", "3")} == {"3"}
    assert len(tailed(run, config, "--type", "link.created", "--since", "1h")) == 4
    assert tailed(run, config, "--type", "download.denied") == []


def test_no_event_holds_a_token(run: Run, config: Path) -> None:
    link = run("link", "create", "--file", "a", "--config", config).stdout.strip()
    shown = run("events", "tail", "--no-follow", "--config", config).stdout
    assert all(part not in shown for part in link.rpartition("/")[2].split("."))


def test_live_events_until_ctrl_c(run: Run, config: Path, environ: dict[str, str]) -> None:
    assert run("link", "create", "--file", "a", "--order", "past", "--config", config).returncode == 0
    command = [sys.executable, "-m", "gateway", "events", "tail", "--since", "1h", "--config", str(config)]
    command += ["--type", "link.created"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ) as tail:
        try:
            assert tail.stdout is not None
            assert json.loads(tail.stdout.readline())["order.id"] == "past"
            assert run("link", "create", "--file", "a", "--order", "now", "--config", config).returncode == 0
            assert json.loads(tail.stdout.readline())["order.id"] == "now"
            tail.send_signal(signal.SIGINT)
            _, said = tail.communicate(timeout=10)
            assert (tail.returncode, said) == (0, "")
        finally:
            tail.kill()
