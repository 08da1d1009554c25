"""What rules said of one request, for who watches them; and what the rules of another file would have said.

Only rules speak here: what plans limit, the ledger refuses, and it is not asked twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from gateway.policy.accounts import Account
from gateway.policy.decide import facts_of, missing_account, plan_of
from gateway.policy.model import Allow, Claims, Decision, Deny, DownloadRequest, FileEntry, Place
from gateway.policy.reasons import Reason
from gateway.policy.ruleset import RuleSet, Verdict

Outcome = Literal["allow", "deny", "require_account"]

TOKEN, PLAN = "(token)", "(plan)"
"""What stands for a rule's name in a verdict that no rule gave."""
_ACCOUNT = frozenset({Reason.ACCOUNT_REQUIRED, Reason.ACCOUNT_OTHER})
_AFTER_RULES = _ACCOUNT | {Reason.RULE_DENIED, Reason.VIEW_NOT_ALLOWED, Reason.LIMIT_UNKEPT}


@dataclass(frozen=True, slots=True)
class Opinion:
    """What a candidate file says. `rule` is None where the token itself asks for an account, or its plan is not in the
    file; `beside` as in Verdict.
    """

    outcome: Outcome
    rule: str | None
    version: str
    beside: tuple[tuple[str, str], ...] = ()

    @property
    def fields(self) -> dict[str, str]:
        """As event fields."""
        told = {"outcome": self.outcome, "rule": self.rule, "version": self.version}
        return {f"candidate.{name}": text for name, text in told.items() if text}


def is_judged(decision: Decision) -> bool:
    """Whether it got as far as the rules."""
    return isinstance(decision, Allow) or decision.reason in _AFTER_RULES


def opinion(
    rules: RuleSet, claims: Claims, file: FileEntry, request: DownloadRequest, *, place: Place, now: float
) -> Opinion:
    """What these rules, with their own plans, say of a request that other rules have judged; `now` in Unix seconds."""
    plan = plan_of(claims, rules)
    if isinstance(plan, Deny):
        return Opinion("deny", None, rules.version)
    verdict = rules.judge(facts_of(claims, file, request, place=place, plan=plan, now=now))
    return Opinion(*_outcome(verdict, claims, request.account), rules.version, verdict.beside)


def _outcome(verdict: Verdict, claims: Claims, account: Account | None) -> tuple[Outcome, str | None]:
    if not verdict.allowed:
        return "deny", verdict.rule
    if missing_account(claims, verdict, account) is not None:
        return "require_account", verdict.account_rule
    return "allow", verdict.rule


def spoken(decision: Decision) -> Iterator[tuple[str, str]]:
    """(rule, verdict) of each rule in force that spoke: `allow`, `deny` or `require_account` of the one that decided,
    `limit` of each limit that matched, `observe` of each that only observes and matched. TOKEN stands for a rule where
    the token itself asks for an account.
    """
    yield from decision.beside
    if isinstance(decision, Allow):
        if decision.rule is not None:
            yield decision.rule, "allow"
    elif decision.reason is Reason.RULE_DENIED and decision.rule is not None:
        yield decision.rule, "deny"
    elif decision.reason in _ACCOUNT:
        yield decision.rule or TOKEN, "require_account"


def spoken_beside(said: Opinion) -> Iterator[tuple[str, str]]:
    """The same of a candidate's rules, whatever they say; PLAN stands for a rule where it has not the token's plan."""
    yield from said.beside
    yield said.rule or (PLAN if said.outcome == "deny" else TOKEN), said.outcome
