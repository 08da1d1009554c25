"""PURE: the kinds of shops, each a module: whether a webhook is genuine, and what it says of an order."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.shops.base import Shop
from gateway.shops.shoper import Shoper
from gateway.shops.shopify import Shopify
from gateway.shops.signed import Signed
from gateway.shops.woocommerce import WooCommerce

SHOPS: Mapping[str, Shop] = {
    "shopify": Shopify(),
    "woocommerce": WooCommerce(),
    "shoper": Shoper(),
    "signed": Signed(),
}
"""Every kind that the setting `shops.kind` can name."""
