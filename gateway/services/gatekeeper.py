"""Admits or refuses one request: verify, decide, stat, plan, reserve, in this order and for every front door.

A refusal is a value with its event written. Nothing is opened at the origin before the ledger has said yes.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace

from gateway.errors import FileMissing, LedgerDown, OriginError
from gateway.policy.counting import CountingRules
from gateway.policy.decide import decide, requested_file
from gateway.policy.device import identify
from gateway.policy.events import new_event
from gateway.policy.keys import KeySet
from gateway.policy.model import Allow, Claims, Deny, DownloadRequest, FileEntry, Reservation, StoredObject
from gateway.policy.reasons import Reason
from gateway.policy.record import describe
from gateway.policy.shards import shard_of
from gateway.policy.tokens import parse, timely
from gateway.ports import EventLog, Ledger, ObjectStore, ReserveAsk
from gateway.services.broken import reason_of
from gateway.services.identifiers import new_id, now_ms
from gateway.services.responding import ResponsePlan, plan_response

log = logging.getLogger(__name__)

TOKENS_CACHED = 4096
JUNK_EVENTS_PER_SECOND = 10
TOKEN_EVENTS_PER_SECOND = 50
RETRY_AFTER = {Reason.REDIS_DOWN: 2, Reason.OVERLOAD: 5, Reason.DRAINING: 2, Reason.LIMIT_CONCURRENT: 10}


@dataclass(frozen=True, slots=True)
class Refused:
    """No, and why; its event carries the `request_id`."""

    deny: Deny
    request_id: str


@dataclass(frozen=True, slots=True)
class Admitted:
    """Yes: what to answer. `reservation` is None where no body is sent; otherwise it must be settled exactly once."""

    request: DownloadRequest
    claims: Claims
    stored: StoredObject
    plan: ResponsePlan
    reservation: Reservation | None

    @property
    def request_id(self) -> str:
        return self.request.request_id


class Gatekeeper:
    """The one way in. `forsake` is told of a reservation whose request was cancelled while it was being made."""

    def __init__(
        self,
        *,
        keys: KeySet,
        issuer: str,
        ledger: Ledger,
        events: EventLog,
        store: ObjectStore,
        counting: CountingRules,
        shards: int,
        forsake: Callable[[Reservation], None],
    ) -> None:
        self._keys = keys
        self._issuer = issuer
        self._ledger = ledger
        self._events = events
        self._store = store
        self._counting = counting
        self._shards = shards
        self._device_secret = b""
        self._forsake = forsake
        self._tokens: OrderedDict[str, Claims] = OrderedDict()
        self._tasks: set[asyncio.Task[Reservation | Deny]] = set()
        self._flood = FloodLimit()

    def agreed(self, device_secret: bytes) -> None:
        """The ledger may be used; before this call every request is refused as redis.down."""
        self._device_secret = device_secret

    def read_token(self, token: str) -> Claims | Deny:
        """The claims of a genuine token whose time has begun (it may be expired), without touching anything."""
        claims = self._tokens.get(token)
        if claims is None:
            parsed = parse(token, self._keys, self._issuer)
            if isinstance(parsed, Deny):
                return parsed
            claims = self._tokens[token] = parsed
            if len(self._tokens) > TOKENS_CACHED:
                self._tokens.popitem(last=False)
        return timely(claims, int(time.time())) or claims

    async def admit(self, request: DownloadRequest, *, fresh: bool = False) -> Admitted | Refused:
        """Decide on one request and reserve what it costs; `fresh` asks the origin again for what the object is now.

        Raises nothing but CancelledError: what is broken becomes a refusal.
        """
        if not self._device_secret:
            return _refused(Deny(Reason.REDIS_DOWN), request)
        claims = self.read_token(request.token)
        if isinstance(claims, Deny):
            return await self._refuse(claims, request)
        file = requested_file(claims, request.file_number)
        if isinstance(file, Deny):
            return await self._refuse(file, request, claims)
        decision = decide(claims, file, request)
        if isinstance(decision, Deny):
            return await self._refuse(decision, request, claims, file)
        try:
            return await self._reserve_for(request, claims, file, decision, fresh=fresh)
        except (LedgerDown, OriginError, FileMissing) as error:
            log.warning("request %s was refused: %s", request.request_id, error)
            return await self._refuse(Deny(reason_of(error)), request, claims, file)

    async def admit_again(self, request: DownloadRequest) -> Admitted | Refused:
        """Admit once more, under a request id of its own, after the origin said that the object has changed."""
        return await self.admit(replace(request, request_id=new_id()), fresh=True)

    async def open_link(self, request: DownloadRequest) -> Claims | Refused:
        """The claims for a link page, which counts nothing; a page for an expired link is refused."""
        if not self._device_secret:
            return _refused(Deny(Reason.REDIS_DOWN), request)
        claims = self.read_token(request.token)
        if isinstance(claims, Deny):
            return await self._refuse(claims, request)
        if claims.expires_at <= time.time():
            return await self._refuse(Deny(Reason.TOKEN_EXPIRED), request, claims)
        decision = decide(claims, claims.files[0], request)
        if isinstance(decision, Deny):
            return await self._refuse(decision, request, claims)
        if request.method == "GET" and self._flood.allows(claims):
            told = describe(request, claims=claims, device=identify(request, self._device_secret))
            await self._log("link.opened", claims, told)
        return claims

    async def refuse(self, reason: Reason, request: DownloadRequest) -> Refused:
        """A refusal that is not the policy's (draining, overload), with its event where the token is genuine."""
        claims = self.read_token(request.token)
        if not self._device_secret or isinstance(claims, Deny):
            return _refused(Deny(reason), request)
        return await self._refuse(Deny(reason), request, claims)

    async def _reserve_for(
        self, request: DownloadRequest, claims: Claims, file: FileEntry, allow: Allow, *, fresh: bool
    ) -> Admitted | Refused:
        if await self._is_too_late(claims, file):
            return await self._refuse(Deny(Reason.TOKEN_EXPIRED), request, claims, file)
        stored = await self._store.stat(allow.key, fresh=fresh)
        plan = plan_response(request, stored, file.shown_name, now=int(time.time()), boundary=secrets.token_hex(16))
        ask = self._ask(request, claims, file, allow=allow, stored=stored, plan=plan)
        reservation = await self._reserve(ask) if plan.sends_body else await self._ledger.peek(ask)
        if isinstance(reservation, Deny):
            return _refused(reservation, request)
        return Admitted(request, claims, stored, plan, reservation)

    async def _is_too_late(self, claims: Claims, file: FileEntry) -> bool:
        # Only the ledger refuses an expired token, but where nothing was begun the origin need not be asked first.
        if claims.expires_at > time.time():
            return False
        shard = shard_of(claims.shard_key, self._shards)
        return not await self._ledger.has_transfers(shard, claims.token_key, file.identity)

    def _ask(
        self,
        request: DownloadRequest,
        claims: Claims,
        file: FileEntry,
        *,
        allow: Allow,
        stored: StoredObject,
        plan: ResponsePlan,
    ) -> ReserveAsk:
        device = identify(request, self._device_secret)
        told = describe(request, claims=claims, file=file, device=device, stored=stored, asked=plan.length)
        event = new_event("download.allowed", new_id(), now_ms(), told)
        del event["type"]
        return ReserveAsk(
            request_id=request.request_id,
            shard=shard_of(claims.shard_key, self._shards),
            token_key=claims.token_key,
            file_identity=file.identity,
            size=stored.size,
            etag=stored.etag,
            start=plan.start,
            asked=plan.length,
            full=plan.full,
            device=device,
            charges=allow.charges,
            expires_at=allow.expires_at,
            rules=self._counting,
            status=plan.status,
            stamp={"id": event.pop("id"), "time": event.pop("time")},
            event=event,
        )

    async def _reserve(self, ask: ReserveAsk) -> Reservation | Deny:
        # The client may leave while the script runs: the charge is then made and must still be settled.
        task = asyncio.create_task(self._ledger.reserve(ask))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(self._give_back)
            raise

    def _give_back(self, task: asyncio.Task[Reservation | Deny]) -> None:
        reservation = None if task.cancelled() or task.exception() else task.result()
        if isinstance(reservation, Reservation):
            self._forsake(reservation)

    async def _refuse(
        self, deny: Deny, request: DownloadRequest, claims: Claims | None = None, file: FileEntry | None = None
    ) -> Refused:
        if self._flood.allows(claims):
            device = identify(request, self._device_secret)
            told = describe(request, claims=claims, file=file, device=device)
            told |= {"reason": deny.reason.text, "http.response.status_code": str(deny.reason.status)}
            await self._log("download.denied", claims, told)
        return _refused(deny, request)

    async def _log(self, kind: str, claims: Claims | None, told: dict[str, str]) -> None:
        """Store an event that the answer does not depend on; the answer stays the same where it cannot be stored."""
        shard = shard_of(claims.shard_key if claims else None, self._shards)
        try:
            await self._events.append(shard, new_event(kind, new_id(), now_ms(), told))
        except LedgerDown as error:
            log.warning("an event of type %s could not be stored: %s", kind, error)


def _refused(deny: Deny, request: DownloadRequest) -> Refused:
    retry_after = deny.retry_after or RETRY_AFTER.get(deny.reason)
    return Refused(replace(deny, retry_after=retry_after), request.request_id)


class FloodLimit:
    """Bounds the events that no ledger call pays for, so that noise cannot fill Redis: per second and worker, all
    requests without a genuine token together, and each token by itself. Metrics count them all.
    """

    def __init__(self) -> None:
        self._second = 0
        self._counts: dict[str, int] = {}

    def allows(self, claims: Claims | None) -> bool:
        """Whether one more event may be written for this token, None: for none."""
        second = int(time.monotonic())
        if second != self._second:
            self._second = second
            self._counts.clear()
        key = claims.token_key if claims else ""
        count = self._counts[key] = self._counts.get(key, 0) + 1
        return count <= (TOKEN_EVENTS_PER_SECOND if claims else JUNK_EVENTS_PER_SECOND)
