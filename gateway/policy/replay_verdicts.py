"""What a candidate's rules say of a recorded request; what is the same for them is judged once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache

from gateway.policy.conditions.base import Condition
from gateway.policy.conditions.combined import All, Any, Not
from gateway.policy.model import Address, Claims, Facts, Place
from gateway.policy.recorded import NotRecorded, address_of, agent_of, databases_of, file_of, place_of
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

    def of(self, fields: Mapping[str, str], claims: Claims, plan: str, at: float) -> Verdict:
        """What the rules say of an event's request under this plan ("": none), at `at` (Unix s). Raises NotRecorded."""
        if self._names is None:
            return self._judge(fields, claims, plan, at)
        key = (plan, *map(fields.get, self._names))
        verdict = self._known.get(key)
        if verdict is None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            verdict = self._judge(fields, claims, plan, at)
            if self._has_databases(fields.get("geo.version", "")):
                self._known[key] = verdict
        return verdict

    def _judge(self, fields: Mapping[str, str], claims: Claims, plan: str, at: float) -> Verdict:
        facts = Facts(
            claims=claims,
            file=file_of(fields["file.key"]),
            plan=plan or None,
            address=address_of(fields),
            place=self._place(fields),
            method=fields.get("http.request.method", ""),
            user_agent=agent_of(fields) if self._asks_agent else "",
            now=at,
        )
        return self._rules.judge(facts)

    def _place(self, fields: Mapping[str, str]) -> Place:
        version = fields.get("geo.version", "")
        if self._has_databases(version):
            return place_of(fields)
        if self._look_up is None or not self._can_look_up:
            missing = min(self._rules.needs - databases_of(version))
            raise NotRecorded(f"the rules ask geo.{missing}, which was not there then and is not in the settings now")
        return self._look_up(address_of(fields))


def _leaves(when: Iterable[Condition]) -> Iterator[Condition]:
    for condition in when:
        if isinstance(condition, Not):
            yield from _leaves(condition.when)
        elif isinstance(condition, Any | All):
            for each in condition.of:
                yield from _leaves(each)
        else:
            yield condition
