"""Which links a command is about, by id, by the link itself or by order; who gives it, and what does it."""

from __future__ import annotations

import getpass
import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import click

from gateway.errors import GatewayError, SettingsError
from gateway.policy.decide import plan_of
from gateway.policy.links import Link
from gateway.policy.model import Claims, Deny, Plan
from gateway.policy.ruleset import NO_RULES, RuleSet
from gateway.policy.standing import is_order_id
from gateway.policy.tokens import parse
from gateway.services.desk import LinkDesk, Record
from gateway.services.linking import Subject
from gateway.services.staff import acted, record

if TYPE_CHECKING:
    from gateway.bootstrap.redis import Tools
    from gateway.settings import Settings

Command = TypeVar("Command", bound=Callable[..., object])

_TOKEN = re.compile(r"(?:.*/[ld]/)?(ey[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+)(?:[/?#].*)?")


def which(command: Command) -> Command:
    """The argument ID_OR_LINK and the option --order of a command, which then calls `one_of`, and `named`."""
    command = click.option("--order", help="All links of this order.")(command)
    return click.argument("id_or_link", required=False)(command)


def one_of(id_or_link: str | None, order: str | None) -> None:
    """Raises UsageError unless exactly one of the two is given."""
    if (id_or_link is None) == (order is None):
        raise click.UsageError("name either one link (its id, or the link itself) or --order")


async def named(settings: Settings, tools: Tools, id_or_link: str | None, order: str | None) -> list[Link]:
    """The links; of an order those that were made here. Raises GatewayError where there is none of that name."""
    if order is not None:
        return await tools.links.of_order(order) if is_order_id(order) else []
    token = _TOKEN.fullmatch(id_or_link or "")
    if token is None:
        registered = await tools.links.get(id_or_link) if id_or_link and id_or_link.isascii() else None
        if registered is None:
            raise GatewayError("no link with this id was made here; give the link itself, or its order with --order")
        return [registered]
    claims = parse(token[1], tools.keys, settings.issuer)
    if isinstance(claims, Deny):
        raise GatewayError(f"this link is not good: {claims.reason.text}, {claims.message}")
    return [await tools.links.get(claims.token_id) or Link(claims, None)]


def _rules_or_none(settings: Settings) -> RuleSet:
    """The settings' rules; with a warning none where they are wrong, since the gateway may well run with older ones."""
    from gateway.bootstrap.files import read_rules  # noqa: PLC0415  `gateway --help` does without

    try:
        return read_rules(settings)
    except SettingsError as error:
        click.echo(f"Warning: plans and rules are left out, for their file is wrong: {error}", err=True)
        return NO_RULES


def plans(settings: Settings) -> Callable[[Claims], Plan]:
    """Tells a link's plan; one that the rules file has no more limits nothing, and denies."""
    rules = _rules_or_none(settings)

    def plan(claims: Claims) -> Plan:
        found = plan_of(claims, rules)
        return Plan("") if isinstance(found, Deny) else found

    return plan


def lacking_in(settings: Settings) -> frozenset[str]:
    """What plans for guests rest on and these settings have not (see policy.guests)."""
    there = {"orders": settings.has_orders, "mail": settings.mail is not None}
    return frozenset(name for name, is_there in there.items() if not is_there)


def links_of(settings: Settings, tools: Tools) -> LinkDesk:
    """What shows and changes links; where the rules file is wrong, without plans, and with a warning."""
    from gateway.bootstrap.links import open_links  # noqa: PLC0415  `gateway --help` does without

    rules = _rules_or_none(settings)
    return open_links(settings, tools, lambda: rules)


def links_strictly(settings: Settings, tools: Tools) -> LinkDesk:
    """What makes links: it raises SettingsError where the rules file is wrong."""
    from gateway.bootstrap.files import read_rules  # noqa: PLC0415  likewise
    from gateway.bootstrap.links import open_links  # noqa: PLC0415  `gateway --help` does without

    return open_links(settings, tools, lambda: read_rules(settings))


def recorded(settings: Settings, tools: Tools, action: str, subject: Claims | Subject) -> Record:
    """Puts on record who of the machine's users does this."""
    order_id, token_id = subject.order_id, None
    if isinstance(subject, Claims):
        token_id = subject.token_id
    elif order_id is None:
        order_id, token_id = subject.links[0].order_id, subject.links[0].token_id
    event = acted(staff_name(), action, order_id=order_id, token_id=token_id)
    return lambda: record(event, tools.events, settings.shards)


def staff_name() -> str:
    """Whose command this is, as the operating system says; in a container there may be a number only."""
    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):
        return f"cli:{os.getuid()}"
