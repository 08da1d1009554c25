"""Products files: a sentence for every mistake and no secret in it, and nothing sold that a link cannot carry."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from engine import Target

from gateway.backends.products_file import read_products
from gateway.errors import SettingsError
from gateway.policy.claims import read_claims, write_claims
from gateway.policy.model import Claims, Deny
from gateway.policy.orders import Line
from gateway.policy.products import Catalogue

ROOT = Path(__file__).parents[2]
_FOLDER = tempfile.TemporaryDirectory(prefix="fuzz-")
FILE = Path(_FOLDER.name) / "products.yaml"
HOSTS, PLANS = ("cdn.example.com", "maps.example.com"), ("standard", "preview")
SECRET = "X-Amz-Signature=5ecret"

EVERYTHING = f"""\
version: 1
products:
  - sku: SEA-EBOOK
    files: [ebooks/sea.pdf, {{key: ebooks/sea.epub, name: The Sea.epub}}]
  - {{sku: [0017, "null", ' B '], variant: 440123, product: [81, 82], files: &files masters/a.wav, plan: standard}}
  - variant: "5"
    title: The Sea
    files:
      - {{url: "https://cdn.example.com/maps.zip?{SECRET}", name: Maps.zip}}
      - {{url: "https://maps.example.com:8443/#a"}}
      - *files
    tier: gold
    account: true
    lasts: 30d
"""
WORDS = (
    *("version: 1", "products:", "- sku: A", "- {sku: A, files: a}", "sku:", "variant:", "product:", "files:", "key:"),
    *("url:", "name:", "title:", "plan: standard", "plan: gold", "tier: x", "account: true", "account: yes"),
    *(
        "lasts: 1y",
        "lasts: 0s",
        "lasts: 999999999999999y",
        "[]",
        "{}",
        "null",
        "~",
        "''",
        '"\\0"',
        '"\\ud800"',
        "*files",
    ),
    *(
        "&a x",
        "<<: *files",
        "!!str",
        "---",
        "...",
        "|",
        ">-",
        "? a\n: b",
        "../a",
        "/a",
        "a//b",
        "%2e%2e/a",
        "a/.",
        "\t",
    ),
    *("https://cdn.example.com/", "https://cdn.example.com@evil.example.com/", "https://evil.example.com/", "http://"),
    *("https://cdn.example.com:99999/", "https://[::1]/", "https://cdn.example.com/[", SECRET, "# x", "'", '"', "\\"),
)
_SOURCED = re.compile(r"[^\n]*products\.yaml(?::[0-9]+)?: [^\n]+")


def check(text: str) -> str:
    FILE.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        found = read_products(FILE, hosts=HOSTS, plans=PLANS)
    except SettingsError as error:
        said = str(error)
        assert said, "refused without a word"
        for line in said.split("\n"):
            assert _SOURCED.fullmatch(line), f"no sentence: {line!r}"
            assert line.isprintable(), "a line does what it likes with a terminal"
        return "refused"
    sellable(found)
    return "loaded"


def sellable(catalogue: Catalogue) -> None:
    assert catalogue.products, "a file without products"
    for product in catalogue.products:
        assert product.files, "a product of nothing"
        assert product.lasts is None or product.lasts > 0
        assert product.has_plan(PLANS)
        claims = Claims("s", "t", 1, product.files, plan=product.plan, tier=product.tier, account=product.account)
        read = read_claims(write_claims(claims), "s")
        assert not isinstance(read, Deny), f"no link can carry it: {read.message}"
        assert read == claims
        for file in product.files:
            assert file.url is None or file.url.split("/")[2].split(":")[0].split("?")[0].lower() in HOSTS, "elsewhere"
    for sku, product in catalogue.by_sku.items():
        assert catalogue.find(Line("1", sku=f" {sku}\n")) is product
    for variant, product in catalogue.by_variant.items():
        assert catalogue.find(Line("1", variant_id=variant, product_id="?")) is product


TARGETS = (
    Target(
        "products",
        check,
        (EVERYTHING, (ROOT / "config" / "products.yaml").read_text(encoding="utf-8")),
        WORDS,
        ("loaded", "refused"),
        cpu=1.0,
    ),
)
