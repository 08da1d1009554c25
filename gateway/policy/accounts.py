"""Who has signed in: a customer of a shop, and what is his."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Account:
    """A customer by the shop's own id. `shops`: whose customers these are, by the names of the settings; empty where
    there is one shop alone.
    """

    customer_id: str
    shops: tuple[str, ...] = ()

    def bought(self, customer_id: str | None, order_id: str | None) -> bool:
        """Whether this customer of this order is meant. Two shops may both have a customer 7; no shop's name begins
        with another's and a hyphen (see Settings).
        """
        if customer_id is None or customer_id != self.customer_id:
            return False
        return not self.shops or any((order_id or "").startswith(f"{shop}-") for shop in self.shops)
