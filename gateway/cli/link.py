"""`gateway link …`: create links, and look them up by id, link or order."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.cli.link_orders import extend, revoke
from gateway.cli.named import named, one_of, plans, which
from gateway.cli.options import WithNames, config_option, duration, json_option, limit_options, networks
from gateway.cli.output import print_json, print_line, utc, with_tools
from gateway.errors import GatewayError
from gateway.policy.claims import write_claims
from gateway.policy.decide import expiry_of, limits_of
from gateway.policy.limits import BY_NAME
from gateway.policy.links import Link, state
from gateway.policy.model import Claims, FileEntry, Limits, Network, Plan
from gateway.policy.shards import shard_of
from gateway.policy.units import format_duration
from gateway.services.identifiers import now_ms
from gateway.services.linking import issue

if TYPE_CHECKING:
    from gateway.backends.redis_ledger import TokenUsage
    from gateway.bootstrap import Tools
    from gateway.settings import Settings

TOKEN_ID_BYTES = 12
DEFAULT_EXPIRES = 30 * 86_400


@click.group(epilog="Example: gateway link create --order 10001 --file ebooks/sea.pdf")
def link() -> None:
    """Create, look up, revoke and extend links."""


link.add_command(revoke)
link.add_command(extend)


@link.command(
    cls=WithNames,
    epilog='Example: gateway link create --order 10001 --customer C7 --file a/b.pdf --name "Sea.pdf" --downloads 5',
)
@click.option("--order", help="The order's id.")
@click.option("--customer", help="The customer's id; no e-mail address, for everybody can read a token.")
@click.option("--file", "files", multiple=True, required=True, help="A storage key or https address; may be repeated.")
@click.option("--name", "names", multiple=True, help="The name under which the --file before it is saved.")
@click.option("--plan", help="A plan of the rules file; the options below can only tighten it.")
@click.option("--tier", help="The buyer's tier, for rules that ask for it.")
@click.option("--expires", callback=duration, help="How long the link is valid.  [default: as the plan says, else 30d]")
@click.option("--ip", "allowed", callback=networks, multiple=True, help="Only from this network; may be repeated.")
@click.option("--account", is_flag=True, help="Only for the customer, logged in.")
@limit_options
@config_option
@json_option
def create(  # noqa: PLR0913, PLR0917  # one parameter per option
    order: str | None,
    customer: str | None,
    files: tuple[str, ...],
    names: tuple[str, ...],
    plan: str | None,
    tier: str | None,
    expires: int | None,
    allowed: tuple[Network, ...],
    account: bool,
    config: Path | None,
    as_json: bool,
    **limits: int | None,
) -> None:
    """Print a new link."""
    granted = Limits(**limits)
    if account:
        click.echo("Note: nobody can sign in at this release yet, so the link will answer 401.", err=True)
    for option, given in (("--order", order), ("--customer", customer)):
        if given is not None and "@" in given:
            click.echo(f"Note: {option} looks like an e-mail address, and everybody can read a token.", err=True)
    entries = _named(files, names)
    for entry in entries:
        if entry.url is not None:
            click.echo("Note: an https address is only served where its host stands in external_hosts.", err=True)

    async def work(settings: Settings, tools: Tools) -> tuple[str, Claims]:
        now = now_ms()
        chosen = _plan(settings, plan)
        _refuse_loosening(chosen, granted, expires)
        claims = Claims(
            issuer=settings.issuer,
            token_id=secrets.token_hex(TOKEN_ID_BYTES),
            expires_at=now // 1000 + (expires or chosen.valid_for or DEFAULT_EXPIRES),
            files=entries,
            issued_at=now // 1000,
            customer_id=customer,
            order_id=order,
            plan=plan,
            tier=tier,
            account=account,
            ip=allowed,
            limits=granted,
        )
        token = await issue(
            claims, now, keys=tools.keys, links=tools.links, events=tools.events, shards=settings.shards
        )
        return f"{settings.base_url}/l/{token}", claims

    address, claims = with_tools(config, work)
    if as_json:
        print_json({"link": address, "token_id": claims.token_id, "claims": write_claims(claims)})
    else:
        print(address, flush=True)


@link.command(epilog="Example: gateway link show --order 10001")
@which
@config_option
@json_option
def show(id_or_link: str | None, order: str | None, config: Path | None, as_json: bool) -> None:
    """What a link grants, whether it is valid and how much of it has been used."""
    one_of(id_or_link, order)

    async def work(settings: Settings, tools: Tools) -> list[Shown]:
        found = await named(settings, tools, id_or_link, order)
        return [await _shown(settings, tools, each) for each in await _now(settings, tools, found)]

    links = with_tools(config, work)
    if not links:
        raise click.ClickException(f"order {order} has no links here; check its id with `gateway link list`")
    if as_json:
        documents = [each.document() for each in links]
        print_json(documents if order is not None else documents[0])
        return
    for each in links:
        for line in each.lines():
            print_line(line)


@link.command("list", epilog="Example: gateway link list --order 10001 --json")
@click.option("--order", help="Only the links of this order.")
@config_option
@json_option
def list_links(order: str | None, config: Path | None, as_json: bool) -> None:
    """The created links, oldest first, one a line: id, created, expires (or revoked), order, files."""

    async def work(settings: Settings, tools: Tools) -> list[Now]:
        if order is not None:
            links = await named(settings, tools, None, order)
        else:
            links = sorted([each async for each in tools.links.all()], key=lambda each: each.created_ms or 0)
        return await _now(settings, tools, links)

    links = with_tools(config, work)
    if as_json:
        print_json([each.document() for each in links])
        return
    for each in links:
        claims = each.link.claims
        end = "revoked" if each.revoked else utc(each.expires_at)
        names = ", ".join(file.identity for file in claims.files)
        print_line(f"{claims.token_id}  {_created_at(each.link)}  {end:<20}  {claims.order_id or '-'}  {names}")


@dataclass(frozen=True, slots=True)
class Now:
    """A link as it stands. `expires_at` (Unix s): as extended, or by its token and its plan; `limits` of both."""

    link: Link
    plan: Plan
    limits: Limits
    expires_at: int
    extended: bool
    revoked: bool

    def document(self) -> dict[str, object]:
        return {
            "token_id": self.link.claims.token_id,
            "created": _created_at(self.link),
            "expires": utc(self.expires_at),
            "extended": self.extended,
            "revoked": self.revoked,
            "claims": write_claims(self.link.claims),
        }


@dataclass(frozen=True, slots=True)
class Shown:
    """A link as it stands, and its use. `used`: downloads charged, by file identity; `taken` over all its files."""

    now: Now
    used: dict[str, int]
    taken: TokenUsage

    @property
    def state(self) -> str:
        claims, now = self.now.link.claims, self.now
        ends = min(now.expires_at, self.ends_after_first or now.expires_at)
        return state(claims, now.limits, self.used, int(time.time()), expires_at=ends, revoked=now.revoked)

    @property
    def ends_after_first(self) -> int | None:
        """When `valid_after_first` ends it, in Unix seconds."""
        seconds = self.now.limits.get("valid_after_first")
        if seconds is None or self.taken.first_ms is None:
            return None
        return self.taken.first_ms // 1000 + seconds

    def document(self) -> dict[str, object]:
        claims = self.now.link.claims
        files = [
            {"key": file.identity, "downloads": self.used[file.identity], "limit": self.now.limits.get("downloads")}
            for file in claims.files
        ]
        first = None if self.taken.first_ms is None else utc(self.taken.first_ms / 1000)
        return {
            **self.now.document(),
            "state": self.state,
            "limits": dict(self.now.limits.values),
            "used": {
                "networks": self.taken.networks,
                "devices": self.taken.devices,
                "concurrent": self.taken.live,
                "first_download": first,
            },
            "files": files,
        }

    def lines(self) -> Iterator[str]:
        claims = self.now.link.claims
        yield f"{claims.token_id}  {self.state}"
        yield f"  created   {_created_at(self.now.link) or 'not here'}"
        yield f"  expires   {utc(self.now.expires_at)}{', extended' if self.now.extended else ''}"
        facts = {"order": claims.order_id, "customer": claims.customer_id, "plan": self.now.plan.name or claims.plan}
        for label, value in facts.items():
            if value is not None:
                yield f"  {label:<9} {value}"
        if claims.account:
            yield "  account   required"
        if claims.ip:
            yield f"  ip        {', '.join(map(str, claims.ip))}"
        if limits := self.now.limits.values:
            yield f"  limits    {', '.join(self._limit(name, value) for name, value in limits)}"
        most = self.now.limits.get("downloads")
        for number, file in enumerate(claims.files, 1):
            limit = "" if most is None else f" of {most}"
            name = f" as {file.name}" if file.name else ""
            yield f"  file {number}    {file.identity}{name}: {self.used[file.identity]}{limit} downloads used"

    def _limit(self, name: str, value: int) -> str:
        used = {"networks": self.taken.networks, "devices": self.taken.devices, "concurrent": self.taken.live}
        text = f"{name.replace('_', ' ')} {BY_NAME[name].write(value)}"
        if name in used:
            text += f" ({used[name]} {'now' if name == 'concurrent' else 'used'})"
        if name == "valid_after_first" and self.ends_after_first is not None:
            text += f" (until {utc(self.ends_after_first)})"
        return text


def _created_at(link: Link) -> str | None:
    return None if link.created_ms is None else utc(link.created_ms / 1000)


def _named(keys: tuple[str, ...], names: tuple[str, ...]) -> tuple[FileEntry, ...]:
    by_number: dict[int, str] = {}
    for numbered in names:
        number, _, name = numbered.partition(":")
        if int(number) in by_number:
            raise click.UsageError(f"the file {keys[int(number) - 1]} has two names; give it one --name")
        by_number[int(number)] = name
    return tuple(_entry(given, by_number.get(number)) for number, given in enumerate(keys, 1))


def _entry(given: str, name: str | None) -> FileEntry:
    if given.startswith("http://"):
        raise click.UsageError(f"an address is only served by https; write https{given.removeprefix('http')}")
    external = given.startswith("https://")
    return FileEntry(None if external else given, given if external else None, name)


def _plan(settings: Settings, name: str | None) -> Plan:
    """The plan of this name, else the default one, else one that limits nothing. Raises GatewayError, SettingsError."""
    from gateway.bootstrap import read_rules  # noqa: PLC0415  most commands do without rules

    rules = read_rules(settings)
    chosen = name if name is not None else rules.default_plan
    if chosen is None:
        return Plan("")
    if chosen not in rules.plans:
        known = f"write one of {', '.join(rules.plans)}" if rules.plans else "the rules file has no plans"
        raise GatewayError(f"--plan: there is no plan {chosen}; {known}")
    return rules.plans[chosen]


def _refuse_loosening(plan: Plan, granted: Limits, expires: int | None) -> None:
    for name, value in granted.values:
        most = plan.limits.get(name)
        if most is not None and value > most:
            option, write = name.replace("_", "-"), BY_NAME[name].write
            raise GatewayError(f"--{option} can only tighten the plan {plan.name}; write {write(most)} or less")
    if expires is not None and plan.valid_for is not None and expires > plan.valid_for:
        most_text = format_duration(plan.valid_for)
        raise GatewayError(f"--expires can only tighten the plan {plan.name}; write {most_text} or less")


async def _now(settings: Settings, tools: Tools, links: Sequence[Link]) -> list[Now]:
    plan_of, standing = plans(settings), await tools.control.read_all()

    def now(link: Link) -> Now:
        plan = plan_of(link.claims)
        return Now(
            link,
            plan,
            limits_of(link.claims, plan, standing),
            expiry_of(link.claims, plan, standing),
            extended=standing.extended_to(link.claims) is not None,
            revoked=standing.is_revoked(link.claims),
        )

    return [now(link) for link in links]


async def _shown(settings: Settings, tools: Tools, now: Now) -> Shown:
    claims = now.link.claims
    shard = shard_of(claims.shard_key, settings.shards)
    identities = [file.identity for file in claims.files]
    used = await tools.ledger.usage(shard, claims.token_key, identities)
    return Shown(now, used, await tools.ledger.token_usage(shard, claims.token_key))
