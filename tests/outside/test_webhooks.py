"""The real `gateway serve` tells the real server of a shop: of downloads, refusals and revocations, whoever dies."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from redis import Redis

ROOT = Path(__file__).parents[2]
GATEWAY = (sys.executable, "-m", "gateway")
KEY = bytes(range(32))
SECRET = "whsec_" + base64.b64encode(KEY).decode()
PATIENCE = 20.0
DUE = 8 * 86_400_000
"""Milliseconds: an entry that has been idle for so long is due."""


class Shop(ThreadingHTTPServer):
    """Verifies every webhook by itself; `answer` decides what is answered, and may take its time."""

    daemon_threads = True
    answer: Callable[[int], int] = staticmethod(lambda _count: 200)

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Endpoint)
        self.told: list[tuple[str, dict[str, object]]] = []
        self.told_at: list[float] = []
        self.wrong: list[str] = []
        self.lock = threading.Lock()
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/downloads?key=hidden-in-the-query"

    def of(self, kind: str) -> list[dict[str, object]]:
        with self.lock:
            return [body for _, body in self.told if body["type"] == kind]


class Endpoint(BaseHTTPRequestHandler):
    server: Shop

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        event_id, moment = self.headers["webhook-id"], self.headers["webhook-timestamp"]
        digest = hmac.new(KEY, b"%s.%s.%s" % (event_id.encode(), moment.encode(), body), hashlib.sha256).digest()
        with self.server.lock:
            self.server.told.append((event_id, json.loads(body)))
            self.server.told_at.append(time.monotonic())
            if self.headers["webhook-signature"] != "v1," + base64.b64encode(digest).decode():
                self.server.wrong.append("signature")
            if abs(time.time() - int(moment)) > 60:
                self.server.wrong.append("time")
            count = len(self.server.told)
        status = self.server.answer(count)
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def opened() -> Iterator[Shop]:
    server = Shop()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def shop(opened: Shop) -> Shop:
    """The shop's server, which has been told of nothing yet and answers well."""
    with opened.lock:
        opened.told.clear()
        opened.told_at.clear()
    opened.answer = lambda _count: 200
    return opened


def until(what: Callable[[], bool], patience: float = PATIENCE) -> None:
    end = time.monotonic() + patience
    while not what():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.05)


def get(url: str, method: str = "GET") -> int:
    parts = urlsplit(url)
    with closing(http.client.HTTPConnection(parts.netloc, timeout=10)) as connection:
        connection.request(method, parts.path)
        answer = connection.getresponse()
        answer.read()
        return answer.status


class Stage:
    """A gateway with one worker and its background worker, and a shop that is told of things."""

    def __init__(self, folder: Path, redis: str, shop: Shop) -> None:
        (folder / "files").mkdir()
        (folder / "files" / "sea.pdf").write_bytes(b"sea" * 100_000)
        self.config = folder / "gateway.yaml"
        self.log_file = folder / "log"
        endpoint = {"url": shop.url, "secret": SECRET}
        settings = {
            "listen": "127.0.0.1:0",
            "management": {"listen": "127.0.0.1:0", "token": "t"},
            "origin": {"url": f"file://{folder}/files"},
            "redis": redis,
            "keys": [{"kid": "a", "alg": "HS256", "secret": "0123456789" * 4, "use": "sign"}],
            "issuer": "shop.example.com",
            "webhooks": [endpoint],
        }
        self.config.write_text(json.dumps(settings), encoding="utf-8")
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [*GATEWAY, "serve", "--config", str(self.config), "--workers", "1"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=ROOT,
            )

    def start(self) -> None:
        until(lambda: len(self.ready()) == 2, 30)

    @property
    def base(self) -> str:
        found = re.search(r"listening on (\S+), management", self.log())
        assert found is not None
        return found[1]

    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def ready(self) -> dict[int, int]:
        """The workers that are ready: their processes by their slots. Slot 1 is the one in the background."""
        found = re.search(r"management on http://(\S+)", self.log())
        if found is None:
            assert self.process.poll() is None, self.log()
            return {}
        with closing(http.client.HTTPConnection(found[1], timeout=5)) as connection:
            connection.request("GET", "/api/workers", headers={"Authorization": "Bearer t"})
            workers = json.load(connection.getresponse())["workers"]
        return {int(worker["slot"]): int(worker["pid"]) for worker in workers if worker["ready"]}

    def command(self, *arguments: str) -> str:
        done = subprocess.run(
            [*GATEWAY, *arguments, "--config", str(self.config)], cwd=ROOT, capture_output=True, text=True, check=True
        )
        return done.stdout

    def link(self, order: str) -> str:
        made = json.loads(self.command("link", "create", "--order", order, "--file", "sea.pdf", "--json"))
        return f"{self.base}/d/{str(made['link']).rpartition('/')[2]}"

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        finally:
            self.process.kill()
            self.process.wait()


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, opened: Shop, redis_url: str) -> Iterator[Stage]:
    with Redis.from_url(redis_url) as client:
        client.flushdb()
    made = Stage(tmp_path_factory.mktemp("gateway"), redis_url, opened)
    try:
        made.start()
        yield made
    finally:
        made.stop()


