"""What `rules replay` predicts is what happens: traffic is served under the rules A, replayed against B and served anew
under B, and the other way round. Each request must come out as predicted, for the predicted reason.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import ClientPayloadError
from redis import Redis

from gateway.backends import redis_client
from gateway.backends.rules_file import read_rules
from gateway.cli.demo_geo import build_demo_databases
from gateway.policy.counting import CountingRules
from gateway.policy.model import Limits
from gateway.policy.replay import Replay
from gateway.policy.replay_changes import Outcome
from gateway.services import gatekeeper, identifiers

SIZE, LARGE = 300_000, 4_000_000
HOUR = 3600
SEED = 22
COUNTING = "{repeat_window: 60s, resume_window: 10m, lease: 2s}"
RULES = CountingRules(repeat_window=60, resume_window=600)
BASE = """
version: 1
plans:
  standard: {valid_for: 30d, downloads: 3}
  small: {downloads: 2, networks: 2}
  viewer: {view: true}
  week: {valid_for: 7d, devices: 2}
default_plan: standard
lists:
  office: [203.0.113.0/24, 198.51.100.70]
rules:
  - {name: office, when: {ip: $office}, then: allow}
  - {name: embargo, when: {country: [CU]}, then: deny}
  - {name: free, when: {tier: free}, then: {limit: {downloads: 1}}}
  - {name: masters, when: {file: "masters/**", network: hosting}, then: require_account}
  - {name: trial, mode: observe, when: {method: GET}, then: deny}
  - {name: robots, when: {user_agent: "robot*"}, then: deny}
otherwise: allow
"""
EMBARGO = "  - {name: embargo, when: {country: [CU]}, then: deny}\n"
OFFICE = "  - {name: office, when: {ip: $office}, then: allow}\n"
CANDIDATES = {
    "a new deny": ("rules:\n", "rules:\n  - {name: no-servers, when: {network: [hosting]}, then: deny}\n"),
    "another order": (OFFICE + EMBARGO, EMBARGO + OFFICE),
    "a limit on networks": ("rules:\n", "rules:\n  - {name: two, when: {method: GET}, then: {limit: {networks: 1}}}\n"),
    "one at a time": ("rules:\n", "rules:\n  - {name: one, when: {tier: slow}, then: {limit: {concurrent: 1}}}\n"),
    "a clock": ("rules:\n", "rules:\n  - {name: soon, when: {tier: gold}, then: {limit: {valid_after_first: 90m}}}\n"),
    "a smaller plan": ("{valid_for: 30d, downloads: 3}", "{valid_for: 30d, downloads: 1}"),
    "another default plan": ("default_plan: standard", "default_plan: small"),
    "a removed plan": ("  week: {valid_for: 7d, devices: 2}\n", ""),
    "view is off": ("viewer: {view: true}", "viewer: {}"),
    "otherwise": ("otherwise: allow", "otherwise: deny"),
    "an account": ("then: {limit: {downloads: 1}}", "then: require_account"),
}
AT_NGINX = {
    "a rate": ("rules:\n", "rules:\n  - {name: slowly, when: {tier: gold}, then: {limit: {rate: 1MB/s}}}\n"),
    "a waived limit": (
        "rules:\n",
        "rules:\n  - {name: one, when: {tier: gold}, then: {limit: {concurrent: 1, downloads: 1}}}\n",
    ),
    "a smaller plan": CANDIDATES["a smaller plan"],
}
SHOWN = {"X-Gateway-Secret": "0123456789abcdef-for-tests"}
NGINX = f"doors: {{secret: {SHOWN['X-Gateway-Secret']}, nginx: {{redirect: /_gateway/, waive: [concurrent]}}}}\n"
TOKENS = (
    {},
    {"tier": "free"},
    {"tier": "gold", "plan": "small", "order_id": "10002"},
    {"plan": "small", "customer_id": "c-2"},
    {"plan": "viewer", "limits": Limits(downloads=4)},
    {"plan": "week", "order_id": "10003"},
    {"tier": "gold", "limits": Limits(networks=2, devices=3)},
    {"plan": "week", "issued_at": None},
    {"limits": Limits(valid_after_first=90 * 60), "tier": "gold"},
    {"issued_at": -29 * 24 * HOUR - HOUR * 22},
    {"account": True},
)
SLOW = {"tier": "slow", "plan": "viewer", "limits": Limits(rate=2_000_000)}
FILES = ("a.bin", "b.bin", "masters/c.bin")


@dataclass(frozen=True)
class Person:
    address: str
    agent: str
    cookie: str | None


PEOPLE = [
    Person(address, agent, None if number % 3 else f"{number:022d}")
    for number, (address, agent) in enumerate(
        [
            ("203.0.113.9", "Firefox"),
            ("198.51.100.7", "Firefox"),
            ("198.51.100.70", "Firefox"),
            ("198.51.100.71", "Chrome"),
            ("198.51.100.130", "Chrome"),
            ("192.0.2.5", "Mozilla/5.0 (a scanner, soon after its link was made)"),
            ("192.0.2.130", "robot/1"),
            ("2001:db8:1::9", "Safari"),
            ("100.64.9.9", "Safari"),
            ("100.64.8.9", "Safari"),
        ]
    )
]


@dataclass(frozen=True)
class Step:
    """One request. `name` marks it in its event."""

    name: str
    token: int
    number: int
    person: Person
    method: str = "GET"
    range: str | None = None
    view: bool = False


def traffic(seed: int) -> list[list[list[Step]]]:
    """Phases, an hour and more apart; in each rounds; in each at most one request of a token."""
    chance = random.Random(seed)
    friends = [chance.sample(PEOPLE, 3) for _ in TOKENS]
    phases = []
    for phase in range(3):
        rounds = []
        for turn in range(3):
            steps = []
            for token in range(len(TOKENS)):
                how = chance.choice([{}, {}, {}, {"method": "HEAD"}, {"range": "bytes=0-999"}, {"view": True},
                                     {"range": "bytes=100000-"}, {"range": "bytes=0-199999"}])  # fmt: skip
                person = chance.choice(friends[token])
                number = chance.choice((1, 1, 2, 3))
                steps.append(Step(f"p{phase}r{turn}t{token}", token, number, person, **how))
            rounds.append(steps)
        phases.append(rounds)
    return phases


class Clock:
    """The gateway's clock and its Redis's, which run ahead of this machine's."""

    def __init__(self) -> None:
        self.ahead = 0

    def time(self) -> float:
        return time.time() + self.ahead

    def time_ns(self) -> int:
        return time.time_ns() + self.ahead * 10**9


