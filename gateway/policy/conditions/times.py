"""When a request comes: by the wall clock of a time zone, or before or after one moment."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import ClassVar, Self

from gateway.document import Node, join
from gateway.policy.conditions.base import Asks, Reader, unknown
from gateway.policy.conditions.schemas import Schema, values_of
from gateway.policy.events import rfc3339
from gateway.policy.model import Facts

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

_HOURS = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])-([01][0-9]|2[0-3]|24(?=:00)):([0-5][0-9])")
_MOMENT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)
_SHORT = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})(?:[Tt ]([0-9]{2}:[0-9]{2})(:[0-9]{2})?)?([Zz]|[+-][0-9]{2}:[0-9]{2})?"
)

Span = tuple[int, int]
"""From this minute of the day until before that one; until the next day's where the second is not larger."""


class _Edge(Asks[float]):
    """Asks on which side of a moment (Unix s) a request comes."""

    __slots__ = ()
    moment: float

    @staticmethod
    def fact(facts: Facts) -> float:
        return facts.now

    def in_words(self, fact: float) -> str:
        return second(fact)

    @classmethod
    def ways(cls, conditions: Sequence[Self]) -> Iterable[int] | None:
        moments = {float("-inf"), *(each.moment for each in conditions)}
        return {sum(each.meets(moment) << number for number, each in enumerate(conditions)) for moment in moments}

    @classmethod
    def schema(cls) -> Schema:
        return {"type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9:.]{8,18}([Zz]|[+-][0-9:]{5})$"}


@dataclass(frozen=True, slots=True)
class Time(Asks[float]):
    """It is one of these days and hours. Hours over midnight belong to the day they begin."""

    key: ClassVar[str] = "time"
    days: frozenset[int]
    """0 is Monday."""
    hours: tuple[Span, ...]
    zone: tzinfo

    @classmethod
    def read(cls, node: Node, key: str, reader: Reader) -> Self:
        members = reader.members(node, key, "part of a time", 'days: mon-fri, hours: "08:00-18:00"')
        for name, child in members.items():
            if name not in ("days", "hours", "zone"):
                text = unknown("part of a time", name, ("days", "hours", "zone"))
                reader.mistakes.add(child.named, join(key, name), text)
        if members and not {"days", "hours"} & members.keys():
            text = 'has neither days nor hours; write {days: mon-fri}, {hours: "08:00-18:00"} or both'
            reader.mistakes.add(node, key, text)
        days, hours, zone = (members.get(name) for name in ("days", "hours", "zone"))
        written = [] if days is None else reader.values(days, join(key, "days"), _days, list)
        return cls(
            frozenset(range(7)) if days is None else frozenset().union(*written),
            ((0, 24 * 60),) if hours is None else reader.values(hours, join(key, "hours"), _hours, tuple),
            UTC if zone is None else _zone(zone, join(key, "zone"), reader),
        )

    def in_words(self, fact: float) -> str:
        now = datetime.fromtimestamp(fact, self.zone)
        return f"{DAYS[now.weekday()]} {now:%H:%M} in {self.zone}"

    @staticmethod
    def fact(facts: Facts) -> float:
        return facts.now

    def matches(self, facts: Facts) -> bool:
        now = datetime.fromtimestamp(facts.now, self.zone)
        return self._is_meant(now.weekday(), now.hour * 60 + now.minute)

    def meets(self, fact: float) -> bool:
        now = datetime.fromtimestamp(fact, self.zone)
        return self._is_meant(now.weekday(), now.hour * 60 + now.minute)

    @classmethod
    def ways(cls, conditions: Sequence[Self]) -> Iterable[int] | None:
        if len({each.zone for each in conditions}) > 1:
            return None
        minutes = {0, *(edge % (24 * 60) for each in conditions for span in each.hours for edge in span)}
        return {
            sum(each._is_meant(day, minute) << number for number, each in enumerate(conditions))
            for day in range(7)
            for minute in minutes
        }

    @classmethod
    def schema(cls) -> Schema:
        day, hour = f"({'|'.join(DAYS)})", "[0-2][0-9]:[0-5][0-9]"
        return {
            "type": "object",
            "properties": {
                "days": values_of({"type": "string", "pattern": f"^{day}(-{day})?$"}),
                "hours": values_of({"type": "string", "pattern": f"^{hour}-{hour}$"}),
                "zone": {"type": "string", "minLength": 1, "examples": ["Europe/Warsaw", "UTC"]},
            },
            "anyOf": [{"required": ["days"]}, {"required": ["hours"]}],
            "additionalProperties": False,
        }

    def _is_meant(self, day: int, minute: int) -> bool:
        for start, stop in self.hours:
            if start < stop:
                if start <= minute < stop and day in self.days:
                    return True
            elif (minute >= start and day in self.days) or (minute < stop and (day - 1) % 7 in self.days):
                return True
        return False


