"""What a candidate's rules say of a recorded request; what is the same for them is judged once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache

from gateway.policy.conditions.base import Condition
from gateway.policy.conditions.combined import All, Any, Not
from gateway.policy.model import Address, Place
from gateway.policy.recorded import NotRecorded, databases_of, read_recorded
from gateway.policy.ruleset import RuleSet, Verdict

LookUp = Callable[[Address], Place]

_AGENT = "user_agent.original"
_ASKED: Mapping[str, tuple[str, ...]] = {
    "ip": ("client.address",),
    "country": ("geo.version", "geo.country.iso_code"),
    "continent": ("geo.version", "geo.continent.code"),
    "region": ("geo.version", "geo.region.iso_code"),
    "asn": ("geo.version", "as.number"),
    "network": ("geo.version", "client.network.type"),
    "file": ("file.key",),
    "tier": ("tier",),
    "plan": (),
    "order": ("order.id",),
    "customer": ("customer.id",),
    "user_agent": (_AGENT,),
    "method": ("http.request.method",),
}
"""The fields of an event that a condition looks at. One that is not here is asked for each request anew."""
_REMEMBERED = 100_000


class Verdicts:
    """The verdicts of one rule set. `look_up` asks the geo databases that there are now, of the kinds `databases`."""

    def __init__(self, rules: RuleSet, look_up: LookUp | None, databases: Iterable[str]) -> None:
        self._rules = rules
        self._can_look_up = look_up is not None and rules.needs.issubset(databases)
        self._look_up = look_up
        keys = {condition.key for rule in rules.rules for condition in _leaves(rule.when)}
        self._asks_agent = "user_agent" in keys
        self._names: tuple[str, ...] | None = None
        if keys <= _ASKED.keys():
            self._names = tuple(sorted({name for key in keys for name in _ASKED[key]}))
        self._known: dict[tuple[str | None, ...], Verdict] = {}
        self._has_databases = lru_cache(64)(lambda version: rules.needs <= databases_of(version))

    def of(self, fields: Mapping[str, str], plan: str) -> Verdict:
        """What the rules say of an event's request under this plan ("": none). Raises NotRecorded."""
        if self._names is None:
            return self._judge(fields, plan)
        get = fields.get
        key = (plan, *[get(name) for name in self._names])
        verdict = self._known.get(key)
        if verdict is None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            verdict = self._judge(fields, plan)
            if self._has_databases(fields.get("geo.version", "")):
                self._known[key] = verdict
        return verdict

    def _judge(self, fields: Mapping[str, str], plan: str) -> Verdict:
        if not self._asks_agent and _AGENT in fields:
            fields = {name: text for name, text in fields.items() if name != _AGENT}
        recorded = read_recorded(fields)
        if not self._has_databases(fields.get("geo.version", "")):
            if self._look_up is None or not self._can_look_up:
                missing = sorted(self._rules.needs - databases_of(fields.get("geo.version", "")))
                raise NotRecorded(
                    f"the rules ask geo.{missing[0]}, which was not there then and is not in the settings"
                )
            recorded = replace(recorded, place=self._look_up(recorded.address))
        return self._rules.judge(recorded.facts(plan or None))


def _leaves(when: Iterable[Condition]) -> Iterator[Condition]:
    for condition in when:
        if isinstance(condition, Not):
            yield from _leaves(condition.when)
        elif isinstance(condition, Any | All):
            for each in condition.of:
                yield from _leaves(each)
        else:
            yield condition
