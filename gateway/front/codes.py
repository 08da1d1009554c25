"""The two acts of a new device: to ask for a code, and to enter it.

Law: who may not have the link's files with a code either learns that first, and no code is made.
"""

from __future__ import annotations

from dataclasses import replace

from gateway.errors import LedgerDown
from gateway.front.acts import Act, Acts
from gateway.front.answers import SAFE, Answers
from gateway.front.code_page import CodeState
from gateway.front.plain import Answer
from gateway.policy.links import link_path
from gateway.policy.model import Deny
from gateway.policy.reasons import Reason
from gateway.services.broken import reason_of
from gateway.services.codes import Codes
from gateway.services.gatekeeper import Gatekeeper, Opened, Refused
from gateway.services.throttle import Throttle


class CodeActs:
    """`prefix` stands in front of our paths in the public address."""

    def __init__(
        self, gatekeeper: Gatekeeper, codes: Codes, answers: Answers, throttle: Throttle, *, prefix: str
    ) -> None:
        self._gatekeeper = gatekeeper
        self._codes = codes
        self._answers = answers
        self._throttle = throttle
        self._prefix = prefix
        self.acts: Acts = {"code": self.ask, "enter": self.enter}

    async def ask(self, act: Act) -> Answer | Deny:
        """Have a code mailed to the order's address."""
        opened = await self._opened(act)
        if isinstance(opened, Refused):
            return opened.deny
        if not _needs_code(opened):
            return self._to_link(act)
        if not self._codes.may_be_sent(act.claims):
            return self._page(act, CodeState("unsent"))
        try:
            made = await self._codes.ask(act.claims, act.asked)
        except LedgerDown as error:
            return Deny(reason_of(error))
        return self._page(act, CodeState("sent" if made else "often"))

    async def enter(self, act: Act) -> Answer | Deny:
        """Try a code; the right one leads back to the link, which knows the device from now on."""
        opened = await self._opened(act)
        if isinstance(opened, Refused):
            return opened.deny
        if not _needs_code(opened):
            return self._to_link(act)
        try:
            entered = await self._codes.enter(act.claims, act.asked, act.form.get("code", ""))
        except LedgerDown as error:
            return Deny(reason_of(error))
        if entered.verdict == "right":
            return self._to_link(act, {"Set-Cookie": self._answers.known_cookie(entered.cookie)})
        refused = self._throttle.instead(Deny(Reason.DEVICE_CODE), act.asked.client_network)
        if refused.reason is Reason.THROTTLED:
            return refused
        # Without a try left there is no code any more.
        wrong = entered.verdict == "wrong" and entered.left > 0
        return self._page(act, CodeState("wrong", entered.left) if wrong else CodeState("none"))

    async def _opened(self, act: Act) -> Opened | Refused:
        # HEAD: that the page is looked at is no event of its own.
        return await self._gatekeeper.open_link(replace(act.asked, method="HEAD"))

    def _page(self, act: Act, state: CodeState) -> Answer:
        return self._answers.code_page(act.head, act.asked.request_id, state, self._answers.device_cookie(act.asked))

    def _to_link(self, act: Act, more: dict[str, str] | None = None) -> Answer:
        headers = {**SAFE, "X-Request-Id": act.asked.request_id, **(more or {})}
        return Answer(303, {**headers, "Location": link_path(self._prefix, act.asked.token)}, length=0)


def _needs_code(opened: Opened) -> bool:
    return any(charge.reason is Reason.DEVICE_CODE for _, allow in opened.files for charge in allow.charges)
