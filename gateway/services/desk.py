"""What people order of links, at the command line and over the API: made, looked up, revoked, extended.

Law: all that can be refused is refused first; then the act goes on record; then it is done.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Protocol

from gateway.errors import GatewayError, LedgerFault
from gateway.policy.decide import expiry_of, limits_of, plan_of
from gateway.policy.limits import BY_NAME
from gateway.policy.links import Link, state
from gateway.policy.model import Claims, Deny, FileEntry, Limits, Network, Plan
from gateway.policy.ruleset import RuleSet
from gateway.policy.shards import shard_of
from gateway.policy.standing import Command, Standing, is_order_id
from gateway.policy.units import format_duration
from gateway.ports import ControlLog, EventLog, LinkRegistry
from gateway.services import linking
from gateway.services.identifiers import now_ms

TOKEN_ID_BYTES = 12
DEFAULT_EXPIRES = 30 * 86_400

Record = Callable[[], Awaitable[None]]
"""Puts the act on record. Raises LedgerDown, and then nothing is done."""


class Refused(GatewayError):
    """What was asked for cannot be had. `member` names what of it (see NewLink), or is ""; `why` goes on."""

    def __init__(self, member: str, why: str) -> None:
        super().__init__(f"{member}{why}")
        self.member = member
        self.why = why


class LinkBook(LinkRegistry, Protocol):
    """The registry of links, for who looks things up in it. Raises LedgerDown."""

    async def get(self, token_id: str) -> Link | None:
        """The link with this token id."""

    async def of_order(self, order: str) -> list[Link]:
        """An order's links, oldest first."""


class Control(ControlLog, Protocol):
    """The control stream, for who reads it up to now and stops."""

    def follow(self, last: str) -> AsyncGenerator[tuple[str, list[Command] | None], None]: ...


class Orders:
    """What was ordered of links so far. Each command is read once; as in the workers, none is ever forgotten."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._standing = Standing()
        self._last = "0"
        self._reading = asyncio.Lock()

    async def until_now(self) -> Standing:
        """Every command until now. Raises GatewayError where one of them cannot be read, LedgerDown."""
        try:
            async with self._reading, aclosing(self._control.follow(self._last)) as pages:
                async for last, commands in pages:
                    for command in commands or ():
                        self._standing.apply(command)
                    self._last = last
                    if commands == []:
                        break
        except LedgerFault as error:
            raise GatewayError(str(error)) from None
        return self._standing


class Taken(Protocol):
    """What a token has taken of its limits; `first_ms`: its first charged download, Unix ms."""

    @property
    def networks(self) -> int: ...
    @property
    def devices(self) -> int: ...
    @property
    def live(self) -> int: ...
    @property
    def first_ms(self) -> int | None: ...


class Counters(Protocol):
    """The counters of a link. Raises LedgerDown."""

    async def usage(self, shard: int, token_key: str, identities: Sequence[str]) -> dict[str, int]:
        """Downloads charged so far, by file."""

    async def token_usage(self, shard: int, token_key: str) -> Taken:
        """What the token has taken over all its files."""

    async def prolong(self, shard: int, token_key: str, identities: Sequence[str], expires_at: int) -> None:
        """Keep the counters for a new expiry (Unix s)."""


class Signer(Protocol):
    """Makes a link's token."""

    def __call__(self, claims: Claims) -> str:
        """Raises GatewayError where no key signs, or the claims make no token."""


@dataclass(frozen=True, slots=True)
class NewLink:
    """A link that is asked for. `expires`: for how long, in seconds; None: as the plan says, else 30 days."""

    files: tuple[FileEntry, ...]
    order: str | None = None
    customer: str | None = None
    plan: str | None = None
    tier: str | None = None
    expires: int | None = None
    ip: tuple[Network, ...] = ()
    account: bool = False
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True)
class Now:
    """A link as it stands. `expires_at` (Unix s): as extended, or by its token and its plan; `limits` of both."""

    link: Link
    plan: Plan
    limits: Limits
    expires_at: int
    extended: bool
    revoked: bool


@dataclass(frozen=True, slots=True)
class Shown:
    """A link as it stands, and its use. `used`: downloads charged, by file identity; `taken` over all its files."""

    now: Now
    used: dict[str, int]
    taken: Taken

    def state(self, now: int) -> str:
        """See policy.links.state. `now` in Unix seconds."""
        ends = min(self.now.expires_at, self.ends_after_first or self.now.expires_at)
        claims = self.now.link.claims
        return state(claims, self.now.limits, self.used, now, expires_at=ends, revoked=self.now.revoked)

    @property
    def ends_after_first(self) -> int | None:
        """When `valid_after_first` ends it, in Unix seconds."""
        seconds = self.now.limits.get("valid_after_first")
        if seconds is None or self.taken.first_ms is None:
            return None
        return self.taken.first_ms // 1000 + seconds


