"""A rules file's tree as a RuleSet, or all that is wrong with it: nothing is guessed, nothing is left out silently."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import date
from functools import partial
from types import MappingProxyType

from gateway.document import Node, join, short, shown
from gateway.policy.conditions.base import Reader
from gateway.policy.conditions.words import label
from gateway.policy.limits import BY_NAME, read_limit
from gateway.policy.model import Limits, Plan
from gateway.policy.ruleset import ACTIONS, OTHERWISE, Action, Rule, RuleSet
from gateway.policy.tree_reader import TreeReader, unknown

NAME_MAX = 80
MESSAGE_MAX = 500
MISTAKES_MAX = 200
"""With more mistakes than this, further rules are not looked at: more lines would tell nothing new."""
TOP = ("version", "plans", "default_plan", "lists", "rules", "otherwise")
PLAN = ("valid_for", "view", "bind_ip", "new_device", "renewals")
"""What a plan says beside its limits."""
RENEWALS_MAX = 100
RULE = ("name", "when", "then", "message", "mode", "since")
_PLAIN: Mapping[str, Action] = {"allow": "allow", "deny": "deny", "require_account": "require_account"}
_REFUSED: tuple[Action, Limits] = ("deny", Limits())
MODES = ("enforce", "observe")
_LATER = ("deliver", "stamp", "tier")

DAY_PATTERN = "[0-9]{4}-[0-9]{2}-[0-9]{2}"
_DIGITS = re.compile(r"[1-9][0-9]{0,17}")
_RENEWALS = "write how often, such as 2"
_PLAN_EXAMPLE = "standard: {valid_for: 30d, downloads: 5}"
_DAY = "write a day, such as 2026-11-01"
_THEN = "write allow, deny, require_account or {limit: {rate: 2MB/s}}"


def read_ruleset(tree: Node, reader: Reader, version: str, text: str = "") -> RuleSet:
    """The rule set of a whole file. Where the reader has mistakes afterwards, it must not be used."""
    top = reader.section(tree, "", TOP, "key of a rules file")
    version_of_grammar = reader.required(top, "version", "write version: 1")
    reader.choice(version_of_grammar, "version", ("1",))
    given = reader.required(top, OTHERWISE, "write otherwise: allow, or otherwise: deny")
    otherwise = reader.choice(given, OTHERWISE, ("allow", "deny"))
    plans = _plans(top.members.get("plans"), reader)
    reader.plans = tuple(plans)
    default = top.members.get("default_plan")
    default_plan = None if default is None else reader.text(default, "default_plan", "name a plan")
    if default is not None and default_plan is not None and default_plan not in plans:
        text = unknown("plan", default_plan, plans, "add it under plans")
        reader.mistakes.add(default, "default_plan", text)
    rules = _rules(top.members.get("rules"), reader)
    return RuleSet(
        version=version,
        plans=MappingProxyType(plans),
        default_plan=default_plan,
        needs=frozenset(reader.needs),
        rules=rules,
        otherwise=otherwise == "allow",
        text=text,
    )


def _plans(node: Node | None, reader: Reader) -> dict[str, Plan]:
    if node is None:
        return {}
    written = reader.members(node, "plans", "plan", _PLAN_EXAMPLE)
    return {
        _label(name, child, join("plans", name), reader): _plan(name, child, reader) for name, child in written.items()
    }


def _plan(name: str, node: Node, reader: Reader) -> Plan:
    key = join("plans", name)
    if not isinstance(node.value, dict):
        reader.mistakes.add(node, key, "is no plan; write {valid_for: 30d, downloads: 5}, or {} for no limits")
        return Plan(name)
    given = {name: node.value[name] for name in PLAN if name in node.value}
    limits = {name: child for name, child in node.value.items() if name not in given}
    valid_for, renewals = given.get("valid_for"), given.get("renewals")
    return Plan(
        name,
        read_limits(limits, key, (*PLAN, *BY_NAME), reader),
        None if valid_for is None else reader.duration(valid_for, join(key, "valid_for")),
        view=reader.choice(given.get("view"), join(key, "view"), ("true", "false")) == "true",
        bind_ip=reader.choice(given.get("bind_ip"), join(key, "bind_ip"), ("order",)) == "order",
        new_device=reader.choice(given.get("new_device"), join(key, "new_device"), ("code",)) == "code",
        renewals=0 if renewals is None else reader.parsed(renewals, join(key, "renewals"), _RENEWALS, _renewals) or 0,
    )


def _renewals(text: str) -> int:
    if not _DIGITS.fullmatch(text) or int(text) > RENEWALS_MAX:
        raise ValueError(f"is not a whole number from 1 to {RENEWALS_MAX}; {_RENEWALS}, or remove the line for none")
    return int(text)


def read_limits(members: Mapping[str, Node], key: str, known: Iterable[str], reader: TreeReader) -> Limits:
    """Limits by their names; `known`: all names that can stand there."""
    numbers: dict[str, int] = {}
    for name, child in members.items():
        place = join(key, name)
        if name not in BY_NAME:
            reader.mistakes.add(child.named, place, unknown("limit", name, known))
            continue
        text = reader.text(child, place, "give it a value or remove the line")
        if text is not None and (number := _number(name, text, child, place, reader)) is not None:
            numbers[name] = number
    return Limits(**numbers)


def _number(name: str, text: str, node: Node, key: str, reader: TreeReader) -> int | None:
    is_plain = BY_NAME[name].parse is None
    given = int(text) if is_plain and _DIGITS.fullmatch(text) else text
    try:
        return read_limit(name, given)
    except ValueError as error:
        wrong = str(error)
    # What parses a unit says only what would be right; what checks the number says only what is wrong.
    if wrong.startswith("write"):
        reader.wrong(node, key, f"is no {name}; {wrong}")
    else:
        right = "write one in digits alone, such as 5" if is_plain else "write one in between"
        reader.wrong(node, key, f"{wrong}; {right}, or remove the line for no limit")
    return None


def _rules(node: Node | None, reader: Reader) -> tuple[Rule, ...]:
    if node is None:
        return ()
    if not isinstance(node.value, list) or not node.value:
        state = "is an empty list" if isinstance(node.value, list) else "is no list"
        reader.mistakes.add(node, "rules", f"{state}; write one `- name: …` a rule, or remove the line")
        return ()
    rules: list[Rule] = []
    places: dict[str, str] = {}
    for index, child in enumerate(node.value):
        key = join("rules", index)
        if reader.gives_up(child, key, MISTAKES_MAX):
            break
        rule = _rule(child, key, reader)
        if rule is None:
            continue
        first = places.get(rule.name)
        places.setdefault(rule.name, child.source)
        if rule.name == OTHERWISE:
            reader.mistakes.add(child, join(key, "name"), f"{OTHERWISE} is kept; choose another name")
        elif rule.name and first is not None:
            text = f"'{short(rule.name)}' is there twice, first at {first}; give each rule a name of its own"
            reader.mistakes.add(child, join(key, "name"), text)
        rules.append(rule)
    return tuple(rules)


def _rule(node: Node, key: str, reader: Reader) -> Rule | None:
    if not isinstance(node.value, dict):
        reader.mistakes.add(node, key, "is no rule; write {name: …, when: {…}, then: …}")
        return None
    rule = reader.section(node, key, RULE, "key of a rule")
    name = reader.required(rule, "name", "give the rule a name, which events will show")
    when = reader.required(rule, "when", "say whom it means, such as when: {country: PL}")
    then = reader.required(rule, "then", _THEN)
    action, limits = _REFUSED if then is None else _then(then, join(key, "then"), reader)
    message, mode, since = (rule.members.get(name) for name in ("message", "mode", "since"))
    if message is not None and then is not None and action != "deny":
        reader.mistakes.add(message, join(key, "message"), "is for deny only; remove it")
    return Rule(
        "" if name is None else _text_of(name, join(key, "name"), NAME_MAX, reader),
        () if when is None else reader.when(when, join(key, "when")),
        action,
        None if message is None else _text_of(message, join(key, "message"), MESSAGE_MAX, reader),
        limits,
        mode is not None and reader.choice(mode, join(key, "mode"), MODES) == "observe",
        None if since is None else reader.parsed(since, join(key, "since"), _DAY, _day),
        node.source,
        tuple(shown(each) for each in members.values()) if when and isinstance(members := when.value, dict) else (),
    )


def _day(text: str) -> date:
    try:
        if re.fullmatch(DAY_PATTERN, text, re.ASCII):
            return date.fromisoformat(text)
    except ValueError:
        raise ValueError(f"is no day that exists; {_DAY}") from None
    raise ValueError(f"is no day; {_DAY}")


def _then(node: Node, key: str, reader: Reader) -> tuple[Action, Limits]:
    value = node.value
    if isinstance(value, str):
        if value in _PLAIN:
            return _PLAIN[value], Limits()
        text = f"limit has no limits; {_THEN}" if value == "limit" else unknown("action", value, _PLAIN, _THEN)
    elif isinstance(value, dict) and list(value) == ["limit"]:
        place = join(key, "limit")
        return "limit", read_limits(
            reader.members(value["limit"], place, "limit", "rate: 2MB/s"), place, BY_NAME, reader
        )
    elif isinstance(value, dict) and len(value) == 1 and not {*_PLAIN, *_LATER} & value.keys():
        ((name, child),) = value.items()
        reader.mistakes.add(child.named, join(key, name), unknown("action", name, ACTIONS, _THEN))
        return _REFUSED
    elif isinstance(value, dict) and not value.keys().isdisjoint(_LATER):
        text = f"{next(name for name in _LATER if name in value)} is no action of this release; {_THEN}"
    else:
        text = f"{'has no value' if value is None else 'is no single action'}; {_THEN}"
    reader.mistakes.add(node, key, text)
    return _REFUSED


def _text_of(node: Node, key: str, longest: int, reader: Reader) -> str:
    return reader.parsed(node, key, "write a short text", partial(label, longest=longest)) or ""


def _label(name: str, node: Node, key: str, reader: Reader) -> str:
    """The name of a member, which stands at `node`."""
    reader.parsed(replace(node.named, value=name), key, "", partial(label, longest=NAME_MAX))
    return name
