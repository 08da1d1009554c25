"""Customers of the shop, by the shop's own ids, as orders and sign-ins name them."""

from __future__ import annotations

from collections.abc import Iterable

CUSTOMER_MAX = 255
"""Characters of an id (OpenID Connect Core §2: `sub` is no longer)."""


def customer_id(value: object) -> str | None:
    """The id in a claim, written as the shop's webhooks are read: a text, or a whole number; None for all else."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value.isprintable() or value != value.strip():
        return None
    return value if 0 < len(value) <= CUSTOMER_MAX else None


def shop_of(order_id: str, shops: Iterable[str]) -> str | None:
    """Whose of these shops the order is, by its id; None: nobody's. Where there is a shop `main-pl`, `main-pl-7` is of
    that one, and not the order `pl-7` of `main`.
    """
    return max((shop for shop in shops if order_id.startswith(f"{shop}-")), key=len, default=None)
