"""Admits or refuses one request: verify, decide, stat, plan, reserve, in this order and for every front door.

A refusal is a value with its event written. Nothing is opened at the origin before the ledger has said yes.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from gateway.errors import GatewayError, LedgerDown
from gateway.policy.counting import CountingRules
from gateway.policy.decide import decide, plan_of, requested_file
from gateway.policy.device import identify
from gateway.policy.events import new_event
from gateway.policy.fronts import FRONTS
from gateway.policy.model import (
    Allow,
    Claims,
    Decision,
    Deny,
    DownloadRequest,
    FileEntry,
    Manner,
    Place,
    Plan,
    Reservation,
    StoredObject,
)
from gateway.policy.reasons import Reason
from gateway.policy.shards import shard_of
from gateway.policy.tokens import parse, timely
from gateway.ports import EventLog, Ledger
from gateway.services.asking import ask_of
from gateway.services.broken import reason_of
from gateway.services.case import Case
from gateway.services.flood import FloodLimit
from gateway.services.grounds import Grounds
from gateway.services.identifiers import new_id, now_ms
from gateway.services.reserving import Reserving
from gateway.services.responding import ResponsePlan, plan_redirect, plan_response
from gateway.store_ports import Local, ObjectStore, Remote

log = logging.getLogger(__name__)

TOKENS_CACHED = 4096
REDIRECTED_FROM = 300
SERVER_ERROR = 500
RETRY_AFTER = {
    Reason.REDIS_DOWN: 2,
    Reason.GEO_DOWN: 30,
    Reason.ORDERS_DOWN: 5,
    Reason.FROZEN: 60,
    Reason.OVERLOAD: 5,
    Reason.DRAINING: 2,
    Reason.LIMIT_CONCURRENT: 10,
}


@dataclass(frozen=True, slots=True)
class Refused:
    """No, and why; its event carries the `request_id`."""

    deny: Deny
    request_id: str


@dataclass(frozen=True, slots=True)
class Admitted:
    """Yes: what to answer. `reservation` is None where nothing is charged; otherwise it must be settled exactly once.

    `rate`: bytes/s that all of the token's transfers share. `rule`: the one that decided, if any did. `located`: where
    the proxy in front finds the bytes, if it is to send them.
    """

    request: DownloadRequest
    claims: Claims
    file: FileEntry
    stored: StoredObject
    plan: ResponsePlan
    reservation: Reservation | None
    rate: int | None = None
    rule: str | None = None
    located: Local | Remote | None = None

    @property
    def request_id(self) -> str:
        return self.request.request_id


@dataclass(frozen=True, slots=True)
class Opened:
    """Yes to a link page: those of the link's files that may be had from here, each by its number from 1."""

    files: Sequence[tuple[int, Allow]]
    expires_at: int
    may_view: bool
    claims: Claims
    shard: int


