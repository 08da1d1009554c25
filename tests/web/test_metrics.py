"""Metrics stay few, whatever names come."""

from __future__ import annotations

import pytest

from gateway.web import metrics
from gateway.web.metrics import OTHER_RULES, RULE_VERDICTS, count_verdict


def counted(rule: str) -> float:
    (metric,) = RULE_VERDICTS.collect()
    return sum(each.value for each in metric.samples if each.name.endswith("_total") and each.labels["rule"] == rule)


def test_no_more_rules_than_so_many_have_a_line_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "RULE_NAMES_MAX", 2)
    monkeypatch.setattr(metrics, "_rule_names", set())
    before = counted(OTHER_RULES)
    for rule in ("cap-a", "cap-b", "cap-c", "cap-d", "cap-a"):
        count_verdict("live", rule, "allow")
    assert [counted(rule) for rule in ("cap-a", "cap-b", "cap-c", "cap-d")] == [2, 1, 0, 0]
    assert counted(OTHER_RULES) == before + 2
