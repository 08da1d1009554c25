"""What is no mistake in a rules file and yet hardly meant: rules that decide nothing, unused lists, forgotten trials.

Each is told like a mistake, at its place and with what would be right.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import reduce

from gateway.document import Mistake, Mistakes, Node, find, join, short
from gateway.policy.conditions.base import Condition
from gateway.policy.conditions.places import NetworkType
from gateway.policy.conditions.requests import File, UserAgent
from gateway.policy.conditions.times import Before
from gateway.policy.fronts import Refused, asks_beyond
from gateway.policy.guests import unmet
from gateway.policy.model import Limits
from gateway.policy.reach import unreached
from gateway.policy.ruleset import Rule, RuleSet

DAY = 86_400
_VERSION = frozenset("/ 0123456789")
"""A whole User-Agent has some of these."""
_NAMED_MAX = 5


@dataclass(frozen=True, slots=True)
class Seen:
    """What the advice rests on besides the rules: their tree, the names of lists and of those in use, and the time.

    `missing`: the databases that conditions ask and of which nobody could say whether the settings name them, each with
    the first such condition and its key. `now` and `modified` (the file's last change) in Unix seconds, `longest` in s.
    `refused`: what the front doors of the settings cannot keep. `lacking`: see policy.guests.
    """

    tree: Node
    lists: Iterable[str]
    used: Iterable[str]
    missing: Mapping[str, tuple[Node, str]]
    now: float
    modified: float | None
    longest: int
    refused: Refused = field(default_factory=dict)
    lacking: Collection[str] = ()


def advice(rules: RuleSet, seen: Seen) -> Sequence[Mistake]:
    """What is to be thought over, in the order of the file."""
    told = Mistakes()
    places = {id(rule): index for index, rule in enumerate(rules.rules)}
    for each in unreached(rules.rules):
        key = join("rules", places[id(each.rule)])
        at = find(seen.tree, ("rules", places[id(each.rule)], "name"))
        told.add(at, key, _unreached(each.rule, each.by))
    for index, rule in enumerate(rules.rules):
        key = join("rules", index)
        if (text := _age(rule, seen)) is not None:
            told.add(find(seen.tree, ("rules", index, "since" if rule.since else "mode")), key, text)
        for condition in rule.when:
            if (text := _mistyped(rule, condition, seen.now)) is not None:
                place = ("rules", index, "when", condition.key)
                told.add(find(seen.tree, place), join(join(key, "when"), condition.key), text)
    _beyond_doors(rules, seen, told)
    for plan in rules.plans.values():
        for name, why in unmet(plan, seen.lacking):
            key = join(join("plans", plan.name), name)
            told.add(find(seen.tree, ("plans", plan.name, name)), key, why)
    for name in sorted(set(seen.lists).difference(seen.used)):
        node = find(seen.tree, ("lists", name)).named
        told.add(node, join("lists", name), f"is used by no rule; write ${short(name)} in one, or remove it")
    for database, (node, key) in seen.missing.items():
        told.add(node, key, f"needs geo.{database} in the settings, and no settings were found; see that they name it")
    return told.found


def _beyond_doors(rules: RuleSet, seen: Seen, told: Mistakes) -> None:
    """Limits that lock out whoever comes by a door that cannot keep them."""
    asked: list[tuple[tuple[str | int, ...], Limits]] = [
        (("plans", name), plan.limits) for name, plan in rules.plans.items()
    ]
    asked += [
        (("rules", index, "then", "limit"), rule.limits) for index, rule in enumerate(rules.rules) if not rule.observe
    ]
    for place, limits in asked:
        for door, names in asks_beyond(limits, seen.refused):
            for limit in names:
                told.add(find(seen.tree, (*place, limit)), reduce(join, (*place, limit), ""), _beyond(door))


def _beyond(door: str) -> str:
    return (
        f"cannot be kept by the door {door}, which the settings set up: links with it are refused there; take it out, "
        f"or waive it in the settings (doors.{door}.waive)"
    )


def _unreached(rule: Rule, by: Sequence[Rule]) -> str:
    name = short(rule.name)
    if not by:
        return f"{name} means no request at all: its conditions exclude each other; correct them, or remove it"
    named = [f"{short(each.name)} ({each.source})" for each in by[:_NAMED_MAX]]
    if len(by) == 1:
        return f"{name} is never reached, {named[0]} decides all that it means; put it before that, or remove it"
    listed = ", ".join(named) + (f" and {len(by) - _NAMED_MAX} more" if len(by) > _NAMED_MAX else "")
    return f"{name} is never reached, together these decide all that it means: {listed}; put it before, or remove it"


def _age(rule: Rule, seen: Seen) -> str | None:
    today = datetime.fromtimestamp(seen.now, UTC).date()
    if rule.since is not None and (rule.since - today).days > 1:
        return f"{short(rule.name)} is since {rule.since}, which lies ahead; write the day on which it came in"
    if not rule.observe:
        return None
    began = _midnight(rule.since) if rule.since is not None else seen.modified
    if began is None or seen.now - began <= seen.longest:
        return None
    days = f"{int(seen.now - began) // DAY} days"
    if rule.since is not None:
        return f"{short(rule.name)} has been observing since {rule.since}, {days}; enforce it, or remove it"
    return f"{short(rule.name)} has been observing for {days} or longer, as long as the file; enforce it, or remove it"


def _mistyped(rule: Rule, condition: Condition, now: float) -> str | None:
    if isinstance(condition, NetworkType) and rule.then == "deny" and {None} < condition.types:
        return (
            "denies nearly everybody, for most home addresses are in no Anonymous IP database and so of an unknown "
            "network; take unknown out"
        )
    if isinstance(condition, Before) and condition.moment <= now:
        return "is over, so the rule means nobody any more; remove the rule"
    if isinstance(condition, UserAgent):
        whole = sorted(text for text in condition.patterns.exact if text and not _VERSION & set(text))
        if whole:
            return (
                f"means only who calls himself exactly that; write *{short(whole[0])}* for all that have it in theirs"
            )
    if isinstance(condition, File):
        folders = sorted(text for text in condition.patterns.exact if "." not in text.rpartition("/")[2])
        if folders:
            return f"means one file of that name; write {short(folders[0])}/** for all in a folder"
    return None


def _midnight(day: date) -> float:
    return datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()
