"""What decisions rest on beside the request: keys, rules, places, orders, and what the ops have ordered."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from gateway.errors import OrdersDown
from gateway.policy.decide import Policy, lost_by
from gateway.policy.fronts import Waived
from gateway.policy.keys import KeySet
from gateway.policy.model import Claims, Deny, FileEntry
from gateway.policy.orders import Holding
from gateway.policy.reasons import Reason
from gateway.policy.ruleset import RuleSet
from gateway.ports import GeoLookup
from gateway.services.case import Case
from gateway.services.control import Control
from gateway.services.observing import Observing


@dataclass(frozen=True, slots=True)
class Grounds:
    """What decisions rest on. `rules` and `geo` give what is loaded now."""

    keys: KeySet
    issuer: str
    rules: Callable[[], RuleSet]
    geo: Callable[[], GeoLookup | None]
    control: Control
    ready: Callable[[], bool]
    """Whether everything that was ordered of links is known; where not, nobody may be let in."""
    external_hosts: frozenset[str]
    holding: Callable[[str | None], Awaitable[Holding | None]]
    """What the order of this id gives its buyer; None where there is nothing to ask. Raises OrdersDown."""
    observing: Observing
    waived: Waived

    def policy(self, case: Case) -> Policy:
        """Those of one request, which one rule set decides."""
        return Policy(case.rules, case.standing, self.external_hosts, case.holding, self.waived)

    async def void_meanwhile(self, claims: Claims, file: FileEntry) -> Deny | None:
        """What was said while the ledger was asked: those who cut what runs did not see this reservation yet."""
        lost: Reason | None = None
        try:
            holding = await self.holding(claims.order_id)
        except OrdersDown:
            lost = Reason.ORDERS_DOWN
        else:
            lost = None if holding is None else lost_by(holding, file, time.time())
        # Last, since a freeze or a revocation that comes while something is waited for would be seen by nobody.
        return self.control.standing.refused(claims) or (None if lost is None else Deny(lost))