class Gatekeeper:
    """The one way in. `forsake` is told of a reservation whose response will not begin: its client left while it was
    being made, or it is refused for the reason.
    """

    def __init__(
        self,
        grounds: Grounds,
        *,
        ledger: Ledger,
        events: EventLog,
        store: ObjectStore,
        counting: CountingRules,
        shards: int,
        forsake: Callable[[Reservation, Reason | None], None],
    ) -> None:
        self._grounds = grounds
        self._control = grounds.control
        self._ledger = ledger
        self._reserving = Reserving(ledger, forsake)
        self._events = events
        self._store = store
        self._counting = counting
        self._shards = shards
        self._device_secret = b""
        self._forsake = forsake
        self._tokens: OrderedDict[str, Claims] = OrderedDict()
        self._flood = FloodLimit()

    def agreed(self, device_secret: str) -> None:
        """The ledger may be used; before this call every request is refused as redis.down."""
        self._device_secret = device_secret.encode()

    def read_token(self, token: str) -> Claims | Deny:
        """The claims of a genuine token whose time has begun (it may be expired), without touching anything."""
        claims = self._tokens.get(token)
        if claims is None:
            parsed = parse(token, self._grounds.keys, self._grounds.issuer)
            if isinstance(parsed, Deny):
                return parsed
            claims = self._tokens[token] = parsed
            if len(self._tokens) > TOKENS_CACHED:
                self._tokens.popitem(last=False)
        return timely(claims, int(time.time())) or claims

    async def admit(
        self, request: DownloadRequest, *, fresh: bool = False, limits: bool = True, look: bool = False
    ) -> Admitted | Refused:
        """Decide on one request and reserve what it costs; `fresh` asks the origin again for what the object is now.
        Without `limits` nothing is reserved, so nothing may be sent: it is yet to be known what will be. A mere `look`
        is followed by the request itself where it is let through, so only its refusal is observed.

        Raises nothing but CancelledError: what is broken becomes a refusal.
        """
        if not self._is_ready():
            return _refused(Deny(Reason.REDIS_DOWN), request)
        case = self._case(request)
        answer = await self._admit(case, fresh=fresh, limits=limits)
        if not look or isinstance(answer, Refused):
            self._observe(case, answer)
        return answer

    async def _admit(self, case: Case, *, fresh: bool, limits: bool) -> Admitted | Refused:
        request = case.request
        claims = self.read_token(request.token)
        if isinstance(claims, Deny):
            return await self._refuse(claims, case)
        case.claims = claims
        file = requested_file(claims, request.file_number)
        case.file = None if isinstance(file, Deny) else file
        if (frozen := case.standing.refused(None)) is not None:
            return await self._refuse(frozen, case)
        if isinstance(file, Deny):
            return await self._refuse(file, case)
        try:
            await self._gather(case, claims)
            case.decision = decision = self._decide(case, claims, file)
            case.opinion = self._grounds.observing.judged(case, claims, file, decision)
            if isinstance(decision, Deny):
                return await self._refuse(decision, case)
            return await self._reserve_for(case, claims, decision, fresh=fresh, limits=limits)
        except GatewayError as error:
            log.warning("request %s was refused: %s", request.request_id, error)
            return await self._refuse(Deny(reason_of(error)), case)

    async def admit_again(self, request: DownloadRequest) -> Admitted | Refused:
        """Admit once more, under a request id of its own, after the origin said that the object has changed."""
        return await self.admit(replace(request, request_id=new_id()), fresh=True)

    async def open_link(self, request: DownloadRequest) -> Opened | Refused:
        """What a link page may show, which counts nothing; refused where the link is over or none of its files may
        be had from here.
        """
        if not self._is_ready():
            return _refused(Deny(Reason.REDIS_DOWN), request)
        # The page itself is never inline: that is asked of its files.
        case = self._case(replace(request, view=False))
        case.is_page = True
        answer = await self._open_link(case)
        self._observe(case, answer)
        return answer

    async def _open_link(self, case: Case) -> Opened | Refused:
        request = case.request
        claims = self.read_token(request.token)
        if isinstance(claims, Deny):
            return await self._refuse(claims, case)
        case.claims = claims
        if (frozen := case.standing.refused(None)) is not None:
            return await self._refuse(frozen, case)
        try:
            await self._gather(case, claims)
        except GatewayError as error:
            log.warning("request %s was refused: %s", request.request_id, error)
            return await self._refuse(Deny(reason_of(error)), case)
        decisions = [self._decide(case, claims, file) for file in claims.files]
        chosen = next((n for n, each in enumerate(decisions) if isinstance(each, Allow)), 0)
        case.decision = allowed = decisions[chosen]
        case.opinion = self._grounds.observing.judged(case, claims, claims.files[chosen], allowed)
        if isinstance(allowed, Deny):
            return await self._refuse(allowed, case)
        try:
            expires_at = await self._ends_at(claims, allowed)
        except LedgerDown as error:
            return await self._refuse(Deny(reason_of(error)), case)
        if expires_at <= time.time():
            return await self._refuse(Deny(Reason.TOKEN_EXPIRED), case)
        if request.method == "GET" and self._flood.allows(claims):
            await self._log("link.opened", case, case.described(allowed))
        plan = plan_of(claims, case.rules)
        files = [(n, each) for n, each in enumerate(decisions, 1) if isinstance(each, Allow)]
        shard = shard_of(claims.shard_key, self._shards)
        return Opened(files, expires_at, isinstance(plan, Plan) and plan.view, claims, shard)

    async def confirm(self, request: DownloadRequest) -> int | Refused:
        """A person is at the link's page: charge the looks that this device has opened with the link, as far as limits
        allow it. How many were.
        """
        if not self._is_ready():
            return _refused(Deny(Reason.REDIS_DOWN), request)
        # What is charged is the download that was begun, so rules and limits are asked as they were for it.
        case = self._case(replace(request, method="GET", view=False, manner=Manner(gesture=True)))
        claims = self.read_token(request.token)
        if isinstance(claims, Deny):
            return _refused(claims, request)
        case.claims, confirmed = claims, 0
        try:
            await self._gather(case, claims)
            for file in claims.files:
                case.file = file
                allow = self._decide(case, claims, file)
                if isinstance(allow, Allow):
                    ask = ask_of(case, claims, allow, counting=self._counting, shards=self._shards)
                    confirmed += await self._ledger.confirm(ask)
        except GatewayError as error:
            log.warning("request %s confirmed no person: %s", request.request_id, error)
            return _refused(Deny(reason_of(error)), request)
        return confirmed

    async def refuse(self, reason: Reason, request: DownloadRequest) -> Refused:
        """A refusal that is not the policy's (draining, overload), with its event where the token is genuine."""
        claims = self.read_token(request.token)
        if not self._is_ready() or isinstance(claims, Deny):
            return _refused(Deny(reason), request)
        case = self._case(request)
        case.claims = claims
        return await self._refuse(Deny(reason), case)

    def _is_ready(self) -> bool:
        return bool(self._device_secret) and self._grounds.ready()

    def _case(self, request: DownloadRequest) -> Case:
        return Case(
            request,
            self._grounds.rules(),
            identify(request, self._device_secret),
            now_ms(),
            self._control.standing,
        )

    async def _gather(self, case: Case, claims: Claims) -> None:
        """Raises GeoDown, OrdersDown."""
        geo = self._grounds.geo()
        case.place = Place() if geo is None else geo.look_up(case.request.client_address)
        case.holding = await self._grounds.holding(claims.order_id)
        case.classify(claims)

    def _observe(self, case: Case, answer: Admitted | Opened | Refused) -> None:
        reason = answer.deny.reason if isinstance(answer, Refused) else None
        self._grounds.observing.answered(case, reason)

    def _decide(self, case: Case, claims: Claims, file: FileEntry) -> Decision:
        return decide(
            claims,
            file,
            case.request,
            device=case.device,
            place=case.place or Place(),
            policy=self._grounds.policy(case),
            now=case.at_ms / 1000,
        )

    async def _reserve_for(
        self, case: Case, claims: Claims, allow: Allow, *, fresh: bool, limits: bool
    ) -> Admitted | Refused:
        request, file = case.request, allow.file
        located: Local | Remote | None = None
        if await self._is_too_late(claims, allow):
            late = Deny(Reason.TOKEN_EXPIRED, rule=allow.rule, plan=allow.plan, would_deny=allow.would_deny)
            return await self._refuse(late, case)
        if file.key is None:
            stored = StoredObject(file.identity, 0, "", 0, "")
            plan = plan_redirect(request.method, file.url or "")
        else:
            front = FRONTS[request.front]
            stored = await self._store.stat(file.key, fresh=fresh)
            plan = plan_response(
                request,
                stored,
                file.shown_name,
                now=int(time.time()),
                boundary=secrets.token_hex(16) if front.multipart else "",
                handed=front.hands_over,
            )
            if front.hands_over and plan.status < REDIRECTED_FROM:
                # What is handed over is never given back: a store that cannot say where it lies must fail unpaid.
                located = await self._store.locate(stored)
        if not limits:
            return Admitted(request, claims, file, stored, plan, None, allow.rate, allow.rule, located)
        ask = ask_of(case, claims, allow, counting=self._counting, shards=self._shards, stored=stored, plan=plan)
        charged = plan.sends_body or (plan.elsewhere and request.method == "GET")
        reservation = await self._reserving.reserve(ask) if charged else await self._ledger.peek(ask)
        if isinstance(reservation, Deny):
            return _refused(reservation, request)
        if reservation is not None:
            try:
                void = await self._grounds.void_meanwhile(claims, file)
            except asyncio.CancelledError:
                self._forsake(reservation, None)
                raise
            if void is not None:
                self._forsake(reservation, void.reason)
                return _refused(void, request)
        return Admitted(request, claims, file, stored, plan, reservation, allow.rate, allow.rule, located)

    async def _ends_at(self, claims: Claims, allow: Allow) -> int:
        """When nothing more can be begun with the link, in Unix seconds: by its expiry or its first download."""
        after_first = next((charge.limit for charge in allow.charges if charge.kind == "since_first"), None)
        if after_first is None:
            return allow.expires_at
        first = await self._ledger.first_download(shard_of(claims.shard_key, self._shards), claims.token_key)
        return allow.expires_at if first is None else min(allow.expires_at, int(first + after_first / 1000))

    async def _is_too_late(self, claims: Claims, allow: Allow) -> bool:
        # Only the ledger refuses an expired token, but where nothing was begun the origin need not be asked first.
        if allow.expires_at > time.time():
            return False
        shard = shard_of(claims.shard_key, self._shards)
        return not await self._ledger.has_transfers(shard, claims.token_key, allow.file.identity)

    async def _refuse(self, deny: Deny, case: Case) -> Refused:
        if self._flood.allows(case.claims):
            told = case.described(deny)
            told |= {"reason": deny.reason.text, "http.response.status_code": str(deny.reason.status)}
            if not await self._log("download.denied", case, told) and deny.reason.status < SERVER_ERROR:
                # No word without its event: who was refused for good can be shown that he was, and when.
                deny = Deny(Reason.REDIS_DOWN)
        return _refused(deny, case.request)

    async def _log(self, kind: str, case: Case, told: dict[str, str]) -> bool:
        """Store an event that no ledger call writes; whether that was possible."""
        shard = shard_of(case.claims.shard_key if case.claims else None, self._shards)
        try:
            await self._events.append(shard, new_event(kind, new_id(), case.at_ms, told))
        except LedgerDown as error:
            log.warning("an event of type %s could not be stored: %s", kind, error)
            return False
        return True


def _refused(deny: Deny, request: DownloadRequest) -> Refused:
    retry_after = deny.retry_after or RETRY_AFTER.get(deny.reason)
    return Refused(replace(deny, retry_after=retry_after), request.request_id)
