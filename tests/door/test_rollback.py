"""Through the door: each request that new rules decide is counted with what the proven ones would have done of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from gateway.backends.redis_verdicts import RedisVerdicts
from gateway.backends.rules_file import read_rules
from gateway.policy.model import Limits
from gateway.policy.rollback import Tally, Watch
from gateway.services import rollback

Opener = Callable[..., AbstractAsyncContextManager[Any]]
NEW = (
    "version: 1\nplans: {one: {networks: 1}}\ndefault_plan: one\n"
    "rules: [{name: c, when: {file: c.bin}, then: deny}]\notherwise: allow\n"
)
SIZE = 200_000


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollback, "EVERY", 0.02)


async def status(gateway: Any, token: str, path: str = "d", address: str = "203.0.113.7") -> int:
    async with gateway.client.get(f"{gateway.base}/{path}/{token}", headers={"X-Forwarded-For": address}) as answer:
        await answer.read()
        return answer.status


async def test_each_request_is_judged_by_both(open_gateway: Opener) -> None:
    async with open_gateway("rollback: {within: 1m}\n") as gateway:
        gateway.file("a.bin", SIZE)
        gateway.file("c.bin", SIZE)
        book = RedisVerdicts(gateway.wire, 60)
        for _ in range(100):
            if await status(gateway, gateway.token("a.bin")) != 503:
                break
            await asyncio.sleep(0.05)
        old = read_rules(gateway.rules_file, frozenset()).version
        await gateway.rules(NEW)
        new = read_rules(gateway.rules_file, frozenset()).version
        for _ in range(100):
            if await book.watched(new) is not None:
                break
            await asyncio.sleep(0.02)
        assert (await book.watched(new)).before == old

        async def counted() -> Tally:
            await asyncio.sleep(0.1)
            return (await book.count(Watch(new, "?", 0), Tally()))[1]

        total = Tally()
        of_plan, of_token = gateway.token("a.bin"), gateway.token("a.bin", limits=Limits(networks=1))
        over = gateway.token("a.bin", expires_at=int(time.time()) - 5)
        for asked, answer, found in (
            ((of_plan,), 200, Tally(1)),
            ((of_plan, "d", "198.51.100.7"), 403, Tally(1, 1, 0, 1)),
            ((of_token,), 200, Tally(1)),
            ((of_token, "d", "198.51.100.7"), 403, Tally(1, 1, 1, 0)),
            ((over,), 410, Tally(1, 1, 1, 0)),
            ((over,), 410, Tally()),
            ((over, "l"), 410, Tally()),
            ((gateway.token("c.bin"),), 403, Tally(1, 1, 0, 1)),
            ((gateway.token("c.bin"), "l"), 403, Tally(1, 1, 0, 1)),
            ((gateway.token("c.bin", "a.bin"), "l"), 200, Tally(1)),
            ((gateway.token("nothing.bin"),), 404, Tally()),
        ):
            assert await status(gateway, *asked) == answer, asked
            total += found
            assert await counted() == total, asked
