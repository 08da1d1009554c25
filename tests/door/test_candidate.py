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
from gateway.services import observing
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


CHOOSY = """version: 1
plans: {standard: {downloads: 5}}
default_plan: standard
rules: [{name: slow, when: {method: [GET, HEAD]}, then: {limit: {rate: 5MB/s}}}]
otherwise: allow
"""


async def test_every_word_of_rules_is_counted_once_for_each_file(
    open_gateway: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    candidate = tmp_path / "new.yaml"
    candidate.write_text(CHOOSY)
    asked: list[object] = []
    really = observing.opinion
    monkeypatch.setattr(observing, "opinion", lambda *told, **more: asked.append(told) or really(*told, **more))
    async with open_gateway(f"rules_candidate: {candidate}\n") as gateway:
        names = [f"{n}.bin" for n in range(5)]
        for name in names:
            gateway.file(name, 100)
        await gateway.rules(CHOOSY.replace("{standard:", "{gold: {downloads: 5}, standard:"))
        token = gateway.token(*names)
        said = (("live", "slow", "limit"), ("live", "otherwise", "allow"), ("candidate", "slow", "limit"))
        plan, account = ("candidate", "(plan)", "deny"), ("candidate", "(token)", "require_account")
        live = ("live", "(token)", "require_account")

        async def counts(words: tuple[tuple[str, str, str], ...], path: str, token: str, method: str = "GET") -> None:
            before = [counted(*word) for word in words]
            asked.clear()
            async with gateway.client.request(method, f"{gateway.base}/{path}/{token}") as answer:
                await answer.read()
            await gateway.settled()
            found.append([counted(*word) - known for word, known in zip(words, before, strict=True)])

        found: list[list[float]] = []
        await counts(said, "d", token)
        await counts(said, "d", token, "HEAD")
        await counts(said, "l", token)
        assert len(asked) == 1, "of a page the candidate is asked for the chosen file alone"
        await counts(said, "z", token, "HEAD")
        await counts(said, "z", token)
        assert found == [[1, 1, 1], [1, 1, 1], [1, 1, 1], [5, 5, 5], [5, 5, 5]]
        found.clear()
        await counts((plan,), "d", gateway.token("0.bin", plan="gold"))
        await counts((live, account), "d", gateway.token("0.bin", account=True))
        assert found == [[1], [1, 1]]
