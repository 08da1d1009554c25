"""How a request came out, how it would come out under a candidate, and what makes the difference."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from gateway.policy.decide import HOST_NOT_LISTED
from gateway.policy.limits import BY_NAME
from gateway.policy.model import Deny, Plan
from gateway.policy.reasons import Reason
from gateway.policy.replay_requests import InForce, Terms
from gateway.policy.ruleset import Rule

Fields = Mapping[str, str]
Kind = Literal["refused", "allowed", "reason"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """`reason` is "" where the request was let through; `rule` the one that decided, where one did."""

    reason: str = ""
    rule: str = ""

    @property
    def status(self) -> int | None:
        """Of the refusal."""
        return Reason.named(self.reason).status if self.reason else None


@dataclass(frozen=True, slots=True)
class Change:
    """One request that comes out otherwise. `kind`: now `refused`, now `allowed`, or refused for another `reason`;
    `cause`: what of the candidate, or of the rules then, makes the difference. `fields` are its event's.
    """

    kind: Kind
    before: Outcome
    after: Outcome
    cause: str
    fields: Fields

    @property
    def flips(self) -> bool:
        return self.kind != "reason"


def recorded_outcome(fields: Fields) -> Outcome:
    """What its event says."""
    return Outcome(fields.get("reason", "") if fields["type"] == "download.denied" else "", fields.get("rule", ""))


def changed(fields: Fields, after: Outcome, cause: Callable[[], str]) -> Change | None:
    """None where it comes out as it did: let through, by whichever rule, or refused for the same reason by the same."""
    before = recorded_outcome(fields)
    if before == after or not (before.reason or after.reason):
        return None
    if not before.reason:
        return Change("refused", before, after, cause(), fields)
    if after.reason:
        return Change("reason", before, after, cause(), fields)
    return Change("allowed", before, after, _then(before, fields), fields)


def refusal(deny: Deny) -> Outcome:
    return Outcome(deny.reason.text, deny.rule or "")


def cause_of(
    deny: Deny, terms: Terms, at: float, limiting: Callable[[], Iterable[Rule]], in_force: InForce | None = None
) -> str:
    """What of the candidate refuses it at this moment (Unix s): a rule, a plan or a limit. `limiting` gives the rules
    whose limits the request met.
    """
    plan = terms.plan
    named = f"plan {(plan.name if isinstance(plan, Plan) else terms.claims.plan) or '(none)'}"
    match deny.reason:
        case Reason.RULE_DENIED | Reason.ACCOUNT_REQUIRED:
            return f"rule {deny.rule}" if deny.rule else "the link asks for an account"
        case Reason.VIEW_NOT_ALLOWED:
            return f"{named}: no view"
        case Reason.TOKEN_CLAIMS:
            if deny == HOST_NOT_LISTED:
                return "the file's host is not in external_hosts of the settings"
            return f"{named} is not in the file" if isinstance(plan, Deny) else f"{named}: valid_for"
    if deny.reason is Reason.TOKEN_EXPIRED and terms.expires_at <= at:
        return _ended_by(terms, named)
    if deny.reason is Reason.LIMIT_UNKEPT and in_force is not None:
        owner = _owner(in_force.unkept[0], terms, named, limiting, in_force)
        return f"{owner}, which the door {in_force.front} cannot keep"
    limit = "valid_after_first" if deny.reason is Reason.TOKEN_EXPIRED else deny.reason.text.removeprefix("limit.")
    return _owner(limit, terms, named, limiting, in_force)


def _owner(
    limit: str, terms: Terms, named: str, limiting: Callable[[], Iterable[Rule]], in_force: InForce | None
) -> str:
    """Who sets the limit that is in force: the plan called so, the link or a rule."""
    plan = terms.plan
    number = in_force.limits.get(limit) if in_force is not None else None
    written = limit if number is None else f"{limit}={BY_NAME[limit].write(number)}"
    if isinstance(plan, Plan) and plan.limits.get(limit) == number:
        return f"{named}: {written}"
    if terms.claims.limits.get(limit) == number:
        return f"the link: {written}"
    by = next((rule.name for rule in limiting() if rule.limits.get(limit) == number), "")
    return f"rule {by}: {written}"


def _ended_by(terms: Terms, plan: str) -> str:
    """What ends the link when it ends."""
    if terms.expires_at == terms.claims.expires_at:
        return "the link: exp"
    return "the link: its extension" if terms.is_extended else f"{plan}: valid_for"


def _then(before: Outcome, fields: Fields) -> str:
    """What refused it before."""
    if before.reason in ("rule.denied", "account.required") and before.rule:
        return f"rule {before.rule} no longer refuses it"
    limit = before.reason.removeprefix("limit.")
    numbers = dict(part.partition("=")[::2] for part in fields.get("limits", "").split(",") if part)
    if limit in numbers:
        return f"{limit}={numbers[limit]} no longer refuses it"
    return f"{before.reason} no longer refuses it"
