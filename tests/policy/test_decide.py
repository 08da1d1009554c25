"""Decisions as a table: what a token, its plan, the rules and the ops' commands say together, in which order."""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network
from types import MappingProxyType

import pytest

from gateway.policy.decide import Policy, decide, expiry_of, plan_of, refused_by, requested_file
from gateway.policy.fronts import FRONTS, Waived
from gateway.policy.limits import BY_NAME, charges
from gateway.policy.model import (
    Account,
    Allow,
    Charge,
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
from gateway.policy.reasons import Reason
from gateway.policy.ruleset import Verdict
from gateway.policy.standing import Command, Standing

FILE = FileEntry(key="a.bin")
EXTERNAL = FileEntry(key=None, url="https://cdn.example.com:8443/x?y")
CLAIMS = Claims(issuer="shop", token_id="t", expires_at=100, files=(FILE, FileEntry(key="b.bin")))
REQUEST = DownloadRequest(
    request_id="r",
    token="",
    file_number=1,
    method="GET",
    client_address=ip_address("203.0.113.9"),
    client_network="203.0.113.0/24",
)
DEVICE = Device(cookie="c", network="203.0.113.0/24", user_agent=None, id="d")
COUNTED = Charge("count", None, Reason.LIMIT_DOWNLOADS)
ALLOWED = Verdict(True, "otherwise")


@dataclass(frozen=True)
class Always:
    """Rules that say the same of every request, and keep what they were asked."""

    verdict: Verdict
    plans: dict[str, Plan]
    default_plan: str | None = None

    def judge(self, facts: Facts) -> Verdict:
        assert facts.claims.token_id == "t"
        return self.verdict


def rules(verdict: Verdict = ALLOWED, *plans: Plan, default: str | None = None) -> Always:
    return Always(verdict, {plan.name: plan for plan in plans}, default)


def decided(
    claims: Claims = CLAIMS,
    file: FileEntry = FILE,
    *,
    view: bool = False,
    using: Always | None = None,
    standing: Standing | None = None,
    hosts: tuple[str, ...] = (),
    front: str = "http",
    waived: Waived = MappingProxyType({}),
) -> Decision:
    policy = Policy(using or rules(), standing or Standing(), hosts, waived=waived)
    request = replace(REQUEST, view=view, front=front)
    return decide(claims, file, request, device=DEVICE, place=Place(), policy=policy, now=50)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"ip": (ip_network("198.51.100.0/24"), ip_network("2001:db8::/32"))}, Reason.TOKEN_IP),
        ({"account": True}, Reason.ACCOUNT_REQUIRED),
        ({"plan": "gold"}, Reason.TOKEN_CLAIMS),
    ],
)
def test_a_token_by_itself_is_denied(changes: dict[str, object], reason: Reason) -> None:
    decision = decided(replace(CLAIMS, **changes))
    assert isinstance(decision, Deny)
    assert decision.reason is reason


def test_frozen_comes_before_everything_and_ends_with_the_thaw() -> None:
    standing = Standing()
    standing.apply(Command("revoke", 5, token_key=CLAIMS.token_key))
    standing.apply(Command("freeze", 6, message="Back at 18:00."))
    for claims in (CLAIMS, replace(CLAIMS, plan="gold"), replace(CLAIMS, ip=(ip_network("198.51.100.0/24"),))):
        assert decided(claims, standing=standing) == Deny(Reason.FROZEN, message="Back at 18:00.")
    standing.apply(Command("thaw", 7))
    assert decided(standing=standing) == Deny(Reason.TOKEN_REVOKED)


@pytest.mark.parametrize("changes", [{}, {"ip": (ip_network("203.0.113.0/24"),)}, {"expires_at": 0}])
@pytest.mark.parametrize("downloads", [None, 5])
def test_allowed_with_its_charge(changes: dict[str, object], downloads: int | None) -> None:
    claims = replace(CLAIMS, limits=Limits(downloads=downloads), **changes)
    charge = Charge("count", downloads, Reason.LIMIT_DOWNLOADS)
    assert decided(claims) == Allow(FILE, (charge,), claims.expires_at, rule="otherwise", limits=claims.limits)


