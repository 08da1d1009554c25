"""What the ledger is asked about one request, from what was decided on it."""

from __future__ import annotations

from gateway.policy.counting import CountingRules
from gateway.policy.events import new_event
from gateway.policy.model import Allow, Claims, StoredObject
from gateway.policy.shards import shard_of
from gateway.ports import ReserveAsk
from gateway.services.case import Case
from gateway.services.identifiers import new_id
from gateway.services.responding import ResponsePlan

NO_CONTENT = 204


def ask_of(
    case: Case,
    claims: Claims,
    allow: Allow,
    *,
    counting: CountingRules,
    shards: int,
    stored: StoredObject | None = None,
    plan: ResponsePlan | None = None,
) -> ReserveAsk:
    """`stored` and `plan`: what is to be sent; without them nothing is."""
    shown = None if allow.file.key is None else stored
    told = case.described(allow, shown, None if plan is None else plan.length)
    event = new_event("download.allowed", new_id(), case.at_ms, told)
    del event["type"]
    ours = None if plan is None or plan.elsewhere else plan
    return ReserveAsk(
        request_id=case.request.request_id,
        shard=shard_of(claims.shard_key, shards),
        token_key=claims.token_key,
        file_identity=allow.file.identity,
        size=0 if ours is None or stored is None else stored.size,
        etag="" if ours is None or stored is None else stored.etag,
        start=0 if ours is None else ours.start,
        asked=0 if ours is None else ours.length,
        full=plan is not None and plan.full,
        elsewhere=plan is not None and plan.elsewhere,
        device=case.device,
        charges=allow.charges,
        expires_at=allow.expires_at,
        token_expires_at=claims.expires_at,
        rules=counting,
        status=NO_CONTENT if plan is None else plan.status,
        stamp={"id": event.pop("id"), "time": event.pop("time")},
        event=event,
        look=bool(case.signs),
    )
