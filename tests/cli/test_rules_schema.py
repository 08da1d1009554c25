"""`gateway rules schema`, and the schema that lies beside the sample rules."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from gateway.policy.rules_schema import rules_schema

ROOT = Path(__file__).parents[2]
COMMITTED = ROOT / "rules/rules.schema.json"


def test_it_prints_the_schema(run: Callable) -> None:
    shown = run("rules", "schema")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert json.loads(shown.stdout) == rules_schema()


def test_the_committed_schema_is_the_one_of_this_code(run: Callable) -> None:
    renew = "renew it with: .venv/bin/python -m gateway rules schema > rules/rules.schema.json"
    assert COMMITTED.read_text(encoding="utf-8") == run("rules", "schema").stdout, renew


def test_the_sample_rules_name_it_for_editors() -> None:
    first = (ROOT / "rules/rules.yaml").read_text(encoding="utf-8").partition("\n")[0]
    assert first == f"# yaml-language-server: $schema={COMMITTED.name}"
