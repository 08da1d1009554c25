"""Who of the shop's own people did what: one event for each act, on record before the act, or in one step with it."""

from __future__ import annotations

from gateway.policy.events import new_event
from gateway.policy.shards import shard_of
from gateway.ports import EventLog, Fields
from gateway.services.identifiers import new_id, now_ms


def acted(
    name: str,
    action: str,
    *,
    status: int | None = None,
    order_id: str | None = None,
    token_id: str | None = None,
) -> Fields:
    """The event. `status`: the one of the answer over HTTP; None at the command line."""
    fields: dict[str, str | int | None] = {
        "staff.name": name,
        "staff.action": action,
        "order.id": order_id,
        "token.id": token_id,
        "http.response.status_code": status,
    }
    return new_event("staff.acted", new_id(), now_ms(), fields)


async def record(event: Fields, events: EventLog, shards: int) -> None:
    """Write it to the shard of its order, else of its token. Raises LedgerDown."""
    await events.append(shard_of(event.get("order.id", event.get("token.id")), shards), event)
