"""Who may use the management listener, and what their role lets them do. Tokens are compared in constant time."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from gateway.settings_sections import ManagementSettings

Role = Literal["read-only", "support", "ops"]
RANKS: dict[Role, int] = {"read-only": 0, "support": 1, "ops": 2}
"""Each role may do all that the ones before it may."""

SHARED = "token"
"""The name of whoever comes with `management.token`."""


@dataclass(frozen=True, slots=True)
class User:
    """Somebody with a bearer token; `name` is what the log calls them."""

    name: str
    role: Role
    token: str = field(repr=False)

    def may(self, role: Role) -> bool:
        """Whether they may do what this role may."""
        return RANKS[self.role] >= RANKS[role]


def users_of(management: ManagementSettings) -> tuple[User, ...]:
    """Everybody in the settings; `management.token` is the user `token` with the role ops."""
    shared = management.token.get_secret_value() if management.token is not None else ""
    named = tuple(User(each.name, each.role, each.token.get_secret_value()) for each in management.users)
    return (User(SHARED, "ops", shared), *named) if shared else named


def identify(users: Sequence[User], authorization: str) -> User | None:
    """Who sent this header (RFC 6750 §2.1). Each token is compared, whichever is the right one."""
    scheme, _, given = authorization.partition(" ")
    # Bytes, because compare_digest refuses text that is not ASCII; headers arrive with surrogate escapes.
    sent = given.strip().encode("utf-8", "surrogateescape")
    same = [user for user in users if hmac.compare_digest(sent, user.token.encode())]
    return same[0] if same and scheme.lower() == "bearer" else None