def test_a_link_and_a_rule_tighten_the_plan_and_cannot_loosen_it() -> None:
    plan = Plan("standard", Limits(downloads=5, networks=3, rate=1000))
    verdict = Verdict(True, "office", limits=Limits(networks=9, devices=4, rate=300))
    claims = replace(CLAIMS, plan="standard", limits=Limits(downloads=9, networks=2, rate=500))
    decision = decided(claims, using=rules(verdict, plan))
    assert isinstance(decision, Allow)
    expected = Limits(downloads=5, networks=2, devices=4)
    assert (decision.charges, decision.rate, decision.plan) == (charges(expected, DEVICE), 300, "standard")


def test_a_token_without_a_plan_has_the_default_one() -> None:
    plan = Plan("standard", Limits(downloads=5))
    decision = decided(using=rules(ALLOWED, plan, Plan("gold"), default="standard"))
    assert isinstance(decision, Allow)
    assert (decision.plan, decision.charges[0].limit) == ("standard", 5)
    assert plan_of(replace(CLAIMS, plan="gold"), rules(ALLOWED, plan, Plan("gold"), default="standard")) == Plan("gold")


def test_the_deciding_rule_is_named() -> None:
    verdict = Verdict(False, "embargo", message="Not there.", would_deny=("new",), beside=(("new", "observe"),))
    decision = decided(using=rules(verdict))
    assert decision == Deny(
        Reason.RULE_DENIED, rule="embargo", message="Not there.", would_deny=("new",), beside=(("new", "observe"),)
    )
    account = decided(using=rules(Verdict(True, "otherwise", account_rule="masters")))
    assert account == Deny(Reason.ACCOUNT_REQUIRED, rule="masters")


@pytest.mark.parametrize(
    ("customer", "order", "account", "expected"),
    [
        ("7", None, None, Reason.ACCOUNT_REQUIRED),
        ("7", None, Account("7"), None),
        ("7", None, Account("8"), Reason.ACCOUNT_OTHER),
        (None, None, Account("7"), Reason.ACCOUNT_OTHER),
        (None, None, Account(""), Reason.ACCOUNT_OTHER),
        ("7", "main-1001", Account("7", ("main", "shop-pl")), None),
        ("7", "shop-pl-1001", Account("7", ("main", "shop-pl")), None),
        ("7", "other-1001", Account("7", ("main", "shop-pl")), Reason.ACCOUNT_OTHER),
        ("7", "main", Account("7", ("main",)), Reason.ACCOUNT_OTHER),
        ("7", None, Account("7", ("main",)), Reason.ACCOUNT_OTHER),
        ("7", "main-pl-1", Account("7", ("main",), ("main-pl",)), Reason.ACCOUNT_OTHER),
        ("7", "main-pl-1", Account("7", ("main-pl",), ("main",)), None),
        ("7", "main-1", Account("7", ("main",), ("main-pl",)), None),
    ],
)
@pytest.mark.parametrize("by_rule", [False, True])
def test_an_account_opens_its_own_links_alone(
    customer: str | None, order: str | None, account: Account | None, expected: Reason | None, by_rule: bool
) -> None:
    claims = replace(CLAIMS, customer_id=customer, order_id=order, account=not by_rule)
    said = Verdict(True, "otherwise", account_rule="masters" if by_rule else None)
    refused = refused_by(said, Plan(""), claims, account=account, view=False)
    assert (None if refused is None else (refused.reason, refused.rule)) == (
        None if expected is None else (expected, said.account_rule)
    )


def test_revoking_comes_before_everything() -> None:
    standing = Standing()
    standing.apply(Command("revoke", 10, token_key=CLAIMS.token_key))
    claims = replace(CLAIMS, ip=(ip_network("198.51.100.0/24"),))
    assert decided(claims, standing=standing) == Deny(Reason.TOKEN_REVOKED)


def test_view_is_the_plans_to_grant() -> None:
    assert decided(view=True) == Deny(Reason.VIEW_NOT_ALLOWED)
    plans = rules(ALLOWED, Plan("read", view=True), Plan("save"))
    assert isinstance(decided(replace(CLAIMS, plan="read"), view=True, using=plans), Allow)
    denied = decided(replace(CLAIMS, plan="save"), view=True, using=plans)
    assert denied == Deny(Reason.VIEW_NOT_ALLOWED, plan="save")


