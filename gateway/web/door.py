"""The HTTP front door: addresses in, bytes or refusals out. It holds no policy; every answer is the gatekeeper's."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from aiohttp import web

from gateway.bootstrap.services import Services
from gateway.errors import FileMissing, OriginChanged, OriginError
from gateway.http.problem import pick_language, wants_html
from gateway.mail.letter import Brand
from gateway.policy.model import Deny, DownloadRequest, Network
from gateway.policy.reasons import Reason
from gateway.services.broken import reason_of
from gateway.services.delivery import Delivery
from gateway.services.faults import describe
from gateway.services.gatekeeper import Admitted, Refused
from gateway.services.identifiers import new_id
from gateway.services.settlement import Running
from gateway.services.zipping import Zipping
from gateway.web.addresses import Address, FileAddress, HookAddress, LinkAddress, ZipAddress, parse_path
from gateway.web.archive import ArchiveAnswer
from gateway.web.hooks import Hooks
from gateway.web.intake import DEVICE_COOKIE, DEVICE_COOKIE_AGE, read_request
from gateway.web.link_page import LinkPage
from gateway.web.metrics import REFUSALS, REQUESTS, STAGE_SECONDS
from gateway.web.overload import Memory, Turns
from gateway.web.pages import Pages
from gateway.web.sending import Sending
from gateway.web.status import WorkerStatus

log = logging.getLogger(__name__)

NOT_MODIFIED = 304
REFUSED_FROM = 400
WAIT_SECONDS = STAGE_SECONDS.labels("wait")
ADMIT_SECONDS = STAGE_SECONDS.labels("admit")
OPEN_SECONDS = STAGE_SECONDS.labels("open")
SAFE = {
    "Cache-Control": "private, no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex, nofollow",
}


@dataclass(frozen=True, slots=True)
class DoorSettings:
    """What the door itself needs to know. `prefix` stands in front of our paths in the public address.

    `repeat_window` in seconds: so long a file that was just had may be had again for nothing.
    """

    trusted_proxies: Sequence[Network]
    prefix: str
    secure_cookie: bool
    repeat_window: int
    brand: Brand


class Door:
    """Answers every request of the public listener."""

    def __init__(self, settings: DoorSettings, services: Services, *, status: WorkerStatus, memory: Memory) -> None:
        self._settings = settings
        self._gatekeeper = services.gatekeeper
        self._store = store = services.store
        self._ledger = ledger = services.ledger
        self._settlement = services.settlement
        self._status = status
        self._sending = Sending(status, services.settlement)
        self._memory = memory
        intake = services.orders.intake if services.orders is not None else None
        self._hooks = Hooks(intake, lambda: memory.has_room() and not status.draining)
        self._turns = Turns()
        self._pages = Pages(brand=settings.brand)
        shop = settings.brand.name
        self._link_pages = LinkPage(
            self._pages,
            prefix=settings.prefix,
            shop=shop,
            repeat_window=settings.repeat_window,
            store=store,
            ledger=ledger,
        )
        zipping = Zipping(
            self._gatekeeper, shop, store=store, ledger=ledger, settlement=self._settlement, sums=services.sums
        )
        self._archives = ArchiveAnswer(zipping, self._sending, refuse=self._refusal, device=self._device_cookie)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """One request, whatever it is. Raises only CancelledError."""
        request_id = new_id()
        address = parse_path(request.rel_url.raw_path)
        try:
            response = await self._answer(request, address, request_id)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001  whatever it is, the client gets an answer and the log no secret
            log.error("request %s failed: %s", request_id, describe(error))
            response = self._explained(request, request_id, "internal", 500)
        outcome = "served" if response.status < REFUSED_FROM else "refused"
        REQUESTS.labels(outcome, str(response.status)).inc()
        return response

    async def _answer(self, request: web.Request, address: Address | None, request_id: str) -> web.StreamResponse:
        if address is None:
            return self._refusal(request, request_id, Deny(Reason.LINK_UNKNOWN))
        if isinstance(address, HookAddress):
            return await self._hooks.answer(request, address.shop, request_id)
        if request.method not in ("GET", "HEAD"):
            return self._explained(request, request_id, "method.not_allowed", 405, more={"Allow": "GET, HEAD"})
        number = address.number if isinstance(address, FileAddress) else 1
        asked = read_request(
            request,
            token=address.token,
            number=number,
            request_id=request_id,
            trusted=self._settings.trusted_proxies,
        )
        if asked is None:
            return self._explained(request, request_id, "request.address", 400)
        try:
            with WAIT_SECONDS.time():
                begun = await self._turns.take(request_id)
            if not begun:
                return await self._turn_away(request, asked, Reason.OVERLOAD)
            if self._status.draining:
                return await self._turn_away(request, asked, Reason.DRAINING)
            if isinstance(address, LinkAddress):
                return await self._link_page(request, asked)
            answer = self._archive if isinstance(address, ZipAddress) else self._download
            if request.method == "HEAD":
                return await answer(request, asked)
            if not self._memory.has_room():
                return await self._turn_away(request, asked, Reason.OVERLOAD)
            with self._memory.body(request_id):
                return await answer(request, asked)
        finally:
            self._turns.end(request_id)

    async def _turn_away(self, request: web.Request, asked: DownloadRequest, reason: Reason) -> web.Response:
        refused = await self._gatekeeper.refuse(reason, asked)
        return self._refusal(request, asked.request_id, refused.deny)

    async def _archive(self, request: web.Request, asked: DownloadRequest) -> web.StreamResponse:
        return await self._archives.answer(request, asked, lambda: self._turns.end(asked.request_id))

    async def _download(self, request: web.Request, asked: DownloadRequest) -> web.StreamResponse:
        with ADMIT_SECONDS.time():
            admitted = await self._gatekeeper.admit(asked)
        self._turns.end(asked.request_id)
        answered = await self._deliver(request, admitted)
        if answered is not None:
            return answered
        admitted = await self._gatekeeper.admit_again(asked)
        answered = await self._deliver(request, admitted)
        return answered or self._refusal(request, admitted.request_id, Deny(Reason.ORIGIN_CHANGED))

    async def _deliver(self, request: web.Request, admitted: Admitted | Refused) -> web.StreamResponse | None:
        """The answer; None where the object turned out to have changed before anything of the answer was sent."""
        if isinstance(admitted, Refused):
            return self._refusal(request, admitted.request_id, admitted.deny)
        if admitted.reservation is None:
            return self._head(admitted)
        if admitted.plan.elsewhere:
            self._settlement.finish(Running(admitted.reservation), "complete")
            return self._head(admitted)
        delivery = Delivery(
            admitted, admitted.reservation, store=self._store, ledger=self._ledger, settlement=self._settlement
        )
        self._sending.note()
        try:
            with OPEN_SECONDS.time():
                await delivery.open()
        except BaseException as error:
            await self._sending.end(delivery, error)
            if isinstance(error, OriginChanged):
                await delivery.closed()
                return None
            if isinstance(error, OriginError | FileMissing):
                log.warning("request %s was refused: %s", admitted.request_id, error)
                return self._refusal(request, admitted.request_id, Deny(reason_of(error)))
            raise
        self._status.origin_ok = True
        return await self._send(request, admitted, delivery)

    async def _send(self, request: web.Request, admitted: Admitted, delivery: Delivery) -> web.StreamResponse:
        response = web.StreamResponse(status=admitted.plan.status, headers=self._headers(admitted))
        response.content_length = admitted.plan.length
        await self._sending.send(request, response, delivery, admitted.request_id)
        return response

    def _head(self, admitted: Admitted) -> web.StreamResponse:
        """An answer without a body: HEAD, 302, 304, 412, 416, or a file of no bytes."""
        response = web.StreamResponse(status=admitted.plan.status, headers=self._headers(admitted))
        if admitted.plan.status != NOT_MODIFIED:
            response.content_length = admitted.plan.length
        return response

    def _headers(self, admitted: Admitted) -> dict[str, str]:
        headers = {**admitted.plan.headers, "X-Request-Id": admitted.request_id}
        return headers | self._device_cookie(admitted.request)

    def _device_cookie(self, asked: DownloadRequest) -> dict[str, str]:
        if asked.offered_cookie is None:
            return {}
        secure = "; Secure" if self._settings.secure_cookie else ""
        value = (
            f"{DEVICE_COOKIE}={asked.offered_cookie}; Path={self._settings.prefix or '/'}; Max-Age={DEVICE_COOKIE_AGE}"
            f"; HttpOnly; SameSite=Lax{secure}"
        )
        return {"Set-Cookie": value}

    async def _link_page(self, request: web.Request, asked: DownloadRequest) -> web.StreamResponse:
        opened = await self._gatekeeper.open_link(asked)
        if isinstance(opened, Refused):
            return self._refusal(request, asked.request_id, opened.deny)
        language = self._language(request)
        headers = {**SAFE, "X-Request-Id": asked.request_id, "Vary": "Accept, Accept-Language"}
        headers |= self._device_cookie(asked)
        answered = await self._link_pages.answer(request, asked, opened, language, headers)
        if answered is not None:
            return answered
        refused = await self._gatekeeper.refuse(Reason.LIMIT_DOWNLOADS, asked)
        return self._refusal(request, refused.request_id, refused.deny)

    def _refusal(self, request: web.Request, request_id: str, deny: Deny) -> web.Response:
        REFUSALS.labels(deny.reason.text).inc()
        if deny.reason in (Reason.ORIGIN_DOWN, Reason.ORIGIN_TIMEOUT):
            self._status.origin_ok = False
        more = {} if deny.retry_after is None else {"Retry-After": str(deny.retry_after)}
        return self._explained(request, request_id, deny.reason.text, deny.reason.status, deny=deny, more=more)

    def _explained(
        self,
        request: web.Request,
        request_id: str,
        reason: str,
        status: int,
        *,
        deny: Deny | None = None,
        more: Mapping[str, str] = MappingProxyType({}),
    ) -> web.Response:
        language = self._language(request)
        headers = {**SAFE, "X-Request-Id": request_id, "Vary": "Accept, Accept-Language", **more}
        headers["Content-Language"] = language
        retry_after = deny.retry_after if deny else None
        # These messages are the shop's own words; what is wrong with a token is told to programs alone.
        from_shop = deny.message if deny and deny.reason in (Reason.RULE_DENIED, Reason.FROZEN) else None
        if wants_html(request.headers.get("Accept")):
            page = self._pages.refusal_html(
                reason, status, request_id, language, message=from_shop, retry_after=retry_after
            )
            headers["Content-Security-Policy"] = self._pages.content_security_policy
            return web.Response(status=status, text=page, content_type="text/html", headers=headers)
        problem = self._pages.refusal_problem(
            reason,
            status,
            request_id,
            language,
            message=deny.message if deny else None,
            retry_after=retry_after,
            rule=deny.rule if deny else None,
        )
        headers["Content-Disposition"] = 'inline; filename="refused.json"'
        return web.Response(status=status, body=problem, content_type="application/problem+json", headers=headers)

    def _language(self, request: web.Request) -> str:
        return pick_language(request.headers.get("Accept-Language"), self._pages.languages)
