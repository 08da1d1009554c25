"""What the ops have ordered: links revoked or extended since they were made, by token or by order; all frozen, thawed.

A revocation is final, of two extensions the later counts, and of freezes and thaws the latest, a freeze where both are
of one second: in whichever sequence commands arrive, and however often.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from gateway.policy.claims import TEXT_MAX, TIME_MAX
from gateway.policy.events import clean
from gateway.policy.model import Claims, Deny
from gateway.policy.reasons import Reason

Verb = Literal["revoke", "extend", "freeze", "thaw"]

VERSION = "1"
"""Of a written command. It changes with the meaning of a field; fields that are not known are passed over."""

_VERBS: Mapping[str, Verb] = {"revoke": "revoke", "extend": "extend", "freeze": "freeze", "thaw": "thaw"}
_OF_ALL = ("freeze", "thaw")
_TOKEN_KEY = re.compile(r"[0-9a-f]{32}")
_SECONDS = re.compile(r"[0-9]{1,12}")


@dataclass(frozen=True, slots=True)
class Command:
    """One word of the ops. Of `token_key` (see Claims) and `order_id` exactly one is set, and none where it is of all
    links (`freeze`, `thaw`); `time` Unix seconds; `message` is a freeze's, for buyers, and `since` (Unix s) when that
    freeze began, where an earlier one had stopped all: by `time` alone it is decided which of two counts.

    By `order_id` it holds for the order's tokens issued until `time`, and for those that do not say when they were
    issued. `expires_at` (Unix s) is an extension's new `exp`. Raises ValueError for what makes no command.
    """

    verb: Verb
    time: int
    token_key: str | None = None
    order_id: str | None = None
    expires_at: int | None = None
    message: str | None = None
    since: int | None = None

    def __post_init__(self) -> None:
        if (self.message, self.since) != (None, None) and self.verb != "freeze":
            raise ValueError("only a freeze has a message, or a beginning")
        if self.verb in _OF_ALL:
            if (self.token_key, self.order_id, self.expires_at) != (None, None, None):
                raise ValueError("a freeze or a thaw is about all links, and has no expiry")
            return
        if (self.token_key is None) == (self.order_id is None):
            raise ValueError("it is not about either one link or one order")
        if (self.expires_at is None) == (self.verb == "extend"):
            raise ValueError("an extension has a new expiry, and a revocation has none")


@dataclass(frozen=True, slots=True)
class Frozen:
    """All downloads are stopped since then (Unix s); `message` is what buyers read beside it."""

    since: int
    message: str | None = None


class Standing:
    """All commands so far, in memory."""

    def __init__(self) -> None:
        self._revoked_tokens: set[str] = set()
        self._revoked_orders: dict[str, int] = {}
        # (when it was ordered, the new expiry): of two in the same second the longer one counts, everywhere alike.
        self._extended_tokens: dict[str, tuple[int, int]] = {}
        self._extended_orders: dict[str, tuple[int, int]] = {}
        self._of_all: Command | None = None

    def apply(self, command: Command) -> None:
        """Take one command in; again does no harm."""
        if command.verb in _OF_ALL:
            self._of_all = command if self._of_all is None else max(self._of_all, command, key=_later)
        elif command.expires_at is not None:
            given = (command.time, command.expires_at)
            extended = self._extended_tokens if command.token_key is not None else self._extended_orders
            name = command.token_key or command.order_id or ""
            extended[name] = max(given, extended.get(name, given))
        elif command.token_key is not None:
            self._revoked_tokens.add(command.token_key)
        elif command.order_id is not None:
            self._revoked_orders[command.order_id] = max(command.time, self._revoked_orders.get(command.order_id, 0))

    @property
    def frozen(self) -> Frozen | None:
        """Since when nothing is given to anybody; None where downloads go on."""
        said = self._of_all
        if said is None or said.verb == "thaw":
            return None
        return Frozen(said.time if said.since is None else said.since, said.message)

    @property
    def of_all(self) -> Command | None:
        """The freeze or thaw that counts; None where there never was one."""
        return self._of_all

    def refused(self, claims: Claims | None) -> Deny | None:
        """Why nothing is given with this link any more; None where it may be. Without `claims`: with any link."""
        if (frozen := self.frozen) is not None:
            return Deny(Reason.FROZEN, message=frozen.message)
        return Deny(Reason.TOKEN_REVOKED) if claims is not None and self.is_revoked(claims) else None

    def is_revoked(self, claims: Claims) -> bool:
        """Whether the link is revoked, by itself or with its order."""
        if claims.token_key in self._revoked_tokens:
            return True
        until = self.order_revoked_until(claims.order_id) if claims.order_id is not None else None
        return until is not None and _issued_by(claims, until)

    def order_revoked_until(self, order_id: str) -> int | None:
        """The order's links issued until then (Unix s) are revoked; None where the order never was."""
        return self._revoked_orders.get(order_id)

    def extended_to(self, claims: Claims) -> int | None:
        """The expiry (Unix s) that overrides the token's, None where it was not extended."""
        given = []
        if by_token := self._extended_tokens.get(claims.token_key):
            given.append(by_token)
        by_order = self._extended_orders.get(claims.order_id) if claims.order_id is not None else None
        if by_order is not None and _issued_by(claims, by_order[0]):
            given.append(by_order)
        return max(given)[1] if given else None


