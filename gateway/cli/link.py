"""`gateway link …`: create links, and look them up by id, link or order."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.cli.options import WithNames, config_option, duration, json_option, networks, rate
from gateway.cli.output import print_json, print_line, utc, with_tools
from gateway.errors import GatewayError
from gateway.policy.claims import write_claims
from gateway.policy.limits import ENFORCED_LIMITS, unenforced
from gateway.policy.links import Link, state
from gateway.policy.model import Claims, Deny, FileEntry, Limits, Network
from gateway.policy.shards import shard_of
from gateway.policy.tokens import parse
from gateway.policy.units import format_duration, format_rate
from gateway.services.identifiers import now_ms
from gateway.services.linking import issue

if TYPE_CHECKING:
    from gateway.bootstrap import Tools
    from gateway.settings import Settings

TOKEN_ID_BYTES = 12

_TOKEN = re.compile(r"(?:.*/[ld]/)?(ey[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+)(?:[/?#].*)?")


@click.group(epilog="Example: gateway link create --order 10001 --file ebooks/sea.pdf")
def link() -> None:
    """Create and look up links."""


@link.command(
    cls=WithNames,
    epilog='Example: gateway link create --order 10001 --customer C7 --file a/b.pdf --name "Sea.pdf" --downloads 5',
)
@click.option("--order", help="The order's id.")
@click.option("--customer", help="The customer's id; no e-mail address, for everybody can read a token.")
@click.option("--file", "files", multiple=True, required=True, help="A file's storage key; may be repeated.")
@click.option("--name", "names", multiple=True, help="The name under which the --file before it is saved.")
@click.option("--plan", help="A plan of the rules file.")
@click.option("--expires", callback=duration, default="30d", show_default=True, help="How long the link is valid.")
@click.option("--ip", "allowed", callback=networks, multiple=True, help="Only from this network; may be repeated.")
@click.option("--account", is_flag=True, help="Only for the customer, logged in.")
@click.option("--downloads", type=click.IntRange(1), help="Downloads of each file.")
@click.option("--networks", type=click.IntRange(1), help="Different networks that may download.")
@click.option("--devices", type=click.IntRange(1), help="Different devices that may download.")
@click.option("--concurrent", type=click.IntRange(1), help="Downloads at the same time.")
@click.option("--rate", callback=rate, help="Speed, like 2MB/s.")
@click.option("--valid-after-first", callback=duration, help="How long the link is valid after its first download.")
@config_option
@json_option
def create(  # noqa: PLR0913, PLR0917  # one parameter per option
    order: str | None,
    customer: str | None,
    files: tuple[str, ...],
    names: tuple[str, ...],
    plan: str | None,
    expires: int,
    allowed: tuple[Network, ...],
    account: bool,
    config: Path | None,
    as_json: bool,
    **limits: int | None,
) -> None:
    """Print a new link."""
    if plan is not None:
        raise click.ClickException(
            "--plan needs a rules file, which this release has not; leave it out, and use --downloads"
        )
    granted = Limits(**limits)
    if refused := unenforced(granted):
        option, kept = refused[0].replace("_", "-"), ", ".join(f"--{name}" for name in sorted(ENFORCED_LIMITS))
        raise click.ClickException(f"--{option} is not enforced by this release; leave it out, and use {kept}")
    if account:
        click.echo("Note: nobody can sign in at this release yet, so the link will answer 401.", err=True)
    entries = _named(files, names)

    async def work(settings: Settings, tools: Tools) -> tuple[str, Claims]:
        now = now_ms()
        claims = Claims(
            issuer=settings.issuer,
            token_id=secrets.token_hex(TOKEN_ID_BYTES),
            expires_at=now // 1000 + expires,
            files=entries,
            issued_at=now // 1000,
            customer_id=customer,
            order_id=order,
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
@click.argument("id_or_link", required=False)
@click.option("--order", help="All links of this order.")
@config_option
@json_option
def show(id_or_link: str | None, order: str | None, config: Path | None, as_json: bool) -> None:
    """What a link grants, whether it is valid and how much of it has been used."""
    if (id_or_link is None) == (order is None):
        raise click.UsageError("name either one link (its id, or the link itself) or --order")

    async def work(settings: Settings, tools: Tools) -> list[Shown]:
        if order is not None:
            found = await tools.links.of_order(order)
        else:
            found = [await _found(settings, tools, id_or_link or "")]
        return [await _shown(settings, tools, each) for each in found]

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
    """The created links, oldest first, one a line: id, created, expires, order, files."""

    async def work(settings: Settings, tools: Tools) -> list[Link]:
        if order is not None:
            return await tools.links.of_order(order)
        return sorted([each async for each in tools.links.all()], key=lambda each: each.created_ms or 0)

    links = with_tools(config, work)
    if as_json:
        print_json([_summary(each) for each in links])
        return
    for each in links:
        claims = each.claims
        times = f"{_created_at(each)}  {utc(claims.expires_at)}"
        names = ", ".join(file.identity for file in claims.files)
        print_line(f"{claims.token_id}  {times}  {claims.order_id or '-'}  {names}")


@dataclass(frozen=True, slots=True)
class Shown:
    """A link and its use. `used`: downloads charged, by file identity."""

    link: Link
    used: dict[str, int]

    @property
    def state(self) -> str:
        return state(self.link.claims, self.used, int(time.time()))

    def document(self) -> dict[str, object]:
        claims = self.link.claims
        files = [
            {"key": file.identity, "downloads": self.used[file.identity], "limit": claims.limits.downloads}
            for file in claims.files
        ]
        return {**_summary(self.link), "state": self.state, "files": files}

    def lines(self) -> Iterator[str]:
        claims = self.link.claims
        yield f"{claims.token_id}  {self.state}"
        yield f"  created   {_created_at(self.link) or 'not here'}"
        yield f"  expires   {utc(claims.expires_at)}"
        for label, value in (("order", claims.order_id), ("customer", claims.customer_id), ("plan", claims.plan)):
            if value is not None:
                yield f"  {label:<9} {value}"
        if claims.account:
            yield "  account   required"
        if claims.ip:
            yield f"  ip        {', '.join(map(str, claims.ip))}"
        if limits := _limit_texts(claims.limits):
            yield f"  limits    {', '.join(limits)}"
        for number, file in enumerate(claims.files, 1):
            limit = "" if claims.limits.downloads is None else f" of {claims.limits.downloads}"
            name = f" as {file.name}" if file.name else ""
            yield f"  file {number}    {file.identity}{name}: {self.used[file.identity]}{limit} downloads used"


def _summary(link: Link) -> dict[str, object]:
    claims = link.claims
    return {
        "token_id": claims.token_id,
        "created": _created_at(link),
        "expires": utc(claims.expires_at),
        "claims": write_claims(claims),
    }


def _created_at(link: Link) -> str | None:
    return None if link.created_ms is None else utc(link.created_ms / 1000)


def _limit_texts(limits: Limits) -> list[str]:
    plain = {"downloads": limits.downloads, "networks": limits.networks, "devices": limits.devices}
    plain["concurrent"] = limits.concurrent
    texts = [f"{name} {value}" for name, value in plain.items() if value is not None]
    if limits.rate is not None:
        texts.append(f"rate {format_rate(limits.rate)}")
    if limits.valid_after_first is not None:
        texts.append(f"valid after first {format_duration(limits.valid_after_first)}")
    return texts


def _named(keys: tuple[str, ...], names: tuple[str, ...]) -> tuple[FileEntry, ...]:
    by_number: dict[int, str] = {}
    for numbered in names:
        number, _, name = numbered.partition(":")
        if int(number) in by_number:
            raise click.UsageError(f"the file {keys[int(number) - 1]} has two names; give it one --name")
        by_number[int(number)] = name
    return tuple(FileEntry(key, name=by_number.get(number)) for number, key in enumerate(keys, 1))


async def _found(settings: Settings, tools: Tools, id_or_link: str) -> Link:
    token = _TOKEN.fullmatch(id_or_link)
    if token is None:
        registered = await tools.links.get(id_or_link)
        if registered is None:
            raise GatewayError("no link with this id was made here; give the link itself, or see `gateway link list`")
        return registered
    claims = parse(token[1], tools.keys, settings.issuer)
    if isinstance(claims, Deny):
        raise GatewayError(f"this link is not good: {claims.reason.text}, {claims.message}")
    return await tools.links.get(claims.token_id) or Link(claims, None)


async def _shown(settings: Settings, tools: Tools, link: Link) -> Shown:
    claims = link.claims
    shard = shard_of(claims.shard_key, settings.shards)
    identities = [file.identity for file in claims.files]
    return Shown(link, await tools.ledger.usage(shard, claims.token_key, identities))
