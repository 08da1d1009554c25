"""Rules and geo files changed under 4 real workers, in every way that files get changed, and how soon each obeys."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from redis import Redis

from gateway.backends.embedded_redis import EmbeddedRedis
from gateway.cli.demo_geo import build_demo_databases
from gateway.services.reloading import EVERY, PATIENCE

WORKERS = 4
WITHIN = 1.0
QUIET = EVERY * (PATIENCE + 2)
WARSAW, OFFICE = "198.51.100.7", "203.0.113.9"
RULES = """\
version: 1
rules:
  - {{name: {name}, when: {when}, then: deny}}
otherwise: allow
"""
NOBODY = RULES.format(name="nobody", when="{ip: 192.0.2.1}")
OFFICE_OUT = RULES.format(name="office", when=f"{{ip: {OFFICE}}}")
POLES_OUT = RULES.format(name="poles", when="{country: PL}")
BROKEN = "version: 1\nrules:\n  - {name: office, when: {country: pl}, then: denny}\notherwise: perhaps\n"
pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="/proc tells which worker serves a client"),
]


class House:
    """One gateway, its rules and geo files, and a connection to each of its workers."""

    def __init__(self, folder: Path, redis: str, start_gateway) -> None:
        self.folder = folder
        (folder / "files").mkdir()
        self.versions = folder / "versions"
        self.data = folder / "..data"
        self.rules = folder / "rules.yaml"
        self.geo = build_demo_databases(folder)
        # As Kubernetes mounts a ConfigMap: the file is a link into `..data`, which is a link to a folder of a version.
        self.publish("1", NOBODY)
        self.rules.symlink_to("..data/rules.yaml")
        origin = f'{{url: "file://{folder}/files"}}'
        self.gateway = start_gateway(redis, WORKERS, f"{origin}\nrules: {self.rules}\ngeo: {self._geo_settings()}")
        self.gateway.folder = folder / "files"
        self.gateway.file("a.pdf", 1000)
        self.token = self.gateway.token("a.pdf")
        self.redis: Redis = self.gateway.redis
        self.doors = self._open_doors()

    def _geo_settings(self) -> str:
        return json.dumps({name: str(path) for name, path in self.geo.items()})

    def _open_doors(self) -> dict[int, http.client.HTTPConnection]:
        doors: dict[int, http.client.HTTPConnection] = {}
        for _ in range(200):
            door = http.client.HTTPConnection("127.0.0.1", self.gateway.port, timeout=5)
            self._ask(door, OFFICE)  # until it has answered, no worker may have taken the connection
            if doors.setdefault(self.gateway.worker_of(door.sock), door) is not door:
                door.close()
            if len(doors) == WORKERS:
                return doors
        raise AssertionError("some worker takes no connection")

    def _ask(self, door: http.client.HTTPConnection, address: str) -> int:
        """HEAD counts nothing."""
        door.request("HEAD", f"/d/{self.token}", headers={"X-Forwarded-For": address})
        with door.getresponse() as answer:
            return answer.status

    def publish(self, version: str, rules: str) -> None:
        target = self.versions / version
        target.mkdir(parents=True, exist_ok=True)
        if not (target / "rules.yaml").exists():
            (target / "rules.yaml").write_text(rules)
        fresh = self.folder / "..data_tmp"
        fresh.symlink_to(target)
        fresh.rename(self.data)

    def answers(self, address: str) -> list[int]:
        """What each worker says to this client now."""
        return [self._ask(door, address) for door in self.doors.values()]

    def soon(self, address: str, status: int) -> None:
        """Every worker answers so within a second from now."""
        began = time.monotonic()
        while (answers := self.answers(address)) != [status] * WORKERS:
            assert time.monotonic() - began < WITHIN, answers
            time.sleep(0.01)

    def events(self) -> list[tuple[str, str]]:
        """Of the files, so far: type and reason."""
        time.sleep(QUIET)
        entries = [fields for _, fields in self.redis.xrange("gw:{0}:events")]
        return [(event["type"], event["reason"]) for event in entries if event["type"].startswith("rules.")]

    def counted(self, what: str, outcome: str) -> int:
        metrics = self.gateway.ask("/metrics")[1].decode()
        found = re.search(rf'gateway_reloads_total{{outcome="{outcome}",what="{what}"}} (\d+)', metrics)
        return int(found[1]) if found else 0


@pytest.fixture(scope="module")
def running_house(start_gateway, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with EmbeddedRedis(tmp_path_factory.mktemp("redis")) as redis:
        opened = House(tmp_path_factory.mktemp("house"), redis, start_gateway)
        yield opened
        for door in opened.doors.values():
            door.close()
        assert opened.gateway.stop() == 0


@pytest.fixture
def house(running_house: House) -> House:
    """Each test begins with a plain file of rules that refuse nobody, and with no events."""
    running_house.rules.unlink()
    running_house.rules.write_text(NOBODY)
    time.sleep(QUIET)
    running_house.soon(OFFICE, 200)
    running_house.soon(WARSAW, 200)
    running_house.redis.delete("gw:{0}:events", *running_house.redis.keys("gw:{0}:told:*"))
    return running_house


def in_place(path: Path, text: str) -> None:
    path.write_text(text)


def by_rename(path: Path, text: str) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    fresh.rename(path)


@pytest.mark.parametrize("change", [in_place, by_rename])
def test_changed_rules_are_in_force_on_all_workers(house: House, change: Callable[[Path, str], None]) -> None:
    for text, status in [(OFFICE_OUT, 403), (NOBODY, 200)] * 2:
        change(house.rules, text)
        house.soon(OFFICE, status)
    assert house.events() == [("rules.reloaded", "rules")] * 4


def test_a_configmap_is_swapped(house: House) -> None:
    house.publish("1", NOBODY)
    house.rules.unlink()
    house.rules.symlink_to("..data/rules.yaml")
    time.sleep(QUIET)
    house.publish("2", OFFICE_OUT)
    house.soon(OFFICE, 403)
    house.publish("3", POLES_OUT)
    house.soon(OFFICE, 403)
    house.soon(WARSAW, 403)
    house.publish("1", NOBODY)
    house.soon(WARSAW, 200)
    assert house.events() == [("rules.reloaded", "rules")] * 3


def test_sighup_reads_what_has_not_changed(house: House) -> None:
    said = house.gateway.log().count("rules were read again")
    house.gateway.process.send_signal(signal.SIGHUP)
    until = time.monotonic() + WITHIN
    while house.gateway.log().count("rules were read again") < said + WORKERS:
        assert time.monotonic() < until
        time.sleep(0.01)
    assert house.events() == []
    house.rules.write_text(OFFICE_OUT)
    house.gateway.process.send_signal(signal.SIGHUP)
    house.soon(OFFICE, 403)
    assert house.events() == [("rules.reloaded", "rules")]


def test_broken_rules_leave_the_last_good_ones_in_force(house: House) -> None:
    house.rules.write_text(OFFICE_OUT)
    house.soon(OFFICE, 403)
    rejected = house.counted("rules", "rejected")
    house.rules.write_text(BROKEN)
    time.sleep(WITHIN)
    assert house.answers(OFFICE) == [403] * WORKERS
    for mistake in ("country", "denny", "otherwise"):
        assert len(re.findall(rf"ERROR worker .*rules.yaml:[34]: .*{mistake}", house.gateway.log())) >= WORKERS
    reloaded, (kind, reason) = house.events()
    assert reloaded == ("rules.reloaded", "rules")
    assert kind == "rules.rejected"
    assert reason.startswith(f"{house.rules}:3: ")
    assert reason.endswith("(+2 more)")
    assert house.counted("rules", "rejected") == rejected + WORKERS
    assert house.gateway.ask("/readyz")[0] == 200
    assert len(house.gateway.pids()) == WORKERS
    assert 'gateway_files_wrong{what="rules"} 1.0' in house.gateway.ask("/metrics")[1].decode()
    assert [worker["files"]["rules"]["wrong"] for worker in house.gateway.workers()] == [reason] * WORKERS
    house.rules.unlink()
    time.sleep(WITHIN)
    assert house.answers(OFFICE) == [403] * WORKERS
    assert [kind for kind, _ in house.events()][2:] == ["rules.rejected"]
    house.rules.write_text(NOBODY)
    house.soon(OFFICE, 200)
    assert 'gateway_files_wrong{what="rules"} 0.0' in house.gateway.ask("/metrics")[1].decode()


def test_written_in_two_steps_is_no_mistake(house: House) -> None:
    for text, status in [(OFFICE_OUT, 403), (NOBODY, 200)] * 3:
        time.sleep(EVERY / 2)  # the last look was just now: the next one shall fall between the two steps
        with house.rules.open("w") as file:
            file.write(text[:40])
            file.flush()
            time.sleep(0.7 * EVERY)
            file.write(text[40:])
        house.soon(OFFICE, status)
    assert house.events() == [("rules.reloaded", "rules")] * 6


def test_a_worker_that_starts_while_files_are_broken_has_the_last_good_ones(house: House) -> None:
    house.rules.write_text(POLES_OUT)
    house.soon(WARSAW, 403)
    good = house.geo["city"].read_bytes()
    house.rules.write_text(BROKEN)
    house.geo["city"].write_bytes(good[:1000])
    time.sleep(WITHIN)
    victim = house.gateway.pids().pop()
    os.kill(victim, signal.SIGKILL)
    until = time.monotonic() + 45
    while victim in (pids := house.gateway.pids()) or len(pids) < WORKERS:
        assert time.monotonic() < until, house.gateway.log()
        time.sleep(0.05)
    for door in house.doors.values():
        door.close()
    house.doors = house._open_doors()
    assert house.answers(WARSAW) == [403] * WORKERS
    assert house.answers("192.0.2.9") == [200] * WORKERS
    for what in ("rules", "geo databases"):
        assert len({json.dumps(worker["files"][what]) for worker in house.gateway.workers()}) == 1
        assert f"starting with the last good {what}" in house.gateway.log()
        assert house.counted(what, "rejected") > WORKERS
    assert 'gateway_files_wrong{what="rules"} 1.0' in house.gateway.ask("/metrics")[1].decode()
    assert [kind for kind, _ in house.events()] == ["rules.reloaded", "rules.rejected", "rules.rejected"]
    house.geo["city"].write_bytes(good)
    house.rules.write_text(OFFICE_OUT)
    house.soon(WARSAW, 200)
    assert house.answers(OFFICE) == [403] * WORKERS


def test_geo_databases_are_swapped_and_a_broken_one_is_not_taken(house: House, tmp_path: Path) -> None:
    house.rules.write_text(POLES_OUT)
    house.soon(WARSAW, 403)
    city, good = house.geo["city"], tmp_path / "good"
    shutil.copy(city, good)
    city.write_bytes(good.read_bytes()[:1000])
    time.sleep(WITHIN)
    assert house.answers(WARSAW) == [403] * WORKERS
    rejected, reason = house.events()[1]
    assert rejected == "rules.rejected"
    assert str(city) in reason
    country_of(tmp_path / "new", "DE")
    (tmp_path / "new").rename(city)
    house.soon(WARSAW, 200)
    assert house.events()[2:] == [("rules.reloaded", "geo databases")]
    entries = [fields for _, fields in house.redis.xrange("gw:{0}:events")]
    told = [event["geo.version"] for event in entries if event["type"].startswith("rules.")]
    assert [version.partition(" ")[0] for version in told] == ["GeoLite2-City", "GeoLite2-City", "GeoLite2-Country"]
    shutil.copy(good, city.with_suffix(".new"))
    city.with_suffix(".new").rename(city)
    house.soon(WARSAW, 403)


def country_of(path: Path, code: str) -> None:
    """A database that knows only countries, and only this one."""
    from mmdb_writer import MMDBWriter  # noqa: PLC0415  only this test writes one
    from netaddr import IPSet  # noqa: PLC0415  only this test writes one

    writer = MMDBWriter(ip_version=6, ipv4_compatible=True, database_type="GeoLite2-Country", languages=["en"])
    writer.insert_network(IPSet(["198.51.100.0/24"]), {"country": {"iso_code": code}})
    writer.to_db_file(str(path))


def test_under_load_nobody_is_cut_and_nobody_answered_twice(house: House) -> None:
    """A running response is none of a reload's business; each answer is by one set of rules."""
    house.gateway.file("large.bin", 64 << 20)
    token = house.gateway.token("large.bin")
    with closing(http.client.HTTPConnection("127.0.0.1", house.gateway.port, timeout=20)) as client:
        client.request("GET", f"/d/{token}", headers={"X-Forwarded-For": OFFICE})
        answer = client.getresponse()
        got = len(answer.read(1 << 20))
        house.rules.write_text(OFFICE_OUT)
        house.soon(OFFICE, 403)
        got += len(answer.read())
    assert got == 64 << 20
    assert [event["outcome"] for event in house.gateway.closings(house.gateway.settled(token))] == ["complete"]


def test_no_start_with_a_broken_file(tmp_path: Path) -> None:
    rules, geo = tmp_path / "rules.yaml", tmp_path / "city.mmdb"
    rules.write_text(BROKEN)
    geo.write_text("no database")
    config = tmp_path / "gateway.yaml"
    config.write_text(
        f"listen: 127.0.0.1:0\nmanagement: {{listen: 127.0.0.1:0}}\norigin: {{url: 'file://{tmp_path}'}}\n"
        f"redis: unix://{tmp_path}/none\nissuer: shop\nrules: {rules}\ngeo: {{city: {geo}}}\n"
        "keys: [{kid: a, alg: HS256, secret: 0123456789012345678901234567890123456789, use: sign}]\n"
    )
    command = [sys.executable, "-m", "gateway", "serve", "--config", str(config)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False, env=os.environ)
    assert ended.returncode == 1
    lines = [line for line in ended.stderr.splitlines() if "rules.yaml:" in line or "city.mmdb" in line]
    assert len(lines) == 4, ended.stderr
    assert "listening" not in ended.stdout
