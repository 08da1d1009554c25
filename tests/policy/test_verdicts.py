"""What rules say, for who watches them: in force, and beside what is in force."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from gateway.backends.rules_file import read_rules
from gateway.policy.model import Allow, Claims, Decision, Deny, DownloadRequest, FileEntry, Place
from gateway.policy.reasons import Reason
from gateway.policy.ruleset import RuleSet
from gateway.policy.verdicts import Opinion, is_judged, opinion, spoken, spoken_beside

FILE = FileEntry("a.bin")
CLAIMS = Claims("shop", "t", 100, (FILE,), plan="gold", tier="free")
BESIDE = (("slow", "limit"), ("y", "observe"))
REQUEST = DownloadRequest(
    request_id="r",
    token="",
    file_number=1,
    method="GET",
    client_address=ip_address("203.0.113.9"),
    client_network="203.0.113.0/24",
)


def rules(tmp_path: Path, text: str) -> RuleSet:
    path = tmp_path / "new.yaml"
    path.write_text(f"version: 1\nplans: {{gold: {{downloads: 1}}}}\n{text}")
    return read_rules(path, frozenset())


@pytest.mark.parametrize(
    ("text", "claims", "expected"),
    [
        ("otherwise: allow", CLAIMS, ("allow", "otherwise", ())),
        ("otherwise: deny", CLAIMS, ("deny", "otherwise", ())),
        ("rules: [{name: x, when: {tier: free}, then: deny}]\notherwise: allow", CLAIMS, ("deny", "x", ())),
        ("rules: [{name: x, when: {plan: gold}, then: deny}]\notherwise: allow", CLAIMS, ("deny", "x", ())),
        (
            "rules: [{name: x, when: {tier: free}, then: require_account}]\notherwise: allow",
            CLAIMS,
            ("require_account", "x", ()),
        ),
        ("otherwise: allow", replace(CLAIMS, account=True), ("require_account", None, ())),
        (
            "rules: [{name: x, mode: observe, when: {tier: free}, then: deny}]\notherwise: allow",
            CLAIMS,
            ("allow", "otherwise", ("x",)),
        ),
        ("otherwise: allow", replace(CLAIMS, plan="silver"), ("deny", None, ())),
    ],
)
def test_what_a_candidate_says(
    tmp_path: Path, text: str, claims: Claims, expected: tuple[str, str | None, tuple[str, ...]]
) -> None:
    candidate = rules(tmp_path, text)
    outcome, rule, would_deny = expected
    said = opinion(candidate, claims, FILE, REQUEST, place=Place(), now=50)
    assert said == Opinion(outcome, rule, candidate.version, tuple((each, "observe") for each in would_deny))
    named = {"candidate.rule": rule} if rule else {}
    assert said.fields == {"candidate.outcome": outcome, **named, "candidate.version": candidate.version}
    stands_for_it = rule or ("(token)" if claims.account else "(plan)")
    assert list(spoken_beside(said)) == [*((each, "observe") for each in would_deny), (stands_for_it, outcome)]


@pytest.mark.parametrize(
    ("decision", "judged", "said"),
    [
        (Allow(FILE, (), 1, rule="x", beside=BESIDE), True, [*BESIDE, ("x", "allow")]),
        (Deny(Reason.RULE_DENIED, rule="x", beside=BESIDE), True, [*BESIDE, ("x", "deny")]),
        (Deny(Reason.ACCOUNT_REQUIRED, rule="x"), True, [("x", "require_account")]),
        (Deny(Reason.ACCOUNT_REQUIRED), True, [("(token)", "require_account")]),
        (Deny(Reason.VIEW_NOT_ALLOWED, beside=BESIDE), True, [*BESIDE]),
        (Deny(Reason.LIMIT_UNKEPT, rule="x", beside=BESIDE), True, [*BESIDE]),
        (Deny(Reason.TOKEN_REVOKED), False, []),
        (Deny(Reason.FROZEN), False, []),
    ],
)
def test_what_rules_in_force_said(decision: Decision, judged: bool, said: list[tuple[str, str]]) -> None:
    assert is_judged(decision) is judged
    assert list(spoken(decision)) == said
