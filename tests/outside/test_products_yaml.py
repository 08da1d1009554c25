"""Files made to be misread, as products: each is refused with a sentence, within the bounds of a reload."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".." / "shared" / "material" / "yaml"
FILES = sorted(FOLDER.glob("*.yaml"))
MEMORY = 512 * 1024**2
CPU_SECONDS = 20
pytestmark = pytest.mark.skipif(not FILES, reason="the collected test material is not beside this checkout")

NO_PRODUCTS = ("version: is missing; write version: 1", "products: is missing; write one `- sku: …` a product under it")
WHOLE: dict[str, tuple[str, ...]] = {
    "billion_laughs": ("aliases",),
    "comment_only": NO_PRODUCTS,
    "custom_tag": ("1: has a tag (!…); products need none, remove it",),
    "deep_block": ("is nested deeper than 32 levels; products are flatter",),
    "dup_keys": ("4: default: is there twice, first at ",),
    "dup_nested": ("4: action: is there twice, first at ",),
    "latin2": ("1: is not UTF-8; save the file as UTF-8",),
    "merge_bomb": ("has more than 300000 values, aliases expanded; products have fewer",),
    "nbsp": ("2: is not YAML",),
    "norway_key": ("countries is no key of a products file", *NO_PRODUCTS),
    "nul": ("is not YAML",),
    "quadratic": ("aliases",),
    "self_ref": ("has an alias (*…) to nothing that was complete before it",),
    "truncated_to_empty": NO_PRODUCTS,
}
"""What is said of some files as they are; of the others, that they have no products, and keys that are none."""

READ = """
import json, sys
from pathlib import Path
from gateway.backends.products_file import read_products
from gateway.errors import SettingsError
try:
    found = read_products(Path(sys.argv[1]), hosts=(), plans=())
    print(json.dumps([[], sorted(found.by_sku)]))
except SettingsError as error:
    print(json.dumps([str(error).splitlines(), []]))
"""


def bounded() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))


def read(path: Path) -> tuple[list[str], list[str]]:
    """All that is said of this file, and the SKUs in it, by a process that cannot take the machine with it."""
    done = subprocess.run(
        [sys.executable, "-c", READ, str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=CPU_SECONDS * 2,
        preexec_fn=bounded,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    mistakes, names = json.loads(done.stdout)
    return [line.removeprefix(f"{path}:") for line in mistakes], names


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_trap_is_refused_with_a_sentence(path: Path) -> None:
    found, names = read(path)
    wanted = WHOLE.get(path.stem, (*NO_PRODUCTS, " is no key of a products file; "))
    missing = [expected for expected in wanted if not any(expected in line for line in found)]
    assert not missing, found[:5]
    assert names == []


def within(folder: Path, name: str, **renamed: str) -> tuple[list[str], list[str]]:
    """What is said of the material's values where our grammar has a place for them."""
    text = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    for old, new in renamed.items():
        text = text.replace(f"{old}:", f"{new}:")
    path = folder / "products.yaml"
    path.write_text(
        f"version: 1\nproducts:\n  - files: a.pdf\n{textwrap.indent(text.rstrip(), '    ')}\n", encoding="utf-8"
    )
    mistakes, names = read(path)
    return [line.split(": ", 1)[1] for line in mistakes], names


def test_what_other_readers_take_for_numbers_are_names_as_they_are_written(tmp_path: Path) -> None:
    mistakes, names = within(tmp_path, "numbers", asn="sku")
    assert mistakes == []
    assert names == sorted(
        ["013335", "0o755", "0x10", "1_000", "1e3", "12e03", ".5", "+1", "1:30", "190:20:30", "0b11"]
    )


def test_spellings_of_one_word_are_different_names(tmp_path: Path) -> None:
    mistakes, names = within(tmp_path, "lowercase", deny_countries="sku")
    assert mistakes == []
    assert names == sorted(["ru", "Ru", "RU", "XX", "UK", "EU", "EN"])


def test_a_merge_is_no_key(tmp_path: Path) -> None:
    path = tmp_path / "products.yaml"
    path.write_text("version: 1\nproducts:\n  - &a {sku: A, files: a.pdf}\n  - {<<: *a, sku: B}\n")
    mistakes, _ = read(path)
    assert [line.split(": ", 1)[1][:45] for line in mistakes] == [
        "products[1].<<: << is no key of a product; wr",
        "products[1].files: is missing; write a key su",
    ]
