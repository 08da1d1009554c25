"""How a decision came about: what was asked in which order, what each rule saw, and whose limits are in force.

Law: the decision is always decide()'s own; what is told beside it rests on the same conditions and agrees with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal, get_args
from urllib.parse import urlsplit

from gateway.policy.conditions.base import Condition
from gateway.policy.conditions.combined import leaves
from gateway.policy.decide import Policy, decide, expiry_of, limits_of, plan_of
from gateway.policy.fronts import FRONTS, Waived, refused_at
from gateway.policy.given import Given
from gateway.policy.model import (
    Claims,
    Decision,
    Deny,
    Device,
    DownloadRequest,
    Facts,
    FileEntry,
    Limits,
    Plan,
)
from gateway.policy.reasons import Reason
from gateway.policy.ruleset import Rule, RuleSet
from gateway.policy.standing import Standing

Gate = Literal["frozen", "revoked", "order", "token", "rules", "account", "view", "door"]
GATES: tuple[Gate, ...] = get_args(Gate)
"""What can refuse before the ledger's limits, in this order; `token`: its networks, lifetime, plan and file;
`door`: what the front door cannot keep."""
_OF_REASON: dict[Reason, Gate] = {
    Reason.FROZEN: "frozen",
    Reason.ORDER_UNPAID: "order",
    Reason.TOKEN_EXPIRED: "order",
    Reason.RULE_DENIED: "rules",
    Reason.ACCOUNT_REQUIRED: "account",
    Reason.VIEW_NOT_ALLOWED: "view",
    Reason.LIMIT_UNKEPT: "door",
}


@dataclass(frozen=True, slots=True)
class Step:
    """One rule that was asked about these facts. `missed`: the place of its first condition that does not hold, None
    where it matches.
    """

    rule: Rule
    facts: Facts
    missed: int | None

    @property
    def matches(self) -> bool:
        return self.missed is None

    @property
    def failed(self) -> str:
        """The condition that does not hold, as it was written, or ''."""
        if self.missed is None:
            return ""
        written = self.rule.written[self.missed] if self.missed < len(self.rule.written) else "…"
        return f"{self.rule.when[self.missed].key}: {written}"

    @property
    def seen(self) -> str:
        """What that condition saw; where the rule matches, what all of them did."""
        return _seen(self.rule.when if self.missed is None else (self.rule.when[self.missed],), self.facts)

    @property
    def decides(self) -> bool:
        return self.matches and not self.rule.observe and self.rule.then in ("allow", "deny")


@dataclass(frozen=True, slots=True)
class InForce:
    """One limit, its number (see Limits), and who sets it: `plan NAME`, `token` or `rule NAME`. `state`: whether the
    request's door keeps it, cannot, or does not have to.
    """

    name: str
    value: int
    source: str
    state: Literal["kept", "unkept", "waived"] = "kept"


@dataclass(frozen=True, slots=True)
class Trace:
    """The decision and its grounds. `refused_at` is None for an allow; `steps` are empty where no rule was asked, and
    end with the rule that decided; `plan` is None where the rules file has it no more; `expires_at` in Unix seconds.
    """

    decision: Decision
    refused_at: Gate | None
    plan: Plan | None
    steps: tuple[Step, ...]
    limits: tuple[InForce, ...]
    expires_at: int

    @property
    def outcome(self) -> str:
        """See `outcome_of`."""
        return outcome_of(self.decision)


def trace(given: Given, policy: Policy) -> Trace:
    """How it is decided. `given.facts.plan` plays no part: the plan is the token's, else the default one."""
    facts, decision = given.facts, decided(given, policy)
    refused_at = _gate(decision, facts.claims, policy)
    plan = plan_of(facts.claims, policy.rules)
    if isinstance(plan, Deny):
        return Trace(decision, refused_at, None, (), (), expiry_of(facts.claims, Plan(""), policy.standing))
    asked = refused_at is None or GATES.index(refused_at) >= GATES.index("rules")
    steps = tuple(walk(policy.rules, replace(facts, plan=plan.name or None))) if asked else ()
    limits = _at_door(_in_force(facts.claims, plan, policy.standing, steps), given.front, policy.waived)
    return Trace(decision, refused_at, plan, steps, limits, expiry_of(facts.claims, plan, policy.standing))


def decided(given: Given, policy: Policy) -> Decision:
    """The decision alone."""
    facts = given.facts
    return decide(
        facts.claims,
        facts.file,
        _request(given),
        device=Device(None, "", None),
        place=facts.place,
        policy=policy,
        now=facts.now,
    )


def outcome_of(decision: Decision) -> str:
    """`allow`, `deny` or `require_account`."""
    if not isinstance(decision, Deny):
        return "allow"
    return "require_account" if decision.reason is Reason.ACCOUNT_REQUIRED else "deny"


def rules_alone(rules: RuleSet, file: FileEntry) -> Policy:
    """A policy in which only the rules speak: nothing was ordered of the link, nothing is known of its order, and every
    external host is allowed.
    """
    hosts = () if file.url is None else (urlsplit(file.url).hostname or "",)
    return Policy(rules, Standing(), hosts, binds=False)


def walk(rules: RuleSet, facts: Facts) -> Iterator[Step]:
    """The rules as they are asked, up to the one that decides."""
    for rule in rules.rules:
        step = _step(rule, facts)
        yield step
        if step.decides:
            return


def _step(rule: Rule, facts: Facts) -> Step:
    for place, condition in enumerate(rule.when):
        if not condition.matches(facts):
            return Step(rule, facts, place)
    return Step(rule, facts, None)


def _seen(conditions: Iterable[Condition], facts: Facts) -> str:
    """The facts that these rest on, in the order of the file, each once however many conditions ask for it."""
    return ", ".join({f"{leaf.key} is {leaf.in_words(leaf.fact(facts))}": None for leaf in leaves(conditions)})


def _gate(decision: Decision, claims: Claims, policy: Policy) -> Gate | None:
    if not isinstance(decision, Deny):
        return None
    if decision.reason is Reason.TOKEN_REVOKED:
        return "revoked" if policy.standing.is_revoked(claims) else "order"
    return _OF_REASON.get(decision.reason, "token")


def _in_force(claims: Claims, plan: Plan, standing: Standing, steps: Iterable[Step]) -> tuple[InForce, ...]:
    limiting = [step.rule for step in steps if step.matches and step.rule.then == "limit" and not step.rule.observe]
    sources = [(f"plan {plan.name}", plan.limits), ("token", claims.limits)]
    sources += [(f"rule {rule.name}", rule.limits) for rule in limiting]
    by_rules = Limits()
    for rule in limiting:
        by_rules = by_rules.tightened(rule.limits)
    together = limits_of(claims, plan, standing, by_rules)
    return tuple(
        InForce(name, value, next(source for source, limits in sources if limits.get(name) == value))
        for name, value in together.values
    )


def _at_door(limits: Iterable[InForce], front: str, waived: Waived) -> tuple[InForce, ...]:
    door, refused = FRONTS[front], refused_at(FRONTS[front], waived)
    return tuple(
        each if each.name in door.limits else replace(each, state="unkept" if each.name in refused else "waived")
        for each in limits
    )


def _request(given: Given) -> DownloadRequest:
    return DownloadRequest(
        request_id="",
        token="",
        file_number=1,
        method=given.facts.method,
        client_address=given.facts.address,
        client_network="",
        user_agent=given.facts.user_agent,
        view=given.view,
        front=given.front,
        account=given.account,
    )
