"""Whether a verified token may have this file now, as data. Touches nothing: the ledger applies what it describes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

from gateway.policy.accounts import Account
from gateway.policy.fronts import Waived, kept
from gateway.policy.limits import Rate, ValidAfterFirst, charges, code_charge
from gateway.policy.model import (
    Address,
    Allow,
    Claims,
    Decision,
    Deny,
    Device,
    DownloadRequest,
    Facts,
    FileEntry,
    Limits,
    Place,
    Plan,
)
from gateway.policy.networks import is_near
from gateway.policy.orders import Holding
from gateway.policy.reasons import Reason
from gateway.policy.ruleset import RuleSet, Verdict
from gateway.policy.standing import Standing


@dataclass(frozen=True, slots=True)
class Policy:
    """What a decision rests on besides the request. `standing` grows, everything else is replaced as a whole.

    `holding` is None for a token without an order, and for an order that is not in the order book. `binds`: whether a
    plan's `bind_ip` is asked, which is not to be where nothing is known of orders.
    """

    rules: RuleSet
    standing: Standing
    external_hosts: Collection[str] = ()
    holding: Holding | None = None
    waived: Waived = field(default_factory=dict)
    binds: bool = True


HOST_NOT_LISTED = Deny(Reason.TOKEN_CLAIMS, message="The file's host is not in external_hosts of the settings.")


def requested_file(claims: Claims, number: int) -> FileEntry | Deny:
    """The file at this place in the token, counted from 1."""
    if not 1 <= number <= len(claims.files):
        return Deny(Reason.FILE_UNKNOWN)
    return claims.files[number - 1]


def decide(
    claims: Claims,
    file: FileEntry,
    request: DownloadRequest,
    *,
    device: Device,
    place: Place,
    policy: Policy,
    now: float,
) -> Decision:
    """Allow with its charges, or the first reason to deny. `now` in Unix seconds; expiry is the ledger's to refuse."""
    if (frozen := policy.standing.refused(None)) is not None:
        return frozen
    plan = plan_of(claims, policy.rules)
    if isinstance(plan, Deny):
        return plan
    decision = _decide(claims, file, request, device=device, place=place, policy=policy, now=now, plan=plan)
    return replace(decision, plan=plan.name or None)


def _decide(
    claims: Claims,
    file: FileEntry,
    request: DownloadRequest,
    *,
    device: Device,
    place: Place,
    policy: Policy,
    now: float,
    plan: Plan,
) -> Decision:
    if policy.standing.is_revoked(claims):
        return Deny(Reason.TOKEN_REVOKED)
    if policy.holding is not None and (lost := lost_by(policy.holding, file, now)) is not None:
        return Deny(lost)
    if claims.ip and not any(request.client_address in network for network in claims.ip):
        return Deny(Reason.TOKEN_IP)
    if plan.bind_ip and policy.binds and (why := far_from_order(policy.holding, request.client_address)):
        return Deny(Reason.TOKEN_IP, message=why)
    if (
        unfit := unfit_for(claims, file, plan, standing=policy.standing, hosts=policy.external_hosts, now=now)
    ) is not None:
        return unfit
    verdict = policy.rules.judge(facts_of(claims, file, request, place=place, plan=plan, now=now))
    if (refused := refused_by(verdict, plan, claims, account=request.account, view=request.view)) is not None:
        return refused
    limits = limits_of(claims, plan, policy.standing, verdict.limits)
    possible = kept(limits, request.front, policy.waived)
    if possible.unkept:
        return unkept_by(request.front, possible.unkept, verdict)
    code = (code_charge(device),) if plan.new_device and not device.confirmed else ()
    return Allow(
        file,
        charges(possible.limits, device) + code,
        expiry_of(claims, plan, policy.standing),
        rate=possible.limits.get(Rate.name),
        limits=limits,
        waived=possible.waived,
        guests=plan.guests,
        rule=verdict.rule,
        would_deny=verdict.would_deny,
        beside=verdict.beside,
    )


def facts_of(
    claims: Claims, file: FileEntry, request: DownloadRequest, *, place: Place, plan: Plan, now: float
) -> Facts:
    """What rules may ask of the request. `now` in Unix seconds."""
    return Facts(
        claims=claims,
        file=file,
        plan=plan.name or None,
        address=request.client_address,
        place=place,
        method=request.method,
        user_agent=request.user_agent,
        now=now,
    )


