"""`gateway rules explain`: why a request is allowed or denied, rule by rule."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from gateway.bootstrap.files import read_geo
from gateway.cli.options import config_option, json_option
from gateway.cli.output import print_json, print_line, read_settings, with_tools
from gateway.cli.rules_explained import Explained
from gateway.cli.rules_meant import rules_meant
from gateway.cli.rules_subject import Subject, of_event, of_link
from gateway.policy.given import KEYS, NOWHERE, Given, networks, nothing_known, taken, with_networks
from gateway.policy.standing import Standing
from gateway.policy.trace import rules_alone, trace

if TYPE_CHECKING:
    from gateway.bootstrap.redis import Tools
    from gateway.settings import Settings

Command = TypeVar("Command", bound=Callable[..., object])

_HELP = {
    "ip": "The client's address. Its place is looked up where the settings have geo databases.",
    "file": "The file's key or address; with --link its number, key or name.",
    "country": "Its country, such as PL, or unknown.",
    "continent": "Its continent, such as EU.",
    "region": "Its region, such as PL-14.",
    "asn": "Its AS number, such as 64496.",
    "network": "Its type of network, may be repeated; none: known, and of no type.",
    "tier": "The link's tier.",
    "plan": "The link's plan.",
    "order": "The link's order.",
    "customer": "The link's customer.",
    "user_agent": "The User-Agent; a browser's where not given.",
    "method": "GET or HEAD.",
    "time": "When, such as 2026-12-24T00:00:00+01:00; now where not given.",
    "account": "The link asks for an account.",
    "view": "To be shown in the browser (?view=1).",
    "front": "The door it comes by: http, mitm, nginx or auth; http where not given.",
}


def _given_options(command: Command) -> Command:
    for key in reversed(KEYS):
        command = click.option(
            f"--{key.replace('_', '-')}",
            key,
            help=_HELP.get(key, f"As in the condition {key}."),
            is_flag=key in ("account", "view"),
            multiple=key == "network",
        )(command)
    return command


@click.command(epilog="Example: gateway rules explain --country IR --file masters/a.wav")
@click.option("--link", help="This link's request: its address, token or id.")
@click.option("--event", help="A recorded request: an event's id, or a request's (the buyer's page shows it).")
@click.option(
    "--rules", "file_of_rules", type=click.Path(path_type=Path, dir_okay=False), help="These rules, not the settings'."
)
@_given_options
@config_option
@json_option
def explain(
    link: str | None,
    event: str | None,
    file_of_rules: Path | None,
    config: Path | None,
    *,
    as_json: bool,
    **options: str | bool | tuple[str, ...] | None,
) -> None:
    """Why a request is allowed or denied: by which rule, which conditions failed, and whose limits hold.

    It is put together from the options. With --link or --event it is that one, changed by the options.
    """
    if link is not None and event is not None:
        raise click.UsageError("name either --link or --event")
    path, rules = rules_meant(file_of_rules, config)
    asked = {key: value for key, value in options.items() if value not in (None, False, ())}
    now = time.time()
    if link is None and event is None:
        settings = _settings_or_none(file_of_rules, config)
        subject = Subject(_changed(nothing_known(now), asked, settings), Standing())
        policy = rules_alone(rules, subject.given.facts.file)
        if settings is not None:
            policy = replace(policy, waived=settings.doors.waived)
    else:

        async def work(settings: Settings, tools: Tools) -> tuple[Subject, Settings]:
            if event is not None:
                return await of_event(event, rules=rules, settings=settings, tools=tools), settings
            file = asked.pop("file", None)
            named = None if file is None else str(file)
            found = await of_link(str(link), named, rules=rules, settings=settings, tools=tools, now=now)
            return found, settings

        subject, settings = with_tools(config, work)
        subject = replace(subject, given=_changed(subject.given, asked, settings))
        policy = subject.policy(rules, settings)
    explained = Explained(path, rules, subject, trace(subject.given, policy))
    if as_json:
        print_json(explained.document())
        return
    for line in explained.lines():
        print_line(line)


def _settings_or_none(file_of_rules: Path | None, config: Path | None) -> Settings | None:
    """Only the geo databases are needed of them: of a file of rules that is named alone, there need not be any."""
    return None if file_of_rules is not None and config is None else read_settings(config)


def _changed(
    given: Given, asked: Mapping[str, str | bool | tuple[str, ...] | None], settings: Settings | None
) -> Given:
    """What is known, with the options in place of it. A new address is looked up first."""
    before = given.facts.address
    for key in sorted(asked, key=KEYS.index):
        given = _with_option(given, key, asked[key])
        if key == "ip" and given.facts.address not in (before, NOWHERE) and settings is not None:
            given = _looked_up(given, settings)
    return given


def _with_option(given: Given, key: str, value: str | bool | tuple[str, ...] | None) -> Given:
    try:
        if isinstance(value, tuple):
            return with_networks(given, networks(value))
        return taken(given, key, "true" if value is True else str(value))
    except ValueError as error:
        shown = " ".join(value) if isinstance(value, tuple) else value
        raise click.BadParameter(f"{shown} {error}", param_hint=f"--{key.replace('_', '-')}") from None


def _looked_up(given: Given, settings: Settings) -> Given:
    databases = read_geo(settings)
    try:
        place = databases.look_up(given.facts.address)
    finally:
        databases.close()
    return replace(given, facts=replace(given.facts, place=place))
