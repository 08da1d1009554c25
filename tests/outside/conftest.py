"""The real `gateway serve` in processes of its own, and the files, links and events around it."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from redis import Redis

from gateway.backends.embedded_redis import EmbeddedRedis
from gateway.policy.keys import SigningKey, load_key
from gateway.policy.model import Claims, FileEntry, Limits
from gateway.policy.tokens import encode

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0
WORKERS = 4
SECRET = "a secret of a shop, for tests only, 40 long"
MANAGEMENT = "management-token-for-tests"
SETTINGS = """
listen: 127.0.0.1:0
management: {{listen: 127.0.0.1:0, token: {management}}}
origin: {origin}
redis: "{redis}"
keys: [{{kid: "2026-11", alg: HS256, secret: "{secret}", use: sign}}]
issuer: shop.example.com
trusted_proxies: [127.0.0.0/8]
counting: {{repeat_window: 2s, resume_window: 60s, lease: 2s}}
drain: 20s
"""
BLOCK = 1 << 20


def connection_inodes(local: int, remote: int) -> Iterator[str]:
    """The inodes of this machine's sockets between these two ports of 127.0.0.1, seen from the first."""
    ours, theirs = f"0100007F:{local:04X}", f"0100007F:{remote:04X}"
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        columns = line.split()
        if columns[1] == ours and columns[2] == theirs:
            yield columns[9]


@dataclass
class Gateway:
    """A running supervisor with its workers; `folder` is the origin's, and what it prints goes to `log_file`."""

    process: subprocess.Popen[bytes]
    log_file: Path
    folder: Path
    redis: Redis
    key: SigningKey
    port: int = 0
    management: int = 0
    tokens: dict[str, str] = field(default_factory=dict)

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def file(self, name: str, size: int) -> Path:
        """A sparse file of `size` bytes, each megabyte of it different; the file's blocks of zeros cost nothing."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.truncate(size)
            for start in range(0, size, BLOCK):
                file.seek(start)
                mark = f"{name} from byte {start} on\n".encode() * 64
                file.write(mark[: min(size - start, len(mark))])
        return path

    def token(self, *files: str, downloads: int | None = None, **changes: object) -> str:
        token_id = os.urandom(8).hex()
        claims: dict[str, object] = {
            "issuer": "shop.example.com",
            "token_id": token_id,
            "expires_at": int(time.time()) + 3600,
            "files": tuple(FileEntry(key=name) for name in files),
            "limits": Limits(downloads=downloads),
        }
        token = encode(Claims(**{**claims, **changes}), self.key)
        self.tokens[token] = str(changes.get("token_id", token_id))
        return token

    def events(self, token: str) -> list[dict[str, str]]:
        events = self.redis.xrange("gw:{0}:events")
        return [fields for _, fields in events if fields.get("token.id") == self.tokens[token]]

    def settled(self, token: str, patience: float = 20.0) -> list[dict[str, str]]:
        """The token's events, once every allowed request has exactly one closing event."""
        until = time.monotonic() + patience
        while True:
            events = self.events(token)
            allowed = sorted(event["request.id"] for event in events if event["type"] == "download.allowed")
            closed = sorted(event["request.id"] for event in self.closings(events))
            if allowed == closed:
                return events
            assert time.monotonic() < until, f"{len(allowed)} requests were allowed and {len(closed)} closed"
            time.sleep(0.05)

    @staticmethod
    def closings(events: list[dict[str, str]]) -> list[dict[str, str]]:
        return [event for event in events if event["type"] in ("download.finished", "download.lost")]

    def used(self, token: str) -> int:
        """Downloads charged: the sum of what the token's events counted."""
        return sum(int(event.get("counted", 0)) for event in self.settled(token))

    def delivered(self, token: str) -> int:
        return sum(int(event["bytes.delivered"]) for event in self.closings(self.settled(token)))

    def ask(self, path: str) -> tuple[int, bytes]:
        """An answer of the management listener."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.management, timeout=5)) as connection:
            connection.request("GET", path, headers={"Authorization": f"Bearer {MANAGEMENT}"})
            answer = connection.getresponse()
            return answer.status, answer.read()

    def workers(self) -> list[dict[str, object]]:
        return json.loads(self.ask("/api/workers")[1])["workers"]

    def pids(self) -> set[int]:
        """The processes of the workers that are ready."""
        return {int(str(worker["pid"])) for worker in self.workers() if worker["ready"]}

    def worker_of(self, client: socket.socket) -> int:
        """The worker that has accepted this client's connection."""
        links = {f"socket:[{inode}]" for inode in connection_inodes(self.port, client.getsockname()[1])}
        for pid in self.pids():
            for descriptor in Path(f"/proc/{pid}/fd").iterdir():
                try:
                    if str(descriptor.readlink()) in links:
                        return pid
                except FileNotFoundError:
                    continue
        raise AssertionError("no worker holds this connection")

    def wait_ready(self, workers: int) -> None:
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until and self.process.poll() is None:
            listening = re.search(r"listening on http://\S+:(\d+), management on http://\S+:(\d+)", self.log())
            if listening:
                self.port, self.management = int(listening[1]), int(listening[2])
                if self.ask("/readyz")[0] == 200 and len(self.pids()) == workers:
                    return
            time.sleep(0.05)
        raise AssertionError(f"the gateway did not start:\n{self.log()}")

    def stop(self) -> int:
        """End it as an init system would; returns its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
        status = self.process.wait()
        self.redis.close()
        return status


Starter = Callable[..., Gateway]


@pytest.fixture(scope="session")
def start_gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Starter]:
    """Starts gateways; those that a test has not stopped are stopped after the last one."""
    started: list[Gateway] = []

    def start(redis: str, workers: int, origin: str | None = None, *, background: int = 0) -> Gateway:
        folder = tmp_path_factory.mktemp("gateway")
        (folder / "files").mkdir()
        config = folder / "gateway.yaml"
        text = SETTINGS.format(
            management=MANAGEMENT,
            origin=origin or f'{{url: "file://{folder}/files"}}',
            redis=redis,
            secret=SECRET,
        )
        config.write_text(text, encoding="utf-8")
        command = [sys.executable, "-m", "gateway", "serve", "--config", str(config), "--workers", str(workers)]
        log_file = folder / "log"
        with log_file.open("wb") as log:
            environment = {**os.environ, "PYTHONPATH": str(ROOT)}
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
        key = load_key(kid="2026-11", alg="HS256", use="sign", secret=SECRET)
        assert isinstance(key, SigningKey)
        gateway = Gateway(process, log_file, folder / "files", Redis.from_url(redis, decode_responses=True), key)
        started.append(gateway)
        gateway.wait_ready(workers + background)
        return gateway

    yield start
    for gateway in started:
        gateway.stop()


@pytest.fixture(scope="session")
def gateway(start_gateway: Starter, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """The one gateway that most of these tests share: each has links of its own. So its Redis is nobody else's."""
    with EmbeddedRedis(tmp_path_factory.mktemp("redis")) as redis:
        running = start_gateway(redis, WORKERS)
        yield running
        running.stop()
