"""`gateway doctor` against real servers, well and unwell."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import astuple
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore.config import Config
from redis import Redis

from gateway.backends import journal_facts
from gateway.backends.journal import FileJournal
from gateway.backends.redis_verdicts import ROLLED_BACK
from gateway.backends.rules_file import read_rules
from gateway.cli.demo_geo import build_demo_databases
from gateway.policy.checkup import CHECKS
from gateway.policy.rollback import Return, Tally

DENY_LISTS = (
    '{"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Principal": {"AWS": ["*"]}, '
    '"Action": ["s3:ListBucket"], "Resource": ["arn:aws:s3:::%s"]}]}'
)
Run = Callable[..., subprocess.CompletedProcess[str]]
SECRET = "wmW3aYQ2ZLx0f9Jt7HcVkR5uB1nEoGdS"
FILE_SYSTEM = journal_facts._file_system
TOKEN = "b1nEoGdSwmW3aYQ2"
PASSWORD = "hunter2hunter2"
S3 = tuple(os.environ.get(f"GATEWAY_TEST_S3_{name}", "") for name in ("ENDPOINT", "ACCESS_KEY", "SECRET_KEY"))
"""Read here, for commands run without the environment's own settings."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    (folder / "ebooks").mkdir(parents=True)
    (folder / "ebooks/sea.pdf").write_bytes(b"%PDF")
    return folder


def settings(path: Path, redis: str, origin: str, *more: str) -> Path:
    lines = [
        f"redis: {redis}",
        f"origin: {origin}",
        "issuer: shop.example.com",
        "public_url: https://dl.example.com",
        "shards: 4",
        f"management: {{token: {TOKEN}}}",
        f"journal: {{path: {path.parent / 'journal'}, size: 1MB}}",
        f"keys: [{{kid: a, alg: HS256, secret: {SECRET}, use: sign}}]",
        *more,
    ]
    path.write_text("\n".join(lines))
    return path


