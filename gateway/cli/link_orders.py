"""`gateway link revoke` and `gateway link extend`: what the ops order of links that are out already."""

from __future__ import annotations

import re
from datetime import UTC, datetime, time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.cli.named import links_of, named, one_of, recorded, which
from gateway.cli.options import config_option, duration, json_option
from gateway.cli.output import print_json, print_line, utc, with_tools
from gateway.policy.model import Claims
from gateway.services import linking
from gateway.services.identifiers import now_ms

if TYPE_CHECKING:
    from gateway.bootstrap.redis import Tools
    from gateway.settings import Settings

_UNTIL = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})(?:[Tt ]([0-9:.]+)([Zz]|[+-][0-9]{2}:[0-9]{2}))?")


def until_option(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """Callback of an option: Unix seconds of an RFC 3339 time, or of a date's last second in UTC."""
    if value is None:
        return None
    right = "write a date like 2027-01-31, whose end in UTC is meant, or a time like 2027-01-31T18:00:00+01:00"
    written = _UNTIL.fullmatch(value)
    if written is None:
        raise click.BadParameter(right)
    try:
        moment = datetime.fromisoformat(value.upper())
    except ValueError:
        raise click.BadParameter(right) from None
    if written[2] is None:
        moment = datetime.combine(moment, time(23, 59, 59), UTC)
    return int(moment.timestamp())


@click.command(epilog="Example: gateway link revoke --order 10001")
@which
@config_option
@json_option
def revoke(id_or_link: str | None, order: str | None, config: Path | None, as_json: bool) -> None:
    """End a link, or all links of an order, for good: also those made elsewhere, but none made from now on."""

    async def work(settings: Settings, tools: Tools) -> linking.Done:
        subject = await _subject(settings, tools, id_or_link, order)
        record = recorded(settings, tools, "link.revoke", subject)
        return await links_of(settings, tools).revoke(subject, record)

    one_of(id_or_link, order)
    done = with_tools(config, work)
    if as_json:
        print_json({"order": order, "revoked": _ids(done.changed), "already_revoked": _ids(done.revoked)})
    elif order is not None:
        print_line(_order_revoked(order, done))
    elif done.changed:
        print_line(f"revoked the link {done.changed[0].token_id}; downloads that run with it are cut within 5 s")
    else:
        print_line(f"the link {done.revoked[0].token_id} is revoked already; nothing was changed")


@click.command(epilog="Example: gateway link extend --order 10001 --until 2027-01-31")
@which
@click.option("--expires", callback=duration, help="How long it is to be valid from now, like 30d.")
@click.option("--until", callback=until_option, help="Until when: a date (its end, in UTC), or a time with its offset.")
@config_option
@json_option
def extend(  # noqa: PLR0917  # one parameter per option
    id_or_link: str | None,
    order: str | None,
    expires: int | None,
    until: int | None,
    config: Path | None,
    as_json: bool,
) -> None:
    """Move the expiry of a link, or of all links of an order; the links stay the same, expired ones work again."""
    expires_at = expiry(expires, until)

    async def work(settings: Settings, tools: Tools) -> linking.Done:
        subject = await _subject(settings, tools, id_or_link, order)
        record = recorded(settings, tools, "link.extend", subject)
        return await links_of(settings, tools).extend(subject, expires_at, record)

    one_of(id_or_link, order)
    done = with_tools(config, work)
    if as_json:
        document = {"order": order, "expires": utc(expires_at), "extended": _ids(done.changed)}
        print_json({**document, "already_revoked": _ids(done.revoked)})
        return
    which_links = f"the link {done.changed[0].token_id} is" if order is None else f"the order {order} is"
    print_line(f"{which_links} valid until {utc(expires_at)}{_kept(done) if order is not None else ''}")


def expiry(expires: int | None, until: int | None) -> int:
    """Unix seconds of whichever of --expires (seconds from now) and --until was given. Raises UsageError."""
    if until is not None and expires is None:
        return until
    if expires is not None and until is None:
        return now_ms() // 1000 + expires
    raise click.UsageError("give either --expires or --until")


def _order_revoked(order: str, done: linking.Done) -> str:
    if done.changed or not done.revoked:
        already = f" ({len(done.revoked)} had been before)" if done.revoked else ""
        said = f"revoked the order {order}: {_links(done.changed)} made here{already} and"
    else:
        said = f"the order {order} is revoked already, with {_links(done.revoked)} made here, and now"
    return f"{said} whatever was made elsewhere until now; downloads that run with it are cut within 5 s"


def _kept(done: linking.Done) -> str:
    already = f"; {len(done.revoked)} revoked before and not extended" if done.revoked else ""
    return f": {_links(done.changed)} made here and whatever was made elsewhere until now{already}"


async def _subject(settings: Settings, tools: Tools, id_or_link: str | None, order: str | None) -> linking.Subject:
    links = await named(settings, tools, id_or_link, order)
    return linking.Subject(tuple(link.claims for link in links), order)


def _ids(links: tuple[Claims, ...]) -> list[str]:
    return [claims.token_id for claims in links]


def _links(links: tuple[Claims, ...]) -> str:
    return f"{len(links) or 'no'} link{'' if len(links) == 1 else 's'}"
