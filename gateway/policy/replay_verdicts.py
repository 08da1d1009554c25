"""What a candidate's rules say of a recorded request.

A verdict follows from which conditions hold, so each condition is asked once for each text that an event may hold of
what it looks at, and the rules are judged once for each combination of answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache

from gateway.policy.conditions.base import Asks, holds
from gateway.policy.conditions.combined import leaves
from gateway.policy.model import Address, Claims, Facts, Place
from gateway.policy.recorded import NotRecorded, address_of, agent_of, databases_of, file_of, place_of
from gateway.policy.ruleset import Rule, RuleSet, Verdict

LookUp = Callable[[Address], Place]
Fields = Mapping[str, str]

_AGENT = "user_agent"
_LOOKS_AT: Mapping[str, str] = {
    "ip": "client.address",
    "country": "geo.country.iso_code",
    "continent": "geo.continent.code",
    "region": "geo.region.iso_code",
    "asn": "as.number",
    "network": "client.network.type",
    "file": "file.key",
    "tier": "tier",
    "order": "order.id",
    "customer": "customer.id",
    _AGENT: "user_agent.original",
    "method": "http.request.method",
    "time": "time",
    "before": "time",
    "after": "time",
}
"""The field of an event that a condition looks at; of `plan` it is the one in force, which is given. With a condition
that is not here the rules are judged for each request anew."""
_REMEMBERED = 100_000


class _Answers:
    """Which of the conditions on one field hold, by the field's text: a bit for each."""

    __slots__ = ("conditions", "field", "known")

    def __init__(self, field: str) -> None:
        self.field = field
        self.conditions: list[Asks[object]] = []
        self.known: dict[str | None, int] = {}

    def ask(self, text: str | None, facts: Facts) -> int:
        if len(self.known) >= _REMEMBERED:
            self.known.clear()
        found = sum(condition.matches(facts) << number for number, condition in enumerate(self.conditions))
        self.known[text] = found
        return found


class Verdicts:
    """The verdicts of one rule set. `look_up` asks the geo databases that there are now, of the kinds `databases`."""

    def __init__(self, rules: RuleSet, look_up: LookUp | None, databases: Iterable[str]) -> None:
        self._rules = rules
        self._look_up = look_up if rules.needs.issubset(databases) else None
        asked = [condition for rule in rules.rules for condition in leaves(rule.when)]
        self._asks_agent = any(condition.key == _AGENT for condition in asked)
        self._can_be_known = all(condition.key in _LOOKS_AT or condition.key == "plan" for condition in asked)
        answers: dict[str, _Answers] = {}
        for condition in asked:
            if field := _LOOKS_AT.get(condition.key):
                answers.setdefault(field, _Answers(field)).conditions.append(condition)
        self._answers = tuple(answers.values())
        self._known: dict[tuple[object, ...], Verdict] = {}
        self._has_databases = lru_cache(64)(lambda version: rules.needs <= databases_of(version))

    def of(self, fields: Fields, claims: Claims, plan: str, at: float) -> Verdict:
        """What the rules say of an event's request under this plan ("": none), at `at` (Unix s). Raises NotRecorded."""
        if not self._can_be_known or not self._has_databases(fields.get("geo.version", "")):
            return self._rules.judge(self._facts(fields, claims, plan, at))
        key: list[object] = [plan]
        facts = None
        for answers in self._answers:
            text = fields.get(answers.field)
            found = answers.known.get(text)
            if found is None:
                facts = facts or self._facts(fields, claims, plan, at)
                found = answers.ask(text, facts)
            key.append(found)
        said = tuple(key)
        verdict = self._known.get(said)
        if verdict is None:
            verdict = self._known[said] = self._rules.judge(facts or self._facts(fields, claims, plan, at))
        return verdict

    def limiting(self, fields: Fields, claims: Claims, plan: str, at: float) -> Iterator[Rule]:
        """The rules whose limits an event's request met. Raises NotRecorded."""
        facts = self._facts(fields, claims, plan, at)
        for rule in self._rules.rules:
            if rule.observe or not holds(rule.when, facts):
                continue
            if rule.then == "limit":
                yield rule
            elif rule.then in ("allow", "deny"):
                return

    def _facts(self, fields: Fields, claims: Claims, plan: str, at: float) -> Facts:
        return Facts(
            claims=claims,
            file=file_of(fields["file.key"]),
            plan=plan or None,
            address=address_of(fields),
            place=self._place(fields),
            method=fields.get("http.request.method", ""),
            user_agent=agent_of(fields) if self._asks_agent else "",
            now=at,
        )

    def _place(self, fields: Fields) -> Place:
        version = fields.get("geo.version", "")
        if self._has_databases(version):
            return place_of(fields)
        if self._look_up is None:
            missing = min(self._rules.needs - databases_of(version))
            raise NotRecorded(f"the rules ask geo.{missing}, which was not there then and is not in the settings now")
        return self._look_up(address_of(fields))
