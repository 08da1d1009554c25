from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable

from gateway.errors import OriginDown, SettingsError
from gateway.policy.checkup import Check, Line
from gateway.services.checkup import Report, run

Checks = dict[Check, Callable[[Report], Awaitable[None]]]


async def test_lines_come_as_they_are_found_and_not_in_turn() -> None:
    async def slow(report: Report) -> None:
        report(Line("ok", "redis", "first"))
        await asyncio.sleep(0.2)
        report(Line("ok", "redis", "last"))

    async def quick(report: Report) -> None:
        await asyncio.sleep(0.05)
        report(Line("ok", "origin", "between"))

    checks: Checks = {"redis": slow, "origin": quick}
    assert [line.text async for line in run(checks)] == ["first", "between", "last"]


async def test_what_hangs_or_breaks_is_a_line() -> None:
    async def hang(report: Report) -> None:
        report(Line("ok", "redis", "reached"))
        await asyncio.sleep(60)

    async def refuse(report: Report) -> None:
        raise SettingsError("one\ntwo")

    async def fail(report: Report) -> None:
        raise OriginDown("the store answered 503")

    async def crash(report: Report) -> None:
        raise KeyError("X-Amz-Signature=secret")

    checks: Checks = {"redis": hang, "rules": refuse, "origin": fail, "geo": crash}
    lines = {(line.state, line.check, line.text.partition(" at ")[0]) async for line in run(checks, 0.1)}
    assert lines == {
        ("ok", "redis", "reached"),
        ("FAIL", "redis", "no answer within 0.1 s; is its address right, is it up?"),
        ("FAIL", "rules", "one"),
        ("FAIL", "rules", "two"),
        ("FAIL", "origin", "the store answered 503"),
        ("FAIL", "geo", "could not be checked: KeyError"),
    }


def test_a_thread_that_hangs_holds_up_nobody() -> None:
    forever = threading.Event()

    async def hang(report: Report) -> None:
        await asyncio.to_thread(forever.wait)

    async def work(report: Report) -> None:
        report(Line("ok", "origin", str(await asyncio.to_thread(sum, [1, 2]))))

    async def all_lines() -> list[Line]:
        return [line async for line in run({"geo": hang, "origin": work}, 0.1)]

    began = time.monotonic()
    lines = asyncio.run(all_lines())
    assert time.monotonic() - began < 2
    assert [(line.state, line.text[:9]) for line in lines] == [("ok", "3"), ("FAIL", "no answer")]
    forever.set()
