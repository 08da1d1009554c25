from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from redis import Redis

from gateway.backends.redis_events import stream
from gateway.cli.order import timeline, told
from gateway.policy.events import new_event
from gateway.policy.shards import shard_of

Run = Callable[..., subprocess.CompletedProcess[str]]
DONE = "2026-11-21T02:30:04Z  downloaded    ebooks/sea.pdf"
NOW = 1_795_228_200_125
DOWNLOAD = {
    "order.id": "10001",
    "token.id": "t",
    "request.id": "r1",
    "file.key": "ebooks/sea.pdf",
    "file.size": "12000000",
    "client.address": "203.0.113.9",
}


def event(kind: str, seconds: int = 0, **fields: str) -> dict[str, str]:
    extra = {name.replace("__", "."): value for name, value in fields.items()}
    return new_event(kind, f"{kind}-{seconds}", NOW + seconds * 1000, {**DOWNLOAD, **extra})


LOOK = {"signal": "suspected_scanner", "signal__why": "soon,no_gesture,network.vpn"}
ALLOWED = event("download.allowed", 1, counted="1")


@pytest.mark.parametrize(
    ("events", "lines"),
    [
        (
            [
                ALLOWED,
                event("download.finished", 4, outcome="complete", bytes__delivered="12000000", duration__ms="3200"),
            ],
            [
                f"{DONE}  12.0 MB of 12.0 MB  in 3.2 s  from 203.0.113.9  complete, counted",
            ],
        ),
        (
            [
                ALLOWED,
                event(
                    "download.finished", 4, outcome="client_left", bytes__delivered="9", duration__ms="40", counted="-1"
                ),
            ],
            [f"{DONE}  9 B of 12.0 MB  in 0.0 s  from 203.0.113.9  client left, not counted"],
        ),
        (
            [event("download.finished", 4, front="nginx", outcome="complete", duration__ms="0", counted="0")],
            ["2026-11-21T02:30:04Z  sent on       ebooks/sea.pdf  from 203.0.113.9  arrival not known, not counted"],
        ),
        ([ALLOWED], ["2026-11-21T02:30:01Z  downloading   ebooks/sea.pdf  from 203.0.113.9  counted"]),
        (
            [ALLOWED, event("download.lost", 9, bytes__delivered="0")],
            ["2026-11-21T02:30:09Z  lost          ebooks/sea.pdf  0 B of 12.0 MB  from 203.0.113.9  counted"],
        ),
        (
            [event("download.denied", 2, reason="limit.downloads", geo__country__iso_code="PL")],
            ["2026-11-21T02:30:02Z  denied        limit.downloads  ebooks/sea.pdf  from 203.0.113.9 (PL)"],
        ),
        (
            [new_event("link.created", "1", NOW, {"token.id": "t"})],
            ["2026-11-21T02:30:00Z  created       link t"],
        ),
        (
            [event("link.opened", 3, file__key="")],
            ["2026-11-21T02:30:03Z  opened        from 203.0.113.9"],
        ),
        (
            [
                event("download.allowed", 1, counted="0", **LOOK),
                event("download.finished", 4, outcome="complete", counted="0", **LOOK),
                event("download.confirmed", 9, counted="1"),
            ],
            [
                (
                    f"{DONE}  from 203.0.113.9  complete, not counted  "
                    "suspected scanner (soon after it was sent, no click or touch, vpn network)"
                ),
                "2026-11-21T02:30:09Z  confirmed     ebooks/sea.pdf  from 203.0.113.9  a person after all, counted",
            ],
        ),
        (
            [event("download.finished", 4, outcome="complete", bytes__delivered="junk", duration__ms="²")],
            ["2026-11-21T02:30:04Z  downloaded    ebooks/sea.pdf  from 203.0.113.9  complete"],
        ),
    ],
)
def test_what_happened_is_told_in_a_line(events: list[dict[str, str]], lines: list[str]) -> None:
    assert [told(step) for step in timeline(events)] == lines


