"""Rules that refuse everybody come in under two real workers, and the last ones return by themselves, and stay."""

from __future__ import annotations

import http.client
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from gateway.backends.embedded_redis import EmbeddedRedis

pytestmark = pytest.mark.timeout(120)
WITHIN = 15.0
OPEN = "version: 1\notherwise: allow\n"
SHUT = "version: 1\nrules: [{name: oops, when: {file: '**'}, then: deny}]\notherwise: allow\n"
MENDED = "version: 1\nrules: [{name: well, when: {ip: 192.0.2.1}, then: deny}]\notherwise: allow\n"


@pytest.fixture
def house(start_gateway, tmp_path: Path) -> Iterator[tuple[object, Path]]:
    rules = tmp_path / "rules.yaml"
    rules.write_text(OPEN)
    (tmp_path / "files").mkdir()
    with EmbeddedRedis(tmp_path / "redis") as redis:
        more = f'{{url: "file://{tmp_path}/files"}}\nrules: {rules}\nrollback: {{factor: 3, within: 60s, least: 20}}'
        gateway = start_gateway(redis, 2, more)
        gateway.folder = tmp_path / "files"
        gateway.file("a.pdf", 1000)
        yield gateway, rules
        assert gateway.stop() == 0


def ask(gateway, token: str) -> int:
    """On a connection of its own, so that each worker gets some."""
    with closing(http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=5)) as door:
        door.request("HEAD", f"/d/{token}")
        return door.getresponse().status


def many(gateway, count: int = 30) -> list[int]:
    """Each link counts once."""
    return [ask(gateway, gateway.token("a.pdf")) for _ in range(count)]


def soon(hold: Callable[[], bool]) -> None:
    until = time.monotonic() + WITHIN
    while not hold():
        assert time.monotonic() < until, "it did not come to that"
        time.sleep(0.1)


def versions(gateway) -> set[str]:
    return {worker["files"]["rules"]["version"] for worker in gateway.workers() if worker["files"]}


def test_the_last_rules_return_on_all_workers_and_stay(house) -> None:
    gateway, rules = house
    assert set(many(gateway)) == {200}
    (open_version,) = versions(gateway)
    time.sleep(1.2)  # each worker has looked once, so that it knows what is proven
    rules.write_text(SHUT)
    soon(lambda: versions(gateway) != {open_version} and len(versions(gateway)) == 1)
    (shut_version,) = versions(gateway)
    time.sleep(1.5)  # that they came, too
    assert set(many(gateway)) == {403}
    soon(lambda: versions(gateway) == {open_version})
    assert set(many(gateway)) == {200}

    assert gateway.log().count(f"the rules {open_version} are in force again") == 2, "each worker says so"
    assert "CRITICAL" in gateway.log()
    told = [fields for _, fields in gateway.redis.xrange("gw:{0}:events") if fields["type"] == "rules.rolled_back"]
    assert [(each["rules.version"], each["rules.refused"]) for each in told] == [(open_version, shut_version)]
    assert (told[0]["share.refused"], told[0]["share.before"]) == ("1.0000", "0.0000")
    soon(lambda: b"gateway_rules_rolled_back 1.0" in gateway.ask("/metrics")[1])

    gateway.process.send_signal(signal.SIGHUP)
    soon(lambda: gateway.log().count("was rolled back at") >= 2)
    assert versions(gateway) == {open_version}
    before = gateway.pids()
    os.kill(min(before), signal.SIGKILL)
    soon(lambda: len(gateway.pids()) == 2 and gateway.pids() != before)
    assert versions(gateway) == {open_version}, "who starts now has them too"
    assert set(many(gateway)) == {200}
    soon(lambda: b"gateway_rules_rolled_back 1.0" in gateway.ask("/metrics")[1])
    rules.write_text(SHUT)
    time.sleep(1.2)
    assert versions(gateway) == {open_version}
    assert b"gateway_rules_rolled_back 1.0" in gateway.ask("/metrics")[1], "the same text is the same version"
    assert b'gateway_files_wrong{what="rules"} 1.0' in gateway.ask("/metrics")[1]

    rules.write_text(MENDED)
    soon(lambda: not versions(gateway) & {open_version, shut_version})
    soon(lambda: b"gateway_rules_rolled_back 0.0" in gateway.ask("/metrics")[1])
    assert set(many(gateway)) == {200}
