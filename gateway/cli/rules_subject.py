"""What `gateway rules explain` is to explain: a link's request, one that was recorded, or one that is only given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from gateway.bootstrap.links import open_links
from gateway.bootstrap.orders import open_book
from gateway.bootstrap.redis import Tools
from gateway.cli.named import named
from gateway.errors import GatewayError
from gateway.policy.decide import Policy, requested_file
from gateway.policy.given import Given, nothing_known
from gateway.policy.links import Link
from gateway.policy.model import Claims, Deny, FileEntry
from gateway.policy.orders import Holding
from gateway.policy.recorded import NotRecorded, Recorded, read_recorded
from gateway.policy.ruleset import RuleSet
from gateway.policy.standing import Command, Standing
from gateway.services.desk import Shown
from gateway.settings import Settings

_DECIDED = ("download.allowed", "download.denied")


@dataclass(frozen=True, slots=True)
class Subject:
    """A request, and what its decision rests on besides the rules. `used`: what was used of its link until now.

    `then`: the event that told of it; what was ordered of its link and its order since is left out of account.
    """

    given: Given
    standing: Standing
    holding: Holding | None = None
    used: Shown | None = None
    then: Mapping[str, str] | None = None

    def policy(self, rules: RuleSet, settings: Settings) -> Policy:
        """What decides it."""
        # Of what was said then of the order, or of none, an event tells nothing.
        binds = self.then is None and self.used is not None
        return Policy(rules, self.standing, settings.external_hosts, self.holding, settings.doors.waived, binds)


async def of_link(
    link: str, file: str | None, *, rules: RuleSet, settings: Settings, tools: Tools, now: float
) -> Subject:
    """A link's request for one of its files, by number or key, else the first one. Raises GatewayError."""
    (found,) = await named(settings, tools, link, None)
    claims = found.claims
    facts = replace(nothing_known(now).facts, claims=claims, file=_file_of(claims, file))
    return Subject(
        Given(facts),
        await tools.control.read_all(),
        await _holding(settings, claims.order_id),
        await _used(found, rules, settings, tools),
    )


async def of_event(name: str, *, rules: RuleSet, settings: Settings, tools: Tools) -> Subject:
    """The request that an event tells of, by the event's id or the request's. Raises GatewayError."""
    fields = await _event(name, settings, tools)
    try:
        recorded = read_recorded(fields)
    except NotRecorded as error:
        raise GatewayError(f"the request of event {name} cannot be decided again: {error}") from None
    # An event does not name the issuer, which is the settings' one: without it the link's counters are not found.
    claims = replace(recorded.claims, issuer=settings.issuer)
    given = Given(replace(recorded.facts(None), claims=claims), recorded.view, recorded.front, recorded.account)
    used = await _used(Link(claims, None), rules, settings, tools)
    return Subject(given, _standing_then(recorded, claims), None, used, fields)


def _standing_then(recorded: Recorded, claims: Claims) -> Standing:
    standing = Standing()
    if recorded.extended_to is not None:
        standing.apply(Command("extend", 0, token_key=claims.token_key, expires_at=recorded.extended_to))
    return standing


async def _event(name: str, settings: Settings, tools: Tools) -> Mapping[str, str]:
    """The event with which the request was decided."""
    found = await _first(settings, tools, "id", name) or await _first(settings, tools, "request.id", name)
    if found is None:
        raise GatewayError(f"there is no event {name}; see `gateway events tail --since 1d --no-follow` for their ids")
    if found.get("type") not in _DECIDED and "request.id" in found:
        # A closing event bears the time of its end.
        opening = await _first(settings, tools, "request.id", found["request.id"])
        found = found if opening is None else opening
    if found.get("type") not in _DECIDED:
        raise GatewayError(
            f"event {name} is {found.get('type')}, which decides nothing; name a {' or '.join(_DECIDED)}"
        )
    return found


async def _first(settings: Settings, tools: Tools, field: str, value: str) -> Mapping[str, str] | None:
    def matches(fields: Mapping[str, str]) -> bool:
        return fields.get(field) == value and (field == "id" or fields.get("type") in _DECIDED)

    for shard in range(settings.shards):
        async for _, fields in tools.events.scan(shard, match=matches):
            return fields
    return None


async def _holding(settings: Settings, order_id: str | None) -> Holding | None:
    if order_id is None or not settings.has_orders:
        return None
    async with open_book(settings) as book:
        order = await book.read(order_id)
    if order is None:
        return None
    confirmed = any(shop.name == order.shop and shop.require_confirmation for shop in settings.shops)
    return order.holding(needs_confirmation=confirmed)


async def _used(link: Link, rules: RuleSet, settings: Settings, tools: Tools) -> Shown:
    (shown,) = await open_links(settings, tools, lambda: rules).show([link])
    return shown


def _file_of(claims: Claims, file: str | None) -> FileEntry:
    if file is None or (file.isascii() and file.isdigit()):
        found = requested_file(claims, int(file or 1))
        if isinstance(found, Deny):
            raise GatewayError(f"the link has no file {file}; write a number from 1 to {len(claims.files)}")
        return found
    for each in claims.files:
        if file in (each.key, each.url, each.name, each.recorded.removeprefix("url:")):
            return each
    raise GatewayError(
        f"the link has no file {file}; its files are {', '.join(each.recorded for each in claims.files)}"
    )
