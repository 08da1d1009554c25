"""The HTTP front door: addresses in, bytes or refusals out. It holds no policy; every answer is the gatekeeper's."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence

from aiohttp import web

from gateway.bootstrap.services import Services
from gateway.errors import FileMissing, OriginChanged, OriginError
from gateway.front.accounts import AccountDoor
from gateway.front.acts import Act, Acts
from gateway.front.addresses import (
    AccountAddress,
    Address,
    AuthAddress,
    FileAddress,
    HelpAddress,
    HookAddress,
    LibraryAddress,
    LinkAddress,
    OrderAddress,
    RefusedAddress,
    ZipAddress,
    parse_path,
)
from gateway.front.answers import Answers, DoorSettings
from gateway.front.auth import Auth
from gateway.front.codes import CodeActs
from gateway.front.handing import Handing
from gateway.front.head import Head
from gateway.front.intake import client_of, read_request
from gateway.front.opening import open_link
from gateway.front.pages import Action, Remedy
from gateway.front.person import PersonAct
from gateway.front.plain import Answer
from gateway.front.purchases import LibraryDoor
from gateway.front.self_service import SelfServicePages
from gateway.front.signing import ASKED
from gateway.http.forwarded import is_trusted
from gateway.policy.fronts import AUTH, HTTP, NGINX
from gateway.policy.links import link_path
from gateway.policy.model import Deny, DownloadRequest
from gateway.policy.networks import network_of
from gateway.policy.reasons import Reason
from gateway.services.broken import reason_of
from gateway.services.delivery import Delivery
from gateway.services.faults import describe
from gateway.services.gatekeeper import Admitted, Refused
from gateway.services.identifiers import new_id
from gateway.services.settlement import Running
from gateway.services.zipping import Zipping
from gateway.web.archive import ArchiveAnswer
from gateway.web.forms import read_form
from gateway.web.hooks import Hooks
from gateway.web.metrics import REFUSALS, REQUESTS, STAGE_SECONDS
from gateway.web.overload import Memory, Turns
from gateway.web.sending import Sending, respond
from gateway.web.status import WorkerStatus

log = logging.getLogger(__name__)

NO_LOCATION = "request %s: the proxy came back for %s, where it should have sent the file itself; it lacks location %s"
REFUSED_FROM = 400
_FORM_METHODS = ("GET", "HEAD", "POST")
WAIT_SECONDS = STAGE_SECONDS.labels("wait")
ADMIT_SECONDS = STAGE_SECONDS.labels("admit")
OPEN_SECONDS = STAGE_SECONDS.labels("open")


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
        self._answers = Answers(settings, store=store, ledger=ledger)
        self._handing = Handing(settings.redirect)
        self._auth = Auth(
            settings,
            self._gatekeeper,
            self._answers,
            settlement=self._settlement,
            handing=self._handing,
            note=self._note,
        )
        zipping = Zipping(
            self._gatekeeper,
            settings.brand.name,
            store=store,
            ledger=ledger,
            settlement=self._settlement,
            sums=services.sums,
        )
        visitors, prefix = services.visitors, settings.prefix
        self._help = SelfServicePages(self._answers, visitors.self_service, prefix=prefix)
        codes = CodeActs(self._gatekeeper, visitors.codes, self._answers, services.throttle, prefix=prefix)
        person = PersonAct(self._gatekeeper, self._answers)
        self._acts: Acts = {"person": person, **codes.acts, **self._help.acts}
        self._accounts, self._library = None, None
        if visitors.accounts is not None:
            self._accounts = AccountDoor(visitors.accounts, self._answers, services.throttle, prefix=prefix)
        if visitors.purchases is not None and settings.sessions is not None:
            self._library = LibraryDoor(visitors.purchases, settings.sessions, self._answers, prefix=prefix)
        self._archives = ArchiveAnswer(zipping, self._sending, refuse=self._refusal, device=self._answers.device_cookie)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """One request, whatever it is. Raises only CancelledError."""
        request_id = new_id()
        head = _head(request)
        try:
            answered = await self._answer(request, head, parse_path(head.path), request_id)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001  whatever it is, the client gets an answer and the log no secret
            log.error("request %s failed: %s", request_id, describe(error))
            answered = self._answers.explained(head, request_id, "internal", 500)
        response = respond(answered) if isinstance(answered, Answer) else answered
        outcome = "served" if response.status < REFUSED_FROM else "refused"
        REQUESTS.labels(outcome, str(response.status)).inc()
        return response

    async def _answer(
        self, request: web.Request, head: Head, address: Address | None, request_id: str
    ) -> web.StreamResponse | Answer:
        if address is None:
            return self._nowhere(head, request_id)
        if isinstance(address, HookAddress):
            return await self._hooks.answer(request, address.shop, request_id)
        if isinstance(address, AuthAddress | RefusedAddress):
            return await self._ask(head, address, request_id)
        if isinstance(address, OrderAddress | AccountAddress | LibraryAddress | HelpAddress):
            return await self._visit(request, head, address, request_id)
        methods = _FORM_METHODS if isinstance(address, LinkAddress) else ("GET", "HEAD")
        if head.method not in methods:
            return self._not_allowed(head, request_id, methods)
        signs_in = isinstance(address, LinkAddress) and ASKED in head.query and head.method != "POST"
        if self._accounts is not None and signs_in:
            return await self._accounts.begin(head, request_id, link_path("", address.token))
        asked = read_request(
            head,
            token=address.token,
            number=address.number if isinstance(address, FileAddress) else 1,
            request_id=request_id,
            trusted=self._settings.trusted_proxies,
            sessions=self._settings.sessions,
            front=self._front_of(head, address),
        )
        if asked is None:
            return self._answers.explained(head, request_id, "request.address", 400)
        # Before the turn: who sends a form slowly must not hold up who waits for one.
        form = await read_form(request) if head.method == "POST" else None
        try:
            if (late := await self._turn(request_id)) is not None:
                return await self._turn_away(head, asked, late)
            if head.method == "POST":
                return await self._act(head, asked, form)
            return await self._let_in(request, head, address, asked)
        finally:
            self._turns.end(request_id)

    async def _visit(
        self,
        request: web.Request,
        head: Head,
        address: OrderAddress | AccountAddress | LibraryAddress | HelpAddress,
        request_id: str,
    ) -> Answer:
        client = client_of(head, self._settings.trusted_proxies)
        if client is None:
            return self._answers.explained(head, request_id, "request.address", 400)
        form = await read_form(request) if head.method == "POST" else None
        if isinstance(address, LibraryAddress):
            return await self._shelf(head, request_id, form)
        if isinstance(address, HelpAddress):
            return await self._helped(head, request_id, form, network_of(client))
        if self._accounts is None:
            return self._nowhere(head, request_id)
        return await self._accounts.answer(head, address, request_id, form, network_of(client))

    async def _shelf(self, head: Head, request_id: str, form: Mapping[str, str] | None) -> Answer:
        if self._library is None:
            return self._nowhere(head, request_id)
        try:
            if (late := await self._turn(request_id)) is not None:
                return self._refusal(head, request_id, Deny(late))
            return await self._library.answer(head, request_id, form)
        finally:
            self._turns.end(request_id)

    async def _let_in(
        self, request: web.Request, head: Head, address: FileAddress | LinkAddress | ZipAddress, asked: DownloadRequest
    ) -> web.StreamResponse | Answer:
        if isinstance(address, LinkAddress):
            return await self._link_page(head, asked)
        answer = self._archive if isinstance(address, ZipAddress) else self._download
        if head.method == "HEAD":
            return await answer(request, head, asked)
        if not self._memory.has_room():
            return await self._turn_away(head, asked, Reason.OVERLOAD)
        with self._memory.body(asked.request_id):
            return await answer(request, head, asked)

    def _front_of(self, head: Head, address: FileAddress | LinkAddress | ZipAddress) -> str:
        """Who sends the bytes: another only those of single files, and only where it is that one that asks."""
        if isinstance(address, ZipAddress) or not self._settings.tells(head):
            return HTTP.name
        if self._settings.redirect is not None:
            return NGINX.name
        # It asks at /auth before each download, and passes HEAD on: that must not promise what GET refuses.
        return AUTH.name if head.method == "HEAD" else HTTP.name

    def _nowhere(self, head: Head, request_id: str) -> Answer:
        redirect = self._settings.redirect
        if (
            redirect is not None
            and head.path.startswith(redirect)
            and is_trusted(head.peer, self._settings.trusted_proxies)
        ):
            log.error(NO_LOCATION, request_id, redirect, redirect)
            return self._refusal(head, request_id, Deny(Reason.ORIGIN_DOWN))
        return self._refusal(head, request_id, Deny(Reason.LINK_UNKNOWN))

    async def _turn(self, request_id: str) -> Reason | None:
        """Wait until this request may be decided. Why it may not, or None."""
        with WAIT_SECONDS.time():
            begun = await self._turns.take(request_id)
        if not begun:
            return Reason.OVERLOAD
        return Reason.DRAINING if self._status.draining else None

    async def _ask(self, head: Head, address: AuthAddress | RefusedAddress, request_id: str) -> Answer:
        if isinstance(address, RefusedAddress):
            return self._auth.refused(head, request_id)
        try:
            late = await self._turn(request_id)
            with ADMIT_SECONDS.time():
                return await self._auth.answer(head, request_id, late)
        finally:
            self._turns.end(request_id)

    async def _turn_away(self, head: Head, asked: DownloadRequest, reason: Reason) -> Answer:
        refused = await self._gatekeeper.refuse(reason, asked)
        return self._refusal(head, asked.request_id, refused.deny)

    async def _archive(self, request: web.Request, head: Head, asked: DownloadRequest) -> web.StreamResponse | Answer:
        return await self._archives.answer(request, head, asked, lambda: self._turns.end(asked.request_id))

    async def _download(self, request: web.Request, head: Head, asked: DownloadRequest) -> web.StreamResponse | Answer:
        with ADMIT_SECONDS.time():
            admitted = await self._gatekeeper.admit(asked)
        self._turns.end(asked.request_id)
        if isinstance(admitted, Refused):
            return await self._refused(head, asked, admitted)
        answered = await self._deliver(request, head, admitted)
        if answered is not None:
            return answered
        admitted = await self._gatekeeper.admit_again(asked)
        answered = await self._deliver(request, head, admitted)
        return answered or self._refusal(head, admitted.request_id, Deny(Reason.ORIGIN_CHANGED))

    async def _deliver(
        self, request: web.Request, head: Head, admitted: Admitted | Refused
    ) -> web.StreamResponse | Answer | None:
        """The answer; None where the object turned out to have changed before anything of the answer was sent."""
        if isinstance(admitted, Refused):
            return self._refusal(head, admitted.request_id, admitted.deny)
        if admitted.reservation is None:
            return self._answers.bodiless(admitted)
        if admitted.plan.elsewhere:
            return self._hand_over(admitted, Running(admitted.reservation))
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
                return self._refusal(head, admitted.request_id, Deny(reason_of(error)))
            raise
        self._status.origin_ok = True
        return await self._send(request, admitted, delivery)

    def _hand_over(self, admitted: Admitted, running: Running) -> Answer:
        """Another server sends the body: the one that a 302 names, or nginx, which is told where it is."""
        self._settlement.finish(running, "complete")
        headers = self._answers.headers(admitted)
        if admitted.file.key is not None:
            headers = self._handing.to_nginx(admitted, headers)
            self._status.origin_ok = True
        return Answer(admitted.plan.status, headers, length=0)

    async def _send(self, request: web.Request, admitted: Admitted, delivery: Delivery) -> web.StreamResponse:
        response = web.StreamResponse(status=admitted.plan.status, headers=self._answers.headers(admitted))
        response.content_length = admitted.plan.length
        await self._sending.send(request, response, delivery, admitted.request_id)
        return response

    async def _link_page(self, head: Head, asked: DownloadRequest) -> Answer:
        answered = await open_link(self._gatekeeper, self._answers, head, asked)
        return await self._refused(head, asked, answered) if isinstance(answered, Refused) else answered

    async def _helped(self, head: Head, request_id: str, form: Mapping[str, str] | None, network: str) -> Answer:
        if head.method not in _FORM_METHODS:
            return self._not_allowed(head, request_id, _FORM_METHODS)
        if head.method == "POST" and form is None:
            return self._answers.explained(head, request_id, "request.form", 400)
        answered = await self._help.help(head, request_id, network, form)
        return self._refusal(head, request_id, answered) if isinstance(answered, Deny) else answered

    async def _act(self, head: Head, asked: DownloadRequest, form: Mapping[str, str] | None) -> Answer:
        claims = self._gatekeeper.read_for(asked)
        if isinstance(claims, Deny):
            return self._refusal(head, asked.request_id, claims)
        doing = None if form is None else self._acts.get(form.get("act", ""))
        if form is None or doing is None:
            return self._answers.explained(head, asked.request_id, "request.form", 400)
        answered = await doing(Act(head, asked, claims, form))
        return self._refusal(head, asked.request_id, answered) if isinstance(answered, Deny) else answered

    def _not_allowed(self, head: Head, request_id: str, methods: Sequence[str]) -> Answer:
        more = {"Allow": ", ".join(methods)}
        return self._answers.explained(head, request_id, "method.not_allowed", 405, more=more)

    async def _refused(self, head: Head, asked: DownloadRequest, refused: Refused) -> Answer:
        """The refusal of a link, with what its buyer can do about it."""
        claims = self._gatekeeper.read_token(asked.token)
        return self._refusal(
            head,
            refused.request_id,
            refused.deny,
            await self._help.action_for(head, asked.token, claims, refused.deny),
        )

    def _refusal(self, head: Head, request_id: str, deny: Deny, action: Action | None = None) -> Answer:
        self._note(deny)
        return self._answers.refusal(head, request_id, deny, remedy=Remedy(action, self._help.help_at(deny)))

    def _note(self, deny: Deny) -> None:
        REFUSALS.labels(deny.reason.text).inc()
        if deny.reason in (Reason.ORIGIN_DOWN, Reason.ORIGIN_TIMEOUT):
            self._status.origin_ok = False


def _head(request: web.Request) -> Head:
    peername = request.transport.get_extra_info("peername") if request.transport is not None else None
    peer = str(peername[0]) if isinstance(peername, tuple) else ""
    return Head(request.method, request.rel_url.raw_path, request.query, request.headers, peer)
