"""Recorded requests, decided again under a candidate rule set, in the order in which they were recorded.

As long as a token's limits are the recorded ones and none of its requests came out otherwise, the ledger's recorded
word stands: what a limit says follows from the requests before. From there on policy.replay_ledger says it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from gateway.policy.counting import CountingRules
from gateway.policy.decide import refused_by, unfit_for, unkept_by
from gateway.policy.fronts import Waived
from gateway.policy.model import Deny, FileEntry, Plan
from gateway.policy.reasons import Reason
from gateway.policy.recorded import NotRecorded, account_of, file_of, moment_of, number_of
from gateway.policy.replay_changes import Change, Outcome, cause_of, changed, refusal
from gateway.policy.replay_requests import (
    InForce,
    Terms,
    ask_of,
    closing_of,
    counted_as,
    recorded_in_force,
    terms_of,
    token_texts,
)
from gateway.policy.replay_token import Passed, Said, Token
from gateway.policy.replay_verdicts import LookUp, Verdicts
from gateway.policy.ruleset import Rule, RuleSet

Fields = Mapping[str, str]

_BEFORE_DECISION = frozenset({
    "token.malformed", "token.signature", "token.not_yet", "file.unknown", "link.unknown",
    "frozen", "geo.down", "orders.down", "overload", "draining",
})  # fmt: skip
_REQUESTS = frozenset({"download.allowed", "download.denied"})
_CLOSINGS = frozenset({"download.finished", "download.lost"})
_BEFORE_RULES = frozenset({"token.revoked", "token.ip", "order.unpaid"})
_AFTER_DECISION = frozenset({"origin.down", "origin.changed", "origin.timeout", "redis.down", "file.missing"})
_LINK_PAGE = "they asked for a link's page, whose event does not say which of its files could be had"
_HOSTS = (
    "their link was refused, which may have been for the file's host, and which hosts are allowed only settings say"
)
_HOW: Mapping[str, str] = {"refused": "now_refused", "allowed": "now_allowed", "reason": "another_reason"}


@dataclass(slots=True)
class Counts:
    """How many requests came out how. Each that was `read` is in exactly one of those below it."""

    read: int = 0
    unchanged: int = 0
    now_refused: int = 0
    now_allowed: int = 0
    another_reason: int = 0
    not_redecidable: Counter[str] = field(default_factory=Counter)
    ends_unread: int = 0
    """Ends of downloads (no requests) that cannot be read."""

    @property
    def redecided(self) -> int:
        return self.read - self.not_redecidable.total()


class Replay:
    """`since` (Unix s): requests before it are history, and not decided again. `hosts` (external_hosts) and `waived`
    (None: not known), and `counting`, are the settings'; `look_up` asks the geo databases of these kinds where an event
    has none.

        replay = Replay(candidate, counting=CountingRules())
        for fields in events:                       # of one shard after the other, each oldest first
            for change in replay.take(fields): ...  # who comes out otherwise
        for change in replay.finish(): ...
    """

    def __init__(
        self,
        candidate: RuleSet,
        *,
        counting: CountingRules,
        since: float = 0.0,
        hosts: Collection[str] | None = None,
        waived: Waived | None = None,
        look_up: LookUp | None = None,
        databases: Iterable[str] = (),
    ) -> None:
        self.counts = Counts()
        self._candidate = candidate
        self._counting = counting
        self._since = since
        self._hosts = hosts
        self._waived = waived
        self._verdicts = Verdicts(candidate, look_up, databases)
        self._tokens: dict[str, Token] = {}
        self._sizes: dict[str, tuple[int, str]] = {}

    def take(self, fields: Fields) -> Sequence[Change]:
        """The requests that this event shows to come out otherwise: its own, or one that waited for a place."""
        kind = fields.get("type")
        if kind in _CLOSINGS:
            return self._closed(fields)
        if kind == "download.confirmed":
            self._confirmed(fields)
        if kind not in _REQUESTS:
            return ()
        try:
            at = moment_of(fields)
        except NotRecorded as lack:
            self.counts.read += 1
            self.counts.not_redecidable[str(lack)] += 1
            return ()
        is_told = at >= self._since
        self.counts.read += is_told
        token = self._tokens.get(fields.get("token.id", ""))
        waited = self._changes(token, token.give_up(at)) if token is not None and token.waiting else ()
        said: Sequence[Change] = ()
        try:
            said = self._request(fields, at)
        except NotRecorded as lack:
            if is_told:
                self.counts.not_redecidable[str(lack)] += 1
        return [*waited, *said] if waited else said

    def finish(self) -> Sequence[Change]:
        """Those that still waited for a place at the end."""
        return [
            change for token in self._tokens.values() for change in self._changes(token, token.give_up(float("inf")))
        ]

    def _closed(self, fields: Fields) -> Sequence[Change]:
        token = self._tokens.get(fields.get("token.id", ""))
        if token is None:
            return ()
        try:
            closing = closing_of(fields, moment_of(fields))
        except NotRecorded:
            self.counts.ends_unread += 1
            return ()
        return self._changes(token, token.close_and_call(closing)) if token.waiting else token.close(closing)

    def _confirmed(self, fields: Fields) -> None:
        """A look is paid for: under the candidate's limits, where its token came under them."""
        token = self._tokens.get(fields.get("token.id", ""))
        if token is None or "file.key" not in fields:
            return
        with suppress(NotRecorded):
            at, in_force, terms = moment_of(fields), recorded_in_force(fields), token.terms
            if terms is not None and isinstance(terms.plan, Plan):
                verdict = self._verdicts.of(fields, terms.claims, terms.plan.name, at)
                in_force = terms.in_force(terms.plan, verdict.limits, fields, self._waived)
            token.ledger.confirm(ask_of(fields, at, in_force, self._sizes))

    def _request(self, fields: Fields, at: float) -> Sequence[Change]:
        """Raises NotRecorded."""
        reason = fields.get("reason", "")
        is_told = at >= self._since
        file = fields.get("file.key")
        if file is None or "token.id" not in fields:
            if is_told and ("token.id" not in fields or reason in _BEFORE_DECISION or reason in _BEFORE_RULES):
                self.counts.unchanged += 1
            elif is_told:
                self.counts.not_redecidable[_LINK_PAGE] += 1
            return ()
        token = self._tokens.get(fields["token.id"])
        if token is None:
            token = self._tokens[fields["token.id"]] = Token(self._counting)
        if "file.etag" in fields and self._sizes.get(file, ("", ""))[1] != fields["file.etag"]:
            self._sizes[file] = (number_of(fields.get("file.size", ""), "file.size"), fields["file.etag"])
        if not is_told:
            self._remember(token, fields, at)
            return ()
        if reason in _BEFORE_DECISION:
            self.counts.unchanged += 1
            return ()
        if not reason and fields["type"] == "download.denied":
            raise NotRecorded("it has no reason")
        try:
            return self._decided(token, fields, at, reason)
        except NotRecorded:
            self._remember(token, fields, at)
            raise

    def _remember(self, token: Token, fields: Fields, at: float) -> None:
        if fields["type"] == "download.allowed":
            token.remember(fields, at, recorded_in_force(fields), self._sizes)

    def _decided(self, token: Token, fields: Fields, at: float, reason: str) -> Sequence[Change]:
        texts = token_texts(fields)
        if token.terms is None or token.texts != texts:
            token.texts, token.terms = texts, terms_of(fields, self._candidate)
        terms = token.terms
        plan = terms.plan
        if isinstance(plan, Deny):
            return self._refused(token, fields, terms, at, plan)
        if reason in _BEFORE_RULES or (reason == "token.expired" and "rule" not in fields):
            self.counts.unchanged += 1
            return ()
        file = fields["file.key"]
        if terms.claims.issued_at is None or file.startswith("url:"):
            unfit = self._unfit(file_of(file), terms, plan, at, reason)
            if unfit is not None:
                return self._refused(token, fields, terms, at, unfit)
        verdict = self._verdicts.of(fields, terms.claims, plan.name, at)
        account = account_of(fields)
        denied = refused_by(verdict, plan, terms.claims, account=account, view=fields.get("file.use") == "view")
        if denied is not None:
            return self._refused(token, fields, terms, at, denied)
        in_force = terms.in_force(plan, verdict.limits, fields, self._waived)
        if in_force.unkept:
            unkept = unkept_by(in_force.front, in_force.unkept, verdict)
            return self._refused(token, fields, terms, at, unkept, in_force=in_force)
        if reason in _AFTER_DECISION:
            return self._not_had(token, fields, terms, at, verdict.rule)
        if not reason and token.stands(fields, at, terms, in_force):
            token.remember(fields, at, in_force, self._sizes)
            self.counts.unchanged += 1
            return ()
        passed = Passed(fields, at, terms, plan, verdict, in_force)
        return self._changes(token, token.ask(passed, self._sizes))

    def _not_had(self, token: Token, fields: Fields, terms: Terms, at: float, rule: str | None) -> Sequence[Change]:
        """It was let through, and refused by what no rule changes."""
        if terms.expires_at <= at and not token.ledger.has_transfers(counted_as(fields)):
            return self._refused(token, fields, terms, at, Deny(Reason.TOKEN_EXPIRED, rule=rule))
        self.counts.unchanged += 1
        return ()

    def _unfit(self, file: FileEntry, terms: Terms, plan: Plan, at: float, reason: str) -> Deny | None:
        unfit = unfit_for(terms.claims, file, plan, standing=terms.standing, hosts=self._hosts, now=at)
        if unfit is None and self._hosts is None and file.url is not None and reason == Reason.TOKEN_CLAIMS.text:
            raise NotRecorded(_HOSTS)
        return unfit

    def _changes(self, token: Token, said: Iterator[Said]) -> Sequence[Change]:
        changes: list[Change] = []
        for passed, reason in said:
            if reason is None:
                changes += self._told(passed.fields, Outcome("", passed.verdict.rule), str)
            else:
                deny = Deny(reason, rule=passed.verdict.rule)
                changes += self._refused(token, passed.fields, passed.terms, passed.at, deny, in_force=passed.in_force)
        return changes

    def _refused(
        self, token: Token, fields: Fields, terms: Terms, at: float, deny: Deny, *, in_force: InForce | None = None
    ) -> Sequence[Change]:
        def limiting() -> Iterable[Rule]:
            plan = terms.plan
            return () if isinstance(plan, Deny) else self._verdicts.limiting(fields, terms.claims, plan.name, at)

        if fields["type"] == "download.allowed":
            token.diverged = True
        return self._told(fields, refusal(deny), lambda: cause_of(deny, terms, at, limiting, in_force))

    def _told(self, fields: Fields, after: Outcome, cause: Callable[[], str]) -> Sequence[Change]:
        change = changed(fields, after, cause)
        if change is None:
            self.counts.unchanged += 1
            return ()
        name = _HOW[change.kind]
        setattr(self.counts, name, getattr(self.counts, name) + 1)
        return (change,)