@pytest.fixture
def clock(monkeypatch) -> Iterator[Clock]:
    shifted = Clock()
    monkeypatch.setattr(gatekeeper, "time", shifted)
    monkeypatch.setattr(identifiers, "time", shifted)
    original = redis_client.Script.__init__

    def with_clock(script, *files: str, clock: str | None = None) -> None:
        text = """
        local function clock()
          local time = redis.call('TIME')
          local ahead = tonumber(redis.call('GET', 'test:ahead') or '0')
          return (tonumber(time[1]) + ahead) * 1000 + tonumber(time[2]) / 1000
        end
        """
        original(script, *files, clock=clock or text)

    monkeypatch.setattr(redis_client.Script, "__init__", with_clock)
    return shifted


@dataclass
class Served:
    """A run: the events, and how each request came out."""

    events: list[dict[str, str]]
    outcomes: dict[str, Outcome] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for event in self.events:
            if event["type"] in ("download.allowed", "download.denied"):
                self.outcomes[name_of(event)] = Outcome(event.get("reason", ""), event.get("rule", ""))


def name_of(event: dict[str, str]) -> str:
    return event["campaign"].removeprefix("utm_id=")


class World:
    """Serves the same traffic under different rules."""

    def __init__(self, open_gateway, redis_db: str, folder: Path, clock: Clock) -> None:
        self._open, self._redis, self._folder, self._clock = open_gateway, redis_db, folder, clock
        paths = build_demo_databases(folder)
        self._settings = f"geo: {{city: {paths['city']}, asn: {paths['asn']}, anonymous: {paths['anonymous']}}}\n"

    async def serve(self, rules: str, phases: Sequence[Sequence[Sequence[Step]]], doors: str = "") -> Served:
        with Redis.from_url(self._redis) as client:
            client.flushdb()
        self._clock.ahead = 0
        async with self._open(self._settings + doors, counting=COUNTING) as gateway:
            for name in FILES:
                gateway.file(name, SIZE)
            gateway.file("large.bin", LARGE)
            await gateway.rules(rules)
            now = int(time.time())
            tokens = []
            for number, claims in enumerate(TOKENS):
                issued = claims.get("issued_at", -60)
                own = {**claims, "issued_at": None if issued is None else now + issued}
                tokens.append(gateway.token(*FILES, token_id=f"t{number}", expires_at=now + 9 * 86_400, **own))
            slow = gateway.token("large.bin", *FILES, token_id="slow", expires_at=now + 86_400, issued_at=now, **SLOW)
            for number, rounds in enumerate(phases):
                for steps in rounds:
                    await asyncio.gather(*(self._request(gateway, tokens[step.token], step) for step in steps))
                    await gateway.settled()
                await self._overlapping(gateway, slow, number)
                self._clock.ahead += HOUR + HOUR * number
                await gateway.wire.execute("SET", "test:ahead", self._clock.ahead)
            return Served(await gateway.settled())

    async def _request(self, gateway, token: str, step: Step) -> None:
        url = f"{gateway.base}/d/{token}/{step.number}?utm_id={step.name}" + ("&view=1" if step.view else "")
        headers = {"X-Forwarded-For": step.person.address, "User-Agent": step.person.agent, **SHOWN}
        if step.person.cookie:
            headers["Cookie"] = f"gw_device={step.person.cookie}"
        if step.range:
            headers["Range"] = step.range
        async with gateway.client.request(step.method, url, headers=headers) as response:
            with contextlib.suppress(
                ClientPayloadError
            ):  # what runs past its budget, and finds no download left, is cut
                await response.read()

    async def _overlapping(self, gateway, token: str, number: int) -> None:
        """A download in the midst of another one, and one that begins just when that ends."""
        headers = {"X-Forwarded-For": "100.64.9.9", "User-Agent": "Safari", **SHOWN}
        async with gateway.client.get(f"{gateway.base}/d/{token}/1?utm_id=slow{number}", headers=headers) as held:
            if held.status == 200:
                await held.content.readexactly(200_000)
            await self._request(gateway, token, Step(f"amid{number}", 0, 2, PEOPLE[9]))
            held.close()
        await self._request(gateway, token, Step(f"after{number}", 0, 3, PEOPLE[9]))
        await gateway.settled()


