"""The requests of one token that the rules let through, in their order, and what the ledger says of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from gateway.policy.counting import CountingRules
from gateway.policy.limits import ValidAfterFirst
from gateway.policy.model import Plan
from gateway.policy.reasons import Reason
from gateway.policy.recorded import NotRecorded
from gateway.policy.replay_ledger import Ask, Closing, TokenLedger
from gateway.policy.replay_requests import InForce, Sizes, Terms, ask_of, is_peek
from gateway.policy.replay_transfers import Transfer
from gateway.policy.ruleset import Verdict

Fields = Mapping[str, str]

PLACE_PATIENCE = 0.4
"""How long a request waits for a place among the concurrent transfers, in seconds (see services.reserving)."""


@dataclass(slots=True, eq=False)
class Passed:
    """A request that the rules let through. `at` in Unix seconds."""

    fields: Fields
    at: float
    terms: Terms
    plan: Plan
    verdict: Verdict
    in_force: InForce


Said = tuple[Passed, Reason | None]
"""What the ledger says of a request: the reason it refuses, None: come in."""


@dataclass(slots=True, eq=False)
class _Waiting:
    passed: Passed
    ask: Ask
    closing: Closing | None = None


class Token:
    """`diverged`: a request of it has come out otherwise, so that what is recorded of the later ones rests on what
    would not have been.
    """

    __slots__ = ("diverged", "ledger", "terms", "texts", "waiting")

    def __init__(self, counting: CountingRules) -> None:
        self.ledger = TokenLedger(counting)
        self.diverged = False
        self.texts: tuple[str | None, ...] = ()
        self.terms: Terms | None = None
        self.waiting: list[_Waiting] | None = None

    def remember(self, fields: Fields, at: float, in_force: InForce, sizes: Sizes) -> None:
        """A request was let through, just as its event says."""
        ask = ask_of(fields, at, in_force, sizes)
        # A look may be spent on one that was opened before the first event there is.
        ask.look = ask.look and fields.get("counted") != "1"
        self.ledger.enter(ask, self._recorded(fields, ask), fields.get("transfer.id", ""))

    def stands(self, fields: Fields, at: float, terms: Terms, in_force: InForce) -> bool:
        """Whether what the ledger said of a request then is right here too."""
        reason = fields.get("reason", "")
        if not reason and "unchecked" in fields:
            return True
        if self.diverged or at >= terms.expires_at or not in_force.is_written(fields):
            return False
        if reason == Reason.TOKEN_EXPIRED.text:
            # It was too late after the first download, which may lie before the first event there is.
            return in_force.limits.get(ValidAfterFirst.name) is not None
        # What a door cannot keep is refused before the ledger is asked.
        return not reason or (reason.startswith("limit.") and reason != Reason.LIMIT_UNKEPT.text)

    def ask(self, passed: Passed, sizes: Sizes) -> Iterator[Said]:
        """What the ledger says of a request; nothing yet where it waits for a place. Raises NotRecorded."""
        fields, at = passed.fields, passed.at
        if self.stands(fields, at, passed.terms, passed.in_force):
            reason = fields.get("reason")
            if reason is None:
                self.remember(fields, at, passed.in_force, sizes)
            yield passed, None if reason is None else _reason(reason)
            return
        ask = ask_of(fields, at, passed.in_force, sizes)
        yield from self._try(_Waiting(passed, ask), last=is_peek(fields, ask))

    def give_up(self, at: float) -> Iterator[Said]:
        """Refuse those that have waited for too long at this moment (Unix s)."""
        if self.waiting:
            late = [each for each in self.waiting if each.passed.at + PLACE_PATIENCE < at]
            self.waiting = [each for each in self.waiting if each.passed.at + PLACE_PATIENCE >= at] or None
            for each in late:
                yield from self._try(each, last=True)

    def close(self, closing: Closing) -> tuple[()]:
        """A request has ended, and nobody waits."""
        self.ledger.close(closing, as_recorded=not self.diverged)
        return ()

    def close_and_call(self, closing: Closing) -> Iterator[Said]:
        """A request has ended; who waits may come in."""
        yield from self.give_up(closing.at)
        for each in self.waiting or ():
            if each.ask.request_id == closing.request_id:
                each.closing = closing
                return
        self.close(closing)
        waiting, self.waiting = self.waiting, None
        for each in waiting or ():
            yield from self._try(each, last=False)

    def _try(self, waiting: _Waiting, *, last: bool) -> Iterator[Said]:
        passed, ask = waiting.passed, waiting.ask
        joined = self._joined(passed.fields, ask)
        if joined is None and passed.terms.expires_at <= passed.at:
            yield passed, Reason.TOKEN_EXPIRED
            return
        reason = self.ledger.refused(ask, joined)
        if reason is Reason.LIMIT_CONCURRENT and not last:
            self.waiting = [*(self.waiting or ()), waiting]
            return
        if reason is None:
            self._let_in(waiting, joined)
        yield passed, reason

    def _let_in(self, waiting: _Waiting, joined: Transfer | None) -> None:
        fields, ask = waiting.passed.fields, waiting.ask
        if fields["type"] == "download.allowed":
            self.ledger.enter(ask, joined, fields.get("transfer.id", ""))
            if waiting.closing is not None:
                self.close(waiting.closing)
        elif not is_peek(fields, ask):
            # Nothing is recorded of what it would have fetched: it is taken for a whole answer, at once.
            self.diverged = True
            self.ledger.enter(ask, joined)
            transfer = joined.id if joined is not None else ask.request_id
            closing = Closing(ask.request_id, transfer, ask.asked, 0, origin_failed=False, at=ask.at)
            self.ledger.close(closing, as_recorded=False)

    def _joined(self, fields: Fields, ask: Ask) -> Transfer | None:
        """The transfer that it joins: the recorded one where that can be, else what the ledger would find."""
        if fields["type"] == "download.allowed":
            if not self.diverged:
                return self._recorded(fields, ask)
            known = self.ledger.known(ask.file, fields.get("transfer.id", ""))
            if known is not None:
                return known
        return self.ledger.find(ask)

    def _recorded(self, fields: Fields, ask: Ask) -> Transfer | None:
        transfer_id = fields.get("transfer.id", "")
        if transfer_id == ask.request_id:
            return None
        return self.ledger.known(ask.file, transfer_id) or self.ledger.take_over(ask, transfer_id)


def _reason(text: str) -> Reason:
    try:
        return Reason.named(text)
    except KeyError:
        raise NotRecorded("its reason is none of this version") from None
