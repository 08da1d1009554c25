"""The listener for ops: what is open, what asks for the token, and that every metric is explained."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from pydantic import SecretStr
from yarl import URL

from gateway.errors import SettingsError
from gateway.services.faults import describe
from gateway.settings_sections import ManagementSettings, UserSettings
from gateway.web.api.users import User, users_of
from gateway.web.listener import close_all, open_sockets, tls_context
from gateway.web.management import build_management
from gateway.web.metrics import FOLDER_VARIABLE, REGISTRY, SLOT_VARIABLE, SupervisorMetrics, metrics_folder
from gateway.web.status import Report, WorkerStatus, WorkerView

ROOT = Path(__file__).parents[2]
TOKEN = "correct horse – ąę"
READY = WorkerView(slot=0, pid=41, starts=1, report=Report(serving=True, redis_ok=True), age=0.2)
GOOD = {"Authorization": f"Bearer {TOKEN}"}


class Supervised:
    def __init__(self, *views: WorkerView) -> None:
        self._views = views

    def views(self) -> Sequence[WorkerView]:
        return self._views

    def exposition(self) -> bytes:
        return b"gateway_x 1\n"


def client(*views: WorkerView, token: str | None = TOKEN) -> TestClient[web.Request, web.Application]:
    users = (User("token", "ops", token),) if token else ()
    return TestClient(TestServer(build_management(Supervised(*views), users)))


async def test_how_much_of_the_token_was_right_is_not_to_be_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def compare(given: bytes, right: bytes) -> bool:
        compared.append((given, right))
        return given == right

    monkeypatch.setattr("hmac.compare_digest", compare)
    async with client(READY) as session:
        for given, status in ((TOKEN, 200), (TOKEN[:-1], 401)):
            async with session.get("/metrics", headers={"Authorization": f"Bearer {given}"}) as response:
                assert response.status == status
    assert compared == [(TOKEN.encode(), TOKEN.encode()), (TOKEN[:-1].encode(), TOKEN.encode())]


async def test_everybody_in_the_settings_is_let_in_and_nobody_else() -> None:
    anna = UserSettings(name="anna", token=SecretStr("annas own token"), role="read-only")
    management = ManagementSettings(token=SecretStr(TOKEN), users=(anna,))
    users = users_of(management)
    assert [(user.name, user.role) for user in users] == [("token", "ops"), ("anna", "read-only")]
    assert "own token" not in repr(users)
    async with TestClient(TestServer(build_management(Supervised(READY), users))) as session:
        for token, status in ((TOKEN, 200), ("annas own token", 200), ("annas", 401), ("", 401)):
            for path in ("/metrics", "/api/workers", "/%61pi/workers"):
                answer = await session.get(URL(path, encoded=True), headers={"Authorization": f"Bearer {token}"})
                assert (path, token, answer.status) == (path, token, status)


async def test_what_the_api_refuses_is_a_problem_document() -> None:
    async with client(READY) as session:
        answer = await session.get("/api/workers")
        assert answer.headers["Content-Type"].startswith("application/problem+json")
        assert (await answer.json())["reason"] == "token.wrong"


@pytest.mark.parametrize("path", ["/metrics", "/api/workers", "/api/unknown"])
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": TOKEN},
        {"Authorization": "Bearer \xff\xfe"},
    ],
)
async def test_without_the_token_401(path: str, headers: dict[str, str]) -> None:
    async with client(READY) as session:
        answer = await session.get(path, headers=headers)
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize("token", [None, ""])
@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer "}, {"Authorization": "Bearer None"}])
async def test_with_no_token_configured_403_for_all(token: str | None, headers: dict[str, str]) -> None:
    async with client(READY, token=token) as session:
        for path in ("/metrics", "/api/workers"):
            answer = await session.get(path, headers=headers)
            assert answer.status == 403
            assert "management.token" in await answer.text()


async def test_with_the_token() -> None:
    async with client(READY) as session:
        metrics = await session.get("/metrics", headers=GOOD)
        assert (metrics.status, await metrics.text()) == (200, "gateway_x 1\n")
        assert metrics.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        workers = await session.get("/api/workers", headers={"Authorization": f"bearer {TOKEN}"})
        assert (await workers.json())["workers"][0]["redis_ok"] is True
        assert (await session.get("/api/unknown", headers=GOOD)).status == 404


async def test_open_addresses() -> None:
    async with client(READY) as session:
        assert (await session.get("/healthz")).status == 200
        assert (await session.get("/readyz")).status == 200
        page = await session.get("/")
        assert (page.headers["X-Content-Type-Options"], page.headers["Cache-Control"]) == ("nosniff", "no-store")
        assert "1 of 1 workers ready" in await page.text()
        assert page.headers["Content-Security-Policy"].startswith("default-src 'none'")


async def test_page_escapes_what_workers_say() -> None:
    hostile = replace(READY, report=Report(serving=True, missing=("<script>alert(1)</script>",)))
    async with client(hostile) as session:
        assert "<script" not in await (await session.get("/")).text()


@pytest.mark.parametrize(
    ("view", "missing"),
    [
        (replace(READY, pid=None), ["not running"]),
        (replace(READY, report=None), ["starting"]),
        (replace(READY, report=Report(missing=("redis: refused",))), ["starting"]),
        (replace(READY, report=Report(serving=True, missing=("redis: refused",))), ["redis: refused"]),
        (replace(READY, report=Report(serving=True, draining=True)), ["draining"]),
        (replace(READY, report=Report(serving=False, draining=True)), ["draining"]),
        (replace(READY, age=7.2), ["silent for 7 s"]),
    ],
)
async def test_readyz_says_what_is_missing(view: WorkerView, missing: list[str]) -> None:
    async with client(view) as session:
        answer = await session.get("/readyz")
        assert answer.status == 503
        assert (await answer.json())["workers"] == [{"slot": 0, "ready": False, "missing": missing}]
    async with client(view, replace(READY, slot=1)) as session:
        assert (await session.get("/readyz")).status == 200


async def test_a_frozen_gateway_is_ready_and_says_that_it_is_frozen() -> None:
    frozen = replace(READY, report=Report(serving=True, frozen="2026-11-21T09:30:00.000Z"))
    async with client(READY, frozen) as session:
        answer = await session.get("/readyz")
        assert (answer.status, (await answer.json())["frozen"]) == (200, "2026-11-21T09:30:00.000Z")
        assert "Frozen since 2026-11-21T09:30:00.000Z" in await (await session.get("/")).text()
    async with client(READY) as session:
        assert (await (await session.get("/readyz")).json())["frozen"] is None
        assert "Frozen" not in await (await session.get("/")).text()


async def test_no_workers_is_not_ready() -> None:
    async with client() as session:
        assert (await session.get("/readyz")).status == 503


async def test_report_survives_the_channel() -> None:
    status = WorkerStatus(missing={"b", "a"}, redis_ok=False, downloads=3, serving=True, loop_lag=0.0123)
    report = status.report()
    assert Report.from_line(report.to_line()) == report
    assert report.missing == ("a", "b")


@pytest.mark.parametrize(
    "line", [b"", b"x\n", b"[]\n", b"3\n", b'{"a":1}\n', b'{"missing":[],"a":1}\n', b'{"missing":1}\n']
)
def test_what_is_no_report_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"report|Expecting value"):
        Report.from_line(line)


def test_every_metric_is_documented() -> None:
    text = (ROOT / "docs" / "metrics.md").read_text()
    with metrics_folder() as folder:
        own = SupervisorMetrics(folder).registry
        metrics = [*REGISTRY.collect(), *own.collect()]
    names = {metric.name + ("_total" if metric.type == "counter" else "") for metric in metrics}
    assert names
    assert {name for name in names if f"| `{name}" not in text} == set()
    documented = {line.split("`")[1].partition("{")[0] for line in text.splitlines() if line.startswith("| `gateway_")}
    assert documented == names


ONE_WORKER = """
from gateway.web import metrics
metrics.BYTES_DELIVERED.inc(10); metrics.INFLIGHT.set(2); metrics.REDIS_UP.set({redis})
metrics.STAGE_SECONDS.labels("verify").observe(0.001)
import os; os.kill(os.getpid(), 9)
"""


def work(folder: str, slot: int, redis: int = 1) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), FOLDER_VARIABLE: folder, SLOT_VARIABLE: str(slot)}
    subprocess.run([sys.executable, "-c", ONE_WORKER.format(redis=redis)], env=environment, check=False, timeout=20)


def test_metrics_add_up_over_workers_and_their_successors() -> None:
    with metrics_folder() as folder:
        metrics = SupervisorMetrics(folder)
        work(folder, 0)
        work(folder, 1, redis=0)
        text = metrics.exposition().decode()
        assert "gateway_bytes_delivered_total 20.0" in text
        assert "gateway_inflight 4.0" in text
        assert "gateway_redis_up 0.0" in text
        metrics.worker_gone(1)
        assert "gateway_inflight 2.0" in metrics.exposition().decode()
        assert "gateway_redis_up 1.0" in metrics.exposition().decode()
        work(folder, 1)
        text = metrics.exposition().decode()
        assert "gateway_bytes_delivered_total 30.0" in text
        assert 'gateway_stage_seconds_count{stage="verify"} 3.0' in text
        assert text.count("# TYPE gateway_worker_restarts_total") == 1
        # A worker that dies again and again leaves no more files.
        assert {path.name.rpartition("_")[2] for path in Path(folder).iterdir()} == {"0.db", "1.db"}
    assert not Path(folder).exists()


def test_port_in_use_is_one_clear_line() -> None:
    sockets = open_sockets("127.0.0.1", 0)
    port = sockets[0].getsockname()[1]
    with pytest.raises(SettingsError, match=rf"^cannot listen on 127\.0\.0\.1:{port}: another program listens there"):
        open_sockets("127.0.0.1", port)
    close_all(sockets)
    close_all(open_sockets("127.0.0.1", port))


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
def test_any_ipv6_address_takes_ipv4_too() -> None:
    sockets = open_sockets("::", 0)
    port = sockets[0].getsockname()[1]
    with socket.create_connection(("127.0.0.1", port), 5), socket.create_connection(("::1", port), 5):
        close_all(sockets)


def test_tls_files_that_are_missing_or_wrong(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"tls\.certificate: cannot read"):
        tls_context(tmp_path / "none.pem", tmp_path / "none.key")
    junk = tmp_path / "junk.pem"
    junk.write_text("junk")
    with pytest.raises(SettingsError, match="not a certificate chain and its key"):
        tls_context(junk, junk)


def test_fault_is_described_without_its_text() -> None:
    try:
        raise ValueError("SECRET")
    except ValueError as error:
        text = describe(error)
    assert text.startswith("ValueError at ")
    assert "SECRET" not in text
    assert describe(SettingsError("safe by contract")) == "safe by contract"
