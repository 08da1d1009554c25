"""A created link as the ops see it: what it grants, when it was made, and whether it is any good now."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

from gateway.policy.claims import read_claims, write_claims
from gateway.policy.limits import Downloads
from gateway.policy.model import Claims, Deny, Limits


@dataclass(frozen=True, slots=True)
class Link:
    """A link without its token; `created_ms` in Unix milliseconds, None where it was not made here."""

    claims: Claims
    created_ms: int | None


def state(claims: Claims, limits: Limits, used: Mapping[str, int], now: int, *, expires_at: int, revoked: bool) -> str:
    """`revoked`, `expired`, `not yet valid`, `used up` or `valid`, the first of them that holds.

    `limits`: the token's and its plan's; `used`: downloads charged, by file identity; `now` and `expires_at` (as
    extended) in Unix seconds.
    """
    if revoked:
        return "revoked"
    if expires_at <= now:
        return "expired"
    if claims.not_before is not None and claims.not_before > now:
        return "not yet valid"
    limit = limits.get(Downloads.name)
    if limit is not None and all(used.get(file.identity, 0) >= limit for file in claims.files):
        return "used up"
    return "valid"


def write_link(claims: Claims, created_ms: int) -> str:
    """The text that `read_link` reads as this link; no token can be made of it without a key."""
    return json.dumps({"claims": write_claims(claims), "created": created_ms}, separators=(",", ":"))


def read_link(text: str) -> Link:
    """Raises ValueError for a text that is no written link; its words quote nothing of it."""
    try:
        stored = json.loads(text)
        claims = read_claims(stored["claims"], stored["claims"]["iss"])
        created = int(stored["created"])
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError("it is no link that was written here") from error
    if isinstance(claims, Deny):
        raise ValueError(f"its claims are not good: {claims.message}")
    return Link(claims, created)


def link_path(prefix: str, token: str) -> str:
    """The path of a link's page; `prefix` is what the public address has in front of it, or all of that address."""
    return f"{prefix}/l/{token}"


def order_path(prefix: str, name: str) -> str:
    """The path that asks for the account first and then leads to the order's link; `name`: an order's id, or a link's
    token id. `prefix` as in `link_path`.
    """
    return f"{prefix}/o/{quote(name, safe='')}"


def file_path(prefix: str, token: str, number: int, name: str) -> str:
    """The path of one file of a link; `prefix` as in `link_path`."""
    return f"{prefix}/d/{token}/{number}{_decoration(name)}"


def zip_path(prefix: str, token: str, name: str) -> str:
    """The path of all files of a link as one ZIP; `prefix` as in `link_path`."""
    return f"{prefix}/z/{token}{_decoration(name)}"


def _decoration(name: str) -> str:
    shown = quote(name.rsplit("/", 1)[-1].encode("utf-8", "replace"), safe="")
    return f"/{shown}" if shown.strip(".") else ""
