"""What the mitmproxy door answers to a request's head: a page, a refusal, or a body to be passed on. No policy here."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass

from gateway.bootstrap.services import Services
from gateway.errors import OriginChanged, OriginError
from gateway.front.addresses import FileAddress, LinkAddress, parse_path
from gateway.front.answers import Answers, DoorSettings
from gateway.front.head import Head
from gateway.front.intake import read_request
from gateway.front.opening import open_link
from gateway.front.plain import Answer
from gateway.mitm.passing import Passing
from gateway.mitm.shown import note
from gateway.policy.fronts import MITM
from gateway.policy.model import Claims, Deny, DownloadRequest, Reservation
from gateway.policy.reasons import Reason
from gateway.services.broken import reason_of
from gateway.services.gatekeeper import Admitted, Refused
from gateway.services.settlement import Running
from gateway.store_ports import Remote

log = logging.getLogger(__name__)

BODY = "request.body"


@dataclass(frozen=True, slots=True)
class Answered:
    """A complete answer, and what people are told of it."""

    answer: Answer
    note: str
    allowed: bool = False


class Door:
    """Answers every request that mitmproxy has the head of. `silence` in seconds, see Passing."""

    def __init__(self, settings: DoorSettings, services: Services, *, silence: float) -> None:
        self._settings = settings
        self._gatekeeper = services.gatekeeper
        self._store = services.store
        self._ledger = services.ledger
        self._settlement = services.settlement
        self._silence = silence
        self._answers = Answers(
            settings, store=services.store, ledger=services.ledger, archives=MITM.archives, acts=False
        )
        self.draining = False

    async def answer(self, head: Head, request_id: str) -> Answered | Passing:
        """Raises nothing of its own making but CancelledError."""
        address = parse_path(head.path)
        if not isinstance(address, LinkAddress | FileAddress):
            return self._refusal(head, request_id, Deny(Reason.LINK_UNKNOWN))
        if head.method not in ("GET", "HEAD"):
            return self.explained(head, request_id, "method.not_allowed", 405, more={"Allow": "GET, HEAD"})
        asked = read_request(
            head,
            token=address.token,
            number=address.number if isinstance(address, FileAddress) else 1,
            request_id=request_id,
            trusted=self._settings.trusted_proxies,
            sessions=self._settings.sessions,
            front=MITM.name,
        )
        if asked is None:
            return self.explained(head, request_id, "request.address", 400)
        if self.draining:
            refused = await self._gatekeeper.refuse(Reason.DRAINING, asked)
            return self._refusal(head, request_id, refused.deny, asked)
        if isinstance(address, LinkAddress):
            return await self._link_page(head, asked)
        return await self._download(head, asked)

    def with_body(self, head: Head, request_id: str) -> Answered:
        """To a request that brings a body, which is nothing that is asked for here."""
        if head.method not in ("GET", "HEAD"):
            return self.explained(head, request_id, "method.not_allowed", 405, more={"Allow": "GET, HEAD"})
        return self.explained(head, request_id, BODY, 400)

    def broken(self, head: Head, request_id: str) -> Answer:
        """Something here failed, and what it was is in the log."""
        return self._answers.explained(head, request_id, "internal", 503)

    def explained(
        self, head: Head, request_id: str, reason: str, status: int, *, more: dict[str, str] | None = None
    ) -> Answered:
        """A refusal that is not the policy's."""
        return Answered(
            self._answers.explained(head, request_id, reason, status, more=more or {}), note("deny", reason)
        )

    async def renew_stat(self, key: str) -> None:
        """Ask the store anew what the object is, where what was believed of it turned out to be old."""
        with suppress(Exception):  # the next request will be told
            await self._store.stat(key, fresh=True)

    async def _link_page(self, head: Head, asked: DownloadRequest) -> Answered:
        answered = await open_link(self._gatekeeper, self._answers, head, asked)
        if isinstance(answered, Refused):
            return self._refusal(head, answered.request_id, answered.deny, asked)
        return Answered(answered, note("page", claims=self._claims(asked)), allowed=True)

    async def _download(self, head: Head, asked: DownloadRequest) -> Answered | Passing:
        admitted = await self._gatekeeper.admit(asked)
        if isinstance(admitted, Refused):
            return self._refusal(head, admitted.request_id, admitted.deny, asked)
        said = note("allow", rule=admitted.rule, claims=admitted.claims)
        if admitted.reservation is None:
            return Answered(self._answers.bodiless(admitted), said, allowed=True)
        if admitted.plan.elsewhere:
            self._settlement.finish(Running(admitted.reservation), "complete")
            return Answered(self._answers.bodiless(admitted), said, allowed=True)
        return await self._from_store(head, admitted, admitted.reservation)

    async def _from_store(self, head: Head, admitted: Admitted, reservation: Reservation) -> Answered | Passing:
        try:
            located = await self._store.locate(admitted.stored)
            if not isinstance(located, Remote):
                raise OriginChanged("the origin is no bucket")  # refused at the start, see opening.py
        except OriginError as error:
            self._settlement.finish(Running(reservation), "origin_failed", reason_of(error).text)
            log.warning("request %s was refused: %s", admitted.request_id, error)
            return self._refusal(head, admitted.request_id, Deny(reason_of(error)), admitted.request)
        except BaseException:
            self._settlement.finish(Running(reservation), "client_left")
            raise

        def refuse(reason: Reason | None) -> Answer:
            if reason is None:
                return self.broken(head, admitted.request_id)
            return self._answers.refusal(head, admitted.request_id, Deny(reason))

        return Passing(
            admitted,
            reservation,
            located,
            ledger=self._ledger,
            settlement=self._settlement,
            refuse=refuse,
            silence=self._silence,
        )

    def headers(self, admitted: Admitted) -> dict[str, str]:
        """Those of a body that is let through."""
        return self._answers.headers(admitted)

    def _refusal(self, head: Head, request_id: str, deny: Deny, asked: DownloadRequest | None = None) -> Answered:
        claims = None if asked is None else self._claims(asked)
        said = note("deny", deny.reason.text, deny.rule, claims)
        return Answered(self._answers.refusal(head, request_id, deny), said)

    def _claims(self, asked: DownloadRequest) -> Claims | None:
        claims = self._gatekeeper.read_token(asked.token)
        return None if isinstance(claims, Deny) else claims