def write_command(command: Command) -> dict[str, str]:
    """The flat fields that `read_command` reads as `command`. Raises ValueError for one that could not be read."""
    fields = {
        "v": VERSION,
        "verb": command.verb,
        "time": command.time,
        "token.key": command.token_key,
        "order.id": command.order_id,
        "expires_at": command.expires_at,
        "message": command.message,
        "since": command.since,
    }
    written = {name: str(value) for name, value in fields.items() if value is not None}
    read_command(written)
    return written


def read_command(fields: Mapping[str, str]) -> Command:
    """Raises ValueError for fields that are no command of this version; its words quote none of them."""
    if fields.get("v") != VERSION:
        raise ValueError(f"it is not of version {VERSION}")
    verb, token_key, order_id = _VERBS.get(fields.get("verb", "")), fields.get("token.key"), fields.get("order.id")
    if verb is None:
        raise ValueError("its verb is none of revoke, extend, freeze and thaw")
    if token_key is not None and not _TOKEN_KEY.fullmatch(token_key):
        raise ValueError("its token.key is not 32 hex digits")
    if order_id is not None and not is_order_id(order_id):
        raise ValueError("its order.id is none that a link can have")
    expires_at = _seconds(fields, "expires_at") if "expires_at" in fields else None
    message = fields.get("message")
    if message is not None and (not message or message != clean(message, TEXT_MAX)):
        raise ValueError(f"its message is not 1 to {TEXT_MAX} characters without control characters")
    since = _seconds(fields, "since") if "since" in fields else None
    return Command(verb, _seconds(fields, "time"), token_key, order_id, expires_at, message, since)


def is_order_id(text: str) -> bool:
    """Whether a token can carry this as its `order`."""
    return bool(text) and text == text.strip() and text == clean(text, TEXT_MAX)


def _seconds(fields: Mapping[str, str], name: str) -> int:
    text = fields.get(name, "")
    if not _SECONDS.fullmatch(text) or int(text) > TIME_MAX:
        raise ValueError(f"its {name} is not Unix seconds until the year 9999")
    return int(text)


def _later(command: Command) -> tuple[int, bool, str, int]:
    """Of two in the same second the freeze counts, everywhere alike."""
    return command.time, command.verb == "freeze", command.message or "", command.since or 0


def _issued_by(claims: Claims, time: int) -> bool:
    return claims.issued_at is None or claims.issued_at <= time