@pytest.mark.parametrize(
    ("hosts", "allowed"),
    [((), False), (("example.com",), False), (("cdn.example.com.evil.test",), False), (("cdn.example.com",), True)],
)
def test_an_external_file_needs_its_host_in_the_settings(hosts: tuple[str, ...], allowed: bool) -> None:
    decision = decided(file=EXTERNAL, hosts=hosts)
    assert decision == Allow(EXTERNAL, (COUNTED,), 100, rule="otherwise") if allowed else isinstance(decision, Deny)


@pytest.mark.parametrize(
    ("exp", "iat", "valid_for", "extended", "expected"),
    [
        (100, None, None, None, 100),
        (100, 10, 20, None, 30),
        (100, 90, 20, None, 100),
        (100, None, 20, None, 100),
        (100, 10, 20, 500, 500),
        (100, 10, None, 60, 100),
        (100, 10, 20, 60, 60),
    ],
)
def test_expiry(exp: int, iat: int | None, valid_for: int | None, extended: int | None, expected: int) -> None:
    standing = Standing()
    claims = replace(CLAIMS, expires_at=exp, issued_at=iat)
    if extended is not None:
        standing.apply(Command("extend", 50, token_key=claims.token_key, expires_at=extended))
    assert expiry_of(claims, Plan("p", valid_for=valid_for), standing) == expected


@pytest.mark.parametrize(("number", "key"), [(1, "a.bin"), (2, "b.bin"), (0, None), (3, None), (-1, None)])
def test_files_are_counted_from_one(number: int, key: str | None) -> None:
    file = requested_file(CLAIMS, number)
    assert file == (Deny(Reason.FILE_UNKNOWN) if key is None else FileEntry(key=key))


@pytest.mark.parametrize("name", BY_NAME)
@pytest.mark.parametrize("front", FRONTS)
def test_a_limit_that_the_door_cannot_keep_is_refused_whoever_sets_it(front: str, name: str) -> None:
    limits = Limits(**{name: 7})
    plan, verdict = Plan("p", limits), Verdict(True, "limiting", limits=limits, would_deny=("new",))
    by_token, by_plan, by_rule = (
        decided(replace(CLAIMS, limits=limits), front=front),
        decided(using=rules(ALLOWED, plan, default="p"), front=front),
        decided(using=rules(verdict), front=front),
    )
    for decision in (by_token, by_plan, by_rule):
        if name in FRONTS[front].limits:
            assert isinstance(decision, Allow)
            assert (decision.limits, decision.waived) == (limits, ())
            continue
        assert isinstance(decision, Deny)
        assert decision.reason is Reason.LIMIT_UNKEPT
        assert decision.message is not None
        assert f"{front} cannot keep {name}" in decision.message
        assert f"doors.{front}.waive" in decision.message
    if isinstance(by_rule, Deny) and isinstance(by_plan, Deny):
        assert (by_rule.rule, by_rule.would_deny, by_plan.plan) == ("limiting", ("new",), "p")


def test_what_is_waived_is_told_and_neither_charged_nor_paced() -> None:
    claims = replace(CLAIMS, limits=Limits(downloads=5, concurrent=1, rate=1000))
    both = {"nginx": frozenset({"concurrent", "rate"})}
    decision = decided(claims, front="nginx", waived=both)
    assert isinstance(decision, Allow)
    assert (decision.limits, decision.waived) == (claims.limits, ("concurrent", "rate"))
    assert (decision.charges, decision.rate) == (charges(Limits(downloads=5), DEVICE), None)
    half = decided(claims, front="nginx", waived={"nginx": frozenset({"rate"})})
    assert isinstance(half, Deny)
    assert half.message is not None
    assert "cannot keep concurrent;" in half.message
    assert decided(claims, front="auth", waived=both) == replace(
        half, message="The door auth cannot keep concurrent and rate; doors.auth.waive in the settings gives it up."
    )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"ip": (ip_network("198.51.100.0/24"),)}, Reason.TOKEN_IP),
        ({"account": True}, Reason.ACCOUNT_REQUIRED),
        ({}, Reason.LIMIT_UNKEPT),
    ],
)
def test_what_any_door_refuses_comes_before_what_this_one_cannot_keep(changes, reason: Reason) -> None:
    decision = decided(replace(CLAIMS, limits=Limits(rate=1), **changes), front="nginx")
    assert isinstance(decision, Deny)
    assert decision.reason is reason
