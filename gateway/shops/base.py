"""What every kind of shop can do with a webhook. Pure: bytes and headers in, values out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.policy.orders import Notice

Headers = Mapping[str, Sequence[str]]
"""Every value of a header, in the sequence they came, by its lower-case name."""


@dataclass(frozen=True, slots=True)
class Ignored:
    """A genuine webhook that says nothing of a paid order: `why`, for the log. It is answered as if it were taken."""

    why: str


class Shop(Protocol):
    """One kind of shop. `kept` are the headers that `delivery_id` and `read` need, by their lower-case names."""

    kept: frozenset[str]

    def verify(self, headers: Headers, body: bytes, secrets: Sequence[bytes]) -> str:
        """ "" where the raw body is genuine by one of the secrets, else what is wrong, safe to log. Constant-time."""

    def delivery_id(self, headers: Headers, body: bytes) -> str:
        """What all copies of this delivery have in common, and no other delivery has: 1 to 200 printable characters."""

    def read(self, headers: Headers, body: bytes) -> Notice | Ignored:
        """What a verified body says. Raises ValueError for one that cannot be meant; its text quotes nothing of it."""
