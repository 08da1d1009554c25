"""Answers that every front door gives alike: refusals, link pages, and the heads of what is let through.

They hold no policy: what is answered, and why, comes from the gatekeeper.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from urllib.parse import urlsplit

from gateway.bootstrap.accounts import open_sessions
from gateway.bootstrap.mail import read_brand
from gateway.front.head import Head
from gateway.front.intake import DEVICE_COOKIE, DEVICE_COOKIE_AGE, PERSON_COOKIE
from gateway.front.link_page import LinkPage
from gateway.front.pages import Action, Pages
from gateway.front.plain import NOT_MODIFIED, Answer
from gateway.front.signing import SIGN_IN, remedy
from gateway.http.forwarded import is_trusted
from gateway.http.problem import CONTENT_TYPE, pick_language, wants_html
from gateway.mail.letter import Brand
from gateway.policy.model import Deny, DownloadRequest, Network
from gateway.policy.reasons import Reason
from gateway.ports import Ledger
from gateway.services.gatekeeper import Admitted, Opened
from gateway.services.sessions import Sessions
from gateway.settings import Settings
from gateway.store_ports import ObjectStore

SECRET_HEADER = "X-Gateway-Secret"  # noqa: S105  the name of a header
_NOT_YET = frozenset({401, 403})
SAFE = {
    "Cache-Control": "private, no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex, nofollow",
}


@dataclass(frozen=True, slots=True)
class DoorSettings:
    """What a door itself needs to know. `base_url`: what public addresses begin with; `prefix`: the path in it.

    `repeat_window` in seconds: so long a file that was just had may be had again for nothing. `redirect`: the location
    of nginx in which it moves the bytes itself, None where it does not. `secret`: what a proxy shows to be told where
    bytes lie, None where none is.
    """

    trusted_proxies: Sequence[Network]
    base_url: str
    prefix: str
    secure_cookie: bool
    repeat_window: int
    brand: Brand
    redirect: str | None = None
    secret: str | None = field(default=None, repr=False)
    sessions: Sessions | None = None

    def tells(self, head: Head) -> bool:
        """Whether who asks may be told where bytes lie.

        Its address alone proves nothing: a plain proxy in front stands at a trusted one, and passes on what its
        clients ask of it, and to them what it is told.
        """
        shown = head.header(SECRET_HEADER)
        if self.secret is None or shown is None or not is_trusted(head.peer, self.trusted_proxies):
            return False
        return hmac.compare_digest(shown.encode("utf-8", "surrogateescape"), self.secret.encode())


def door_settings(settings: Settings) -> DoorSettings:
    """Raises SettingsError for a logo that cannot be shown."""
    base = urlsplit(settings.base_url)
    return DoorSettings(
        trusted_proxies=settings.trusted_proxies,
        base_url=settings.base_url.rstrip("/"),
        prefix=base.path.rstrip("/"),
        secure_cookie=base.scheme == "https",
        repeat_window=settings.counting.repeat_window,
        brand=read_brand(settings),
        redirect=settings.doors.nginx.redirect,
        secret=secret.get_secret_value() if (secret := settings.doors.secret) else None,
        sessions=None if (accounts := settings.accounts) is None else open_sessions(settings, accounts),
    )


class Answers:
    """Words and headers of one door."""

    def __init__(
        self, settings: DoorSettings, *, store: ObjectStore, ledger: Ledger, archives: bool = True, acts: bool = True
    ) -> None:
        """`archives`: whether this door also gives all files of a link as one ZIP; `acts`: whether visitors can do more
        at its links than look and download, such as sign in.
        """
        self._settings = settings
        self._acts = acts
        self._pages = Pages(brand=settings.brand)
        self._link_pages = LinkPage(
            self._pages,
            prefix=settings.prefix,
            shop=settings.brand.name,
            repeat_window=settings.repeat_window,
            store=store,
            ledger=ledger,
            archives=archives,
            acts=acts,
        )

    def headers(self, admitted: Admitted) -> dict[str, str]:
        """Those of an answer that was let through."""
        return {
            **admitted.plan.headers,
            "X-Request-Id": admitted.request_id,
            **self.device_cookie(admitted.request),
        }

    def bodiless(self, admitted: Admitted) -> Answer:
        """An answer without a body: HEAD, 302, 304, 412, 416, or a file of no bytes."""
        length = None if admitted.plan.status == NOT_MODIFIED else admitted.plan.length
        return Answer(admitted.plan.status, self.headers(admitted), length=length)

    def device_cookie(self, asked: DownloadRequest) -> dict[str, str]:
        """The header that names the device, where the request did not."""
        if asked.offered_cookie is None:
            return {}
        return {"Set-Cookie": self._cookie(DEVICE_COOKIE, asked.offered_cookie)}

    def person_cookie(self) -> dict[str, str]:
        """The header by which a browser tells from now on that a person uses it."""
        return {"Set-Cookie": self._cookie(PERSON_COOKIE, "1")}

    def _cookie(self, name: str, value: str) -> str:
        secure = "; Secure" if self._settings.secure_cookie else ""
        path = self._settings.prefix or "/"
        return f"{name}={value}; Path={path}; Max-Age={DEVICE_COOKIE_AGE}; HttpOnly; SameSite=Lax{secure}"

    async def link_page(self, head: Head, asked: DownloadRequest, opened: Opened) -> Answer | None:
        """What a link leads to; None where every file of the link is used up."""
        headers = {**SAFE, "X-Request-Id": asked.request_id, "Vary": "Accept, Accept-Language"}
        headers |= self.device_cookie(asked)
        return await self._link_pages.answer(head, asked, opened, self._language(head), headers)

    def refusal(self, head: Head, request_id: str, deny: Deny) -> Answer:
        """No, and why: a page for browsers, a problem (RFC 9457) for others."""
        more = {} if deny.retry_after is None else {"Retry-After": str(deny.retry_after)}
        return self.explained(
            head,
            request_id,
            deny.reason.text,
            deny.reason.status,
            deny=deny,
            more=more,
            action=self._remedy(head, deny),
        )

    def _remedy(self, head: Head, deny: Deny) -> Action | None:
        sessions = self._settings.sessions
        if sessions is None:
            return None
        path = head.path if self._acts else ""
        return remedy(deny, path, self._settings.prefix, sessions.read(head.header("Cookie")), sessions)

    def explained(  # noqa: PLR0913  each part of it by its name
        self,
        head: Head,
        request_id: str,
        reason: str,
        status: int,
        *,
        deny: Deny | None = None,
        detail: str | None = None,
        words: str | None = None,
        more: Mapping[str, str] = MappingProxyType({}),
        action: Action | None = None,
    ) -> Answer:
        """The same for what is not the policy's to refuse; `detail` is told to programs; `words` is the
        reason that it is explained like, where that is another one; `action` is what the visitor may do.
        """
        language = self._language(head)
        headers = {**SAFE, "X-Request-Id": request_id, "Vary": "Accept, Accept-Language", **more}
        headers["Content-Language"] = language
        retry_after = deny.retry_after if deny else None
        # These messages are the shop's own words; what is wrong with a token is told to programs alone.
        from_shop = deny.message if deny and deny.reason in (Reason.RULE_DENIED, Reason.FROZEN) else None
        if wants_html(head.headers.get("Accept")):
            page = self._pages.refusal_html(
                reason,
                status,
                request_id,
                language,
                message=from_shop,
                retry_after=retry_after,
                words=words,
                action=action,
            )
            headers["Content-Security-Policy"] = self._pages.policy_of(page)
            return Answer.text(page, "text/html", headers, status=status)
        problem = self._pages.refusal_problem(
            reason,
            status,
            request_id,
            language,
            message=deny.message if deny else detail,
            retry_after=retry_after,
            rule=deny.rule if deny else None,
            words=words,
            sign_in=f"{self._settings.base_url}{SIGN_IN}" if action is not None and status in _NOT_YET else None,
        )
        headers |= {"Content-Disposition": 'inline; filename="refused.json"', "Content-Type": CONTENT_TYPE}
        return Answer(status, headers, problem)

    def _language(self, head: Head) -> str:
        return pick_language(head.headers.get("Accept-Language"), self._pages.languages)
