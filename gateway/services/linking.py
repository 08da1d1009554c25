"""Making a link: signed, registered and recorded, for the command line, the demo and whoever sells."""

from __future__ import annotations

from gateway.errors import GatewayError
from gateway.policy.events import new_event
from gateway.policy.keys import KeySet
from gateway.policy.model import Claims
from gateway.policy.shards import shard_of
from gateway.policy.tokens import encode
from gateway.ports import EventLog, LinkRegistry
from gateway.services.identifiers import new_id


async def issue(
    claims: Claims, created_ms: int, *, keys: KeySet, links: LinkRegistry, events: EventLog, shards: int
) -> str:
    """The token of a new link. Raises GatewayError where no key signs or the claims make no token, LedgerDown."""
    if keys.signing is None:
        raise GatewayError("keys: no key has use: sign, so no link can be made here; add one (gateway keys new)")
    try:
        token = encode(claims, keys.signing)
    except ValueError as error:
        raise GatewayError(f"no link was made: {error}") from None
    fields = {"token.id": claims.token_id, "order.id": claims.order_id, "customer.id": claims.customer_id}
    await links.add(claims, created_ms)
    shard = shard_of(claims.shard_key, shards)
    await events.append(shard, new_event("link.created", new_id(), created_ms, fields))
    return token
