"""The rules file's meaning, compiled: plans, and rules of which the first allow or deny that matches decides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from types import MappingProxyType
from typing import Literal, get_args

from gateway.policy.conditions.base import When, holds
from gateway.policy.index import Index, build_index
from gateway.policy.model import Facts, Limits, Plan

OTHERWISE = "otherwise"
"""The rule's name in a verdict that no rule decided."""

Action = Literal["allow", "deny", "require_account", "limit"]
ACTIONS: tuple[Action, ...] = get_args(Action)


@dataclass(frozen=True, slots=True)
class Rule:
    """Whom it means and what then. `message` is a deny's, `limits` a limit's; `observe`: it is only recorded.
    `since` is the day from which it stands in the file, where that is written; it changes nothing.

    `source` is where it stands (`file:line`), `written` each of its conditions as it was written (see document.shown).
    """

    name: str
    when: When
    then: Action
    message: str | None = None
    limits: Limits = field(default_factory=Limits)
    observe: bool = False
    since: date | None = None
    source: str = field(default="", compare=False)
    written: tuple[str, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the rules say of one request. `rule`: the rule that decided, or OTHERWISE.

    `limits` of all matching rules passed on the way, `account_rule` the first of them that requires an account,
    `would_deny` the names of the observing ones that would have refused; `beside` each limit and each observing rule
    that matched on the way, as (name, `limit` or `observe`).
    """

    allowed: bool
    rule: str
    message: str | None = None
    account_rule: str | None = None
    limits: Limits = field(default_factory=Limits)
    would_deny: tuple[str, ...] = ()
    beside: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class RuleSet:
    """One rules file. `version` is a hash of everything it was read from; `needs` the geo databases it asks
    (of `city`, `asn`, `anonymous`); `otherwise`: whether what no rule decides is allowed; `text` is the hash of the
    file alone, without its lists.
    """

    version: str = ""
    plans: Mapping[str, Plan] = field(default_factory=lambda: MappingProxyType({}))
    default_plan: str | None = None
    needs: frozenset[str] = frozenset()
    rules: tuple[Rule, ...] = ()
    otherwise: bool = True
    text: str = field(default="", compare=False)
    _index: Index = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_index", build_index([rule.when for rule in self.rules]))

    def judge(self, facts: Facts) -> Verdict:
        """Go through the rules in order. Never raises for what a client sent."""
        limits, account_rule = Limits(), None
        would_deny: list[str] = []
        beside: list[tuple[str, str]] = []
        candidates = self._index.candidates(facts)
        while candidates:
            number = (candidates & -candidates).bit_length() - 1
            candidates &= candidates - 1
            if not holds(self._index.rest[number], facts):
                continue
            rule = self.rules[number]
            if rule.observe:
                would_deny += [rule.name] if rule.then in ("deny", "require_account") else []
                beside.append((rule.name, "observe"))
            elif rule.then == "limit":
                limits = limits.tightened(rule.limits)
                beside.append((rule.name, "limit"))
            elif rule.then == "require_account":
                account_rule = account_rule or rule.name
            else:
                allowed = rule.then == "allow"
                return Verdict(allowed, rule.name, rule.message, account_rule, limits, tuple(would_deny), tuple(beside))
        return Verdict(self.otherwise, OTHERWISE, None, account_rule, limits, tuple(would_deny), tuple(beside))


NO_RULES = RuleSet()
"""Where the settings name no rules file."""
