"""Signing in and out, and `/o/{id}`: what a browser is answered at each step. Who somebody is, the shop says.

Law: nothing that came in an address leads anywhere but to a path of ours, and no secret stands in one of ours.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from types import MappingProxyType

from multidict import CIMultiDict

from gateway.bootstrap.accounts import Accounts
from gateway.errors import LedgerDown, OrdersDown, ProviderDown, SignInRefused
from gateway.front.addresses import AccountAddress, OrderAddress
from gateway.front.answers import SAFE, Answers
from gateway.front.head import Head
from gateway.front.pages import Action, Remedy
from gateway.front.plain import Answer
from gateway.front.signing import ANEW, ASKED, FORM_KEY, sign_in_at
from gateway.policy.model import Deny
from gateway.policy.reasons import Reason
from gateway.services.sign_ins import HOME, returning
from gateway.services.throttle import Throttle

log = logging.getLogger(__name__)

LOST, REFUSED, DOWN, OUT = "sign_in.lost", "sign_in.refused", "sign_in.down", "sign_in.out"
REASONS = (LOST, REFUSED, DOWN, OUT)
"""What is told beside the reasons of decisions."""
_STATUSES = {LOST: 400, REFUSED: 403, DOWN: 503}
RETRY_AFTER = 30
FOUND, SEE_OTHER = 302, 303


class AccountDoor:
    """One per worker. `prefix` stands in front of our paths in the public address."""

    def __init__(self, accounts: Accounts, answers: Answers, throttle: Throttle, *, prefix: str) -> None:
        self._accounts = accounts
        self._answers = answers
        self._throttle = throttle
        self._prefix = prefix

    async def answer(
        self,
        head: Head,
        address: OrderAddress | AccountAddress,
        request_id: str,
        form: Mapping[str, str] | None,
        network: str,
    ) -> Answer:
        """`form`: what was posted, None where nothing was, or no form; `network`: the client's."""
        if isinstance(address, AccountAddress) and address.step == "sign-out":
            if head.method != "POST":
                return self._not_allowed(head, request_id, "POST")
            return self._sign_out(head, request_id, form or {})
        # HEAD would redeem what its GET then cannot redeem again.
        looks = isinstance(address, OrderAddress) or address.step == "sign-in"
        methods = ("GET", "HEAD") if looks else ("GET",)
        if head.method not in methods:
            return self._not_allowed(head, request_id, ", ".join(methods))
        if isinstance(address, OrderAddress):
            return await self._short(head, request_id, address.name, network)
        if address.step == "sign-in":
            return await self.begin(head, request_id, HOME)
        return await self._come_back(head, request_id, address.step)

    async def begin(self, head: Head, request_id: str, to: str) -> Answer:
        """To the shop, to come back to the path `to`; at once where somebody has signed in and wants no other."""
        anew = head.query.get(ASKED) == ANEW
        if not anew and self._accounts.sessions.read(head.header("Cookie")) is not None:
            return self._go(request_id, f"{self._prefix}{returning(to)}")
        begun, cookies = self._accounts.sign_ins.begin(to, head.header("Cookie"))
        try:
            address = await self._accounts.provider.address(begun, anew=anew)
        except ProviderDown as error:
            return self._down(head, request_id, begun.to, error)
        return self._go(request_id, address, *cookies, status=FOUND)

    async def _come_back(self, head: Head, request_id: str, step: str) -> Answer:
        """From the shop, with its word on who this is."""
        cookies = head.header("Cookie")
        answer = dict(reversed(list(head.query.items())))
        state = answer.get("state", "")
        if step != self._accounts.back:
            return self._answers.refusal(head, request_id, Deny(Reason.LINK_UNKNOWN))
        begun = self._accounts.sign_ins.find(state, cookies)
        if begun is None and self._accounts.sessions.read(cookies) is not None:
            # A reload of the address that has signed in already.
            return self._go(request_id, f"{self._prefix}{HOME}")
        if begun is None:
            return self._failed(head, request_id, LOST)
        ended = self._accounts.sign_ins.end(begun)
        try:
            customer = await self._accounts.provider.customer(answer, begun)
        except SignInRefused as error:
            log.warning("request %s: nobody was signed in: %s", request_id, error)
            return self._failed(head, request_id, REFUSED, to=begun.to, more={"Set-Cookie": ended})
        except ProviderDown as error:
            return self._down(head, request_id, begun.to, error)
        except LedgerDown as error:
            log.warning("request %s: nobody was signed in: %s", request_id, error)
            return self._answers.refusal(head, request_id, Deny(Reason.REDIS_DOWN, retry_after=RETRY_AFTER))
        return self._go(request_id, f"{self._prefix}{begun.to}", self._accounts.sessions.begin(customer), ended)

    async def _short(self, head: Head, request_id: str, name: str, network: str) -> Answer:
        session = self._accounts.sessions.read(head.header("Cookie"))
        if session is None or ASKED in head.query:
            return await self.begin(head, request_id, head.path)
        try:
            path = await self._accounts.short_links.find(name, session.account)
        except OrdersDown as error:
            log.warning("request %s: %s", request_id, error)
            return self._answers.refusal(head, request_id, Deny(Reason.ORDERS_DOWN, retry_after=RETRY_AFTER))
        except LedgerDown as error:
            log.warning("request %s: %s", request_id, error)
            return self._answers.refusal(head, request_id, Deny(Reason.REDIS_DOWN, retry_after=RETRY_AFTER))
        if path is None:
            # Who guesses orders' numbers meets this, and so does who followed somebody else's link.
            return self._answers.refusal(head, request_id, self._throttle.instead(Deny(Reason.ACCOUNT_OTHER), network))
        return self._go(request_id, f"{self._prefix}{path}")

    def _sign_out(self, head: Head, request_id: str, form: Mapping[str, str]) -> Answer:
        to = returning(form.get("to", HOME))
        session = self._accounts.sessions.read(head.header("Cookie"))
        if session is not None and not self._accounts.sessions.is_form_of(session, form.get(FORM_KEY, "")):
            return self._answers.explained(head, request_id, "request.form", 400)
        action = Action("account.sign_in", sign_in_at(self._prefix, to, anew=True))
        more = {"Set-Cookie": self._accounts.sessions.end()}
        return self._answers.explained(head, request_id, OUT, 200, remedy=Remedy(action), more=more)

    def _down(self, head: Head, request_id: str, to: str, error: ProviderDown) -> Answer:
        log.error("request %s: nobody can sign in: the provider %s", request_id, error)
        return self._failed(head, request_id, DOWN, to=to, more={"Retry-After": str(RETRY_AFTER)})

    def _failed(
        self,
        head: Head,
        request_id: str,
        reason: str,
        *,
        to: str = HOME,
        more: Mapping[str, str] = MappingProxyType({}),
    ) -> Answer:
        action = Action("account.again", sign_in_at(self._prefix, to))
        return self._answers.explained(head, request_id, reason, _STATUSES[reason], remedy=Remedy(action), more=more)

    def _not_allowed(self, head: Head, request_id: str, methods: str) -> Answer:
        return self._answers.explained(head, request_id, "method.not_allowed", 405, more={"Allow": methods})

    @staticmethod
    def _go(request_id: str, where: str, *cookies: str, status: int = SEE_OTHER) -> Answer:
        headers = CIMultiDict({**SAFE, "X-Request-Id": request_id, "Location": where})
        for cookie in cookies:
            headers.add("Set-Cookie", cookie)
        return Answer(status, headers, length=0)