def orders(bodies: list[dict[str, object]]) -> list[str]:
    return [str(body["data"]["order.id"]) for body in bodies]  # type: ignore[index]  a JSON object


def test_the_shop_is_told_of_a_download_a_refusal_and_a_revocation(stage: Stage, shop: Shop) -> None:
    link = stage.link("10001")
    assert get(link) == 200
    stage.command("link", "revoke", "--order", "10001")
    # HEAD: what comes before the worker has heard of it is no second download.
    until(lambda: get(link, "HEAD") == 410)
    until(lambda: all(shop.of(kind) for kind in ("download.finished", "link.revoked", "download.denied")))
    assert orders(shop.of("download.finished")) == ["10001"]
    assert orders(shop.of("link.revoked")) == ["10001"]
    assert set(orders(shop.of("download.denied"))) == {"10001"}
    assert shop.wrong == []
    assert not shop.of("download.allowed"), "it is not among the types that are told by default"
    said = stage.log() + json.dumps(shop.told)
    assert "hidden-in-the-query" not in said
    assert link.rpartition("/")[2] not in said


def test_a_worker_that_is_killed_before_it_could_note_the_answer(stage: Stage, shop: Shop, redis_url: str) -> None:
    """What it had sent comes again, with the same id; what it had not is not lost."""
    release = threading.Event()

    def slow(count: int) -> int:
        if count == 1:
            release.wait(PATIENCE)
        return 200

    shop.answer = slow
    for order in ("1", "2", "3"):
        stage.command("link", "revoke", "--order", order)
    until(lambda: bool(shop.told))
    os.kill(stage.ready()[1], signal.SIGKILL)
    release.set()
    with Redis.from_url(redis_url, decode_responses=True) as client:
        # Time passes: the hundred seconds for which the dead worker's are its own.
        key = "gw:{0}:events"
        [group] = client.xinfo_groups(key)
        for entry in client.xpending_range(key, group["name"], "-", "+", 10):
            claim = ("XCLAIM", key, group["name"], "sending", 0, entry["message_id"], "IDLE", DUE, "JUSTID")
            client.execute_command(*claim)
        until(lambda: set(orders(shop.of("link.revoked"))) == {"1", "2", "3"})
        until(lambda: client.xpending(key, group["name"])["pending"] == 0)
    first = shop.told[0]
    assert [event_id for event_id, _ in shop.told].count(first[0]) == 2
    assert [body for event_id, body in shop.told if event_id == first[0]] == [first[1]] * 2


def test_an_endpoint_that_answers_500_gets_it_five_seconds_later(stage: Stage, shop: Shop) -> None:
    shop.answer = lambda count: 500 if count == 1 else 200
    stage.command("link", "revoke", "--order", "500")
    until(lambda: len(shop.told_at) == 2)
    assert 4 < shop.told_at[1] - shop.told_at[0] < 10
    assert shop.told[0] == shop.told[1]


def test_a_sample_is_sent_by_hand(stage: Stage, shop: Shop) -> None:
    said = json.loads(stage.command("webhooks", "test", "--url", shop.url, "--json"))
    assert (said["outcome"], said["said"]) == ("taken", "200")
    assert [event_id for event_id, _ in shop.told] == [said["webhook_id"]]
    assert shop.wrong == []
    shop.answer = lambda _count: 404
    with pytest.raises(subprocess.CalledProcessError) as refused:
        stage.command("webhooks", "test")
    assert refused.value.returncode == 1
    assert refused.value.stdout.startswith("failed: 404")
