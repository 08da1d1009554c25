"""The products file as it lies on a disk: whole, broken, odd, swapped, and next to rules that change."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Collection
from pathlib import Path

import pytest

from gateway.backends.products_file import BOUNDS, ProductsFile, read_products
from gateway.errors import SettingsError
from gateway.policy.orders import Line
from gateway.policy.products import Catalogue
from gateway.services.reloading import Watched

SEA = "version: 1\nproducts:\n  - {sku: SEA, files: sea.pdf, plan: standard}\n"
MAPS = SEA.replace("SEA", "MAPS")
PLANS = ("standard", "preview")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path / "products.yaml", SEA)


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def sells(catalogue: Catalogue, sku: str) -> bool:
    return catalogue.find(Line("1", sku=sku)) is not None


def mistakes(path: Path, plans: Collection[str] | None = PLANS) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        read_products(path, hosts=(), plans=plans)
    return [line.replace(f"{path.parent}/", "") for line in str(caught.value).splitlines()]


def test_every_mistake_is_told_at_once_in_the_order_of_the_file(path: Path) -> None:
    write(
        path,
        """\
verion: 1
products:
  - sku: SEA
    files: [ebooks/sea.pdf, /ebooks/sea.epub]
    plan: standart
  - variant:
    files: []
  - sku: [MAPS, SEA]
    files: {url: "https://cdn.example.com/maps.zip?token=secret", nam: Maps.zip}
    lasts: forever
    account: on
  - title: Nothing
    title: Nothing at all