def predicted(served: Served, rules_file: Path, **more) -> dict[str, Outcome]:
    replay = Replay(read_rules(rules_file, None), counting=RULES, **more)
    changes = [change for event in served.events for change in replay.take(event)]
    changes += replay.finish()
    counts = replay.counts
    assert counts.read == len(served.outcomes)
    assert counts.read == sum(
        (
            counts.unchanged,
            counts.now_refused,
            counts.now_allowed,
            counts.another_reason,
            counts.not_redecidable.total(),
        )
    )
    assert not counts.not_redecidable
    return {name_of(change.fields): change.after for change in changes}


def happened(before: Served, after: Served) -> dict[str, Outcome]:
    """What of the recorded requests came out otherwise. A HEAD that is let through leaves no event."""
    found = {}
    for name, was in before.outcomes.items():
        now = after.outcomes.get(name, Outcome())
        if was != now and (was.reason or now.reason):
            found[name] = now
    return found


def without_rule_of_allowed(outcomes: dict[str, Outcome]) -> dict[str, Outcome]:
    return {name: each if each.reason else Outcome() for name, each in outcomes.items()}


@pytest.fixture
async def world(open_gateway, redis_db, tmp_path, clock) -> World:
    folder = tmp_path / "geo"
    folder.mkdir()
    return World(open_gateway, redis_db, folder, clock)


def candidate(name: str, candidates: Mapping[str, tuple[str, str]] = CANDIDATES) -> str:
    old, new = candidates[name]
    assert BASE.count(old) == 1
    return BASE.replace(old, new)


under_base: list[Served] = []
"""The traffic under A, which is the same for all: served once."""


@pytest.mark.parametrize("name", list(CANDIDATES))
async def test_what_is_predicted_is_what_happens(world, tmp_path, name) -> None:
    phases = traffic(SEED)
    a, b = tmp_path / "a.yaml", tmp_path / "b.yaml"
    a.write_text(BASE)
    b.write_text(candidate(name))
    if not under_base:
        under_base.append(await world.serve(BASE, phases))
    under_a = under_base[0]
    under_b = await world.serve(candidate(name), phases)
    there = happened(under_a, under_b)
    assert there, "nothing flips, so nothing is shown"
    assert without_rule_of_allowed(predicted(under_a, b)) == without_rule_of_allowed(there)
    back = happened(under_b, under_a)
    assert without_rule_of_allowed(predicted(under_b, a)) == without_rule_of_allowed(back)
    assert predicted(under_a, a) == {}


at_nginx: list[Served] = []


@pytest.mark.parametrize("name", list(AT_NGINX))
async def test_what_is_predicted_of_downloads_that_nginx_serves_is_what_happens(world, tmp_path, name) -> None:
    phases = traffic(SEED)[:2]
    a, b = tmp_path / "a.yaml", tmp_path / "b.yaml"
    a.write_text(BASE)
    b.write_text(candidate(name, AT_NGINX))
    if not at_nginx:
        at_nginx.append(await world.serve(BASE, phases, NGINX))
    under_a = at_nginx[0]
    assert {event["front"] for event in under_a.events if event["type"].startswith("download.")} == {"nginx"}
    under_b = await world.serve(candidate(name, AT_NGINX), phases, NGINX)
    waived = {"nginx": frozenset({"concurrent"})}
    there = happened(under_a, under_b)
    assert there, "nothing flips, so nothing is shown"
    assert without_rule_of_allowed(predicted(under_a, b, waived=waived)) == without_rule_of_allowed(there)
    back = happened(under_b, under_a)
    assert without_rule_of_allowed(predicted(under_b, a, waived=waived)) == without_rule_of_allowed(back)
    assert predicted(under_a, a, waived=waived) == {}
    assert predicted(under_b, b, waived=waived) == {}
    assert predicted(under_b, b) == {}, "without settings, what was waived then is waived"