def lost_by(holding: Holding, file: FileEntry, now: float) -> Reason | None:
    """Why the order does not give its buyer this file now (Unix s), or None where it does."""
    if not holding.paid:
        return Reason.ORDER_UNPAID
    if file.identity not in holding.until:
        return Reason.TOKEN_REVOKED
    ends = holding.until[file.identity]
    return Reason.TOKEN_EXPIRED if ends is not None and ends <= now else None


def far_from_order(holding: Holding | None, client: Address) -> str:
    """Why a client may not have what only the network of the order may, for programs; "" where it may.

    It says nothing of the address itself. Where nobody knows it, no network is the right one.
    """
    if holding is None:
        return "The link works only in the network that it was ordered from, and no order of it is known."
    if not holding.address:
        return "The link works only in the network that it was ordered from, and the shop has not told which that is."
    return "" if is_near(client, holding.address) else "The link works only in the network that it was ordered from."


def unfit_for(
    claims: Claims, file: FileEntry, plan: Plan, *, standing: Standing, hosts: Collection[str] | None, now: float
) -> Deny | None:
    """Why a token of this plan is refused for what it says, before any rule is asked. `now` in Unix seconds.

    `hosts` are those that external files may be at; None: not known, and not asked.
    """
    if _outlives(claims, plan, now) and standing.extended_to(claims) is None:
        return Deny(Reason.TOKEN_CLAIMS, message="The token has no iat, and is valid for longer than its plan.")
    if hosts is not None and file.url is not None and urlsplit(file.url).hostname not in hosts:
        return HOST_NOT_LISTED
    return None


def refused_by(verdict: Verdict, plan: Plan, claims: Claims, *, account: Account | None, view: bool) -> Deny | None:
    """The refusal that follows from what the rules say. `account`: who has signed in; `view`: to see it inline."""
    deny = None
    if not verdict.allowed:
        deny = Deny(Reason.RULE_DENIED, rule=verdict.rule, message=verdict.message)
    elif (reason := missing_account(claims, verdict, account)) is not None:
        deny = Deny(reason, rule=verdict.account_rule)
    elif view and not plan.view:
        deny = Deny(Reason.VIEW_NOT_ALLOWED)
    return deny and replace(deny, would_deny=verdict.would_deny, beside=verdict.beside)


def missing_account(claims: Claims, verdict: Verdict, account: Account | None) -> Reason | None:
    """Why who has signed in may not have what the token, or a rule, gives to the order's customer alone."""
    if not claims.account and verdict.account_rule is None:
        return None
    if account is None:
        return Reason.ACCOUNT_REQUIRED
    return None if account.bought(claims.customer_id, claims.order_id) else Reason.ACCOUNT_OTHER


def unkept_by(front: str, names: Sequence[str], verdict: Verdict) -> Deny:
    """The refusal by a door that cannot keep these limits."""
    message = f"The door {front} cannot keep {' and '.join(names)}; doors.{front}.waive in the settings gives it up."
    return Deny(
        Reason.LIMIT_UNKEPT, rule=verdict.rule, message=message, would_deny=verdict.would_deny, beside=verdict.beside
    )


def _outlives(claims: Claims, plan: Plan, now: float) -> bool:
    """Whether a token that does not say when it was made, so not later than `now`, is valid for too long."""
    return claims.issued_at is None and plan.valid_for is not None and claims.expires_at - now > plan.valid_for


def plan_of(claims: Claims, rules: RuleSet) -> Plan | Deny:
    """The plan that a token names, else the default one, else one without a name and limits."""
    name = claims.plan if claims.plan is not None else rules.default_plan
    if name is None:
        return Plan("")
    plan = rules.plans.get(name)
    return plan or Deny(Reason.TOKEN_CLAIMS, message="The token names a plan that the rules file has not.")


def limits_of(claims: Claims, plan: Plan, standing: Standing, by_rules: Limits | None = None) -> Limits:
    """The plan's limits, tightened by the token and by rules; an extension ends `valid_after_first` (see expiry_of)."""
    limits = plan.limits.tightened(claims.limits).tightened(by_rules or Limits())
    return limits if standing.extended_to(claims) is None else limits.without(ValidAfterFirst.name)


def expiry_of(claims: Claims, plan: Plan, standing: Standing) -> int:
    """When the link ends, in Unix seconds: by `exp` and its plan's `valid_for`, or later where it was extended.

    An extension also ends `valid_after_first`: whoever gives it means that the link works until then.
    `valid_for` counts from `iat`; a token that does not say when it was issued ends by its `exp` alone.
    """
    ends = claims.expires_at
    if plan.valid_for is not None and claims.issued_at is not None:
        ends = min(ends, claims.issued_at + plan.valid_for)
    extended = standing.extended_to(claims)
    return ends if extended is None else max(ends, extended)
