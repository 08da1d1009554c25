"""Plays one scenario at one door, and holds what it says against answers, ledger and events."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path

import pytest
from scenarios import tokens
from scenarios.client import Answer, Exchange
from scenarios.format import ACTIONS, Expect, Link, Scenario, Step, seconds
from scenarios.stage import ISSUER, SECRET, Opened, Stage

from gateway.policy.claims import write_claims
from gateway.policy.limits import read_limit
from gateway.policy.model import Claims, FileEntry, Limits
from gateway.policy.standing import Command, write_command

PATIENCE = 20.0
_PAUSE = 0.005
_SHORT = 16
"""Characters: what is shorter may stand in a log by chance."""
_SHOWN = 500
"""Characters of a page that an error shows: its end, since it begins with its style."""
_LITTLE = 8192
"""Bytes that a client takes in which stops reading."""
LOOK = {"User-Agent": "look/1"}
_REFUSED_FROM = 400
UNRECORDED = ("link.unknown", "method.not_allowed", "request.address", "internal")
"""Refusals that leave no event: they are of no link."""
BEFORE_CLAIMS = ("token.malformed", "token.signature", "token.claims", "token.not_yet")
"""Of tokens that say nothing, or nothing that may be believed: recorded so many times a second, to bound the noise."""
CLOSING = ("download.finished", "download.lost")
SAFE = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "X-Robots-Tag": "noindex, nofollow"}
NEVER = ("X-Accel-Redirect", "X-Gateway-Origin", "X-Gateway-File", "X-Gateway-Status", "x-amz-request-id", "Via")


@dataclass
class Held:
    """A link of this play: its claims and token."""

    claims: Claims
    token: str


@dataclass(repr=False)
class Player:
    """One scenario at one door."""

    stage: Stage
    door: Opened
    scenario: Scenario
    links: dict[str, Held] = field(default_factory=dict)
    held: dict[str, Exchange] = field(default_factory=dict)
    sent: list[str] = field(default_factory=list)
    etag: str = ""
    used: int = 0
    begin: str = "0"
    seen: str = "0"
    redis_runs: bool = True
    frozen: bool = False
    spoilt: bool = False
    broken: dict[Path, bytes] = field(default_factory=dict)

    async def play(self) -> None:
        """Raises AssertionError with the step that went otherwise."""
        scenario, front = self.scenario, self.stage.front
        for key, size in scenario.files.items():
            self.stage.put(key, size)
        for name, link in {"token": scenario.link, **scenario.links}.items():
            self.links[name] = made(link)
            self.sent.append(self.links[name].token)
        # A row that failed may have left something that is still being settled.
        await until(lambda: self.stage.leased() == 0, "a lease of an earlier row is still held")
        self.begin = self.seen = self.stage.last()
        # A settings' waiver is for a door that cannot keep a limit, so there it is not missed either.
        waived = scenario.settings.get("doors", {}).get(front.name, {}).get("waive", [])
        missing = [name for name in scenario.needs if name in front.unkept and name not in waived]
        try:
            for number, step in enumerate(scenario.steps, 1):
                try:
                    if missing and step.ask is not None:
                        await self._refused_for(step)
                        break
                    await self._step(step)
                except (AssertionError, TimeoutError, OSError, asyncio.IncompleteReadError) as error:
                    what = step.ask or step.do or f"read {step.read}"
                    raise AssertionError(f"step {number}, {what}: {type(error).__name__}: {error}") from error
        finally:
            for exchange in self.held.values():
                exchange.abort()
            await self._restore()
        await self._at_rest()

    async def _refused_for(self, step: Step) -> None:
        expect = Expect(status=403, reason="limit.unkept")
        await self._check(step, expect, [await self._ask(step)])

    async def _step(self, step: Step) -> None:
        if step.do is not None:
            await self._do(step.do)
            return
        expect = step.expected(self.stage.front)
        began = time.monotonic()
        if step.read is not None:
            exchange = self.held.pop(step.read)
            answers = [await exchange.read()]
            exchange.abort()
        elif step.at_once > 1:
            answers = list(await asyncio.gather(*(self._ask(step) for _ in range(step.at_once))))
        else:
            answers = [await self._ask(step)]
        if expect.within is not None:
            assert time.monotonic() - began <= expect.within, f"it took {time.monotonic() - began:.2f} s"
        await self._check(step, expect, answers)

    async def _ask(self, step: Step) -> Answer:
        headers = [
            (name, self._filled(each))
            for name, value in step.headers.items()
            for each in ([value] if isinstance(value, str) else value)
        ]
        if step.range is not None:
            headers.append(("Range", f"bytes={step.range}"))
        line = self._filled(step.ask or "")
        exchange = await Exchange.begin(
            self.door.base,
            line,
            headers,
            address=step.address,
            body=self._filled(step.body).encode(),
            buffer=_LITTLE if step.abort_after is not None or step.hold is not None else None,
        )
        if step.hold is not None:
            self.held[step.hold] = exchange
            return exchange.answer
        try:
            answer = await exchange.read(step.abort_after)
        finally:
            exchange.abort()
        return answer

    def _filled(self, text: str) -> str:
        def value(match: re.Match[str]) -> str:
            name, _, kind = match[1].partition(":")
            if name == "forged":
                self.sent.append(tokens.FORGED[kind](self.links["token"].token))
                return self.sent[-1]
            return self.etag if name == "etag" else self.links[name].token

        return re.sub(r"\{([a-z_]+(?::[a-z0-9-]+)?)\}", value, text)

    # What comes of it

    async def _check(self, step: Step, expect: Expect, answers: Sequence[Answer]) -> None:
        for answer in answers:
            self._check_answer(step, expect, answer)
        events = await self._new_events()
        expected = self._told(step, expect) * len(answers)
        types = [event["type"] for event in events]
        if not self.redis_runs or (expect.reason in BEFORE_CLAIMS and not types):
            expected = []
        wanted = sorted(expected) if len(answers) > 1 else expected
        assert (sorted(types) if len(answers) > 1 else types) == wanted, f"events {types}, not {expected}"
        for event in events:
            self._check_event(step, expect, event, answers)
        if events and len(answers) == 1 and step.read is None:
            told = answers[0].headers["X-Request-Id"]
            assert events[-1]["request.id"] == told, f"the event is of {events[-1]['request.id']}, the answer of {told}"
        self.used = self.used if expect.used is None else expect.used
        if self.redis_runs and not self.spoilt:
            used = sum(self.stage.used(one.claims.token_key, file.identity) for one, file in self._files())
            assert used == self.used, f"{used} downloads are charged, not {self.used}"

    def _check_answer(self, step: Step, expect: Expect, answer: Answer) -> None:
        headers = answer.headers
        what = f"{answer.status}, not {expect.status}: {dict(headers)} {answer.body[:300]!r}"
        assert answer.status == expect.status, what
        for name in NEVER:
            assert name not in headers, f"{name} went out to a client"
        for name, value in expect.headers.items():
            told = headers.get(name)
            if value is not None and value.startswith("~"):
                assert re.search(value[1:], told or ""), f"{name}: {told}"
            else:
                assert told == value, f"{name}: {told}"
        if "ETag" in headers:
            self.etag = headers["ETag"]
        if expect.status != 400:
            for name, value in SAFE.items():
                assert headers.getall(name, []) == [value], f"{name}: {headers.getall(name, [])}"
            assert len(headers.getall("X-Request-Id", [])) == 1, what
        if step.hold is not None:
            return
        if step.abort_after is None:
            assert answer.whole is not expect.cut, f"the body ended {'well' if answer.whole else 'early'}"
        self._check_body(step, expect, answer)

    def _check_body(self, step: Step, expect: Expect, answer: Answer) -> None:
        if (step.ask or "").startswith("HEAD "):
            assert answer.body == b""
            return
        if expect.reason is not None and "html" not in answer.headers.get("Content-Type", ""):
            assert answer.headers.get("Content-Type") == "application/problem+json", answer.headers
            problem = json.loads(answer.body)
            assert problem["reason"] == expect.reason, problem
            assert problem["status"] == expect.status, problem
            assert problem["request_id"] == answer.headers["X-Request-Id"]
        text = answer.body.decode("utf-8", "replace") if expect.contains or expect.lacks else ""
        for part in expect.contains:
            assert self._filled(part) in text, f"{part} is not in {text[-_SHOWN:]}"
        for part in expect.lacks:
            assert self._filled(part) not in text, f"{part} is in {text[-_SHOWN:]}"
        if expect.file is None:
            sends = expect.status in (200, 206) and not expect.contains and expect.reason is None
            assert not (sends and answer.body), "a body came of which the step says nothing"
            return
        data = self.stage.files[expect.file]
        if expect.parts:
            boundary = answer.headers["Content-Type"].partition("boundary=")[2].strip('"').encode()
            pieces = answer.body.split(b"--" + boundary)[1:-1]
            bodies = [piece.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n") for piece in pieces]
            assert bodies == [_part(data, part) for part in expect.parts]
            return
        wanted = _part(data, expect.part) if expect.part else data
        if step.abort_after is not None or expect.cut:
            assert wanted.startswith(answer.body)
            assert len(answer.body) < len(wanted) or expect.cut
        else:
            assert answer.body == wanted, f"{len(answer.body)} bytes, not the {len(wanted)} that belong there"

    def _told(self, step: Step, expect: Expect) -> list[str]:
        """The events that follow from the answer, where the step does not say which."""
        if expect.events is not None:
            return list(expect.events)
        method, _, target = (step.ask or "").partition(" ")
        if step.read is not None:
            return ["download.finished"]
        if expect.reason is not None:
            return [] if expect.reason in UNRECORDED else ["download.denied"]
        if expect.status >= _REFUSED_FROM or expect.status == 304 or method == "HEAD":
            return []
        if target.startswith("/l/"):
            return ["link.opened"]
        if expect.file is not None and not self.stage.files[expect.file]:
            return []
        if step.hold is not None and not self.stage.front.hands_over:
            return ["download.allowed"]
        return ["download.allowed", "download.finished"]

    def _check_event(self, step: Step, expect: Expect, event: dict[str, str], answers: Sequence[Answer]) -> None:
        front = self.stage.front
        method, _, target = (step.ask or "").partition(" ")
        # What counts nothing may be answered by the gateway behind the proxy.
        doors = (front.name,) if target.startswith("/d/") and method != "HEAD" else (front.name, "http")
        assert event["front"] in doors, event
        assert step.read is not None or event["client.address"] == self._client(step), event
        if event["type"] == "download.denied":
            assert (event["reason"], event["http.response.status_code"]) == (expect.reason, str(expect.status)), event
        elif event["type"] == "download.finished":
            outcome = "complete" if front.hands_over else expect.outcome
            assert event["outcome"] == outcome, event
            if len(answers) == 1 and outcome == "complete":
                delivered = 0 if front.hands_over else len(answers[0].body)
                assert event["bytes.delivered"] == str(delivered), event
        for name, value in expect.event.items():
            assert event.get(name) == value, f"{name} of {event}"

    @staticmethod
    def _client(step: Step) -> str:
        """Whom the event must name: the connection's other end, where that is no trusted proxy."""
        told = step.headers.get("X-Forwarded-For") if step.address == "127.0.0.1" else None
        return step.address if told is None else str(told).rpartition(",")[2].strip()

    def _files(self) -> list[tuple[Held, FileEntry]]:
        return [(link, file) for link in self.links.values() for file in link.claims.files]

    async def _new_events(self) -> list[dict[str, str]]:
        """Those since the last look, once each request that was allowed and is not held has its closing one."""
        if not self.redis_runs:
            return []

        def settled() -> bool:
            types = [event["type"] for event in self._events(self.begin)]
            running = 0 if self.stage.front.hands_over else len(self.held)
            return types.count("download.allowed") - sum(each in CLOSING for each in types) <= running

        await until(settled, "a request was not settled")
        seen, self.seen = self.seen, self.stage.last()
        return self._events(seen)

    def _events(self, after: str) -> list[dict[str, str]]:
        """Those of requests, without our own looking."""
        return [
            each
            for each in self.stage.events(after)
            if each["type"].startswith(("download.", "link.")) and each.get("user_agent.original") != LOOK["User-Agent"]
        ]

    # What happens beside requests

    async def _do(self, action: str) -> None:
        name = next(each for each in sorted(ACTIONS, key=len, reverse=True) if f"{action} ".startswith(f"{each} "))
        await getattr(self, f"_do_{name.replace(' ', '_')}")(action.removeprefix(name).strip())

    async def _do_wait(self, text: str) -> None:
        await asyncio.sleep(seconds(text))

    async def _do_drop(self, name: str) -> None:
        self.held.pop(name).abort()

    async def _do_replace(self, key: str) -> None:
        self.stage.put(key, len(self.stage.files[key]) + 1, "replaced")

    async def _do_remove(self, key: str) -> None:
        self.stage.remove(key)

    async def _do_revoke(self, link: str) -> None:
        await self._order(Command("revoke", int(time.time()), token_key=self.links[link].claims.token_key), link)

    async def _do_revoke_order_of(self, link: str) -> None:
        await self._order(Command("revoke", int(time.time()), order_id=self.links[link].claims.order_id), link)

    async def _do_extend(self, link: str) -> None:
        now = int(time.time())
        key = self.links[link].claims.token_key
        await self._order(Command("extend", now, token_key=key, expires_at=now + 600), link)

    async def _do_freeze(self, message: str) -> None:
        await self._order(Command("freeze", int(time.time()), message=message or None), "token")
        self.frozen = True

    async def _do_thaw(self, _: str) -> None:
        # A freeze counts where both are of one second.
        await self._order(Command("thaw", int(time.time()) + 1), "token")
        self.frozen = False

    async def _do_crash(self, _: str) -> None:
        if not self.stage.can_crash:
            pytest.skip(
                "this door's processes were not started with the stage's environment, so nothing can crash them"
            )
        self.stage.crash.touch()

    async def _do_mend(self, _: str) -> None:
        self.stage.crash.unlink(missing_ok=True)
        for path, content in self.broken.items():
            put_in_place(path, content)
        self.broken.clear()

    async def _do_break_rules(self, _: str) -> None:
        await self._break(self.stage.rules, b"version: 1\nrules:\n")

    async def _do_break_geo(self, _: str) -> None:
        await self._break(self.stage.folder / "City.mmdb", b"not a database")

    async def _do_spoil(self, key: str) -> None:
        self.stage.spoil(self.links["token"].claims.token_key, key)
        self.spoilt = True

    async def _do_redis_dies(self, _: str) -> None:
        self.redis_runs = False
        await asyncio.to_thread(self.stage.server.kill)

    async def _do_redis_returns(self, _: str) -> None:
        await asyncio.to_thread(self.stage.server.start)
        self.redis_runs = True
        await ready(self.stage, self.door)

    async def _break(self, path: Path, content: bytes) -> None:
        last = self.stage.last()
        self.broken.setdefault(path, put_in_place(path, content))
        await until(lambda: any(e["type"] == "rules.rejected" for e in self.stage.events(last)), "nobody has noticed")
        self.seen = self.stage.last()

    async def _order(self, command: Command, link: str) -> None:
        """A command of the ops, in force on return: a request that costs nothing is answered otherwise then."""
        line = f"HEAD /d/{self.links[link].token}"
        before = await look(self.door, line)
        self.stage.redis.xadd("gw:{0}:control", write_command(command))
        for _ in range(int(PATIENCE / 0.05)):
            if await look(self.door, line) != before:
                return
            await asyncio.sleep(0.05)
        raise AssertionError(f"nobody has heard of it: {command.verb}")

    async def _restore(self) -> None:
        if not self.redis_runs:
            await self._do_redis_returns("")
        if self.frozen:
            await self._do_thaw("")
        await self._do_mend("")

    # What must be so after each of them

    async def _at_rest(self) -> None:
        """Nothing is leased, each allowed request has one closing event, no id is there twice, no secret anywhere."""
        await until(lambda: self.stage.leased() == 0, "a lease is still held")
        events = self.stage.events(self.begin)
        ids = [event["id"] for event in events]
        assert len(ids) == len(set(ids)), "two events have one id"
        allowed = sorted(event["request.id"] for event in events if event["type"] == "download.allowed")
        closed = sorted(event["request.id"] for event in events if event["type"] in CLOSING)
        assert allowed == closed, "an allowed request has not exactly one closing event"
        secrets = [SECRET, *self.stage.shelf.secrets]
        secrets += [part for token in self.sent for part in (token, token.rpartition(".")[2]) if len(part) > _SHORT]
        texts = {str(path): path.read_text("utf-8", "replace") for path in self.door.logs if path.exists()}
        texts["the events"] = json.dumps(events)
        for name, text in texts.items():
            assert not any(secret in text for secret in secrets), f"a secret stands in {name}"


