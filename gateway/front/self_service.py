"""What buyers are shown who can help themselves: buttons at refused links, the form for help, and one answer to all."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.front.acts import Act, Acts
from gateway.front.answers import Answers
from gateway.front.head import Head
from gateway.front.pages import Action, Pages
from gateway.front.plain import Answer
from gateway.http.problem import wants_html
from gateway.policy.links import link_path
from gateway.policy.model import Claims, Deny
from gateway.policy.reasons import Reason
from gateway.services.self_service import SelfService

OVER = frozenset({Reason.TOKEN_EXPIRED, Reason.LIMIT_DOWNLOADS})
"""Links that may go on, or begin anew."""
ASKED_FOR_HELP = OVER | {
    Reason.LINK_UNKNOWN,
    Reason.TOKEN_MALFORMED,
    Reason.TOKEN_SIGNATURE,
    Reason.TOKEN_CLAIMS,
}
TEXT_MAX = 254
"""Characters of what is looked for: the longest e-mail address (RFC 5321 §4.5.3.1)."""


class SelfServicePages:
    """`prefix` stands in front of our paths in the public address; without a `service` the shop alone can help."""

    def __init__(self, answers: Answers, service: SelfService | None, *, prefix: str) -> None:
        self._answers = answers
        self._service = service
        self._prefix = prefix
        self._help = f"{prefix}/help"

    @property
    def acts(self) -> Acts:
        """What can be asked for at a link."""
        if (service := self._service) is None:
            return {}

        async def again(act: Act) -> Answer | Deny:
            seconds = await service.ask_for_link(act.asked.client_network, act.claims)
            return self._asked(act.head, act.asked.request_id, seconds)

        return {"again": again}

    def help_at(self, deny: Deny) -> str:
        """Where who is refused for this reason may ask for help; "": nowhere here."""
        return self._help if self._service is not None and deny.reason in ASKED_FOR_HELP else ""

    async def action_for(self, head: Head, token: str, claims: Claims | Deny, deny: Deny) -> Action | None:
        """What can be done about the refusal of this very link; only pages can say it."""
        if self._service is None or isinstance(claims, Deny) or deny.reason not in OVER:
            return None
        if head.method != "GET" or not wants_html(head.headers.get("Accept")):
            return None
        offered = await self._service.offered(claims)
        if offered is None:
            return None
        renews = offered.way == "renew"
        return Action(
            "again.renew" if renews else "again.send",
            link_path(self._prefix, token),
            {"act": "again"},
            help="again.used_up" if renews else "again.expired",
            note="again.to_order",
        )

    async def help(self, head: Head, request_id: str, network: str, form: Mapping[str, str] | None) -> Answer | Deny:
        """The form, or the answer to one that was sent."""
        text = "" if form is None else form.get("order", "").strip()[:TEXT_MAX]
        if self._service is None or not text:
            action = None if self._service is None else self._help
            return self._answers.page(head, request_id, lambda pages, language: pages.help_html(action, language))
        seconds = await self._service.ask_for_mail(network, text)
        return self._asked(head, request_id, seconds)

    def _asked(self, head: Head, request_id: str, seconds: int | None) -> Answer | Deny:
        if seconds is not None:
            return Deny(Reason.THROTTLED, retry_after=seconds)
        return self._answers.page(head, request_id, Pages.asked_html)
