"""Doctor asks the gateway of this machine, too, whether all downloads are stopped."""

from __future__ import annotations

import pytest
from aiohttp import web

from gateway.backends.redis_client import Wire
from gateway.backends.redis_control import RedisControl
from gateway.cli import doctor_freeze
from gateway.policy.checkup import Line
from gateway.policy.standing import Command
from gateway.settings_values import Listen

SINCE = "2026-11-21T20:15:43.000Z"
WORKERS = [{"slot": 0, "ready": True, "missing": []}]


async def said(wire: Wire, told: object) -> Line:
    async def readyz(_: web.Request) -> web.Response:
        return web.json_response(told, status=503)

    app = web.Application()
    app.router.add_get("/readyz", readyz)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        lines: list[Line] = []
        await doctor_freeze.check(wire, Listen("127.0.0.1", runner.addresses[0][1]), lines.append)
        (line,) = lines
        return line
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"ready": False, "frozen": SINCE, "workers": WORKERS}, f"refuses every download since {SINCE}"),
        ({"ready": False, "frozen": None, "workers": WORKERS}, "are allowed"),
        ({"ready": False, "frozen": None, "workers": []}, "are allowed"),
        ({"another": "program"}, "are allowed"),
        (["another program"], "are allowed"),
    ],
)
async def test_the_workers_word_counts_where_redis_knows_of_nothing(wire: Wire, told: object, words: str) -> None:
    assert words in (await said(wire, told)).text


async def test_a_freeze_that_the_workers_do_not_know_is_told(wire: Wire) -> None:
    await RedisControl(wire).append(Command("freeze", 60))
    assert "does not say so" in (await said(wire, {"frozen": None, "workers": WORKERS})).text
    told = (await said(wire, {"frozen": None, "workers": []})).text
    assert told.startswith("every download is refused since 1970-01-01T00:01:00Z")


async def test_nobody_there_is_nobodys_word(wire: Wire) -> None:
    lines: list[Line] = []
    await doctor_freeze.check(wire, Listen("127.0.0.1", 1), lines.append)
    assert [(line.state, line.text) for line in lines] == [("ok", "downloads are allowed")]
