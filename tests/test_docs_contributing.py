"""CONTRIBUTING.md: its example of a new condition, applied to a copy of the code as it stands there, works."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SECTION = (
    (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("\n## A new condition\n")[2].partition("\n## ")[0]
)
(CLASS,) = re.findall(r"^```python\n(.*?)^```", SECTION, re.MULTILINE | re.DOTALL)
(DOCUMENTED,) = re.findall(r"^```diff\n(.*?)^```", SECTION, re.MULTILINE | re.DOTALL)
(NAME,) = re.findall(r"^class (\w+)\(", CLASS, re.MULTILINE)
CONDITIONS = "gateway/policy/conditions"


def applied(root: Path) -> None:
    """A copy of the code, with the first two steps taken."""
    shutil.copytree(ROOT / "gateway", root / "gateway", ignore=shutil.ignore_patterns("__pycache__"))
    places = root / CONDITIONS / "places.py"
    text = places.read_text(encoding="utf-8")
    assert "    country_code,\n" in text
    places.write_text(text.replace("    country_code,\n", "    country_code,\n    exact_text,\n") + f"\n\n{CLASS}")
    listed = root / CONDITIONS / "__init__.py"
    text = listed.read_text(encoding="utf-8")
    assert f"`{NAME}`" in SECTION.partition("**2.**")[2].partition("**3.**")[0]
    for place in (r"conditions\.places import \(?\s*", r"\(Ip, "):
        text, found = re.subn(place, rf"\g<0>{NAME}, ", text)
        assert found == 1
    listed.write_text(text, encoding="utf-8")


def run(root: Path, *arguments: str) -> str:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    return subprocess.run(
        [sys.executable, "-m", "gateway", *arguments],
        cwd=root,
        env=environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    ).stdout


def test_the_example_of_a_new_condition_is_one_after_its_three_files(tmp_path: Path) -> None:
    row, rule, *rows = [line.removeprefix("+") for line in DOCUMENTED.splitlines()]
    applied(tmp_path)
    (tmp_path / "rules.yaml").write_text(f"version: 1\nrules:\n{rule}\notherwise: allow\n", encoding="utf-8")
    (tmp_path / "tests.yaml").write_text("\n".join(rows), encoding="utf-8")
    tested = json.loads(run(tmp_path, "rules", "test", "rules.yaml", "--coverage", "--json"))
    assert (tested["passed"], tested["failed"], tested["unreached"]) == (len(rows), [], [])
    explained = run(tmp_path, "rules", "explain", "--rules", "rules.yaml", "--city", "Warsaw", "--file", "c/d")
    assert "city: [Gdańsk, unknown] – city is Warsaw" in explained
    schema = json.loads(run(tmp_path, "rules", "schema"))
    assert schema["$defs"]["when"]["properties"]["city"]["description"].startswith("The address's city")
    table = (ROOT / "docs/rules.md").read_text(encoding="utf-8").partition("| condition |")[2]
    assert row.count(" | ") == table.splitlines()[2].count(" | "), "a row of that table"


def test_what_the_section_names_is_there() -> None:
    for path in re.findall(r"`((?:gateway|tests|docs|policy|rules)/[\w/]+\.(?:py|md|json))`", SECTION):
        assert any((ROOT / start / path).is_file() for start in ("", "gateway")), path
    for path in re.findall(r"\]\(([\w/.]+)\)", SECTION):
        assert (ROOT / path).is_file(), path
