"""docs/products.md and the sample: every example is read and asked, and nothing that can be written is missing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from gateway.backends.products_file import read_products
from gateway.backends.rules_file import read_rules
from gateway.errors import SettingsError
from gateway.policy.model import FileEntry
from gateway.policy.orders import Line
from gateway.policy.products import Product
from gateway.policy.products_reader import FILE_KEYS, LASTS_MAX, PRODUCT_KEYS, TOP_KEYS
from gateway.policy.units import format_duration, parse_duration

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/products.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
EXAMPLES = list(zip(BLOCKS[::2], BLOCKS[1::2], strict=True))
HOSTS, PLANS = ("cdn.example.com",), ("standard", "preview")
KEYS = {"key": TOP_KEYS, "key of a product": PRODUCT_KEYS, "key of a file": FILE_KEYS}
Row = dict[str, object]


def expected(row: Row) -> Product | None:
    """What a row says beside its line; None where it says nothing."""
    left = {name: value for name, value in row.items() if name != "line"}
    if not left:
        return None
    files = left.pop("files")
    assert isinstance(files, list)
    lasts = left.pop("lasts", None)
    return Product(
        tuple(FileEntry(each) if isinstance(each, str) else FileEntry(**{"key": None, **each}) for each in files),
        lasts=None if lasts is None else parse_duration(str(lasts)),
        **left,
    )


@pytest.mark.parametrize(("written", "rows"), EXAMPLES, ids=range(len(EXAMPLES)))
def test_an_example_does_what_the_page_says(tmp_path: Path, written: str, rows: str) -> None:
    path = tmp_path / "products.yaml"
    path.write_text(written, encoding="utf-8")
    catalogue = read_products(path, hosts=HOSTS, plans=PLANS)
    found = set()
    for row in YAML(typ="safe").load(rows):
        names = {"sku": "sku", "variant": "variant_id", "product": "product_id"}
        product = catalogue.find(Line("1", **{names[name]: value for name, value in row["line"].items()}))
        assert product == expected(row), row
        found.add(product)
    assert found - {None} == set(catalogue.products), "no row asks for one of the products"


def rows_of(heading: str) -> list[tuple[str, ...]]:
    """The cells of the table under this heading."""
    section = PAGE.partition(f"| {heading} |")[2].partition("\n\n")[0]
    lines = [line.strip("|").split(" |") for line in section.splitlines()[2:]]
    return [tuple(cell.strip() for cell in line) for line in lines]


@pytest.mark.parametrize(("heading", "key"), [(heading, key) for heading, keys in KEYS.items() for key in keys])
def test_every_key_is_on_the_page_and_in_an_example(heading: str, key: str) -> None:
    assert f"`{key}`" in [row[0] for row in rows_of(heading)]
    assert any(re.search(rf"(?:^|[ {{]){key}: ", each, re.MULTILINE) or f"{key}:\n" in each for each, _ in EXAMPLES)


@pytest.mark.parametrize("heading", KEYS)
def test_the_page_names_no_key_that_there_is_not(heading: str) -> None:
    assert {row[0].strip("`") for row in rows_of(heading)} == set(KEYS[heading])


@pytest.mark.parametrize(("written", "said"), rows_of("written | said"))
def test_a_mistake_is_told_as_the_page_says(tmp_path: Path, written: str, said: str) -> None:
    text = written.split("`")[1]
    kind = text.partition(":")[0]
    lines = {"sku": "SEA", "files": "a.pdf"}
    if kind == "url":
        lines["files"] = f"{{{text}}}"
    elif kind != "sku":
        lines[kind] = text.partition(":")[2]
    product = "\n    ".join(f"{name}: {value}".rstrip() for name, value in lines.items())
    path = tmp_path / "products.yaml"
    path.write_text(f"version: 1\nproducts:\n  - {product}\n" + (f"  - {product}\n" if kind == "sku" else ""))
    with pytest.raises(SettingsError) as caught:
        read_products(path, hosts=HOSTS, plans=PLANS)
    assert said.strip("`") in str(caught.value).replace(f"{tmp_path}/", "")


def test_the_longest_duration_is_on_the_page() -> None:
    assert f"`{format_duration(LASTS_MAX)}`" in PAGE


def test_the_sample_is_right_with_its_comments_taken_away_too(tmp_path: Path) -> None:
    sample = ROOT / "config/products.yaml"
    plans = read_rules(ROOT / "rules/rules.yaml", None).plans
    active = read_products(sample, hosts=(), plans=plans)
    opened = tmp_path / "products.yaml"
    opened.write_text(re.sub(r"^  # ", "  ", sample.read_text(encoding="utf-8"), flags=re.MULTILINE), encoding="utf-8")
    whole = read_products(opened, hosts=HOSTS, plans=plans)
    assert len(whole.products) == len(active.products) + 1
    assert any(product.account for product in whole.products)
