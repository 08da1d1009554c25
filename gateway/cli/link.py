"""`gateway link …`: create links, and look them up by id, link or order."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.cli.link_orders import extend, revoke
from gateway.cli.named import lacking_in, links_of, links_strictly, named, one_of, plans, recorded, which
from gateway.cli.options import WithNames, config_option, duration, json_option, limit_options, networks
from gateway.cli.output import print_json, print_line, utc, visible, with_tools
from gateway.errors import GatewayError
from gateway.policy.claims import write_claims
from gateway.policy.decide import limits_of
from gateway.policy.fronts import asks_beyond
from gateway.policy.guests import unmet, unmet_by
from gateway.policy.limits import BY_NAME
from gateway.policy.model import FileEntry, Limits, Network
from gateway.policy.standing import Standing
from gateway.services.desk import NewLink, Now, Refused, Shown

if TYPE_CHECKING:
    from gateway.bootstrap.redis import Tools
    from gateway.policy.links import Link
    from gateway.policy.model import Claims
    from gateway.settings import Settings


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

    asked = NewLink(
        files=entries,
        order=order,
        customer=customer,
        plan=plan,
        tier=tier,
        expires=expires,
        ip=allowed,
        account=account,
        limits=granted,
    )

    async def work(settings: Settings, tools: Tools) -> tuple[str, Claims]:
        desk = links_strictly(settings, tools)
        try:
            claims = desk.draft(asked)
        except Refused as refused:
            raise GatewayError(f"--{refused.member.replace('_', '-')}{refused.why}") from None
        for note in _notes(claims, settings):
            click.echo(visible(note), err=True)
        token = await desk.create(claims, recorded(settings, tools, "link.create", claims))
        return f"{settings.base_url}/l/{token}", claims

    address, claims = with_tools(config, work)
    if as_json:
        print_json({"link": address, "token_id": claims.token_id, "claims": write_claims(claims)})
    else:
        print(address, flush=True)


def _notes(claims: Claims, settings: Settings) -> Iterator[str]:
    """What it will be refused for, whatever rules add."""
    plan = plans(settings)(claims)
    for door, names in asks_beyond(limits_of(claims, plan, Standing()), settings.doors.refused):
        what = " and ".join(names)
        yield f"Note: the door {door} refuses this link, for it cannot keep {what}; see `gateway doors`."
    unmet_there = [f"plan {plan.name}: {name} {why}" for name, why in unmet(plan, lacking_in(settings))]
    for why in unmet_there or unmet_by(plan, claims.order_id):
        yield f"Note: {why}."


@link.command(epilog="Example: gateway link show --order 10001")
@which
@config_option
@json_option
def show(id_or_link: str | None, order: str | None, config: Path | None, as_json: bool) -> None:
    """What a link grants, whether it is valid and how much of it has been used."""
    one_of(id_or_link, order)

    async def work(settings: Settings, tools: Tools) -> list[Shown]:
        found = await named(settings, tools, id_or_link, order)
        return await links_of(settings, tools).show(found)

    links = with_tools(config, work)
    if not links:
        raise click.ClickException(f"order {order} has no links here; check its id with `gateway link list`")
    if as_json:
        documents = [_document(each) for each in links]
        print_json(documents if order is not None else documents[0])
        return
    for each in links:
        for line in _lines(each):
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
        return await links_of(settings, tools).now(links)

    links = with_tools(config, work)
    if as_json:
        print_json([_now_document(each) for each in links])
        return
    for each in links:
        claims = each.link.claims
        end = "revoked" if each.revoked else utc(each.expires_at)
        names = ", ".join(file.recorded for file in claims.files)
        print_line(f"{claims.token_id}  {_created_at(each.link)}  {end:<20}  {claims.order_id or '-'}  {names}")


def _now_document(now: Now) -> dict[str, object]:
    return {
        "token_id": now.link.claims.token_id,
        "created": _created_at(now.link),
        "expires": utc(now.expires_at),
        "extended": now.extended,
        "revoked": now.revoked,
        "claims": write_claims(_without_queries(now.link.claims)),
    }


def _without_queries(claims: Claims) -> Claims:
    """As they may be shown: an external address's query may be a signature (see FileEntry.recorded)."""
    files = [
        each if each.url is None else replace(each, url=each.recorded.removeprefix("url:")) for each in claims.files
    ]
    return replace(claims, files=tuple(files))


def _document(shown: Shown) -> dict[str, object]:
    now = shown.now
    files = [
        {"key": file.recorded, "downloads": shown.used[file.identity], "limit": now.limits.get("downloads")}
        for file in now.link.claims.files
    ]
    first = None if shown.taken.first_ms is None else utc(shown.taken.first_ms / 1000)
    return {
        **_now_document(now),
        "state": shown.state(int(time.time())),
        "limits": dict(now.limits.values),
        "used": {
            "networks": shown.taken.networks,
            "devices": shown.taken.devices,
            "concurrent": shown.taken.live,
            "first_download": first,
        },
        "files": files,
    }


def _lines(shown: Shown) -> Iterator[str]:
    now, claims = shown.now, shown.now.link.claims
    yield f"{claims.token_id}  {shown.state(int(time.time()))}"
    yield f"  created   {_created_at(now.link) or 'not here'}"
    yield f"  expires   {utc(now.expires_at)}{', extended' if now.extended else ''}"
    facts = {"order": claims.order_id, "customer": claims.customer_id, "plan": now.plan.name or claims.plan}
    for label, value in facts.items():
        if value is not None:
            yield f"  {label:<9} {value}"
    if claims.account:
        yield "  account   required"
    if claims.ip:
        yield f"  ip        {', '.join(map(str, claims.ip))}"
    if limits := now.limits.values:
        yield f"  limits    {', '.join(_limit(shown, name, value) for name, value in limits)}"
    most = now.limits.get("downloads")
    for number, file in enumerate(claims.files, 1):
        limit = "" if most is None else f" of {most}"
        name = f" as {file.name}" if file.name else ""
        yield f"  file {number}    {file.recorded}{name}: {shown.used[file.identity]}{limit} downloads used"


def _limit(shown: Shown, name: str, value: int) -> str:
    used = {"networks": shown.taken.networks, "devices": shown.taken.devices, "concurrent": shown.taken.live}
    text = f"{name.replace('_', ' ')} {BY_NAME[name].write(value)}"
    if name in used:
        text += f" ({used[name]} {'now' if name == 'concurrent' else 'used'})"
    if name == "valid_after_first" and shown.ends_after_first is not None:
        text += f" (until {utc(shown.ends_after_first)})"
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
