"""Products: what a file may say and how it is told what is wrong, and which product a line of an order stands for."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.document import Mistakes, Node
from gateway.policy.claims import is_key, read_claims, write_claims
from gateway.policy.keys import SigningKey, load_key
from gateway.policy.model import Claims, FileEntry
from gateway.policy.orders import Line
from gateway.policy.products import NO_PRODUCTS, Catalogue, Product
from gateway.policy.products_reader import FILE_BYTES_MAX, MISTAKES_MAX, ProductsReader, read_catalogue
from gateway.policy.tokens import encode
from gateway.yaml_file import Bounds, parse

HOSTS, PLANS = ("cdn.example.com",), ("standard", "preview")
A, B, C = (Product((FileEntry(name),)) for name in "abc")


def read(
    written: str, hosts: tuple[str, ...] | None = HOSTS, plans: tuple[str, ...] | None = PLANS
) -> tuple[Catalogue, list[str]]:
    mistakes = Mistakes()
    tree = parse(written, lambda line: f"p:{line}", mistakes, Bounds("products", 0, 100_000))
    assert tree is not None, mistakes.report()
    found = read_catalogue(tree, ProductsReader(mistakes, hosts, plans), "v")
    return found, mistakes.report().splitlines()


def products(written: str) -> Catalogue:
    found, mistakes = read(f"version: 1\nproducts:\n{written}")
    assert mistakes == []
    return found


def one(written: str) -> Product:
    """The one product of these lines, which are read as if it had a name."""
    (found,) = products(f"- {{sku: A, {written}}}\n").products
    return found


def test_everything_that_a_product_can_have() -> None:
    found = one(
        "files: [a/b.pdf, {key: c d.pdf}, {key: e, name: E.pdf}, {url: 'https://CDN.example.com:8443/x?y=1', name: X}],"
        " title: The Sea, plan: standard, tier: gold, account: true, lasts: 30d"
    )
    assert found == Product(
        (
            FileEntry("a/b.pdf"),
            FileEntry("c d.pdf"),
            FileEntry("e", name="E.pdf"),
            FileEntry(None, "https://CDN.example.com:8443/x?y=1", "X"),
        ),
        "The Sea",
        "standard",
        "gold",
        account=True,
        lasts=30 * 86_400,
    )


def test_what_a_product_need_not_have() -> None:
    assert one("files: a") == A == one("files: [a]") == one("files: {key: a}") == one("files: a, account: false")


def test_no_value_is_read_as_anything_but_text() -> None:
    found = products("- {sku: [0017, NO, 1_000, 1e3, 0x1F, true, 2026-11-20, 12:30], files: [NO, 017]}\n")
    assert set(found.by_sku) == {"0017", "NO", "1_000", "1e3", "0x1F", "true", "2026-11-20", "12:30"}
    assert found.by_sku["NO"].files == (FileEntry("NO"), FileEntry("017"))


def test_an_alias_stands_for_what_was_written() -> None:
    found = products("- {sku: A, files: &files [a, {key: b}]}\n- {sku: B, files: *files}\n")
    assert found.by_sku["A"] == found.by_sku["B"]


CATALOGUE = Catalogue("v", {"S": A, "7": B}, {"7": B, "V": A}, {"7": C, "P": C})


@pytest.mark.parametrize(
    ("sku", "variant", "product", "expected"),
    [
        ("S", "", "", A),
        ("S", "7", "7", A),
        (" S\t", "7", "7", A),
        ("s", "", "", None),
        ("S S", "", "", None),
        ("other", "7", "P", B),
        ("other", " 7\n", "P", B),
        ("", "7", "P", B),
        ("other", "other", "P", C),
        ("", "", "7", C),
        ("V", "", "", None),
        ("", "S", "P", C),
        ("", "", "", None),
        (" ", " ", " ", None),
        *((hostile, "", "", None) for hostile in ("\0", "S\0", "*", "$S", "__class__", "\ud800", "S" * 10**6, "%53")),
    ],
)
def test_a_line_is_known_by_its_sku_then_its_variant_then_its_product(
    sku: str, variant: str, product: str, expected: Product | None
) -> None:
    line = Line("1", sku=sku, variant_id=variant, product_id=product)
    assert CATALOGUE.find(line) == expected
    assert CATALOGUE.missing([line]) == ([] if expected else [line])
    assert NO_PRODUCTS.find(line) is None


def test_each_product_is_listed_once() -> None:
    assert CATALOGUE.products == [A, B, C]


@pytest.mark.parametrize(
    ("plan", "plans", "expected"),
    [(None, (), True), ("standard", PLANS, True), ("standard", ("preview",), False), ("standard", (), False)],
)
def test_a_plan_that_the_rules_have_lost(plan: str | None, plans: tuple[str, ...], expected: bool) -> None:
    assert Product(A.files, plan=plan).has_plan(plans) is expected


SPACES = "has spaces around it; write"
KEY = "is no key; write 1 to 1024 bytes without empty parts, . and .., and control characters, such as ebooks/sea.pdf"
FILE = "write a key such as ebooks/sea.pdf, {key: …, name: …} or {url: …, name: …}"
ADDRESS = "is no https address with a host and without a user name; write one such as https://cdn.example.com/sea.zip"
EMPTY = "is an empty text; write one or remove it"
LIST = "is an empty list; give it a value or remove the line"
NOTHING = "has no value; write one text, or remove the line"


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("{sku: , files: a}", "sku: has no value; write one value, or a list of them: [a, b]"),
        ("{sku: ~, files: a}", "sku: has no value; write one value, or a list of them: [a, b]"),
        ("{sku: '', files: a}", f"sku: '' {EMPTY}"),
        ("{sku: '  ', files: a}", f"sku: '  ' {EMPTY}"),
        ("{sku: [], files: a}", f"sku: {LIST}"),
        ("{sku: [A, ], files: a}", None),
        ("{sku: [A, null], files: a}", "sku[1]: has no value; write one value, or a list of them: [a, b]"),
        ("{sku: [[A]], files: a}", "sku[0]: is not one single value; write one value, or a list of them: [a, b]"),
        ("{sku: {A: B}, files: a}", "sku: is not one single value; write one value, or a list of them: [a, b]"),
        ('{sku: "a\\0b", files: a}', "sku: 'a?b' has a control character; type it anew"),
        ("{variant: [1, 2, 1], files: a}", "variant[2]: '1' is there twice, first at p:3; write each variant once"),
        ("{product: [A, ' A'], files: a}", "product[1]: 'A' is there twice, first at p:3; write each product once"),
        ("{files: a}", "has no name; write sku, variant or product, as the shop calls it"),
        ("{sku: A}", f"files: is missing; {FILE}"),
        ("{sku: A, files: }", f"files: has no value; {FILE}"),
        ("{sku: A, files: []}", f"files: {LIST}"),
        ("{sku: A, files: [[a]]}", f"files[0]: is not one single value; {FILE}"),
        ("{sku: A, files: {}}", f"files: has neither key nor url; {FILE}"),
        ("{sku: A, files: [{name: x}]}", f"files[0]: has neither key nor url; {FILE}"),
        (
            "{sku: A, files: [{key: a, url: 'https://cdn.example.com/'}]}",
            f"files[0]: has both key and url; {FILE}",
        ),
        ("{sku: A, files: {key: }}", f"files.key: has no value; {FILE}"),
        ("{sku: A, files: {url: }}", "files.url: has no value; write an https address"),
        ("{sku: A, files: {key: a, nmae: b}}", "files.nmae: nmae is no key of a file; did you mean name?"),
        ("{sku: A, files: {key: a, name: }}", f"files.name: {NOTHING}"),
        ("{sku: A, files: {key: a, name: ' b'}}", f"files.name: ' b' {SPACES} b"),
        ("{sku: A, files: [a, b, {key: a, name: c}]}", "files[2]: is the same file as products[0].files[0]; keep one"),
        ("{sku: A, files: /a/b}", "files: '/a/b' is no key; write a/b"),
        ("{sku: A, files: a//b/}", "files: 'a//b/' is no key; write a/b"),
        ("{sku: A, files: ../a}", "files: '../a' is no key; write a"),
        ("{sku: A, files: a/%2e%2E/b}", f"files: 'a/%2e%2E/b' {KEY}"),
        ("{sku: A, files: ''}", f"files: '' {KEY}"),
        ("{sku: A, files: /}", f"files: '/' {KEY}"),
        ('{sku: A, files: "a\\nb"}', f"files: 'a?b' {KEY}"),
        (f"{{sku: A, files: {'x' * 1025}}}", f"files: '{'x' * 20}…' {KEY}"),
        (
            "{sku: A, files: 'https://cdn.example.com/a?signature=secret'}",
            "files: is an address and no key; write {url: …} for what is not in the store",
        ),
        ("{sku: A, files: {url: 'http://cdn.example.com/'}}", f"files.url: {ADDRESS}"),
        ("{sku: A, files: {url: 'https://user:secret@cdn.example.com/'}}", f"files.url: {ADDRESS}"),
        ("{sku: A, files: {url: cdn.example.com/a}}", f"files.url: {ADDRESS}"),
        (
            "{sku: A, files: {url: 'https://evil.example.com/a?signature=secret'}}",
            "files.url: leads to evil.example.com, which is not in external_hosts of the settings; add it",
        ),
        ("{sku: A, files: a, plan: standart}", "plan: standart is no plan; did you mean standard?"),
        ("{sku: A, files: a, plan: gold}", "plan: gold is no plan; add it under plans in the rules"),
        ("{sku: A, files: a, plan: }", f"plan: {NOTHING}"),
        ("{sku: A, files: a, plan: [standard]}", "plan: is not one single value; write one text, or remove the line"),
        ("{sku: A, files: a, tier: ''}", f"tier: '' {EMPTY}"),
        ("{sku: A, files: a, tier: ' '}", f"tier: ' ' {EMPTY}"),
        ("{sku: A, files: a, tier: 'gold '}", f"tier: 'gold ' {SPACES} gold"),
        ("{sku: A, files: a, title: }", "title: has no value; write a short text"),
        ("{sku: A, files: a, title: ' '}", "title: ' ' is empty; write a short text"),
        ("{sku: A, files: a, account: yes}", "account: 'yes' is not what can stand here; write true or false"),
        ("{sku: A, files: a, account: }", "account: has no value; write true or false"),
        (
            "{sku: A, files: a, lasts: 30}",
            "lasts: '30' is no duration; write a number and a unit, such as 30d (units: s m h d y)",
        ),
        ("{sku: A, files: a, lasts: 0d}", "lasts: '0d' is no time at all; write a longer one, such as 30d"),
        ("{sku: A, files: a, lasts: 100y}", None),
        ("{sku: A, files: a, lasts: 101y}", "lasts: '101y' is longer than 100y; for life remove the line"),
        ("{sku: A, files: a, lasts: }", "lasts: has no value; write a duration, such as 30d"),
        ("{sku: A, files: a, Sku: B}", "Sku: Sku is no key of a product; did you mean sku?"),
        ("{sku: A, files: a, sku: B}", "sku: is there twice, first at p:3; keep one"),
        ("A", "is no product; write {sku: …, files: […]}"),
        ("[]", "is no product; write {sku: …, files: […]}"),
        ("", "is no product; write {sku: …, files: […]}"),
    ],
)
def test_what_is_wrong_and_what_would_be_right(written: str, expected: str | None) -> None:
    mistakes = read(f"version: 1\nproducts:\n- {written}\n")[1]
    if expected is None:
        assert mistakes == []
        return
    (line,) = mistakes
    assert line.partition(": ")[2].removeprefix("products[0]").lstrip(".: ") == expected
    assert "secret" not in line


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (
            "",
            ["version: is missing; write version: 1", "products: is missing; write one `- sku: …` a product under it"],
        ),
        ("version: 2\nproducts: [{sku: A, files: a}]", ["version: '2' is not what can stand here; write 1"]),
        ("version: 1\nproducts:", ["products: has no value; write one `- sku: …` a product under it"]),
        ("version: 1\nproducts: []", ["products: is empty; write one `- sku: …` a product under it"]),
        ("version: 1\nproducts: {}", ["products: is empty; write one `- sku: …` a product under it"]),
        ("version: 1\nproducts: {A: {files: a}}", ["products: is no list; write one `- sku: …` a product under it"]),
        (
            "version: 1\nproduct: []\nproducts: [{sku: A, files: a}]",
            ["product: product is no key of a products file; did you mean products?"],
        ),
        (
            "version: 1\nproducts:\n- {sku: A, files: a}\n- {variant: A, files: a}\n- {sku: [B, A], files: a}",
            ["products[2].sku[1]: 'A' is there twice, first at p:3; write each sku once"],
        ),
    ],
)
def test_files_that_are_none(written: str, expected: list[str]) -> None:
    mistakes = read(written)[1]
    assert sorted(line.partition(": ")[2] for line in mistakes) == sorted(expected)


def test_what_is_not_known_beside_the_file_is_not_checked() -> None:
    written = "version: 1\nproducts: [{sku: A, files: {url: 'https://elsewhere.example.com/'}, plan: gold}]"
    assert read(written, hosts=None, plans=None)[1] == []
    assert len(read(written, hosts=(), plans=())[1]) == 2


def test_of_very_many_mistakes_the_first_are_told() -> None:
    mistakes = read("version: 1\nproducts:\n" + "- {sku: A, files: /}\n" * 1000)[1]
    assert len(mistakes) == MISTAKES_MAX + 2
    assert mistakes[-1].endswith("and what follows is not looked at; correct the others first")


def test_a_product_has_a_bounded_number_of_files() -> None:
    many = ", ".join(f"f{number}" for number in range(1001))
    (line,) = read(f"version: 1\nproducts: [{{sku: A, files: [{many}]}}]")[1]
    assert line == "p:2: products[0].files: has more than 1000 files; put them into archives"


def signing_key() -> SigningKey:
    key = load_key(kid="2026-11", alg="HS256", use="sign", secret="a secret of a shop, for tests only, 40 long")
    assert isinstance(key, SigningKey)
    return key


@pytest.mark.parametrize("name", ["ż" * 255, '"' * 255])
@pytest.mark.parametrize("kept", [f"key: '{'ż' * 512}'", f"url: 'https://cdn.example.com/{'x' * 2000}'"])
def test_each_file_alone_fits_into_a_link(kept: str, name: str) -> None:
    found, mistakes = read(f"version: 1\nproducts: [{{sku: A, files: {{{kept}, name: '{name}'}}}}]")
    if mistakes:
        (line,) = mistakes
        assert line == "p:2: products[0].files: is, with its name, too long for a link; make one of them shorter"
        (file,) = found.by_sku["A"].files
        assert len(f"{file.identity}{name}".encode()) > FILE_BYTES_MAX
        return
    claims = Claims(
        issuer="shop.example.com",
        token_id="t" * 36,
        expires_at=1_800_000_000,
        files=found.by_sku["A"].files,
        issued_at=1_700_000_000,
        customer_id="c" * 36,
        order_id="main-" + "1" * 20,
        plan="standard",
    )
    assert encode(claims, signing_key())


def written(value: object) -> Node:
    if isinstance(value, dict):
        return Node("p:1", {name: written(member) for name, member in value.items()})
    if isinstance(value, list):
        return Node("p:1", [written(item) for item in value])
    assert value is None or isinstance(value, str)
    return Node("p:1", value)


odd = st.text(st.sampled_from("aé ./%2e\\\t\0…\ud800'\"?#@:"), max_size=8)
anything = st.none() | odd | st.lists(odd, max_size=2) | st.dictionaries(odd, odd, max_size=1)


def mostly(right: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    """What is right nearly always, so that whole products are too."""
    return st.integers(0, 19).flatmap(lambda number: right if number else anything)


decent = st.text(st.sampled_from("aé%\\…'\"?#@:2e"), min_size=1, max_size=8)
shown = mostly(st.lists(decent, min_size=1, max_size=2).map(" ".join))
stored = mostly(st.lists(decent, min_size=1, max_size=3).map("/".join).filter(is_key))
addresses = mostly(st.sampled_from(["https://cdn.example.com/a?b=%2e#c", "https://CDN.example.com:443", "https://h/"]))
files = st.one_of(
    stored,
    st.fixed_dictionaries({"key": stored}, optional={"name": shown}),
    st.fixed_dictionaries({"url": addresses}, optional={"name": shown}),
)
made = st.fixed_dictionaries(
    {"sku": mostly(st.uuids().map(str)), "files": files | st.lists(files, max_size=2)},
    optional={
        "variant": shown | st.lists(shown, max_size=2),
        "title": shown,
        "plan": mostly(st.sampled_from(PLANS)),
        "tier": shown,
        "account": mostly(st.sampled_from(["true", "false"])),
        "lasts": mostly(st.sampled_from(["1s", "30d", "100y"])),
    },
)


def test_what_is_taken_a_link_can_carry() -> None:
    taken = 0

    @settings(deadline=None)
    @given(st.lists(made, min_size=1, max_size=2))
    def check(listed: list[object]) -> None:
        nonlocal taken
        mistakes = Mistakes()
        tree = written({"version": "1", "products": listed})
        found = read_catalogue(tree, ProductsReader(mistakes, HOSTS, PLANS), "v")
        assert all(line.startswith("p:1: ") and line.isprintable() for line in mistakes.report().splitlines())
        if mistakes.keys:
            return
        taken += 1
        assert found.products
        for product in found.products:
            assert product.files
            assert product.lasts is None or product.lasts > 0
            claims = Claims("s", "t", 1, product.files, plan=product.plan, tier=product.tier, account=product.account)
            assert read_claims(write_claims(claims), "s") == claims

    check()
    assert taken >= 5, "hardly a file was right"
