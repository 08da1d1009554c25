"""Watches what rules do: which of them decide, and what a candidate file beside them would say.

Law: nothing here touches a decision, whatever the candidate does.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from gateway.policy.model import Claims, Decision, FileEntry, Place
from gateway.policy.reasons import Reason
from gateway.policy.ruleset import NO_RULES, RuleSet
from gateway.policy.verdicts import Opinion, is_judged, opinion, spoken, spoken_beside
from gateway.services.case import Case
from gateway.services.faults import describe

log = logging.getLogger(__name__)

FAULT = "fault"
"""The verdict of a candidate that could not be asked."""


class Tally(Protocol):
    """Counts what a version of the rules let through and what it did not."""

    def note(self, case: Case, reason: Reason | None) -> None:
        """The request of a genuine link was let through, or refused for this reason. Never waits, never raises."""


class Observing:
    """`candidate` gives what is to be judged beside the rules, or NO_RULES. `tell` hears (`live` or `candidate`, rule,
    verdict) for each rule that spoke.
    """

    def __init__(
        self,
        candidate: Callable[[], RuleSet] = lambda: NO_RULES,
        *,
        tell: Callable[[str, str, str], None] = lambda _rules, _rule, _verdict: None,
        tally: Tally | None = None,
    ) -> None:
        self._candidate = candidate
        self._tell = tell
        self._tally = tally
        self._faulty = ""

    def judged(self, case: Case, claims: Claims, file: FileEntry, decision: Decision) -> Opinion | None:
        """What the candidate says of what the rules in force have just judged."""
        rules = self._candidate()
        if rules is NO_RULES or not is_judged(decision):
            return None
        try:
            return opinion(rules, claims, file, case.request, place=case.place or Place(), now=case.at_ms / 1000)
        except Exception as error:  # noqa: BLE001  whatever is wrong with a candidate, what is in force decides
            self._tell("candidate", "", FAULT)
            if self._faulty != rules.version:
                self._faulty = rules.version
                log.error("the rules candidate %s cannot be asked: %s", rules.version, describe(error))
            return None

    def answered(self, case: Case, reason: Reason | None) -> None:
        """The request of this case is let through, or refused for this reason."""
        if case.decision is not None:
            for rule, verdict in spoken(case.decision):
                self._tell("live", rule, verdict)
        if case.opinion is not None:
            for rule, verdict in spoken_beside(case.opinion):
                self._tell("candidate", rule, verdict)
        if self._tally is not None and case.claims is not None:
            self._tally.note(case, reason)
