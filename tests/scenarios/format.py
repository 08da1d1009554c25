"""How a scenario is written; docs/doors-scenarios.md tells the same with examples.

Reading is strict: an unknown key, a wrong type or a declared difference that says nothing new is an error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
from ruamel.yaml import YAML

from gateway.policy.fronts import FRONTS, Front
from gateway.policy.limits import BY_NAME

ACTIONS = (
    "break geo",
    "break rules",
    "crash",
    "drop",
    "extend",
    "freeze",
    "mend",
    "redis dies",
    "redis returns",
    "remove",
    "replace",
    "revoke",
    "revoke order of",
    "spoil",
    "thaw",
    "wait",
)
CLASSES: Mapping[str, str] = {
    "hands_over": "somebody else sends the bytes",
    "carries": "it sends the bytes itself",
}
"""What doors are called together; the rest of the names in `at` are those of single doors."""


class Mistake(Exception):
    """A scenario is not written as it must be."""


class Link(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A token, by its claims. `files`: keys, or the objects of the claim; times from now on: `10m`, `-5s`."""

    files: list[str | dict[str, str]] = msgspec.field(default_factory=lambda: ["a.bin"])
    limits: dict[str, int | str] = {}
    plan: str | None = None
    tier: str | None = None
    customer: str | None = None
    account: bool = False
    ip: list[str] = []
    expires: str = "10m"
    not_before: str | None = None
    issued: str | None = None


class Expect(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What must come of a step. What is not said is not free: see the player's `told` and docs/doors-scenarios.md.

    `file`: the body is all of this file's bytes, or `part` of them (`0-99`, both ends included), or these `parts`.
    `used`: downloads of the link's files charged by now; left out: as many as before. `events`: their types, in
    order, each with some of its fields; left out: those that follow from the answer. `cut`: the body did not end.
    """

    status: int
    reason: str | None = None
    file: str | None = None
    part: str | None = None
    parts: list[str] = []
    headers: dict[str, str | None] = {}
    contains: list[str] = []
    lacks: list[str] = []
    used: int | None = None
    outcome: str = "complete"
    event: dict[str, str | None] = {}
    events: list[str] | None = None
    cut: bool = False
    within: float | None = None


class Step(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Either `ask` (a request line, with `{token}` for the link's token), or `read` (the rest of what was held), or
    `do` (something that happens beside requests).
    """

    ask: str | None = None
    read: str | None = None
    do: str | None = None
    address: str = msgspec.field(name="from", default="127.0.1.1")
    range: str | None = None
    headers: dict[str, str | list[str]] = {}
    body: str = ""
    at_once: int = 1
    abort_after: int | None = None
    hold: str | None = None
    expect: dict[str, Any] | None = None
    at: dict[str, dict[str, Any]] = {}

    def expected(self, front: Front) -> Expect:
        """At this door: a class's differences first, then the door's own."""
        told = dict(self.expect or {})
        for name in (*classes_of(front), front.name):
            told |= self.at.get(name, {})
        return msgspec.convert(told, Expect)


class Scenario(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """One row. `doors`: only these answer so, `because` of something; at all others the row must fail.

    `needs`: limits that it is about; where a door cannot keep one of them, its first request is refused for that.
    """

    title: str
    steps: list[Step]
    files: dict[str, int] = msgspec.field(default_factory=lambda: {"a.bin": 300_000})
    link: Link = Link()
    links: dict[str, Link] = {}
    settings: dict[str, Any] = {}
    needs: list[str] = []
    doors: list[str] | None = None
    because: str = ""

    def settings_at(self, front: Front) -> dict[str, Any]:
        """Those that mean something at this door: so it need not be opened once more for another's."""
        own = {name: value for name, value in self.settings.get("doors", {}).items() if name == front.name}
        rest = {name: value for name, value in self.settings.items() if name != "doors"}
        return {**rest, "doors": own} if own else rest


class Page(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """One file of them."""

    about: str
    scenarios: list[Scenario]


@cache
def read(path: Path) -> Sequence[Scenario]:
    """The scenarios of a file, which two modules ask for while tests are collected. Raises Mistake."""
    return tuple(parse(path.read_text("utf-8"), path.name))


def parse(text: str, name: str = "scenarios") -> list[Scenario]:
    """The scenarios of a text. Raises Mistake."""
    try:
        page = msgspec.convert(YAML(typ="safe", pure=True).load(text), Page)
        for scenario in page.scenarios:
            _check(scenario)
    except (msgspec.ValidationError, Mistake) as error:
        raise Mistake(f"{name}: {error}") from None
    titles = [scenario.title for scenario in page.scenarios]
    if twice := sorted({title for title in titles if titles.count(title) > 1}):
        raise Mistake(f"{name}: two scenarios are called {twice[0]}")
    return page.scenarios


def classes_of(front: Front) -> list[str]:
    """The names of CLASSES that this door answers to."""
    return ["hands_over"] if front.hands_over else ["carries"]


def seconds(text: str) -> float:
    """`10m`, `1.5s`, `-5s`. Raises Mistake."""
    written = re.fullmatch(r"(-?[0-9.]+)([smhd])", text)
    if written is None:
        raise Mistake(f"{text} is no time; write one like 10m, 1.5s or -5s")
    return float(written[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86_400}[written[2]]


def _check(scenario: Scenario) -> None:
    what = f"`{scenario.title}`"
    if unknown := sorted(set(scenario.needs) - BY_NAME.keys()):
        raise Mistake(f"{what} needs {unknown[0]}, which is no limit")
    if (scenario.doors is None) != (not scenario.because):
        raise Mistake(f"{what} has only one of doors and because")
    if unknown := sorted(set(scenario.doors or ()) - FRONTS.keys()):
        raise Mistake(f"{what} names the door {unknown[0]}, which there is not")
    for number, step in enumerate(scenario.steps, 1):
        try:
            _check_step(step)
        except (msgspec.ValidationError, Mistake) as error:
            raise Mistake(f"{what}, step {number}: {error}") from None


def _check_step(step: Step) -> None:
    if sum(each is not None for each in (step.ask, step.read, step.do)) != 1:
        raise Mistake("it is one of ask, read and do")
    if step.do is not None:
        if step.expect is not None or step.at:
            raise Mistake("what is done has nothing to expect; ask afterwards")
        if not any(step.do == action or step.do.startswith(f"{action} ") for action in ACTIONS):
            raise Mistake(f"nothing is known of `do: {step.do}`; there are {', '.join(ACTIONS)}")
        return
    if step.expect is None:
        raise Mistake("it says nothing of what to expect")
    if unknown := sorted(set(step.at) - FRONTS.keys() - CLASSES.keys()):
        raise Mistake(f"it has a difference at {unknown[0]}, which is no door and no class of doors")
    plain = msgspec.convert(step.expect, Expect)
    for name, difference in step.at.items():
        if msgspec.convert({**step.expect, **difference}, Expect) == plain:
            raise Mistake(f"the difference at {name} is none")
