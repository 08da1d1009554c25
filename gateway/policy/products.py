"""The products file as the policy sees it: which files, under which plan, a line of an order stands for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All products, by what a shop may call them. `version` names the file's contents, "" without a file."""

    version: str = ""
    by_sku: Mapping[str, Product] = field(default_factory=dict)
    by_variant: Mapping[str, Product] = field(default_factory=dict)
    by_product: Mapping[str, Product] = field(default_factory=dict)

    def find(self, line: Line) -> Product | None:
        """The line's product: by its SKU, else its variant, else its product id; None for what is no download."""
        return (
            (self.by_sku.get(line.sku) if line.sku else None)
            or (self.by_variant.get(line.variant_id) if line.variant_id else None)
            or (self.by_product.get(line.product_id) if line.product_id else None)
        )

    def missing(self, lines: Sequence[Line]) -> list[Line]:
        """The lines that stand for no product of this file."""
        return [line for line in lines if self.find(line) is None]


NO_PRODUCTS = Catalogue()
