"""`gateway rules replay`: whom a candidate file would have refused, or let in, of those who really came."""

from __future__ import annotations

import gc
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.cli.options import DEFAULT_CONFIG, config_option, duration, json_option
from gateway.cli.output import print_json, print_line, read_settings, utc, visible, with_tools
from gateway.cli.progress import Progress
from gateway.errors import SettingsError
from gateway.policy.flips import Flips, Group
from gateway.policy.replay import Counts, Replay

if TYPE_CHECKING:
    from gateway.bootstrap.redis import Tools
    from gateway.policy.ruleset import RuleSet
    from gateway.settings import Settings

SHOWN = 20
"""Of each list, without --all."""


@click.command(epilog="Example: gateway rules replay --against rules/new.yaml --since 7d")
@click.argument("exports", nargs=-1, type=click.Path(path_type=Path, dir_okay=False), metavar="[EXPORT]...")
@click.option(
    "--against", required=True, type=click.Path(path_type=Path, dir_okay=False), help="The candidate rules file."
)
@click.option("--since", callback=duration, default="7d", show_default=True, help="Requests of this time until now.")
@click.option("--all", "everything", is_flag=True, help="Print all orders and customers.")
@config_option
@json_option
def replay(  # noqa: PLR0917  # one parameter per option
    exports: tuple[Path, ...], against: Path, since: int, everything: bool, config: Path | None, as_json: bool
) -> None:
    """Decide recorded requests again, as if the candidate had been live, and show whose outcome flips.

    Reads the events in Redis, or the named files of `gateway events export` (.jsonl, .jsonl.gz). What is older than
    --since is read too: limits count it.
    """
    settings = _settings(config, needed=not exports)
    candidate = _candidate(against, settings)
    begin = time.time() - since
    flips = Flips()
    with _prepared(candidate, settings, begin) as replayed:
        if exports:
            _from_files(exports, replayed, flips)
        else:
            with_tools(config, lambda settings, tools: _from_redis(settings, tools, replayed, flips))
        flips.add(replayed.finish())
    if as_json:
        print_json(_document(candidate, begin, replayed.counts, flips))
        return
    for line in _lines(against, candidate, begin, replayed.counts, flips, SHOWN if not everything else None):
        print_line(line)


def _settings(config: Path | None, *, needed: bool) -> Settings | None:
    try:
        return read_settings(config)
    except SettingsError:
        if needed or config is not None or DEFAULT_CONFIG.exists() or "GATEWAY_CONFIG" in os.environ:
            raise
        return None


def _candidate(path: Path, settings: Settings | None) -> RuleSet:
    """Raises SettingsError, as a load of the file would."""
    from gateway.backends.rules_file import read_rules  # noqa: PLC0415  # `gateway --help` needs none of it
    from gateway.bootstrap.files import databases_of  # noqa: PLC0415

    return read_rules(path, None if settings is None else databases_of(settings))


@contextmanager
def _prepared(candidate: RuleSet, settings: Settings | None, since: float) -> Iterator[Replay]:
    from gateway.backends.maxmind import Databases  # noqa: PLC0415  # `gateway --help` needs none of it
    from gateway.bootstrap.files import databases_of, read_geo  # noqa: PLC0415
    from gateway.policy.counting import CountingRules  # noqa: PLC0415

    geo = Databases() if settings is None else read_geo(settings)
    # Millions of objects stay and none is in a cycle: looking for cycles among them would take a third of the time.
    gc.disable()
    try:
        yield Replay(
            candidate,
            counting=CountingRules() if settings is None else settings.counting.rules,
            since=since,
            hosts=None if settings is None else settings.external_hosts,
            look_up=geo.look_up,
            databases=() if settings is None else databases_of(settings),
        )
    finally:
        gc.enable()
        geo.close()


def _from_files(paths: Sequence[Path], replayed: Replay, flips: Flips) -> None:
    from gateway.backends.event_files import Exports  # noqa: PLC0415  # `gateway --help` needs none of it

    exports = Exports(paths)
    with Progress(exports.size, "replaying") as advance:
        for fields in exports.read(advance):
            if changes := replayed.take(fields):
                flips.add(changes)
    if exports.overlap is not None:
        told = (
            f"{exports.overlap} has other events of the same time as the files before it, which were read first:"
            " limits may come out wrong. Export them into one file."
        )
        click.echo(visible(told), err=True)


async def _from_redis(settings: Settings, tools: Tools, replayed: Replay, flips: Flips) -> None:
    shards = range(settings.shards)
    with Progress(sum([await tools.events.count(shard) for shard in shards]), "replaying") as advance:
        for shard in shards:
            async for _, fields in tools.events.scan(shard):
                if changes := replayed.take(fields):
                    flips.add(changes)
                advance(1)


def _document(candidate: RuleSet, since: float, counts: Counts, flips: Flips) -> dict[str, object]:
    return {
        "version": candidate.version,
        "since": utc(since),
        "counts": {
            "read": counts.read,
            "redecided": counts.redecided,
            "unchanged": counts.unchanged,
            "now_refused": counts.now_refused,
            "now_allowed": counts.now_allowed,
            "another_reason": counts.another_reason,
            "not_redecidable": dict(counts.not_redecidable.most_common()),
            "ends_unread": counts.ends_unread,
        },
        "flips": [group.document() for kind in ("refused", "allowed") for group in flips.now(kind)],
    }


def _lines(  # noqa: PLR0917  # what is shown
    path: Path, candidate: RuleSet, since: float, counts: Counts, flips: Flips, shown: int | None
) -> Iterator[str]:
    yield f"{path} (version {candidate.version}) on the requests since {utc(since)}"
    told = (
        ("requests read", counts.read),
        ("decided again", counts.redecided),
        ("  unchanged", counts.unchanged),
        ("  now refused", counts.now_refused),
        ("  now allowed", counts.now_allowed),
        ("  refused for another reason", counts.another_reason),
        ("cannot be decided again", counts.not_redecidable.total()),
    )
    for what, count in told:
        yield f"  {what:<30}{count:>12,}"
    for why, count in counts.not_redecidable.most_common():
        yield f"    {count:,}: {why}"
    if counts.ends_unread:
        yield f"  {'ends of downloads that cannot be read, taken to go on':<30} {counts.ends_unread:>9,}"
    for kind in ("refused", "allowed"):
        yield from _listed(kind, flips.now(kind), shown)
    if not counts.read:
        yield "There are no requests of that time; name an earlier --since, or exports."
    elif not counts.now_refused + counts.now_allowed:
        yield "Nobody's outcome flips."


def _listed(kind: str, groups: Sequence[Group], shown: int | None) -> Iterator[str]:
    if not groups:
        return
    yield ""
    yield f"Now {kind}:"
    causes: Counter[str] = Counter()
    for group in groups:
        causes[group.example.cause] += group.requests
    for cause, count in causes.most_common():
        yield f"  {count:,} in all: {cause}"
    for group in groups[:shown]:
        fields = group.example.fields
        requests = f"{group.requests:,} request{'s' if group.requests > 1 else ''}"
        country = fields.get("geo.country.iso_code", "country not recorded")
        yield f"  {group.buyer}: {requests}, {group.example.cause}"
        where = f"from {fields.get('client.address', 'nowhere')} ({country})"
        yield f"    {fields.get('time', '')} {fields.get('file.key', '')} {where}"
    if shown is not None and len(groups) > shown:
        yield f"  … and {len(groups) - shown:,} more (--all)"
