"""Making, revoking and extending links, for the command line, the demo and whoever sells.

A command is in the control stream before its event is written: what is in force may lack its event, never the reverse.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from gateway.errors import GatewayError, LedgerDown
from gateway.policy.claims import TIME_MAX
from gateway.policy.events import new_event, rfc3339
from gateway.policy.keys import KeySet
from gateway.policy.model import Claims
from gateway.policy.shards import shard_of
from gateway.policy.standing import Command, Standing, Verb
from gateway.policy.tokens import encode
from gateway.ports import ControlLog, EventLog, LinkRegistry
from gateway.services.identifiers import new_id, now_ms


@dataclass(frozen=True, slots=True)
class Subject:
    """What is ordered about: one link, or with `order_id` all of an order, of which `links` are known here."""

    links: tuple[Claims, ...]
    order_id: str | None = None


@dataclass(frozen=True, slots=True)
class Done:
    """What came of it: the known links that were `changed`, and those that stayed `revoked` as they were before."""

    changed: tuple[Claims, ...]
    revoked: tuple[Claims, ...]


def sign(claims: Claims, keys: KeySet) -> str:
    """The token of these claims. Raises GatewayError where no key signs or the claims make no token."""
    if keys.signing is None:
        raise GatewayError("keys: no key has use: sign, so no link can be made here; add one (gateway keys new)")
    try:
        return encode(claims, keys.signing)
    except ValueError as error:
        raise GatewayError(f"no link was made: {error}") from None


async def register(claims: Claims, created_ms: int, *, links: LinkRegistry, events: EventLog, shards: int) -> None:
    """Have a new link known (Unix ms). Raises LedgerDown."""
    await links.add(claims, created_ms)
    shard = shard_of(claims.shard_key, shards)
    await events.append(shard, new_event("link.created", new_id(), created_ms, _names(claims)))


async def issue(
    claims: Claims, created_ms: int, *, keys: KeySet, links: LinkRegistry, events: EventLog, shards: int
) -> str:
    """The token of a new link. Raises as `sign` and `register`."""
    token = sign(claims, keys)
    await register(claims, created_ms, links=links, events=events, shards=shards)
    return token


async def revoke(subject: Subject, *, standing: Standing, control: ControlLog, events: EventLog, shards: int) -> Done:
    """Revoke for good; a link that is revoked already stays so, without a second event.

    An order is revoked anew each time, since links may have been made elsewhere meanwhile. Raises GatewayError where
    no link can be meant; LedgerDown, also where all is in force but its event could not be written.
    """
    fresh, revoked = _by_revoked(subject, standing)
    told = [_names(claims) for claims in fresh]
    if subject.order_id is not None and not subject.links and standing.order_revoked_until(subject.order_id) is None:
        told = [{"order.id": subject.order_id}]
    time = await _command(subject, fresh, None, control)
    await _tell("link.revoked", subject, told, events, shards)
    if subject.order_id is not None:
        await _outlive(time)
    return Done(fresh, revoked)


def refuse_extension(
    subject: Subject, expires_at: int, *, ends_at: Callable[[Claims], int], standing: Standing
) -> None:
    """Raises GatewayError for what `extend` would refuse."""
    if expires_at <= now_ms() // 1000:
        raise GatewayError("the new expiry lies in the past; write a later one, or end the link with `link revoke`")
    if expires_at > TIME_MAX:
        raise GatewayError("the new expiry lies beyond the year 9999; write an earlier one")
    fresh, revoked = _by_revoked(subject, standing)
    if not fresh and (revoked or _is_revoked_order(subject, standing)):
        raise GatewayError("it is revoked, and that is final; make a new link with `link create`")
    for claims in fresh:
        if expires_at < ends_at(claims):
            end = f"{rfc3339(ends_at(claims) * 1000)[:19]}Z"
            raise GatewayError(f"the link {claims.token_id} is valid until {end} anyway; write a later time")


async def extend(
    subject: Subject,
    expires_at: int,
    *,
    ends_at: Callable[[Claims], int],
    standing: Standing,
    control: ControlLog,
    events: EventLog,
    shards: int,
) -> Done:
    """Give a new expiry (Unix s), which also takes the place of one given before.

    `ends_at` says when a link ends that is not extended: no extension may take from that. Raises GatewayError for a
    time that cannot be meant, where all links are revoked, or as `revoke` does; LedgerDown.
    """
    refuse_extension(subject, expires_at, ends_at=ends_at, standing=standing)
    fresh, revoked = _by_revoked(subject, standing)
    told = [_names(claims) for claims in fresh] or [{"order.id": subject.order_id}]
    time = await _command(subject, fresh, expires_at, control)
    await _tell("link.extended", subject, told, events, shards)
    await _outlive(time)
    return Done(fresh, revoked)


async def _command(subject: Subject, links: Sequence[Claims], expires_at: int | None, control: ControlLog) -> int:
    """Command it, and return the time that the command has (Unix s)."""
    verb: Verb = "revoke" if expires_at is None else "extend"
    time = now_ms() // 1000
    by_token = links
    commands: list[Command] = []
    try:
        if subject.order_id is not None:
            commands = [Command(verb, time, order_id=subject.order_id, expires_at=expires_at)]
            # The clock of who made them runs ahead of ours, but they are there: they are meant too.
            by_token = [claims for claims in links if claims.issued_at is not None and claims.issued_at > time]
        commands += [Command(verb, time, token_key=claims.token_key, expires_at=expires_at) for claims in by_token]
        for command in commands:
            await control.append(command)
    except ValueError as error:
        raise GatewayError(f"nothing was ordered: {error}") from None
    return time


async def _outlive(time: int) -> None:
    # Times are whole seconds: what is made or ordered after this must not fall into the same one.
    await asyncio.sleep(max(0.0, min(1.0, time + 1 - now_ms() / 1000)))


async def _tell(
    kind: str, subject: Subject, told: Sequence[Mapping[str, str | None]], events: EventLog, shards: int
) -> None:
    key = subject.order_id if subject.order_id is not None else subject.links[0].shard_key
    shard = shard_of(key, shards)
    try:
        await asyncio.gather(*(events.append(shard, new_event(kind, new_id(), now_ms(), each)) for each in told))
    except LedgerDown as error:
        raise LedgerDown(f"it is in force, but its event {kind} could not be written: {error}") from None


def _by_revoked(subject: Subject, standing: Standing) -> tuple[tuple[Claims, ...], tuple[Claims, ...]]:
    fresh = tuple(claims for claims in subject.links if not standing.is_revoked(claims))
    return fresh, tuple(claims for claims in subject.links if standing.is_revoked(claims))


def _is_revoked_order(subject: Subject, standing: Standing) -> bool:
    return subject.order_id is not None and standing.order_revoked_until(subject.order_id) is not None


def _names(claims: Claims) -> dict[str, str | None]:
    return {"token.id": claims.token_id, "order.id": claims.order_id, "customer.id": claims.customer_id}
