"""What a worker says of its files reaches ops: all of it behind the token; the open page quotes none of them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from aiohttp.test_utils import TestClient, TestServer

from gateway.web.api.users import User
from gateway.web.management import build_management
from gateway.web.status import InForce, Report, WorkerStatus, WorkerView

WRONG = "rules.yaml:3: then: 'a word of the file' is no action"
TOKEN = {"Authorization": "Bearer token"}


class Supervised:
    def __init__(self, *statuses: WorkerStatus) -> None:
        reports = [Report.from_line(status.report().to_line()) for status in statuses]
        self._views = [WorkerView(slot, 40 + slot, 1, report, 0.1) for slot, report in enumerate(reports)]

    def views(self) -> Sequence[WorkerView]:
        return self._views

    def exposition(self) -> bytes:
        return b""


def status(version: str, wrong: str = "") -> WorkerStatus:
    return WorkerStatus(serving=True, files={"rules": InForce(version, wrong), "geo databases": InForce("City <1>")})


async def test_files_in_force_behind_the_token_and_on_the_page() -> None:
    supervised = Supervised(status("aaa"), status("aaa"), status("aaa", WRONG), status("bbb"))
    async with TestClient(TestServer(build_management(supervised, [User("token", "ops", "token")]))) as session:
        workers = (await (await session.get("/api/workers", headers=TOKEN)).json())["workers"]
        assert workers[2]["files"]["rules"] == {"version": "aaa", "wrong": WRONG}
        assert workers[3]["files"]["rules"] == {"version": "bbb", "wrong": ""}
        assert all(worker["ready"] for worker in workers)
        page = await (await session.get("/")).text()
        assert "<td>rules<td>aaa<td>2<td>good" in page
        assert "<td>rules<td>aaa<td>1<td>wrong now" in page
        assert "<td>geo databases<td>City &lt;1&gt;<td>4<td>good" in page
        assert "a word of the file" not in page
        assert (await session.get("/readyz")).status == 200


def test_a_change_of_files_is_told_at_once() -> None:
    now = status("aaa")
    before = now.report()
    now.files["rules"] = InForce("aaa", WRONG)
    assert before.state != now.report().state


@pytest.mark.parametrize("line", [b'{"missing":[]}', b'{"missing":[],"files":{"a":{}}}', b'{"missing":[],"files":[]}'])
def test_no_report(line: bytes) -> None:
    with pytest.raises(ValueError, match="not a report"):
        Report.from_line(line)
