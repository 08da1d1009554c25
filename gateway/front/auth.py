"""`/auth`: another proxy asks whether it may answer a request, and answers it itself.

It is believed only where it is a trusted proxy and shows the secret of the settings, if there is one. What its client
may have sent of these headers must not count: where several of them name the request, they must say the same.
"""

from __future__ import annotations

import logging
import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from urllib.parse import parse_qsl, quote, unquote

from multidict import MultiDict

from gateway.front.addresses import FileAddress, parse_path
from gateway.front.answers import Answers, DoorSettings
from gateway.front.handing import Handing
from gateway.front.head import Head
from gateway.front.intake import read_request
from gateway.front.pages import UNKNOWN_REASON
from gateway.front.plain import Answer
from gateway.http.forwarded import is_trusted
from gateway.policy.fronts import AUTH
from gateway.policy.model import Deny
from gateway.policy.reasons import Reason
from gateway.services.gatekeeper import Admitted, Gatekeeper, Refused
from gateway.services.settlement import Running, Settlement

log = logging.getLogger(__name__)

TARGET = ("X-Forwarded-Uri", "X-Original-Uri", "X-Original-Url")
METHOD = ("X-Forwarded-Method", "X-Original-Method")
ASKED_FOR_ALL = ("statuses", "all")
"""`/auth?statuses=all`: for proxies that pass every status on."""
UNTRUSTED = "Only a proxy in trusted_proxies of the settings, that shows doors.secret where that is set, may ask here."
NO_BYTES = "request %s: the proxy did not get the bytes; can its worker read the folder, or reach the bucket?"
UNCLEAR = (
    "The proxy must tell the request that it was asked, in X-Forwarded-Uri and X-Forwarded-Method, and take its "
    "client's own away."
)
REMIND_EVERY = 60.0
PASSED = ("Content-Disposition", "Content-Type", "Content-Security-Policy", "Set-Cookie")
"""Headers of the answer that the proxy is to send with the file; told once more under names of their own."""
_REQUEST_ID = re.compile(r"[A-Za-z0-9-]{1,64}")
_SECONDS = re.compile(r"[0-9]{1,6}")
WITHOUT_BODY = frozenset({304, 412, 416})
"""Preconditions and ranges that lead to no bytes (RFC 9110 §13, §14)."""
MESSAGE_MAX = 4000
"""Characters of a message in a header, percent-encoded."""
_BARE = {"Cache-Control": "private, no-store"}
_FOR_NGINX = frozenset({200, 401, 403})
"""nginx's auth_request makes 500 of every other status."""