@pytest.fixture
def well(tmp_path: Path, redis_db: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(journal_facts, "_file_system", lambda place: "ext4")  # wherever these tests run
    return settings(tmp_path / "gateway.yaml", redis_db, f"{{url: file://{folder}}}")


def states(shown: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """Each check's worst state. Every line is one of ours, and no secret is in any."""
    assert shown.stderr == ""
    assert not any(secret in shown.stdout for secret in (SECRET, TOKEN, PASSWORD, "X-Amz-"))
    found: dict[str, str] = {}
    for line in shown.stdout.splitlines():
        state, check, text = line.split(maxsplit=2)
        assert state in ("ok", "warn", "FAIL")
        assert check in CHECKS
        assert text
        found[check] = max(found.get(check, "ok"), state, key=["ok", "warn", "FAIL"].index)
    assert shown.returncode == int("FAIL" in found.values())
    return found


def contents(url: str) -> dict[str, Any]:
    with Redis.from_url(url) as client:
        return {key: client.dump(key) for key in client.keys("*")}


def test_all_is_well_and_stays_as_it_is(run: Run, well: Path, redis_db: str) -> None:
    assert run("link", "create", "--file", "ebooks/sea.pdf", "--config", well).returncode == 0
    before = contents(redis_db)
    shown = run("doctor", "--config", well)
    assert set(states(shown).values()) == {"ok"}, shown.stdout
    assert contents(redis_db) == before
    assert "ebooks/sea.pdf can be read" in shown.stdout


def test_a_first_look_leaves_an_empty_redis_empty(run: Run, well: Path, redis_db: str) -> None:
    shown = run("doctor", "--config", well)
    assert states(shown)["shards"] == "ok"
    assert "its first start fixes that number" in shown.stdout
    assert contents(redis_db) == {}


def test_json(run: Run, well: Path) -> None:
    document = json.loads(run("doctor", "--json", "--config", well).stdout)
    assert document["ok"] is True
    assert {check["state"] for check in document["checks"]} == {"ok"}
    assert set(document["checks"][0]) == {"state", "check", "text"}


def test_every_mistake_in_the_settings(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text("redis: redsi://x\norigin: {url: s4://x}\nissuer: shop\nkeys: []\n")
    shown = run("doctor", "--config", path)
    assert states(shown) == {"settings": "FAIL"}
    assert [re.search(r": ([a-z.]+): ", line)[1] for line in shown.stdout.splitlines()] == ["redis", "origin", "keys"]


def test_settings_that_serve_refuses(run: Run, well: Path) -> None:
    well.write_text(well.read_text() + "\nwhen_redis_is_down: allow\ncache: {path: cache, size: 1GB}\n")
    found = states(run("doctor", "--config", well))
    assert (found["settings"], found["redis_down"]) == ("FAIL", "warn")


def test_a_redis_that_is_not_there(run: Run, well: Path, folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    settings(well, f"redis://user:{PASSWORD}@127.0.0.1:{port}/0", f"{{url: file://{folder}}}")
    shown = run("doctor", "--config", well)
    found = states(shown)
    assert (found["redis"], found["origin"], found["files"]) == ("FAIL", "ok", "warn")
    assert "no connection; check that Redis runs at the address in the setting redis" in shown.stdout


def test_servers_that_say_nothing_take_a_few_seconds(process: Run, well: Path) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        keys = f"access_key: a, secret_key: {PASSWORD}"
        settings(well, f"redis://{address}/0", f"{{url: s3://shop, endpoint: http://{address}, {keys}}}")
        began = time.monotonic()
        shown = process("doctor", "--config", well)
    assert time.monotonic() - began < 15
    found = states(shown)
    assert found["redis"] == "FAIL"
    assert {found["origin"], found["private"]} <= {"warn", "FAIL"}


def test_a_redis_that_was_first_used_with_other_shards(run: Run, well: Path, redis_db: str) -> None:
    with Redis.from_url(redis_db) as client:
        client.hset("gw:{0}:meta", "shards", 8)
    shown = run("doctor", "--config", well)
    assert states(shown)["shards"] == "FAIL"
    assert "first used with 8" in shown.stdout


@pytest.mark.parametrize(
    ("option", "value", "check", "state"),
    [
        ("maxmemory-policy", "allkeys-lru", "eviction", "warn"),
        ("appendonly", "no", "persistence", "warn"),
        ("maxmemory", "1000000", "memory", "FAIL"),
    ],
)
def test_how_redis_is_set_up(
    run: Run, well: Path, redis_db: str, option: str, value: str, check: str, state: str
) -> None:
    with Redis.from_url(redis_db, decode_responses=True) as client:
        before = client.config_get(option)[option]
        client.config_set(option, value)
        try:
            assert states(run("doctor", "--config", well))[check] == state
        finally:
            client.config_set(option, before)


def test_an_embedded_redis_that_does_not_run_is_not_started(run: Run, well: Path, folder: Path, tmp_path: Path) -> None:
    settings(well, f"embedded://{tmp_path}/redis", f"{{url: file://{folder}}}")
    shown = run("doctor", "--config", well)
    assert states(shown)["redis"] == "ok"
    assert "not running now" in shown.stdout
    assert not (tmp_path / "redis").exists()


def journal_line(shown: subprocess.CompletedProcess[str]) -> tuple[str, str]:
    (line,) = (line for line in shown.stdout.splitlines() if line.split()[1] == "journal")
    return line.split()[0], line.split(maxsplit=2)[2]


def test_a_journal_that_is_not_there_yet_or_not_set(run: Run, well: Path, tmp_path: Path) -> None:
    state, text = journal_line(run("doctor", "--config", well))
    assert (state, "not there yet" in text) == ("ok", True)
    assert not (tmp_path / "journal").exists()
    well.write_text(re.sub("^journal:.*$", "", well.read_text(), flags=re.MULTILINE))
    state, text = journal_line(run("doctor", "--config", well))
    assert (state, "given again" in text) == ("warn", True)


def files_in(journal: Path) -> set[str]:
    return {path.name for path in journal.iterdir()} - {"folder.lock"}  # which its own thread makes, sooner or later


def test_a_journal_that_is_written_now(run: Run, well: Path, tmp_path: Path) -> None:
    journal = FileJournal(tmp_path / "journal", keep_seconds=3600, bytes_max=10**6)
    journal.open()
    try:
        before = files_in(tmp_path / "journal")
        state, text = journal_line(run("doctor", "--config", well))
        assert state == "ok", text
        assert "reaches back 0.0 h" in text
        assert files_in(tmp_path / "journal") == before
    finally:
        journal.close()


def test_a_journal_that_cannot_be_written(run: Run, well: Path, tmp_path: Path) -> None:
    (tmp_path / "journal").write_text("a file")
    state, text = journal_line(run("doctor", "--config", well))
    assert (state, "make it a folder" in text) == ("FAIL", True)


def test_a_journal_on_a_disk_that_forgets(run: Run, well: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Path("/dev/shm")  # noqa: S108  nothing is written to it
    if not memory.is_dir():
        pytest.skip("there is no file system in memory here")
    monkeypatch.setattr(journal_facts, "_file_system", FILE_SYSTEM)
    well.write_text(
        re.sub("^journal:.*$", f"journal: {{path: {memory}/none, size: 1KB}}", well.read_text(), flags=re.MULTILINE)
    )
    state, text = journal_line(run("doctor", "--config", well))
    assert (state, "tmpfs" in text) == ("warn", True)


def test_a_folder_that_cannot_be_read_or_holds_nothing(run: Run, well: Path, folder: Path, redis_db: str) -> None:
    folder.chmod(0o777)
    assert states(run("doctor", "--config", well))["private"] == "warn"
    assert states(run("doctor", "--config", well, "--file", "ebooks/moon.pdf"))["origin"] == "FAIL"
    (folder / "ebooks/sea.pdf").unlink()
    assert states(run("doctor", "--config", well))["origin"] == "warn"
    settings(well, redis_db, f"{{url: file://{folder}/gone}}")
    assert states(run("doctor", "--config", well))["origin"] == "FAIL"


def test_sold_files_that_the_store_lacks(run: Run, well: Path) -> None:
    for key in ("ebooks/sea.pdf", "ebooks/moon.pdf"):
        assert run("link", "create", "--file", key, "--config", well).returncode == 0
    shown = run("doctor", "--config", well)
    assert states(shown)["files"] == "warn"
    assert "sold and not in the store: ebooks/moon.pdf; put them there" in shown.stdout


def test_settings_that_protect_too_little(run: Run, well: Path) -> None:
    text = well.read_text().replace("https://", "http://").replace(f"management: {{token: {TOKEN}}}", "")
    well.write_text(text.replace(SECRET, "abcdefgh" * 4).replace("use: sign", "use: verify"))
    shown = run("doctor", "--config", well)
    found = states(shown)
    assert (found["public_url"], found["management"], found["keys"]) == ("warn", "warn", "warn")
    assert "abcdefgh" not in shown.stdout


def test_rules_that_were_rolled_back(run: Run, well: Path, tmp_path: Path, redis_db: str) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text("version: 1\notherwise: deny\n")
    well.write_text(f"{well.read_text()}\nrules: {rules}\nrollback: {{factor: 3, within: 10m, least: 50}}\n")
    assert states(run("doctor", "--config", well))["rules"] == "ok"
    why = Return("0123456789ab", 1_795_258_800, Tally(60, 60, 1, 59))
    with Redis.from_url(redis_db) as redis:
        redis.hset(ROLLED_BACK, read_rules(rules, None).version, json.dumps(astuple(why)))
    shown = run("doctor", "--config", well)
    assert states(shown)["rules"] == "FAIL"
    assert "rules.yaml was rolled back at 2026-11-21T" in shown.stdout
    assert "others are in force" in shown.stdout


def test_rules_with_all_their_mistakes(run: Run, well: Path, tmp_path: Path) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text("version: 1\notherwise: allow\n")
    well.write_text(f"{well.read_text()}\nrules: {rules}\n")
    assert states(run("doctor", "--config", well))["rules"] == "ok"
    alike = ", ".join(f"{{name: r{at}, when: {{tier: x}}, then: deny}}" for at in range(3))
    rules.write_text(f"version: 1\notherwise: allow\nrules: [{alike}]\n")
    shown = run("doctor", "--config", well)
    assert states(shown)["rules"] == "warn"
    assert "rules that are never reached: 2, see `gateway rules check`" in shown.stdout
    rules.write_text("version: 7\notherwise: perhaps\n")
    shown = run("doctor", "--config", well)
    assert states(shown)["rules"] == "FAIL"
    assert sum(line.startswith("FAIL  rules") for line in shown.stdout.splitlines()) == 2


def test_a_plan_for_guests_rests_on_orders_and_mail(run: Run, well: Path, tmp_path: Path) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text("version: 1\notherwise: allow\nplans: {p: {bind_ip: order, new_device: code}}\n")
    well.write_text(f"{well.read_text()}\nrules: {rules}\n")
    shown = run("doctor", "--config", well)
    assert states(shown)["rules"] == "warn"
    assert "plan p: bind_ip rests on orders, which the settings have not" in shown.stdout
    assert "plan p: new_device rests on orders and mail, which the settings have not" in shown.stdout


def test_geo_databases_one_by_one(run: Run, well: Path, tmp_path: Path) -> None:
    city = build_demo_databases(tmp_path)["city"]
    junk = tmp_path / "junk.mmdb"
    junk.write_text("no database")
    geo = f"geo: {{city: {city}, asn: {junk}, anonymous: {tmp_path / 'gone.mmdb'}}}"
    well.write_text(f"{well.read_text()}\n{geo}\n")
    shown = run("doctor", "--config", well)
    assert states(shown)["geo"] == "FAIL"
    told = [line.partition(" geo ") for line in shown.stdout.splitlines()]
    geo_lines = sorted((text.split()[0], state.strip()) for state, found, text in told if found)
    assert geo_lines == [("geo.anonymous:", "FAIL"), ("geo.asn:", "FAIL"), ("geo.city:", "ok")], shown.stdout


@pytest.fixture
def bucket(tmp_path: Path, redis_db: str) -> Iterator[tuple[Any, str, Path]]:
    """A client of a real S3 server, a bucket with one file in it, and settings for it."""
    endpoint, access, secret = S3
    if not endpoint:
        pytest.skip("GATEWAY_TEST_S3_ENDPOINT names no S3 server")
    client = botocore.session.Session().create_client(
        "s3",
        region_name="us-east-1",
        endpoint_url=endpoint,
        aws_access_key_id=access,
        aws_secret_access_key=secret,
        config=Config(s3={"addressing_style": "path"}),
    )
    name = f"shop-{uuid.uuid4().hex[:12]}"
    client.create_bucket(Bucket=name)
    client.put_object(Bucket=name, Key="shop/ebooks/sea.pdf", Body=b"%PDF")
    keys = f"access_key: {access}, secret_key: {secret}"
    path = tmp_path / "gateway.yaml"
    yield client, name, settings(path, redis_db, f"{{url: s3://{name}/shop, endpoint: {endpoint}, {keys}}}")
    client.close()


def test_a_private_bucket(run: Run, bucket: tuple[Any, str, Path]) -> None:
    shown = run("doctor", "--config", bucket[2])
    assert set(states(shown).values()) == {"ok"}, shown.stdout
    assert "nobody can list the bucket without our keys" in shown.stdout
    assert "nobody can read ebooks/sea.pdf without our keys" in shown.stdout
    assert "in step with the bucket" in shown.stdout
    assert S3[2] not in shown.stdout


def test_a_bucket_that_anybody_can_read(run: Run, bucket: tuple[Any, str, Path]) -> None:
    client, name, path = bucket
    client.put_object_acl(Bucket=name, Key="shop/ebooks/sea.pdf", ACL="public-read")
    shown = run("doctor", "--config", path)
    assert states(shown)["private"] == "FAIL"
    assert "anyone can read ebooks/sea.pdf without a link; remove the bucket policy or ACL" in shown.stdout
    assert states(run("doctor", "--config", path, "--file", "ebooks/sea.pdf"))["private"] == "FAIL"


def test_keys_that_may_not_list(run: Run, bucket: tuple[Any, str, Path]) -> None:
    client, name, path = bucket
    client.put_bucket_policy(Bucket=name, Policy=DENY_LISTS % name)
    shown = run("doctor", "--config", path)
    found = states(shown)
    assert (found["origin"], found["private"]) == ("warn", "warn")
    assert "our credentials may not list the bucket; name a file that is there with --file KEY" in shown.stdout
    found = states(run("doctor", "--config", path, "--file", "ebooks/sea.pdf"))
    assert (found["origin"], found["private"]) == ("ok", "ok")
    assert run("link", "create", "--file", "ebooks/sea.pdf", "--config", path).returncode == 0
    found = states(run("doctor", "--config", path))
    assert (found["origin"], found["private"], found["files"]) == ("ok", "ok", "ok")
    client.put_object_acl(Bucket=name, Key="shop/ebooks/sea.pdf", ACL="public-read")
    assert states(run("doctor", "--config", path))["private"] == "FAIL"


@pytest.mark.parametrize(
    ("pattern", "text", "said"),
    [
        (r"secret_key: \w+", f"secret_key: {PASSWORD}", "the store answered 403 SignatureDoesNotMatch"),
        (r"s3://[\w-]+", "s3://no-such-bucket-at-all", "there is no bucket no-such-bucket-at-all"),
        (r"endpoint: [^,]+", "endpoint: http://127.0.0.1:9", "the connection to the store failed"),
    ],
)
def test_an_origin_that_is_not_as_the_settings_say(
    run: Run, bucket: tuple[Any, str, Path], pattern: str, text: str, said: str
) -> None:
    path = bucket[2]
    path.write_text(re.sub(pattern, text, path.read_text()))
    shown = run("doctor", "--config", path)
    found = states(shown)
    assert (found["origin"], found["private"]) == ("FAIL", "warn")
    assert f"origin       {said}" in shown.stdout


def test_a_file_that_is_not_in_the_bucket(run: Run, bucket: tuple[Any, str, Path]) -> None:
    shown = run("doctor", "--config", bucket[2], "--file", "ebooks/moon.pdf")
    assert states(shown)["origin"] == "FAIL"
    assert "the store has no ebooks/moon.pdf" in shown.stdout


def test_every_check_is_explained() -> None:
    text = (Path(__file__).parents[2] / "docs/doctor.md").read_text()
    assert re.findall(r"^## `(\w+)`", text, re.MULTILINE) == list(CHECKS)


@pytest.mark.parametrize(
    ("doors", "said"),
    [
        ("", None),
        ("doors: {mitm: {waive: [rate]}}", None),
        (
            "doors: {secret: 0123456789abcdef0, nginx: {redirect: /_gateway/}}",
            "FAIL  doors        plan gold has concurrent and rate, which the door nginx cannot keep, so its links are",
        ),
        (
            "doors: {secret: 0123456789abcdef0}",
            "FAIL  doors        plan gold has concurrent and rate, which the door auth cannot keep, so its links are",
        ),
        (
            "doors: {secret: 0123456789abcdef0, nginx: {redirect: /_gateway/, waive: [rate, concurrent]}}",
            "ok    doors        nginx keeps what",
        ),
    ],
)
def test_a_plan_that_a_door_cannot_keep(run: Run, tmp_path: Path, well: Path, doors: str, said: str | None) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text("version: 1\nplans: {gold: {rate: 2MB/s, concurrent: 1}, plain: {}}\notherwise: allow\n")
    well.write_text(f"{well.read_text()}\nrules: {rules}\n{doors}\n")
    shown = run("doctor", "--config", well)
    assert ("doors" in states(shown)) == (said is not None)
    assert said is None or said in shown.stdout
    assert shown.returncode == int(said is not None and said.startswith("FAIL"))
    assert (".waive: [concurrent, rate]\n" in shown.stdout) == bool(shown.returncode)
    rules.write_text("version: 1\notherwise: maybe\n")
    assert "doors" not in states(run("doctor", "--config", well)), "what is wrong with the file is said once"


@pytest.mark.parametrize("trusted", ["[]", "[127.0.0.1/32]"])
def test_a_door_that_opens_to_nobody(run: Run, tmp_path: Path, well: Path, trusted: str) -> None:
    doors = "{secret: abcdef0123456789, nginx: {redirect: /_gateway/}}"
    well.write_text(f"{well.read_text()}\ntrusted_proxies: {trusted}\ndoors: {doors}\n")
    shown = run("doctor", "--config", well)
    assert ("warn  doors        trusted_proxies is empty" in shown.stdout) == (trusted == "[]")
    assert shown.returncode == 0