""",
    )
    assert mistakes(path) == [
        "products.yaml:1: verion: verion is no key of a products file; did you mean version?",
        "products.yaml:1: version: is missing; write version: 1",
        "products.yaml:4: products[0].files[1]: '/ebooks/sea.epub' is no key; write ebooks/sea.epub",
        "products.yaml:5: products[0].plan: standart is no plan; did you mean standard?",
        "products.yaml:6: products[1].variant: has no value; write one value, or a list of them: [a, b]",
        "products.yaml:7: products[1].files: is an empty list; give it a value or remove the line",
        ("products.yaml:8: products[2].sku[1]: 'SEA' is there twice, first at products.yaml:3; write each sku once"),
        "products.yaml:9: products[2].files.nam: nam is no key of a file; did you mean name?",
        (
            "products.yaml:9: products[2].files.url: leads to cdn.example.com, which is not in external_hosts of the "
            "settings; add it"
        ),
        (
            "products.yaml:10: products[2].lasts: 'forever' is no duration; "
            "write a number and a unit, such as 30d (units: s m h d y)"
        ),
        "products.yaml:11: products[2].account: 'on' is not what can stand here; write true or false",
        (
            "products.yaml:12: products[3].files: is missing; "
            "write a key such as ebooks/sea.pdf, {key: …, name: …} or {url: …, name: …}"
        ),
        "products.yaml:12: products[3]: has no name; write sku, variant or product, as the shop calls it",
        "products.yaml:13: title: is there twice, first at products.yaml:12; keep one",
    ]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"\xef\xbb\xbf" + SEA.encode(), None),
        (SEA.replace("\n", "\r\n").encode(), None),
        (b"# \xbf\n" + SEA.encode(), "products.yaml:1: is not UTF-8; save the file as UTF-8"),
        (SEA.encode("utf-16"), "products.yaml:1: is not UTF-8; save the file as UTF-8"),
        (SEA.encode() + b"#\0\n", "products.yaml:4: is not YAML (a control character"),
        (SEA.replace("SEA", "*SEA").encode(), "products.yaml:3: has an alias (*…) to nothing"),
        (SEA.replace("{sku", "!x {sku").encode(), "products.yaml:3: has a tag (!…); products need none, remove it"),
        (SEA.encode() + b"---\n" + SEA.encode(), "products.yaml:4: starts a second document (---); keep one"),
        (SEA.encode() + SEA.encode(), "products.yaml:4: version: is there twice, first at products.yaml:1; keep one"),
        (b"- a\n", "products.yaml:1: is no mapping; write one `name: value` a line"),
        (b"", "products.yaml:1: products: is missing; write one `- sku: …` a product under it"),
        (SEA.encode() + b"x: " + b"[" * 40 + b"]" * 40, "products.yaml:4: is nested deeper than 32 levels"),
        (b"#" * (BOUNDS.size + 1), "products.yaml: is larger than 4 MiB; make it smaller"),
    ],
)
def test_what_editors_and_accidents_make_of_a_file(path: Path, data: bytes, expected: str | None) -> None:
    write(path, data)
    if expected is None:
        assert sells(read_products(path, hosts=(), plans=PLANS), "SEA")
    else:
        assert mistakes(path)[0].startswith(expected)


@pytest.mark.parametrize("name", ["gone.yaml", "folder", "pipe", "loop", "a\0b"])
def test_a_products_file_that_is_no_file(path: Path, name: str) -> None:
    (path.parent / "folder").mkdir()
    os.mkfifo(path.parent / "pipe")
    (path.parent / "loop").symlink_to("loop")
    (line,) = mistakes(path.parent / name)
    assert line.startswith(f"{name}: ".replace("\0", "?"))
    assert line.endswith("; name a readable file at `products` in the settings")


def test_plans_and_hosts_that_are_not_known_are_not_checked(path: Path) -> None:
    write(path, SEA.replace("sea.pdf", "{url: 'https://elsewhere.example.com/'}"))
    assert sells(read_products(path, hosts=None, plans=None), "SEA")


def test_the_version_is_the_hash_of_the_file(path: Path) -> None:
    assert read_products(path, hosts=(), plans=PLANS).version == hashlib.sha256(SEA.encode()).hexdigest()[:12]


def test_the_fingerprint_tells_every_change(path: Path, tmp_path: Path) -> None:
    plans = list(PLANS)
    file = ProductsFile(path, hosts=(), plans=lambda: plans)
    seen = [file.fingerprint()]
    assert "set(" not in repr(seen), "its repr is the same in every process"

    def has_changed() -> bool:
        seen.append(file.fingerprint())
        return seen[-1] != seen[-2]

    assert not has_changed()
    write(path, MAPS)
    assert has_changed()
    os.utime(path)
    assert has_changed()
    write(tmp_path / "new", MAPS).replace(path)
    assert has_changed()
    plans.reverse()
    assert not has_changed()
    plans.pop()
    assert has_changed()
    path.unlink()
    assert has_changed()
    assert not has_changed()


def test_the_fingerprint_sees_a_folder_swapped_behind_a_link(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "products.yaml", SEA)
    (tmp_path / "..data").symlink_to("one")
    (tmp_path / "linked.yaml").symlink_to("..data/products.yaml")
    file = ProductsFile(tmp_path / "linked.yaml", hosts=(), plans=None)
    before = file.fingerprint()
    (tmp_path / "..tmp").symlink_to("two")
    (tmp_path / "..tmp").replace(tmp_path / "..data")
    assert file.fingerprint() != before


def test_a_copy_outlives_the_file_and_the_plans(path: Path) -> None:
    plans = list(PLANS)
    file = ProductsFile(path, hosts=(), plans=lambda: plans)
    version = file.read().version
    copy = file.take_copy()
    assert copy is not None
    path.unlink()
    plans.clear()
    with pytest.raises(SettingsError):
        file.read()
    catalogue = ProductsFile(path, hosts=(), plans=lambda: plans).read_copy(copy.read())
    assert catalogue.version == version
    assert sells(catalogue, "SEA")
    with pytest.raises(SettingsError, match="cannot be read"):
        ProductsFile(path.with_name("another.yaml"), hosts=(), plans=None).read_copy(copy.read())
    again = file.take_copy()
    assert again is not None, "it is given once, and the next one is empty"
    with pytest.raises(SettingsError, match="cannot be read"):
        file.read_copy(again.read())


async def test_products_follow_the_plans_of_the_rules(path: Path) -> None:
    """A plan that the rules lose makes the file wrong, and what was in force stays; with the plan it is right again."""
    plans = list(PLANS)
    file = ProductsFile(path, hosts=(), plans=lambda: plans)
    watched = Watched("products", file.read, file.fingerprint)
    assert await watched.load() == ""
    assert not await watched.has_changed()
    plans.remove("standard")
    assert [await watched.has_changed() for _ in range(2)] == [False, True]
    with pytest.raises(SettingsError, match=r"plan: standard is no plan; add it under plans in the rules"):
        await watched.reload()
    assert not await watched.has_changed(), "the same is not told twice"
    (product,) = watched.current.products
    assert not product.has_plan(plans)
    # The file is put right before the rules are.
    write(path, MAPS.replace("standard", "gold"))
    with pytest.raises(SettingsError):
        await watched.reload()
    plans.append("gold")
    assert [await watched.has_changed() for _ in range(2)] == [False, True]
    assert await watched.reload()
    assert sells(watched.current, "MAPS")


def test_a_large_file_is_read_in_time_and_asked_at_once(path: Path) -> None:
    lines = "".join(f"  - {{sku: S-{number}, files: [a/{number}.pdf]}}\n" for number in range(10_000))
    write(path, f"version: 1\nproducts:\n{lines}")
    began = time.process_time()
    found = read_products(path, hosts=(), plans=PLANS)
    assert time.process_time() - began < 8
    began = time.process_time()
    for number in range(10_000):
        assert sells(found, f"S-{number}")
    assert time.process_time() - began < 0.5