def made(link: Link) -> Held:
    """The link's claims, under ids of its own, and its token."""
    now = time.time()

    def at(text: str | None) -> int | None:
        return None if text is None else int(now + seconds(text))

    claims = Claims(
        issuer=ISSUER,
        token_id=os.urandom(8).hex(),
        order_id=os.urandom(4).hex(),
        expires_at=at(link.expires) or 0,
        not_before=at(link.not_before),
        issued_at=at(link.issued),
        files=tuple(
            FileEntry(each) if isinstance(each, str) else FileEntry(each.get("key"), each.get("url"), each.get("name"))
            for each in link.files
        ),
        customer_id=link.customer,
        plan=link.plan,
        tier=link.tier,
        account=link.account,
        ip=tuple(ip_network(each) for each in link.ip),
        limits=Limits(**{name: read_limit(name, value) for name, value in link.limits.items()}),
    )
    return Held(claims, tokens.sign(write_claims(claims)))


def put_in_place(path: Path, content: bytes) -> bytes:
    """Replace the file as deployments do it; what was there before."""
    before = path.read_bytes()
    beside = path.with_name(".beside")
    beside.write_bytes(content)
    beside.replace(path)
    return before


async def look(door: Opened, line: str) -> int:
    """The status of a request that costs nothing and is in no account of the play."""
    exchange = await Exchange.begin(door.base, line, LOOK.items(), address="127.0.1.1")
    exchange.abort()
    return exchange.answer.status


async def ready(stage: Stage, door: Opened) -> None:
    """Wait until the door decides requests. Raises AssertionError with its logs."""
    stage.put("ready.bin", 10)
    line = f"HEAD /d/{made(Link(files=['ready.bin'])).token}"
    status = 0
    for _ in range(int(PATIENCE / 0.05)):
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            status = await look(door, line)
        if status == 200:
            return
        await asyncio.sleep(0.05)
    said = "\n".join(path.read_text("utf-8", "replace")[-3000:] for path in door.logs if path.exists())
    raise AssertionError(f"the door answers {status} to a good link:\n{said}")


async def until(true: Callable[[], bool], otherwise: str) -> None:
    """Raises AssertionError where it does not become true in time."""
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, otherwise
        await asyncio.sleep(_PAUSE)


def _part(data: bytes, part: str) -> bytes:
    first, _, last = part.partition("-")
    return data[int(first) : int(last) + 1] if last else data[int(first) :]
