"""What a replay takes from an event besides its facts: what its token may, and what the ledger is asked."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache

from gateway.policy.decide import expiry_of, limits_of, plan_of
from gateway.policy.fronts import FRONTS, HTTP, Kept, Waived, kept
from gateway.policy.limits import BY_NAME, Rate, charges
from gateway.policy.model import Charge, Claims, Deny, Device, Limits, Plan
from gateway.policy.recorded import claims_of, front_of, number_of, waived_of
from gateway.policy.recorded import limits_of as limits_written
from gateway.policy.replay_ledger import Ask, Closing
from gateway.policy.ruleset import RuleSet
from gateway.policy.scanners import SUSPECTED_SCANNER
from gateway.policy.standing import Standing

Fields = Mapping[str, str]
Sizes = Mapping[str, tuple[int, str]]
"""The size and ETag of each file, as far as an event told them."""

_TOKEN = (
    "token.plan",
    "token.limits",
    "token.account",
    "token.issued_at",
    "token.expires_at",
    "token.extended_to",
    "order.id",
    "customer.id",
    "tier",
)
_NOBODY = Device(None, "", None)
_NONE: frozenset[str] = frozenset()
_RANGE = re.compile(r"bytes=([0-9]{0,15})-([0-9]{0,15})", re.IGNORECASE)
_PARTIAL = "206"
_UNTOLD = 1024 * 1024
"""Taken for the size of a file of which no event has told it yet."""


class InForce:
    """Limits in force at the door `front`, and what opening a transfer costs under them; `unkept` are those for which
    that door refuses.
    """

    __slots__ = ("_charges", "_own", "_text", "_written", "front", "limits", "unkept")

    def __init__(self, possible: Kept, front: str) -> None:
        self.limits = limits = possible.limits
        self.unkept = possible.unkept
        self.front = front
        self._text = str(limits)
        self._written = _refusing(self._text)
        self._charges = charges(limits, _NOBODY)
        # Of these it depends on the device what they cost.
        self._own = [
            (place, BY_NAME[charge.name](charge.limit))
            for place, charge in enumerate(self._charges)
            if charge.kind == "distinct" and charge.limit is not None
        ]

    def is_written(self, fields: Fields) -> bool:
        """Whether an event's `limits`, without the waived ones, are these; the rate, which refuses nothing, aside."""
        text = fields.get("limits", "")
        if "limits.waived" in fields:
            return str(without(limits_written(text), {*waived_of(fields), Rate.name})) == self._written
        return text == self._text or _refusing(text) == self._written

    def charges(self, device: Device) -> Sequence[Charge]:
        if not self._own:
            return self._charges
        costs = list(self._charges)
        for place, limit in self._own:
            if (charge := limit.charge(device)) is not None:
                costs[place] = charge
        return costs


@lru_cache(4096)
def _refusing(text: str) -> str:
    return str(limits_written(text).without(Rate.name))


@lru_cache(4096)
def _in_force(text: str, front: str, spared: frozenset[str]) -> InForce:
    """Of limits as `str(Limits(…))` writes them, where the door need not keep the spared ones. Raises NotRecorded."""
    return InForce(kept(limits_written(text), front, {front: spared}), front)


def recorded_in_force(fields: Fields) -> InForce:
    """What an event says was in force. Raises NotRecorded."""
    text = fields.get("limits", "")
    if "limits.waived" in fields:
        text = str(without(limits_written(text), waived_of(fields)))
    return _in_force(text, front_of(fields), _NONE)


def without(limits: Limits, names: Collection[str]) -> Limits:
    for name in names:
        limits = limits.without(name)
    return limits


class _Extended(Standing):
    """The one token's, as its event says it."""

    def __init__(self, to: int | None) -> None:
        super().__init__()
        self._to = to

    def extended_to(self, claims: Claims) -> int | None:
        return self._to


_NOT_EXTENDED = _Extended(None)


