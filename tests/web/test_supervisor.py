"""The supervisor and its workers as real processes on real sockets."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import pytest

STANDIN = Path(__file__).with_name("standin.py")
ROOT = Path(__file__).parents[2]
PATIENCE = 40.0
WITHIN = 4.0  # two seconds on a machine with nothing else to do
SECRET = "SECRETSECRETSECRET"


@dataclass
class Gateway:
    """A running supervisor; `log` collects what it and its workers print."""

    process: subprocess.Popen[str]
    log: list[str] = field(default_factory=list)
    port: int = 0
    management: int = 0

    def text(self) -> str:
        return "".join(self.log)

    def get(self, path: str, management: bool = False, headers: dict[str, str] | None = None) -> tuple[int, str]:
        port = self.management if management else self.port
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
            connection.request("GET", path, headers=headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    def workers(self) -> list[dict[str, object]]:
        _, text = self.get("/api/workers", management=True, headers={"Authorization": "Bearer management-token"})
        workers: list[dict[str, object]] = json.loads(text)["workers"]
        return workers

    def pids(self) -> set[int]:
        return {int(str(worker["pid"])) for worker in self.workers() if worker["ready"]}

    def leave(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)


T = TypeVar("T")


def until(ask: Callable[[], T | None], patience: float = PATIENCE) -> T:
    end = time.monotonic() + patience
    while time.monotonic() < end:
        with suppress(OSError, http.client.HTTPException):
            if answer := ask():
                return answer
        time.sleep(0.05)
    raise AssertionError("it did not come to be in time")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def refused(port: int) -> bool:
    with closing(socket.socket()) as sock:
        return sock.connect_ex(("127.0.0.1", port)) != 0


@contextmanager
def running(workers: int = 1, drain: float = 5.0, wait: bool = True, **environment: str) -> Iterator[Gateway]:
    process = subprocess.Popen(
        [sys.executable, str(STANDIN), "gateway", str(workers), str(drain)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )
    gateway = Gateway(process)
    output = process.stdout
    assert output is not None
    reading = threading.Thread(target=lambda: gateway.log.extend(output), daemon=True)
    reading.start()
    try:
        if wait:
            line = r"listening on http://127\.0\.0\.1:(\d+), management on http://127\.0\.0\.1:(\d+)"
            found = until(lambda: re.search(line, gateway.text()))
            gateway.port, gateway.management = int(found[1]), int(found[2])
            until(lambda: len(gateway.pids()) == workers)
        yield gateway
    finally:
        process.kill()
        process.wait()
        reading.join(PATIENCE)
        output.close()


def test_killed_worker_is_replaced_while_the_other_serves() -> None:
    with running(workers=2) as gateway:
        before = gateway.pids()
        answers: list[int] = []
        failures: list[Exception] = []
        done = threading.Event()

        def load() -> None:
            while not done.is_set():
                try:
                    answers.append(int(gateway.get("/pid")[1]))
                except (OSError, http.client.HTTPException) as error:
                    failures.append(error)

        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        until(lambda: len(answers) > 20)
        victim = answers[-1]
        os.kill(victim, signal.SIGKILL)
        after = until(lambda: pids if len(pids := gateway.pids()) == 2 and victim not in pids else None)
        served = len(answers)
        until(lambda: len(answers) > served + 20)
        done.set()
        for thread in threads:
            thread.join()
        assert after & before == before - {victim}
        # A killed worker takes its own connections with it, at most one for each client here.
        assert len(failures) <= len(threads)
        _, metrics = gateway.get("/metrics", True, {"Authorization": "Bearer management-token"})
        assert "gateway_worker_restarts_total 1.0" in metrics
        assert "killed by SIGKILL" in gateway.text()
        assert gateway.leave() == 0


def test_sigterm_lets_a_running_response_finish_and_turns_new_requests_away() -> None:
    with running() as gateway, closing(http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=10)) as idle:
        idle.request("GET", "/pid")
        assert idle.getresponse().read()
        with closing(http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=10)) as slow:
            slow.request("GET", "/slow?each=0.1")
            answer = slow.getresponse()
            gateway.process.send_signal(signal.SIGTERM)
            until(lambda: gateway.get("/readyz", management=True)[0] == 503)
            until(lambda: refused(gateway.port))
            idle.request("GET", "/pid")
            turned_away = idle.getresponse()
            assert (turned_away.status, turned_away.headers["Connection"]) == (503, "close")
            assert answer.read() == b"x" * 20
        assert gateway.process.wait(PATIENCE) == 0
        until(lambda: gateway.text().count("settled, 0 still") == 1)
        assert refused(gateway.port)
        assert refused(gateway.management)


def test_drain_time_bounds_a_response_that_goes_on() -> None:
    with running(drain=0.5) as gateway, closing(http.client.HTTPConnection("127.0.0.1", gateway.port)) as slow:
        slow.request("GET", "/slow?each=5")
        answer = slow.getresponse()
        began = time.monotonic()
        assert gateway.leave() == 0
        assert time.monotonic() - began < 20
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            answer.read()
        until(lambda: "settled, 0 still" in gateway.text())


def test_second_sigterm_does_not_wait() -> None:
    with running(drain=60) as gateway, closing(http.client.HTTPConnection("127.0.0.1", gateway.port)) as slow:
        slow.request("GET", "/slow?each=5")
        slow.getresponse()
        gateway.process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert gateway.process.poll() is None
        began = time.monotonic()
        assert gateway.leave() == 0
        assert time.monotonic() - began < 20
        until(lambda: "settled, 0 still" in gateway.text())


def test_killed_supervisor_takes_its_workers_with_it() -> None:
    with running(workers=2) as gateway:
        pids = gateway.pids()
        folder = re.search(r"PROMETHEUS_MULTIPROC_DIR=([^\0]+)", Path(f"/proc/{min(pids)}/environ").read_text())
        gateway.process.kill()
        gateway.process.wait()
        until(lambda: not any(alive(pid) for pid in pids), patience=WITHIN)
        assert refused(gateway.port)
        assert folder is not None
        assert not Path(folder[1]).exists()


def test_killed_supervisor_takes_a_busy_worker_with_it() -> None:
    with running(drain=60) as gateway, closing(http.client.HTTPConnection("127.0.0.1", gateway.port)) as slow:
        slow.request("GET", "/slow?each=5")
        slow.getresponse()
        pids = gateway.pids()
        gateway.process.kill()
        gateway.process.wait()
        until(lambda: not any(alive(pid) for pid in pids), patience=WITHIN)


def test_worker_that_cannot_start_ends_the_gateway_with_its_reason() -> None:
    with running(wait=False, STANDIN_REFUSES="keys: has no key; make one") as gateway:
        assert gateway.process.wait(PATIENCE) == 1
        until(lambda: "Error: keys: has no key; make one\n" in gateway.text())
        assert "Traceback" not in gateway.text()
        assert "listening on" not in gateway.text()


def test_readiness_follows_what_the_application_misses(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    with running(STANDIN_MISSING=str(missing)) as gateway:
        assert gateway.get("/readyz", management=True)[0] == 200
        missing.touch()
        until(lambda: gateway.get("/readyz", management=True)[0] == 503)
        status, text = gateway.get("/readyz", management=True)
        assert (status, json.loads(text)["workers"][0]["missing"]) == (503, ["redis: refused"])
        assert gateway.get("/healthz", management=True)[0] == 200
        until(lambda: "worker 0 is not ready: redis: refused" in gateway.text())
        missing.unlink()
        until(lambda: gateway.get("/readyz", management=True)[0] == 200)
        until(lambda: "worker 0 is ready again" in gateway.text())


def test_stopped_worker_is_not_ready() -> None:
    with running() as gateway:
        (pid,) = gateway.pids()
        os.kill(pid, signal.SIGSTOP)
        try:
            _, text = until(lambda: found if (found := gateway.get("/readyz", True))[0] == 503 else None)
            assert "silent for" in json.loads(text)["workers"][0]["missing"][0]
        finally:
            os.kill(pid, signal.SIGCONT)


def test_sighup_reaches_the_application_and_ends_nobody() -> None:
    with running() as gateway:
        before = gateway.pids()
        assert gateway.get("/reloads") == (200, "False")
        gateway.process.send_signal(signal.SIGHUP)
        until(lambda: gateway.get("/reloads") == (200, "True"))
        assert gateway.pids() == before


def test_no_secret_of_a_request_reaches_the_log() -> None:
    hostile = (
        f"GET /d/{SECRET}{'a' * 10_000} HTTP/1.1\r\nHost: a\r\n\r\n",
        f"GET /d/{SECRET} HTTP/9.x\r\nHost: a\r\n\r\n",
        f"GET /d/{SECRET} HTTP/1.1\r\nHost: a\r\n{SECRET}\0: b\r\n\r\n",
        f"GET /d/a HTTP/1.1\r\nHost: a\r\nCookie: {SECRET}{'a' * 10_000}\r\n\r\n",
        f"{SECRET} / HTTP/1.1\r\n\r\n",
        f"GET http://[{SECRET}/ HTTP/1.1\r\nHost: a\r\n\r\n",
        f"GET /d/{SECRET} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: {SECRET}\r\nContent-Length: x\r\n\r\n",
        f"GET /broken/{SECRET} HTTP/1.1\r\nHost: a\r\n\r\n",
        f"GET /pid?{SECRET} HTTP/1.1\r\nHost: a\r\n\r\n",
    )
    with running() as gateway:
        statuses = []
        for request in hostile:
            with closing(socket.create_connection(("127.0.0.1", gateway.port), timeout=5)) as sock:
                sock.sendall(request.encode())
                answer = sock.recv(65536).decode()
                statuses.append(int(answer.split()[1]))
                assert SECRET not in answer
        assert statuses[0] == statuses[1] == 400
        assert statuses[-2:] == [500, 200]
        until(lambda: "a request failed: ValueError at" in gateway.text())
        until(lambda: "a request that is not HTTP, or too long: LineTooLong" in gateway.text())
        assert gateway.leave() == 0
        assert SECRET not in gateway.text()
