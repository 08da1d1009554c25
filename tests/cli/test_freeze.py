"""`gateway freeze` and `gateway thaw` as the ops run them, and what doctor and `order why` say then."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from redis import Redis

Run = Callable[..., subprocess.CompletedProcess[str]]


def acts(url: str) -> list[str]:
    with Redis.from_url(url, decode_responses=True) as client:
        pages = [client.xrange(key) for key in client.scan_iter("gw:*:events")]
    return [fields["staff.action"] for page in pages for _, fields in page if fields["type"] == "staff.acted"]


def test_frozen_said_everywhere_and_thawed_in_the_same_second(run: Run, config: Path, redis_db: str) -> None:
    began = int(time.time())
    frozen = run("freeze", "--message", "Back at 18:00.", "--config", config)
    assert frozen.returncode == 0
    assert "every download is refused" in frozen.stdout
    assert "gateway thaw" in frozen.stdout
    again = json.loads(run("freeze", "--json", "--config", config).stdout)
    assert again["message"] == "Back at 18:00.", "nothing was changed"
    assert again["since"] >= time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(began))
    for written, told in (("Later.", "Later."), ("", None)):
        changed = json.loads(run("freeze", "--json", "--message", written, "--config", config).stdout)
        assert changed == {**again, "message": told}, "frozen since then, whatever is said of it"
    assert "warn  freeze" in run("doctor", "--config", config).stdout
    why = run("order", "why", "10001", "--config", config)
    assert "all downloads are stopped since" in why.stdout
    assert "gateway thaw" in why.stdout
    assert "allowed again" in run("thaw", "--config", config).stdout
    assert "nothing was frozen, as far as Redis knows" in run("thaw", "--config", config).stdout
    assert json.loads(run("thaw", "--json", "--config", config).stdout) == {"frozen": False, "was_frozen": False}
    assert "ok    freeze" in run("doctor", "--config", config).stdout
    assert acts(redis_db) == [*["gateway.freeze"] * 4, *["gateway.thaw"] * 3]
    assert json.loads(run("freeze", "--json", "--config", config).stdout)["frozen"] is True


def test_a_message_that_cannot_be_told_is_refused(run: Run, config: Path, redis_db: str) -> None:
    refused = run("freeze", "--message", "a\nb", "--config", config)
    assert refused.returncode == 1
    assert "its message is not 1 to 255 characters" in refused.stderr
    assert acts(redis_db) == []
