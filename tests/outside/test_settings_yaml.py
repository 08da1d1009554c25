"""YAML files made to be misread: each is read as what it says, or refused; never expanded, never executed."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from gateway.document import Mistakes, Node
from gateway.settings_file import read_file

FOLDER = Path(__file__).parents[2] / ".." / "shared" / "material" / "yaml"
FILES = sorted(FOLDER.glob("*.yaml"))
REFUSED = {
    "billion_laughs",
    "custom_tag",
    "deep_block",
    "deep_flow",
    "dup_keys",
    "dup_nested",
    "latin2",
    "long_line",
    "merge_bomb",
    "nbsp",
    "nul",
    "quadratic",
    "self_ref",
}
pytestmark = pytest.mark.skipif(not FILES, reason="the collected test material is not beside this checkout")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_trap_is_read_as_text_or_refused(path: Path) -> None:
    found = Mistakes()
    began = time.process_time()
    tree = read_file(path, found)
    assert time.process_time() - began < 5
    assert bool(found.keys) == (path.stem in REFUSED)
    assert tree is None or isinstance(tree, Node)
