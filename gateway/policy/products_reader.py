"""A products file's tree as a Catalogue, or all that is wrong with it: what it sells, a link can carry and serve."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from urllib.parse import urlsplit

from gateway.document import Mistakes, Node, join, short
from gateway.policy.claims import AUDIENCE, FILES_MAX, TEXT_MAX, is_key, read_claims
from gateway.policy.conditions.words import exact_text, label
from gateway.policy.model import Claims, FileEntry
from gateway.policy.products import Catalogue, Product
from gateway.policy.tree_reader import Section, TreeReader, unknown
from gateway.policy.units import format_duration

NAMES = ("sku", "variant", "product")
"""What a product may be called by, in the sequence in which an order's line is looked up."""
TOP_KEYS = ("version", "products")
PRODUCT_KEYS = (*NAMES, "files", "title", "plan", "tier", "account", "lasts")
FILE_KEYS = ("key", "url", "name")
MISTAKES_MAX = 200
"""With more mistakes than this, further products are not looked at: more lines would tell nothing new."""
FILE_BYTES_MAX = 2200
"""Key or address and name of one file, in UTF-8: what any link has room for, beside its other claims and signature."""
LASTS_MAX = 100 * 365 * 86_400
"""Seconds; what lasts longer is meant for life."""

_FILE = "write a key such as ebooks/sea.pdf, {key: …, name: …} or {url: …, name: …}"
_KEY = "write 1 to 1024 bytes without empty parts, . and .., and control characters, such as ebooks/sea.pdf"


@dataclass(slots=True)
class ProductsReader(TreeReader):
    """What there is beside the file: `hosts` are the settings' external_hosts, `plans` the names of the rules' plans;
    None leaves them unchecked.
    """

    mistakes: Mistakes
    hosts: Collection[str] | None = None
    plans: Collection[str] | None = None
    named: dict[str, dict[str, Product]] = field(default_factory=lambda: {kind: {} for kind in NAMES})
    places: dict[tuple[str, str], str] = field(default_factory=dict)


def read_catalogue(tree: Node, reader: ProductsReader, version: str) -> Catalogue:
    """The catalogue of a whole file. Where the reader has mistakes afterwards, it must not be used."""
    top = reader.section(tree, "", TOP_KEYS, "key of a products file")
    reader.choice(reader.required(top, "version", "write version: 1"), "version", ("1",))
    products = reader.required(top, "products", "write one `- sku: …` a product under it")
    if products is not None:
        _products(products, reader)
    return Catalogue(version, *(MappingProxyType(reader.named[kind]) for kind in NAMES))


def _products(node: Node, reader: ProductsReader) -> None:
    if not isinstance(node.value, list) or not node.value:
        state = "has no value" if node.value is None else "is no list" if node.value else "is empty"
        reader.mistakes.add(node, "products", f"{state}; write one `- sku: …` a product under it")
        return
    for index, child in enumerate(node.value):
        key = join("products", index)
        if reader.gives_up(child, key, MISTAKES_MAX):
            return
        if not isinstance(child.value, dict):
            reader.mistakes.add(child, key, "is no product; write {sku: …, files: […]}")
            continue
        section = reader.section(child, key, PRODUCT_KEYS, "key of a product")
        if section.members.keys().isdisjoint(NAMES):
            text = f"has no name; write {', '.join(NAMES[:-1])} or {NAMES[-1]}, as the shop calls it"
            reader.mistakes.add(child, key, text)
        product = _product(section, reader)
        for kind in NAMES:
            _enter(product, kind, section, reader)


def _product(section: Section, reader: ProductsReader) -> Product:
    key, members = section.key, section.members
    files = reader.required(section, "files", _FILE)
    title, lasts, account = members.get("title"), members.get("lasts"), members.get("account")
    return Product(
        files=() if files is None else tuple(_files(files, join(key, "files"), reader)),
        title="" if title is None else _title(title, join(key, "title"), reader),
        plan=_plan(members.get("plan"), join(key, "plan"), reader),
        tier=_claim(members.get("tier"), join(key, "tier"), reader),
        account=reader.choice(account, join(key, "account"), ("true", "false")) == "true",
        lasts=None if lasts is None else _lasts(lasts, join(key, "lasts"), reader),
    )


def _enter(product: Product, kind: str, section: Section, reader: ProductsReader) -> None:
    """Under what it is called in this way, of which there may be several."""
    node = section.members.get(kind)
    for item, key in () if node is None else _items(node, join(section.key, kind), reader):
        name = reader.parsed(item, key, "write one value, or a list of them: [a, b]", _trimmed)
        if name is None:
            continue
        if name in reader.named[kind]:
            first = reader.places[kind, name]
            text = f"'{short(name)}' is there twice, first at {first}; write each {kind} once"
            reader.mistakes.add(item, key, text)
        else:
            reader.named[kind][name] = product
            reader.places[kind, name] = item.source


