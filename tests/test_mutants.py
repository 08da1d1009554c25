"""The mutants themselves: each still fits the code, and the test that is to catch it is there. `run.py` plays them."""

from __future__ import annotations

import ast
import importlib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@cache
def functions(path: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if hasattr(node, "name")}


def test_each_mutant_fits_the_code_and_names_its_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "tests" / "mutants")
    mutants, stale = importlib.import_module("table").MUTANTS, importlib.import_module("mutant").stale
    wrong = {one.name: why for one in mutants if (why := stale(ROOT, one))}
    for one in mutants:
        path, _, name = one.node.partition("::")
        if name.partition("[")[0] not in functions(ROOT / path):
            wrong[one.name] = f"{one.node} is not there"
    assert wrong == {}
    assert len({one.name for one in mutants}) == len(mutants) >= 20