class Terms:
    """What a token may under the candidate: its plan, or that there is none of this name; until when (Unix s)."""

    __slots__ = ("_of", "claims", "expires_at", "plan", "standing")

    def __init__(self, claims: Claims, rules: RuleSet, extended_to: int | None) -> None:
        self.claims = claims
        self.plan: Plan | Deny = plan_of(claims, rules)
        self.standing: Standing = _NOT_EXTENDED if extended_to is None else _Extended(extended_to)
        self.expires_at = claims.expires_at
        if isinstance(self.plan, Plan):
            self.expires_at = expiry_of(claims, self.plan, self.standing)
        self._of: tuple[Limits, str, frozenset[str], InForce] | None = None

    @property
    def is_extended(self) -> bool:
        return self.standing is not _NOT_EXTENDED

    def in_force(self, plan: Plan, by_rules: Limits, fields: Fields, waived: Waived | None) -> InForce:
        """The limits of plan, token and rules together, at the event's door. `waived` are the settings'; None: they are
        not known, and what was waived then is waived. Raises NotRecorded.
        """
        front, spared = front_of(fields), _NONE
        if front != HTTP.name:
            spared = waived_of(fields) if waived is None else waived.get(front, _NONE)
        if self._of is None or self._of[:3] != (by_rules, front, spared):
            limits = limits_of(self.claims, plan, self.standing, by_rules)
            self._of = (by_rules, front, spared, _in_force(str(limits), front, spared))
        return self._of[3]


def token_texts(fields: Fields) -> tuple[str | None, ...]:
    """What of an event its Terms are made from."""
    return tuple(map(fields.get, _TOKEN))


def terms_of(fields: Fields, rules: RuleSet) -> Terms:
    """Raises NotRecorded."""
    extended = fields.get("token.extended_to")
    return Terms(claims_of(fields), rules, None if extended is None else number_of(extended, "token.extended_to"))


def counted_as(fields: Fields) -> str:
    """What the downloads of its file are counted under."""
    own = fields.get("file.id")
    return fields["file.key"] if own is None else f"{fields['file.key']}?{own}"


def ask_of(fields: Fields, at: float, in_force: InForce, sizes: Sizes) -> Ask:
    """What the ledger was, or would be, asked: of a request that was refused before its file was looked at, by what is
    known of the file otherwise. Raises NotRecorded.
    """
    key = fields["file.key"]
    own = fields.get("device.id", "")
    device = Device(
        fields.get("device.cookie", own), fields.get("client.network", ""), fields.get("user_agent.original"), own
    )
    size, etag = sizes.get(key, (_UNTOLD, None))
    asked, status = fields.get("bytes.asked"), fields.get("http.response.status_code")
    start, length = _span(fields.get("http.request.range"), size)
    if asked is not None:
        length = number_of(asked, "bytes.asked")
        start = start if status == _PARTIAL or status is None or fields["type"] == "download.denied" else 0
    elsewhere = key.startswith("url:")
    if not elsewhere and length and FRONTS[in_force.front].hands_over and fields.get("http.request.method") == "GET":
        # As services.gatekeeper asks it: of bytes that others send nothing is known.
        elsewhere, size, etag, start, length = True, 0, "", 0, 0
    return Ask(
        fields.get("request.id", ""), counted_as(fields), at, size, etag, start, length, elsewhere, device,
        in_force.charges(device), fields.get("signal") == SUSPECTED_SCANNER,
    )  # fmt: skip


def is_peek(fields: Fields, ask: Ask) -> bool:
    """Whether its answer has no body, so that nothing is charged."""
    return fields.get("http.request.method") == "HEAD" or (not ask.elsewhere and not ask.asked)


def closing_of(fields: Fields, at: float) -> Closing:
    """Of a `download.finished` or `download.lost`. Raises NotRecorded."""
    counted = fields.get("counted", "0")
    return Closing(
        request_id=fields.get("request.id", ""),
        transfer_id=fields.get("transfer.id", ""),
        delivered=number_of(fields.get("bytes.delivered", "0"), "bytes.delivered"),
        counted=-1 if counted == "-1" else number_of(counted, "counted"),
        origin_failed=fields.get("outcome") == "origin_failed",
        at=at,
    )


def _span(header: str | None, size: int) -> tuple[int, int]:
    """Where the answer starts (−1: of several ranges), and how long it is."""
    if header is None:
        return 0, size
    match = _RANGE.fullmatch(header.replace(" ", ""))
    if match is None:
        return (-1, size) if "," in header else (0, size)
    first, last = match.groups()
    if not first:
        return max(size - int(last or 0), 0), min(int(last or 0), size)
    stop = min(int(last) + 1, size) if last else size
    return int(first), max(stop - int(first), 0)
