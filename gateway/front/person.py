"""The act `person`: the link's page saw a gesture, so whoever looked at files from this device pays for them."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.front.acts import Act
from gateway.front.answers import SAFE, Answers
from gateway.front.plain import Answer
from gateway.policy.model import Deny
from gateway.services.gatekeeper import Gatekeeper, Refused

NO_CONTENT = 204


@dataclass(frozen=True, slots=True)
class PersonAct:
    """Also tells the browser to say so from now on. Nothing is proven by it: who forges it is charged, no more."""

    gatekeeper: Gatekeeper
    answers: Answers

    async def __call__(self, act: Act) -> Answer | Deny:
        """Nobody waits for the answer, and the page does not show it."""
        confirmed = await self.gatekeeper.confirm(act.asked)
        if isinstance(confirmed, Refused):
            return confirmed.deny
        return Answer(NO_CONTENT, {**SAFE, "X-Request-Id": act.asked.request_id, **self.answers.person_cookie()})