def test_one_order_is_told_from_what_is_stored(run: Run, config: Path, redis_db: str) -> None:
    assert run("link", "create", "--file", "a", "--order", "10001", "--config", config).returncode == 0
    with Redis.from_url(redis_db) as client:
        for fields in (
            ALLOWED,
            {**ALLOWED, "order.id": "other", "request.id": "r2"},
            event("download.denied", 5, reason="x"),
        ):
            client.xadd(stream(shard_of("10001", 4)), dict(fields))
    shown = run("order", "show", "10001", "--config", config)
    assert (shown.returncode, shown.stderr) == (0, "")
    lines = shown.stdout.splitlines()
    assert lines[0] == "order 10001: 1 link"
    assert [line.split()[1] for line in lines[1:]] == ["staff", "created", "downloading", "denied"]

    document = json.loads(run("order", "show", "10001", "--json", "--config", config).stdout)
    assert (document["order"], document["links"]) == ("10001", 1)
    assert [step["what"] for step in document["timeline"]] == ["staff", "created", "downloading", "denied"]
    assert document["timeline"][0]["staff.action"] == "link.create"
    assert document["timeline"][0]["staff.name"].startswith("cli:")


def test_an_order_that_nobody_knows(run: Run, config: Path) -> None:
    shown = run("order", "show", "1", "--config", config)
    assert (shown.returncode, shown.stdout) == (1, "")
    assert shown.stderr == "Error: nothing is known of order 1; check its id with `gateway link list`\n"


def add(redis_db: str, *events: dict[str, str]) -> None:
    with Redis.from_url(redis_db) as client:
        for fields in events:
            client.xadd(stream(shard_of("10001", 4)), dict(fields))


def made(run: Run, config: Path, *options: str) -> str:
    shown = run(
        "link", "create", "--file", "ebooks/sea.pdf", "--order", "10001", "--json", *options, "--config", config
    )
    assert shown.returncode == 0, shown.stderr
    return str(json.loads(shown.stdout)["token_id"])


def test_why_nothing_was_downloaded(run: Run, config: Path) -> None:
    token = made(run, config)
    shown = run("order", "why", "10001", "--config", config)
    assert (shown.returncode, shown.stderr) == (0, "")
    finding, todo = shown.stdout.splitlines()
    assert re.fullmatch(rf"mail +now +the link {token} was made at .* UTC and never opened; .*", finding)
    assert "`gateway link create --order 10001 --file ebooks/sea.pdf`" in todo


def test_why_a_download_was_refused_what_blocks_now_first(run: Run, config: Path, redis_db: str) -> None:
    token = {"token.id": made(run, config)}
    add(
        redis_db,
        {**event("download.denied", 1, reason="rule.denied", rule="embargo"), **token},
        {**event("download.denied", 2, reason="rule.denied", order__id="another"), **token},
        {**event("download.allowed", 3, counted="1"), **token},
        {**event("download.finished", 4, outcome="complete", bytes__delivered="12000000"), **token},
        {**event("download.denied", 5, reason="file.missing", file__key="b.pdf"), **token},
    )
    shown = run("order", "why", "10001", "--config", config)
    assert [line.split()[:2] for line in shown.stdout.splitlines()] == [
        ["bucket", "now"],
        ["→", "put"],
        ["rule", "over"],
        ["well", "ebooks/sea.pdf"],
    ]
    document = json.loads(run("order", "why", "10001", "--json", "--config", config).stdout)
    assert document["order"] == "10001"
    assert [(each["side"], each["now"]) for each in document["findings"]] == [
        ("bucket", True),
        ("rule", False),
        (None, False),
    ]
    assert document["findings"][1]["facts"]["rule"] == "embargo"


def test_why_a_link_is_over(run: Run, config: Path) -> None:
    token = made(run, config, "--downloads", "5")
    run("link", "revoke", token, "--config", config)
    shown = run("order", "why", "10001", "--config", config)
    assert re.match(rf"rule +now +the link {token} was revoked at .* UTC", shown.stdout)


def test_why_of_an_order_that_nobody_knows(run: Run, config: Path) -> None:
    shown = run("order", "why", "1", "--config", config)
    assert (shown.returncode, shown.stdout) == (1, "")
    assert shown.stderr == "Error: nothing is known of order 1; check its id with `gateway link list`\n"
