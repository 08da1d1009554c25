"""One request while it is decided: what is known of it so far, for the decision and for its event."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.policy.model import Allow, Claims, Decision, Deny, Device, DownloadRequest, FileEntry, Place, StoredObject
from gateway.policy.orders import Holding
from gateway.policy.record import describe
from gateway.policy.ruleset import RuleSet
from gateway.policy.scanners import SUSPECTED_SCANNER, Signals, suspected
from gateway.policy.standing import Standing
from gateway.policy.verdicts import Opinion


@dataclass(slots=True)
class Case:
    """What has become known of one request so far, for its decision and its event. One rule set decides it all."""

    request: DownloadRequest
    rules: RuleSet
    device: Device
    at_ms: int
    """The moment of its decision, in Unix ms, which is also its event's: so it can be decided again exactly."""
    standing: Standing
    claims: Claims | None = None
    file: FileEntry | None = None
    place: Place | None = None
    holding: Holding | None = None
    decision: Decision | None = None
    """What the policy said, before anybody else was asked."""
    opinion: Opinion | None = None
    """What the rules candidate said of the same."""
    is_page: bool = False
    """Whether it is the link's page that is asked for, and not a file."""
    signs: tuple[str, ...] = ()
    """What makes it a suspected scanner's (see policy.scanners)."""

    def classify(self, claims: Claims) -> None:
        """Look for a scanner's signs, once place and holding are known."""
        mailed = None if self.holding is None else self.holding.mailed_at
        sent = mailed
        if self.holding is None and claims.issued_at is not None:
            sent = claims.issued_at * 1000
        signals = Signals(
            since=None if sent is None else (self.at_ms - sent) / 1000,
            mailed=mailed is not None,
            manner=self.request.manner,
            network=(self.place and self.place.network) or frozenset(),
            user_agent=self.request.user_agent,
            page=self.is_page,
        )
        self.signs = suspected(signals)

    def described(
        self, decision: Allow | Deny, stored: StoredObject | None = None, asked: int | None = None
    ) -> dict[str, str]:
        told = describe(
            self.request,
            claims=self.claims,
            file=self.file,
            device=self.device,
            stored=stored,
            asked=asked,
            place=self.place,
            decision=decision,
        )
        told["rules.version"] = self.rules.version
        if self.opinion is not None:
            told |= self.opinion.fields
        if self.signs:
            told |= {"signal": SUSPECTED_SCANNER, "signal.why": ",".join(self.signs)}
        extended_to = None if self.claims is None else self.standing.extended_to(self.claims)
        return told if extended_to is None else {**told, "token.extended_to": str(extended_to)}
