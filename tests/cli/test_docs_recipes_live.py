"""docs/recipes.md: the commands that ask the events in Redis, or stop the gateway, do what the page says."""

from __future__ import annotations

import re
import shlex
import subprocess
import time
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path

import pytest
from redis import Redis

from gateway.backends.redis_events import stream
from gateway.policy.events import new_event
from gateway.policy.model import Allow, Claims, DownloadRequest, FileEntry, Place
from gateway.policy.record import describe
from gateway.policy.shards import shard_of

Run = Callable[..., subprocess.CompletedProcess[str]]
PAGE = (Path(__file__).parents[2] / "docs/recipes.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## \d+\. (.*)\n((?:(?!^## ).*\n)*)", PAGE, re.MULTILINE))


def typed(title: str, beginning: str) -> list[list[str]]:
    """A recipe's commands that begin so."""
    found = re.findall(rf"^gateway ({beginning}.*)$", SECTIONS[title], re.MULTILINE)
    assert found, f"{title} has no {beginning}"
    return [shlex.split(command) for command in found]


def rules_of(title: str) -> str:
    return str(re.findall(r"^```yaml\n(.*?)^```", SECTIONS[title], re.MULTILINE | re.DOTALL)[0])


def allowed(user_agent: str, order: str) -> dict[str, str]:
    """The event of a download of now."""
    now = int(time.time() * 1000)
    file = FileEntry("ebooks/sea.pdf")
    claims = Claims("", f"t-{order}", now // 1000 + 900, (file,), order_id=order, issued_at=now // 1000)
    address = "198.51.100.1"
    request = DownloadRequest(f"r-{order}", "", 1, "GET", ip_address(address), "198.51.100.0/24", user_agent=user_agent)
    decision = Allow(file, (), claims.expires_at, rule="otherwise")
    fields = describe(request, claims=claims, file=file, place=Place("PL", "EU", version="g"), decision=decision)
    return dict(new_event("download.allowed", f"e-{order}", now, fields))


def test_replay_names_the_orders_that_the_staged_rule_would_have_refused(run: Run, here: Path, redis_db: str) -> None:
    title = "Staged roll-out"
    (here / "rules/rules.yaml").write_text(rules_of(title))
    (here / "rules-new").mkdir()
    (here / "rules-new/rules.yaml").write_text(
        rules_of(title).replace("mode: observe, ", "").replace("since: 2026-11-20, ", "")
    )
    with Redis.from_url(redis_db) as client:
        for event in (allowed("Wget/1.21", "10001"), allowed("Mozilla/5.0", "10002")):
            client.xadd(stream(shard_of(event["order.id"], 4)), event)
    for command in typed(title, "rules replay"):
        said = run(*command)
        assert (said.returncode, said.stderr) == (0, "")
        assert re.search(r"now refused +1\n", said.stdout)
        assert re.search(r"order 10001.* rule no-bulk-agents", said.stdout)
        assert "10002" not in said.stdout


def test_freeze_stops_and_thaw_allows_again(run: Run, here: Path) -> None:
    (here / "rules/rules.yaml").write_text(rules_of("Freeze"))
    for command in typed("Freeze", "freeze"):
        said = run(*command)
        assert (said.returncode, "every download is refused" in said.stdout) == (0, True)
    assert re.search(r"^warn +freeze", run("doctor").stdout, re.MULTILINE)
    for command in typed("Freeze", "thaw"):
        said = run(*command)
        assert (said.returncode, "allowed again" in said.stdout) == (0, True)
    assert re.search(r"^ok +freeze", run("doctor").stdout, re.MULTILINE)


INLINE = sorted(set(re.findall(r"`gateway ((?:freeze|thaw|rules replay)[^`\n]*)`", PAGE)))


@pytest.mark.parametrize("command", INLINE)
def test_a_command_that_the_page_names_is_there_with_its_options(run: Run, command: str) -> None:
    told = run(*re.findall(r"^rules replay|^\w+", command)[0].split(), "--help")
    assert told.returncode == 0
    assert [option for option in re.findall(r"--[a-z-]+", command) if option not in told.stdout] == []