@dataclass(frozen=True, slots=True)
class Before(_Edge):
    """It is earlier than this moment."""

    key: ClassVar[str] = "before"
    moment: float

    @classmethod
    def read(cls, node: Node, key: str, reader: Reader) -> Self:
        return cls(_moment(node, key, reader))

    def matches(self, facts: Facts) -> bool:
        return facts.now < self.moment

    def meets(self, fact: float) -> bool:
        return fact < self.moment


@dataclass(frozen=True, slots=True)
class After(_Edge):
    """It is this moment or later."""

    key: ClassVar[str] = "after"
    moment: float

    @classmethod
    def read(cls, node: Node, key: str, reader: Reader) -> Self:
        return cls(_moment(node, key, reader))

    def matches(self, facts: Facts) -> bool:
        return facts.now >= self.moment

    def meets(self, fact: float) -> bool:
        return fact >= self.moment


def _days(text: str) -> frozenset[int]:
    first, dash, last = text.partition("-")
    if first in DAYS and (last in DAYS or not dash):
        start = DAYS.index(first)
        count = (DAYS.index(last) - start) % 7 if dash else 0
        return frozenset((start + step) % 7 for step in range(count + 1))
    meant = [part.strip().lower()[:3] for part in re.split("[-–]", text, maxsplit=1)]
    right = "-".join(meant) if set(meant) <= set(DAYS) else "mon, or a range such as mon-fri"
    raise ValueError(f"is no day; write {right}")


def _hours(text: str) -> Span:
    found = _HOURS.fullmatch(text)
    if found is None:
        raise ValueError('are no hours; write them like "08:00-18:00", from 00:00 to 24:00')
    start, stop = int(found[1]) * 60 + int(found[2]), int(found[3]) * 60 + int(found[4])
    if start == stop:
        raise ValueError('begin and end at the same time; write "00:00-24:00" for the whole day')
    return start, stop


def _zone(node: Node, key: str, reader: Reader) -> tzinfo:
    name = reader.text(node, key, "write a time zone, such as Europe/Warsaw")
    try:
        return UTC if name is None else reader.zone(name)
    except ValueError as error:
        reader.wrong(node, key, str(error))
        return UTC


def _moment(node: Node, key: str, reader: Reader) -> float:
    return reader.parsed(node, key, "write one time, such as 2026-12-24T00:00:00+01:00", moment) or 0.0


def second(time: float) -> str:
    """Unix seconds as `moment` reads them, in UTC, without their fraction."""
    return rfc3339(int(time) * 1000).replace(".000Z", "Z")


def moment(text: str) -> float:
    """A time of RFC 3339 in Unix seconds. Raises ValueError saying what is wrong and what would be right."""
    found, right = _SHORT.fullmatch(text), ""
    try:
        if _MOMENT.fullmatch(text):
            return datetime.fromisoformat(text.upper()).timestamp()
        if found is not None:
            right = f"{found[1]}T{found[2] or '00:00'}{found[3] or ':00'}{found[4] or '+01:00'}"
            datetime.fromisoformat(right)
    except (ValueError, OverflowError):
        raise ValueError("is no time that exists; write one such as 2026-12-24T00:00:00+01:00") from None
    if right:
        raise ValueError(f"has no seconds or no offset from UTC; write it like {right}")
    raise ValueError("is no time; write RFC 3339, such as 2026-12-24T00:00:00+01:00")