def _items(node: Node, key: str, reader: ProductsReader) -> Iterator[tuple[Node, str]]:
    """One value, or each of a list of them, with its key."""
    if not isinstance(node.value, list):
        yield node, key
        return
    if not node.value:
        reader.wrong(node, key, "is an empty list; give it a value or remove the line")
    for index, item in enumerate(node.value):
        yield item, join(key, index)


def _trimmed(text: str) -> str:
    return exact_text(text.strip())


def _title(node: Node, key: str, reader: ProductsReader) -> str:
    return reader.parsed(node, key, "write a short text", partial(label, longest=TEXT_MAX)) or ""


def _plan(node: Node | None, key: str, reader: ProductsReader) -> str | None:
    plan = _claim(node, key, reader)
    if node is not None and plan is not None and reader.plans is not None and plan not in reader.plans:
        reader.mistakes.add(node, key, unknown("plan", plan, reader.plans, "add it under plans in the rules"))
    return plan


def _claim(node: Node | None, key: str, reader: ProductsReader) -> str | None:
    return None if node is None else reader.parsed(node, key, "write one text, or remove the line", _claim_text)


def _claim_text(text: str) -> str:
    """A text as a link carries it."""
    if text.strip() != text and text.strip():
        raise ValueError(f"has spaces around it; write {short(text.strip())}")
    return exact_text(text.strip())


def _lasts(node: Node, key: str, reader: ProductsReader) -> int | None:
    seconds = reader.duration(node, key)
    if seconds is not None and seconds > LASTS_MAX:
        reader.wrong(node, key, f"is longer than {format_duration(LASTS_MAX)}; for life remove the line")
    return seconds


def _files(node: Node, key: str, reader: ProductsReader) -> Iterator[FileEntry]:
    places: dict[str, str] = {}
    for item, place in _items(node, key, reader):
        file = _file(item, place, reader)
        if file is None:
            continue
        first = places.setdefault(file.identity, place)
        if first != place:
            reader.mistakes.add(item, place, f"is the same file as {first}; keep one")
        yield file
    if len(places) > FILES_MAX:
        reader.mistakes.add(node, key, f"has more than {FILES_MAX} files; put them into archives")


def _file(node: Node, key: str, reader: ProductsReader) -> FileEntry | None:
    if not isinstance(node.value, dict):
        return _stored(node, key, reader)
    members = reader.section(node, key, FILE_KEYS, "key of a file").members
    name = members.get("name")
    if ("key" in members) == ("url" in members):
        state = "has both key and url" if "key" in members else "has neither key nor url"
        reader.mistakes.add(node, key, f"{state}; {_FILE}")
        return None
    kind, read = ("key", _stored) if "key" in members else ("url", _external)
    found = read(members[kind], join(key, kind), reader)
    shown = _claim(name, join(key, "name"), reader)
    if found is None:
        return None
    if len(f"{found.identity}{shown or ''}".encode()) > FILE_BYTES_MAX:
        reader.mistakes.add(node, key, "is, with its name, too long for a link; make one of them shorter")
    return FileEntry(found.key, found.url, shown)


def _stored(node: Node, key: str, reader: ProductsReader) -> FileEntry | None:
    text = reader.text(node, key, _FILE)
    if text is None or is_key(text):
        return None if text is None else FileEntry(text)
    meant = "/".join(part for part in text.split("/") if part not in ("", ".", ".."))
    if "://" in text:
        # Not quoted, for an address may hold a signature.
        reader.mistakes.add(node, key, "is an address and no key; write {url: …} for what is not in the store")
    else:
        reader.wrong(node, key, f"is no key; {f'write {short(meant)}' if is_key(meant) else _KEY}")
    return None


def _external(node: Node, key: str, reader: ProductsReader) -> FileEntry | None:
    text = reader.text(node, key, "write an https address")
    if text is None:
        return None
    if not _is_address(text):
        right = "write one such as https://cdn.example.com/sea.zip"
        reader.mistakes.add(node, key, f"is no https address with a host and without a user name; {right}")
        return None
    host = urlsplit(text).hostname or ""
    if reader.hosts is not None and host not in reader.hosts:
        reader.mistakes.add(
            node, key, f"leads to {short(host)}, which is not in external_hosts of the settings; add it"
        )
    return FileEntry(None, text)


def _is_address(text: str) -> bool:
    """Whether a link may name it: asked of those who read links, so that both keep one rule."""
    claims = {"iss": "-", "aud": AUDIENCE, "exp": 0, "jti": "-", "files": [{"url": text}]}
    return isinstance(read_claims(claims, "-"), Claims)
