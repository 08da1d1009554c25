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
    """One kind of shop. `kept` are the headers that `delivery_id` and `read` need, by their lower-case names. `ours`:
    its sender writes our form, and is to be told at once what is wrong with it; other shops would only send it again.
    """

    kept: frozenset[str]
    ours: bool

    def verify(self, headers: Headers, body: bytes, secrets: Sequence[bytes]) -> str:
        """ "" where the raw body is genuine by one of the secrets, else what is wrong, safe to log. Constant-time."""

    def delivery_id(self, headers: Headers, body: bytes) -> str:
        """What all copies of this delivery have in common, and no other delivery has: 1 to 200 printable characters."""

    def signed_at(self, headers: Headers) -> int | None:
        """When it was signed (Unix s) where the shop signs that, else None. Proven only after `verify`."""

    def read(self, headers: Headers, body: bytes, received_at: int) -> Notice | Ignored:
        """What a verified body says; `received_at` (Unix ms) dates what tells no time. Raises ValueError for one that
        cannot be meant; its text quotes no value of it.
        """