class LinkDesk:
    """Links, with everything they stand on. `rules`: those in force; it may raise SettingsError."""

    def __init__(
        self,
        *,
        links: LinkBook,
        events: EventLog,
        control: Control,
        counters: Counters,
        sign: Signer,
        issuer: str,
        shards: int,
        rules: Callable[[], RuleSet],
    ) -> None:
        self._links = links
        self._events = events
        self._control = control
        self._ordered = Orders(control)
        self._counters = counters
        self.sign = sign
        self._issuer = issuer
        self._shards = shards
        self._rules = rules

    def draft(self, asked: NewLink) -> Claims:
        """The claims of a new link. Raises Refused, SettingsError."""
        plan = _plan(self._rules(), asked.plan)
        _refuse_loosening(plan, asked)
        now = now_ms() // 1000
        return Claims(
            issuer=self._issuer,
            token_id=secrets.token_hex(TOKEN_ID_BYTES),
            expires_at=now + (asked.expires or plan.valid_for or DEFAULT_EXPIRES),
            files=asked.files,
            issued_at=now,
            customer_id=asked.customer,
            order_id=asked.order,
            plan=asked.plan,
            tier=asked.tier,
            account=asked.account,
            ip=asked.ip,
            limits=asked.limits,
        )

    async def create(self, claims: Claims, record: Record) -> str:
        """The token of a link with these claims. Raises GatewayError where they make none, LedgerDown."""
        token = self.sign(claims)
        await record()
        await linking.register(claims, now_ms(), links=self._links, events=self._events, shards=self._shards)
        return token

    async def find(self, token_id: str) -> Link | None:
        """The link with this id, if it was made here. Raises LedgerDown."""
        return await self._links.get(token_id)

    async def of_order(self, order_id: str) -> list[Link]:
        """An order's links that were made here, oldest first. Raises LedgerDown."""
        return await self._links.of_order(order_id) if is_order_id(order_id) else []

    async def now(self, links: Iterable[Link]) -> list[Now]:
        """The links as they stand. Raises SettingsError, LedgerDown."""
        rules, standing = self._rules(), await self._ordered.until_now()

        def now(link: Link) -> Now:
            plan = _plan_now(link.claims, rules)
            return Now(
                link,
                plan,
                limits_of(link.claims, plan, standing),
                expiry_of(link.claims, plan, standing),
                extended=standing.extended_to(link.claims) is not None,
                revoked=standing.is_revoked(link.claims),
            )

        return [now(link) for link in links]

    async def show(self, links: Iterable[Link]) -> list[Shown]:
        """The links as they stand, with what was used of each. Raises as `now`."""
        return [await self._used(each) for each in await self.now(links)]

    async def _used(self, now: Now) -> Shown:
        claims = now.link.claims
        shard = shard_of(claims.shard_key, self._shards)
        used = await self._counters.usage(shard, claims.token_key, [file.identity for file in claims.files])
        return Shown(now, used, await self._counters.token_usage(shard, claims.token_key))

    async def revoke(self, subject: linking.Subject, record: Record) -> linking.Done:
        """See linking.revoke."""
        standing = await self._ordered.until_now()
        await record()
        return await linking.revoke(
            subject, standing=standing, control=self._control, events=self._events, shards=self._shards
        )

    async def extend(self, subject: linking.Subject, expires_at: int, record: Record) -> linking.Done:
        """See linking.extend; the counters are kept as long. Raises also SettingsError."""
        rules, standing, none = self._rules(), await self._ordered.until_now(), Standing()

        def ends_at(claims: Claims) -> int:
            return expiry_of(claims, _plan_now(claims, rules), none)

        linking.refuse_extension(subject, expires_at, ends_at=ends_at, standing=standing)
        await record()
        done = await linking.extend(
            subject,
            expires_at,
            ends_at=ends_at,
            standing=standing,
            control=self._control,
            events=self._events,
            shards=self._shards,
        )
        for claims in done.changed:
            identities = [file.identity for file in claims.files]
            shard = shard_of(claims.shard_key, self._shards)
            await self._counters.prolong(shard, claims.token_key, identities, expires_at)
        return done

    async def last(self, links: Iterable[Link], until: int) -> list[Claims]:
        """Have those of the links that end before then (Unix s), by their expiry or some time after the first download,
        last until then. Those that were; revoked ones stay so. Raises as `extend`.
        """
        by_end: dict[int, list[Claims]] = {}
        for each in await self.now(links):
            short = each.expires_at < until or each.limits.get("valid_after_first") is not None
            if short and not each.revoked:
                by_end.setdefault(max(until, each.expires_at), []).append(each.link.claims)
        for end, claims in by_end.items():
            await self.extend(linking.Subject(tuple(claims)), end, on_record)
        return [claims for group in by_end.values() for claims in group]


async def on_record() -> None:
    """The act has been put on record before."""


def _plan(rules: RuleSet, name: str | None) -> Plan:
    """The plan of this name, else the default one, else one that limits nothing."""
    chosen = name if name is not None else rules.default_plan
    if chosen is None:
        return Plan("")
    if chosen not in rules.plans:
        known = f"write one of {', '.join(rules.plans)}" if rules.plans else "the rules file has no plans"
        raise Refused("plan", f": there is no plan {chosen}; {known}")
    return rules.plans[chosen]


def _plan_now(claims: Claims, rules: RuleSet) -> Plan:
    """A link's plan; one that the rules file has no more limits nothing, and denies."""
    found = plan_of(claims, rules)
    return Plan("") if isinstance(found, Deny) else found


def _refuse_loosening(plan: Plan, asked: NewLink) -> None:
    for name, value in asked.limits.values:
        most = plan.limits.get(name)
        if most is not None and value > most:
            raise Refused(name, f" can only tighten the plan {plan.name}; write {BY_NAME[name].write(most)} or less")
    if asked.expires is not None and plan.valid_for is not None and asked.expires > plan.valid_for:
        most_text = format_duration(plan.valid_for)
        raise Refused("expires", f" can only tighten the plan {plan.name}; write {most_text} or less")
