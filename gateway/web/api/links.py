"""The calls about links: made, looked up, revoked, extended. Whatever they do is on record before it is done."""

from __future__ import annotations

import asyncio
import hashlib
import json
from functools import partial
from ipaddress import ip_network

from gateway.errors import GatewayError
from gateway.policy.links import Link, link_path, read_link, write_link
from gateway.policy.model import Claims, FileEntry, Limits
from gateway.services.desk import NewLink, Refused
from gateway.services.identifiers import now_ms
from gateway.services.linking import Subject
from gateway.web.api.answering import Extended, LinkAnswer, LinksAnswer, MadeLink, Revoked, link_answer, utc
from gateway.web.api.asking import AskedLink, OfOrder, Until, seconds
from gateway.web.api.call import Asked
from gateway.web.api.problems import Problem

KEY_SECONDS = 86_400
LOOKS, LOOK_EVERY = 20, 0.05
"""How often, and after how many seconds each, to look for a link that somebody else has begun to make: for 1 s."""


async def create(asked: Asked) -> MadeLink:
    """A new link; with a key that was sent before, the link that was made then."""
    desk = asked.office.links
    claims = desk.draft(_new_link(asked.given(AskedLink)))
    is_there = False
    if asked.key:
        desk.sign(claims)  # what cannot be made is not remembered
        claims, is_there = await _begun(asked, claims)
    if is_there:
        token = desk.sign(claims)
    else:
        token = await desk.create(claims, partial(asked.record, order_id=claims.order_id, token_id=claims.token_id))
    link = await _named(asked, claims.token_id)
    return MadeLink(
        **(await _answers(asked, [link]))[0].model_dump(), link=link_path(asked.office.settings.base_url, token)
    )


async def of_order(asked: Asked) -> LinksAnswer:
    """An order's links."""
    links = await asked.office.links.of_order(asked.given(OfOrder).order)
    return LinksAnswer(links=tuple(await _answers(asked, links)))


async def show(asked: Asked) -> LinkAnswer:
    """One link."""
    return (await _answers(asked, [await _named(asked)]))[0]


async def revoke(asked: Asked) -> Revoked:
    """Revoke one link, for good."""
    claims = (await _named(asked)).claims
    record = partial(asked.record, order_id=claims.order_id, token_id=claims.token_id)
    done = await asked.office.links.revoke(Subject((claims,)), record)
    return Revoked(token_id=claims.token_id, already=bool(done.revoked))


async def extend(asked: Asked) -> Extended:
    """Move the expiry of one link."""
    claims = (await _named(asked)).claims
    until = seconds(asked.given(Until).until)
    record = partial(asked.record, order_id=claims.order_id, token_id=claims.token_id)
    await asked.office.links.extend(Subject((claims,)), until, record)
    return Extended(token_id=claims.token_id, expires=utc(until))


async def _named(asked: Asked, token_id: str | None = None) -> Link:
    link = await asked.office.links.find(token_id or asked.path["token_id"])
    if link is None:
        raise Problem(404, "link.unknown", "No link with this id was made here; GET /api/v1/links?order= lists them.")
    return link


async def _answers(asked: Asked, links: list[Link]) -> list[LinkAnswer]:
    return [link_answer(each) for each in await asked.office.links.show(links)]


async def _begun(asked: Asked, claims: Claims) -> tuple[Claims, bool]:
    """The link that belongs to the caller's key, and whether it is there already. Raises Problem, LedgerDown."""
    wanted = hashlib.sha256(asked.body.model_dump_json().encode("utf-8", "surrogatepass")).hexdigest()
    begun = json.dumps({"wanted": wanted, "link": write_link(claims, now_ms())})
    # Names have no NUL, so nobody's key is ever another's.
    known = json.loads(await asked.office.asked.first(f"{asked.user.name}\0{asked.key}", begun, KEY_SECONDS))
    if known["wanted"] != wanted:
        raise Problem(422, "key.used", "This Idempotency-Key came with another link before; send a new one.")
    try:
        first = read_link(known["link"]).claims
    except ValueError as error:
        raise GatewayError(f"what was asked for with this Idempotency-Key cannot be read: {error}") from None
    if first.token_id != claims.token_id:
        await _wait_for(first.token_id, asked)
    # Who died between the two has left a key without its link: that is made now.
    return first, first.token_id != claims.token_id and await asked.office.links.find(first.token_id) is not None


async def _wait_for(token_id: str, asked: Asked) -> None:
    """Returns when the link is there, or after as long as it may take whoever came first to make it."""
    for _ in range(LOOKS):
        if await asked.office.links.find(token_id) is not None:
            return
        await asyncio.sleep(LOOK_EVERY)


def _new_link(body: AskedLink) -> NewLink:
    expires = None
    if body.expires is not None:
        expires = seconds(body.expires) - now_ms() // 1000
        if expires <= 0:
            raise Refused("expires", " lies in the past; write a later time")
    return NewLink(
        files=tuple(FileEntry(each.key or None, each.url or None, each.name) for each in body.files),
        order=body.order_id,
        customer=body.customer_id,
        plan=body.plan,
        tier=body.tier,
        expires=expires,
        ip=tuple(ip_network(each) for each in body.ip),
        account=body.account,
        limits=Limits(**body.limits.model_dump()),
    )
