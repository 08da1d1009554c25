"""`/account`: the library of who has signed in, as a page or for programs as JSON, and what can be done there.

Law: an act is answered with 303 to the page, and no address carries more than a word of ours and a number.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping

from gateway.errors import GatewayError, LedgerDown, OrdersDown
from gateway.front.answers import SAFE, Answers
from gateway.front.head import Head
from gateway.front.plain import Answer
from gateway.front.signing import FORM_KEY, SIGN_IN, SIGN_OUT
from gateway.http.problem import wants_html
from gateway.policy.links import link_path
from gateway.policy.model import Deny
from gateway.policy.purchases import Shelf, ShownLink
from gateway.policy.reasons import Reason
from gateway.policy.renewing import Refused
from gateway.services.broken import reason_of
from gateway.services.purchases import Library
from gateway.services.sessions import Session, Sessions
from gateway.services.sign_ins import HOME

log = logging.getLogger(__name__)

NOTICES = (
    "extended",
    "renewed",
    "not_renewed",
    "spent",
    "running",
    "removed",
    "not_removed",
    "too_many",
    "erased",
)
"""What `?said=` may tell; each has its text."""
SEE_OTHER = 303
RETRY_AFTER = 5
_NUMBER_MAX = 18


class LibraryDoor:
    """One per worker. `prefix` stands in front of our paths in the public address."""

    def __init__(self, library: Library, sessions: Sessions, answers: Answers, *, prefix: str) -> None:
        self._library = library
        self._sessions = sessions
        self._answers = answers
        self._prefix = prefix

    async def answer(self, head: Head, request_id: str, form: Mapping[str, str] | None) -> Answer:
        """`form`: what was posted, None where nothing was, or no form."""
        if head.method not in ("GET", "HEAD", "POST"):
            more = {"Allow": "GET, HEAD, POST"}
            return self._answers.explained(head, request_id, "method.not_allowed", 405, more=more)
        session = self._sessions.read(head.header("Cookie"))
        if session is None:
            if head.method == "POST" or not wants_html(head.headers.get("Accept")):
                return self._answers.refusal(head, request_id, Deny(Reason.ACCOUNT_REQUIRED))
            return self._go(request_id, SIGN_IN)
        try:
            if head.method == "POST":
                return await self._act(head, request_id, session, form)
            return await self._show(head, request_id, session)
        except (LedgerDown, OrdersDown) as error:
            log.warning("request %s: %s", request_id, error)
            return self._answers.refusal(head, request_id, Deny(reason_of(error), retry_after=RETRY_AFTER))

    async def _show(self, head: Head, request_id: str, session: Session) -> Answer:
        html = wants_html(head.headers.get("Accept"))
        key = self._sessions.form_key(session)
        paths = {"path": f"{self._prefix}{HOME}", "sign_out": f"{self._prefix}{SIGN_OUT}"}
        if html and head.query.get("ask") == "erase":
            return self._answers.page(
                head, request_id, lambda pages, language: pages.page("erase.html.j2", language, key=key, **paths)
            )
        shelf = await self._library.shelf(session.account, _number(head.query.get("before")))
        if not html:
            more = {**SAFE, "X-Request-Id": request_id, "Vary": "Accept, Accept-Language"}
            more["Content-Disposition"] = 'inline; filename="library.json"'
            return Answer.text(json.dumps(_listed(shelf, self._prefix)) + "\n", "application/json", more)
        said = head.query.get("said")
        return self._answers.page(
            head,
            request_id,
            lambda pages, language: pages.page(
                "library.html.j2",
                language,
                shelf=shelf,
                said=said if said in NOTICES else None,
                older_than=_number(head.query.get("before")),
                address=lambda link: link_path(self._prefix, link.token),
                key=key,
                date=lambda seconds: pages.date_text(seconds, language),
                size=lambda size: pages.size_text(size, language),
                request_id=request_id,
                **paths,
            ),
        )

    async def _act(self, head: Head, request_id: str, session: Session, form: Mapping[str, str] | None) -> Answer:
        if form is None:
            return self._answers.explained(head, request_id, "request.form", 400)
        if not self._sessions.is_form_of(session, form.get(FORM_KEY, "")):
            return self._answers.explained(head, request_id, "request.form", 403)
        order_id, token_id = form.get("order", ""), form.get("link", "")
        match form.get("act"):
            case "renew":
                said = await self._renew(session, order_id, token_id)
            case "device":
                slot = form.get("slot", "")
                outcome = await self._library.remove_device(session.account, order_id, token_id, slot)
                said = {"freed": "removed", "unknown": "not_removed", "limit": "too_many", "others": ""}[outcome]
            case "erase":
                await self._library.erase(session.account)
                said = "erased"
            case _:
                return self._answers.explained(head, request_id, "request.form", 400)
        if not said:
            return self._answers.refusal(head, request_id, Deny(Reason.ACCOUNT_OTHER))
        older = _number(form.get("before"))
        return self._go(request_id, f"{HOME}?said={said}{f'&before={older}' if older is not None else ''}")

    async def _renew(self, session: Session, order_id: str, token_id: str) -> str:
        try:
            outcome = await self._library.renew(session.account, order_id, token_id)
        except (LedgerDown, OrdersDown):
            raise
        except GatewayError as error:
            log.warning("a link of order %s was not renewed: %s", order_id, error)
            return "not_renewed"
        if not isinstance(outcome, Refused):
            return "renewed" if outcome.way == "renew" else "extended"
        if outcome.why == "unknown":
            return ""
        return outcome.why if outcome.why in ("spent", "running") else "not_renewed"

    def _go(self, request_id: str, where: str) -> Answer:
        return Answer(SEE_OTHER, {**SAFE, "X-Request-Id": request_id, "Location": f"{self._prefix}{where}"}, length=0)


def _number(text: str | None) -> int | None:
    """A number of ours in an address or a form, or None."""
    return int(text) if text and text.isascii() and text.isdigit() and len(text) <= _NUMBER_MAX else None


def _listed(shelf: Shelf, prefix: str) -> dict[str, object]:
    """The same for programs; times in Unix seconds, what is not known or not limited is left out."""
    orders = [
        _known(
            {
                "id": each.order_id,
                "reference": each.reference,
                "shop": each.shop,
                "paid_at": each.paid_at,
                "links": [_link(link, prefix) for link in each.links],
                "gone": [{"title": one.title, "why": one.why} for one in each.gone],
                "erased": each.erased,
            }
        )
        for each in shelf.purchases
    ]
    return _known({"orders": orders, "older": shelf.older, "counted": shelf.counted})


def _link(link: ShownLink, prefix: str) -> dict[str, object]:
    pairs = {"networks": link.networks, "devices": link.devices}
    return _known(
        {
            "id": link.token_id,
            "title": link.title,
            "state": link.state or None,
            "href": None if link.token is None else link_path(prefix, link.token),
            "ends_at": link.ends_at,
            "downloads": link.downloads,
            "files": [_known({"name": each.name, "size": each.size, "left": each.left}) for each in link.files],
            **{name: None if pair is None else {"used": pair[0], "limit": pair[1]} for name, pair in pairs.items()},
            "renewal": None if link.offer is None else {"way": link.offer.way, "until": link.offer.until},
        }
    )


def _known(told: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in told.items() if value is not None}