class Auth:
    """Decides as every door does, and tells where the bytes are; who sends them, and how many, is not known here.

    `note` is told of every refusal.
    """

    def __init__(
        self,
        settings: DoorSettings,
        gatekeeper: Gatekeeper,
        answers: Answers,
        *,
        settlement: Settlement,
        handing: Handing,
        note: Callable[[Deny], None],
    ) -> None:
        self._settings = settings
        self._gatekeeper = gatekeeper
        self._answers = answers
        self._settlement = settlement
        self._handing = handing
        self._note = note
        self._complained = -math.inf

    async def answer(self, head: Head, request_id: str, late: Reason | None = None) -> Answer:
        """200 with where the bytes are, else the refusal that the proxy is to pass on; `late`: why it must be one."""
        if not self._may_ask(head):
            self._complain(head)
            return self._answers.explained(head, request_id, "auth.untrusted", 403, detail=UNTRUSTED)
        original = self._original(head)
        if original is None:
            answer = self._answers.explained(head, request_id, "auth.request", 400, detail=UNCLEAR)
            return self._mapped(head, answer, "auth.request")
        address = parse_path(original.path)
        if not isinstance(address, FileAddress) or original.method not in ("GET", "HEAD"):
            return self._refusal(head, original, request_id, Deny(Reason.LINK_UNKNOWN))
        asked = read_request(
            original,
            token=address.token,
            number=address.number,
            request_id=request_id,
            trusted=self._settings.trusted_proxies,
            sessions=self._settings.sessions,
            front=AUTH.name,
        )
        if asked is None:
            answer = self._answers.explained(head, request_id, "request.address", 400)
            return self._mapped(head, answer, "request.address")
        admitted = await (self._gatekeeper.refuse(late, asked) if late else self._gatekeeper.admit(asked))
        if isinstance(admitted, Refused):
            return self._refusal(head, original, admitted.request_id, admitted.deny)
        return self._allowed(head, admitted)

    def refused(self, head: Head, request_id: str) -> Answer:
        """The refusal that a proxy was told, for it to show; that of bytes it could not get, where it was told none.

        Nothing is decided here, nor counted once more.
        """
        if not self._settings.tells(head):
            return self._answers.explained(head, request_id, "auth.untrusted", 403, detail=UNTRUSTED)
        told = {name: head.headers.get(f"X-Gateway-{name}", "") for name in ("Request-Id", "Reason", "Retry-After")}
        if _REQUEST_ID.fullmatch(told["Request-Id"]):
            request_id = told["Request-Id"]
        if not told["Reason"]:
            log.warning(NO_BYTES, request_id)
            # Not in the words of that reason, which say that nothing was counted.
            down = Reason.ORIGIN_DOWN
            return self._answers.explained(head, request_id, down.text, down.status, words=UNKNOWN_REASON)
        try:
            reason = Reason.named(told["Reason"])
        except KeyError:
            # Its own failure, or a request that it was told in no clear words.
            status = 500 if told["Reason"] == "internal" else 400
            return self._answers.explained(head, request_id, told["Reason"], status)
        retry_after = int(told["Retry-After"]) if _SECONDS.fullmatch(told["Retry-After"]) else None
        message = unquote(head.headers.get("X-Gateway-Message", "")) or None
        deny = Deny(reason, message=message, retry_after=retry_after)
        return self._answers.refusal(self._original(head) or head, request_id, deny)

    def _refusal(self, head: Head, original: Head, request_id: str, deny: Deny) -> Answer:
        """The refusal as everywhere, its status one that the asking proxy understands."""
        self._note(deny)
        answer = self._answers.refusal(original, request_id, deny)
        if len(message := quote(deny.message or "")) in range(1, MESSAGE_MAX):
            answer = replace(answer, headers={**answer.headers, "X-Gateway-Message": message})
        return self._mapped(head, answer, deny.reason.text)

    def _allowed(self, head: Head, admitted: Admitted) -> Answer:
        headers = self._answers.headers(admitted)
        if admitted.plan.status in WITHOUT_BODY:
            # Costs nothing, so nothing may be sent: the proxy must not judge conditions and ranges by itself.
            return self._mapped(head, self._answers.bodiless(admitted), "condition")
        if admitted.file.key is None:
            # The way to it is for the client: passed on like a refusal, of which it has the status.
            self._settle(admitted)
            return self._mapped(head, Answer(admitted.plan.status, headers, length=0), "elsewhere")
        told = self._handing.told(admitted) if self._settings.tells(head) else {}
        self._settle(admitted)
        passed = {f"X-Gateway-{name}": headers[name] for name in PASSED if name in headers}
        return Answer(200, {**_BARE, **headers, **passed, **told, "X-Gateway-Status": "200"}, length=0)

    def _complain(self, head: Head) -> None:
        """Each download is refused then, and leaves no event: so the log has to say it, now and then."""
        now = time.monotonic()
        if is_trusted(head.peer, self._settings.trusted_proxies) and now - self._complained > REMIND_EVERY:
            self._complained = now
            log.warning("a trusted proxy asked /auth without doors.secret, or with another one, and was refused")

    def _may_ask(self, head: Head) -> bool:
        """Where there is no secret, every trusted proxy: it learns yes or no, and nobody learns where bytes lie."""
        if self._settings.secret is None:
            return is_trusted(head.peer, self._settings.trusted_proxies)
        return self._settings.tells(head)

    def _settle(self, admitted: Admitted) -> None:
        if admitted.reservation is not None:
            self._settlement.finish(Running(admitted.reservation), "complete")

    def _original(self, head: Head) -> Head | None:
        """The request that the proxy was asked; None where it is not told, or not in one voice."""
        targets = [_path_of(each) for each in _all(head, TARGET)]
        methods = _all(head, METHOD) or ["GET"]
        if not targets or None in targets or len(set(targets)) > 1 or len(set(methods)) > 1:
            return None
        path, query = targets[0] or ("", "")
        path = path.removeprefix(self._settings.prefix)
        return replace(head, method=methods[0], path=path, query=MultiDict(parse_qsl(query, keep_blank_values=True)))

    @staticmethod
    def _mapped(head: Head, answer: Answer, reason: str) -> Answer:
        """The status for who asks, the true one beside it."""
        name, value = ASKED_FOR_ALL
        status = answer.status if head.query.get(name) == value else _for_nginx(answer.status)
        told = {"X-Gateway-Status": str(answer.status), "X-Gateway-Reason": reason}
        return replace(answer, status=status, headers={**answer.headers, **told})


def _for_nginx(status: int) -> int:
    return status if status in _FOR_NGINX else 403


def _all(head: Head, names: Sequence[str]) -> list[str]:
    return [value for name in names for value in head.headers.getall(name, [])]


def _path_of(target: str) -> tuple[str, str] | None:
    """Path and query of a request target in origin or absolute form (RFC 9112 §3.2), not decoded."""
    if not target.startswith("/"):
        scheme, separator, rest = target.partition("://")
        if not separator or scheme.lower() not in ("http", "https"):
            return None
        target = "/" + rest.partition("/")[2]
    path, _, query = target.partition("?")
    return path, query
