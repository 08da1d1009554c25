"""The products file as the policy sees it: which files, under which plan, a line of an order stands for."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from gateway.policy.model import FileEntry
from gateway.policy.orders import Line


@dataclass(frozen=True, slots=True)
class Product:
    """What is sold under one name. `lasts` in seconds from the grant, None for life; `title` "": the shop's own."""

    files: tuple[FileEntry, ...]
    title: str = ""
    plan: str | None = None
    tier: str | None = None
    account: bool = False
    lasts: int | None = None

    def has_plan(self, plans: Collection[str]) -> bool:
        """Whether its plan is one of these. The rules may have lost it since: a link made then would be refused."""
        return self.plan is None or self.plan in plans


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All products, by what a shop may call them. `version` names the file's contents, "" without a file."""

    version: str = ""
    by_sku: Mapping[str, Product] = field(default_factory=dict)
    by_variant: Mapping[str, Product] = field(default_factory=dict)
    by_product: Mapping[str, Product] = field(default_factory=dict)

    def find(self, line: Line) -> Product | None:
        """The line's product: by its SKU, else its variant, else its product id; None for what is no download.

        Names are compared as they are written, but for spaces around them.
        """
        for name, products in (
            (line.sku, self.by_sku),
            (line.variant_id, self.by_variant),
            (line.product_id, self.by_product),
        ):
            found = products.get(name.strip())
            if found is not None:
                return found
        return None

    def missing(self, lines: Sequence[Line]) -> list[Line]:
        """The lines that stand for no product of this file."""
        return [line for line in lines if self.find(line) is None]

    @property
    def products(self) -> Sequence[Product]:
        """Each product once, whatever it is called."""
        return list(dict.fromkeys((*self.by_sku.values(), *self.by_variant.values(), *self.by_product.values())))


NO_PRODUCTS = Catalogue()
