"""Through the door: a candidate file beside the rules in force says what it would do, and does nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from gateway.backends.rules_file import read_rules
from gateway.policy import verdicts
from gateway.web.metrics import RULE_VERDICTS

Opener = Callable[..., AbstractAsyncContextManager[Any]]
EMBARGO = "version: 1\nrules: [{name: embargo, when: {file: a.bin}, then: deny}]\notherwise: allow\n"


async def status(gateway: Any, token: str, path: str = "d") -> int:
    for _ in range(100):
        async with gateway.client.get(f"{gateway.base}/{path}/{token}") as answer:
            await answer.read()
            if answer.status != 503:
                break
        await asyncio.sleep(0.05)
    return answer.status


async def told_of(gateway: Any, kind: str) -> list[dict[str, str]]:
    return [event for event in await gateway.events() if event["type"] == kind]


async def until_event(gateway: Any, kind: str, reason: str) -> dict[str, str]:
    for _ in range(150):
        found = [event for event in await told_of(gateway, kind) if event["reason"].startswith(reason)]
        if found:
            return found[-1]
        await asyncio.sleep(0.02)
    raise AssertionError(f"no {kind} of {reason}")


def counted(rules: str, rule: str, verdict: str) -> float:
    return RULE_VERDICTS.labels(rules, rule, verdict)._value.get()


def said(event: dict[str, str]) -> tuple[str | None, str | None]:
    return event.get("candidate.outcome"), event.get("candidate.rule")


async def test_it_is_recorded_beside_each_decision_and_touches_none(open_gateway: Opener, tmp_path: Path) -> None:
    candidate = tmp_path / "new.yaml"
    async with open_gateway(f"rules_candidate: {candidate}\n") as gateway:
        gateway.file("a.bin", 100)
        gateway.file("b.bin", 100)
        token = gateway.token("a.bin")
        assert await status(gateway, token) == 200
        assert said((await told_of(gateway, "download.allowed"))[-1]) == (None, None), "no such file is no candidate"

        candidate.write_text(EMBARGO)
        reloaded = await until_event(gateway, "rules.reloaded", "rules candidate")
        version = read_rules(candidate, frozenset()).version
        assert reloaded["candidate.version"] == version
        before = counted("candidate", "embargo", "deny")
        live = counted("live", "otherwise", "allow")
        assert await status(gateway, token) == 200
        allowed = (await told_of(gateway, "download.allowed"))[-1]
        assert (*said(allowed), allowed["candidate.version"]) == ("deny", "embargo", version)
        assert await status(gateway, gateway.token("b.bin", "a.bin"), "l") == 200
        assert said((await told_of(gateway, "link.opened"))[-1]) == ("allow", "otherwise"), (
            "of the first file it allows"
        )
        assert await status(gateway, gateway.token("a.bin", expires_at=1)) == 410
        assert said((await told_of(gateway, "download.denied"))[-1]) == ("deny", "embargo")
        assert counted("candidate", "embargo", "deny") == before + 2
        assert counted("live", "otherwise", "allow") == live + 3

        candidate.write_text("version: 1\nrules: [{name: embargo, then: denny}]\n")
        assert "otherwise: is missing" in (await until_event(gateway, "rules.rejected", str(candidate)))["reason"]
        assert await status(gateway, token) == 200
        assert said((await told_of(gateway, "download.allowed"))[-1]) == (None, None), "a wrong one is none"


async def test_a_broken_one_keeps_nobody_from_starting_and_a_fault_in_it_harms_nobody(
    open_gateway: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    candidate = tmp_path / "new.yaml"
    candidate.write_text("no rules at all\n")
    async with open_gateway(f"rules_candidate: {candidate}\n") as gateway:
        gateway.file("a.bin", 100)
        token = gateway.token("a.bin")
        assert await status(gateway, token) == 200
        assert "the rules candidate is not used, for its file is wrong" in caplog.text
        await until_event(gateway, "rules.rejected", str(candidate))
        candidate.write_text(EMBARGO)
        await until_event(gateway, "rules.reloaded", "rules candidate")

        def broken(*_: object, **__: object) -> None:
            raise RuntimeError("of a condition")

        monkeypatch.setattr(verdicts, "facts_of", broken)
        before = counted("candidate", "", "fault")
        assert [await status(gateway, token) for _ in range(2)] == [200, 200]
        assert counted("candidate", "", "fault") == before + 2
        assert caplog.text.count("cannot be asked") == 1
