from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.policy.keys import ALGORITHMS
from gateway.settings import load

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_a_new_key_can_be_pasted_into_the_settings(run: Run, tmp_path: Path, alg: str) -> None:
    shown = run("keys", "new", "--kid", "2026-11", "--alg", alg)
    assert (shown.returncode, shown.stderr) == (0, "")
    path = tmp_path / "pasted.yaml"
    rest = "redis: redis://127.0.0.1\norigin: {url: file:///srv}\nissuer: a\n"
    path.write_text(f"{rest}keys:\n{shown.stdout}")
    key = load(path, {}).key_set().signing
    assert key is not None
    assert (key.kid, key.alg) == ("2026-11", alg)


def test_the_commented_half_verifies(run: Run, tmp_path: Path) -> None:
    shown = run("keys", "new", "--kid", "a", "--alg", "EdDSA").stdout
    commented = [line.removeprefix("# ") for line in shown.splitlines() if line.startswith("# ")][1:]
    path = tmp_path / "pasted.yaml"
    rest = "redis: redis://127.0.0.1\norigin: {url: file:///srv}\nissuer: a\n"
    path.write_text(f"{rest}keys:\n" + "\n".join(commented) + "\n")
    keys = load(path, {}).key_set()
    assert keys.signing is None
    assert keys.get("a") is not None


def test_json(run: Run) -> None:
    fields = json.loads(run("keys", "new", "--kid", "a", "--json").stdout)
    assert list(fields) == ["kid", "alg", "secret", "use"]
    assert fields != json.loads(run("keys", "new", "--kid", "a", "--json").stdout)
