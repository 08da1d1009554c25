"""`gateway rules replay`: whom a candidate file would have refused, or let in, of those who really came."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.backends.rules_file import read_rules
from gateway.cli.options import config_option, duration, json_option
from gateway.cli.output import print_json, print_line, utc
from gateway.cli.recorded_events import Fields, Source
from gateway.policy.flips import Flips, Group
from gateway.policy.replay import Counts

if TYPE_CHECKING:
    from gateway.policy.ruleset import RuleSet

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

    source = Source(exports, config)
    candidate = read_rules(against, source.databases)
    begin = time.time() - since
    flips = Flips()
    with source.prepared() as replay_of:
        replayed = replay_of(candidate, begin)
        take = replayed.take

        def told(fields: Fields) -> None:
            if changes := take(fields):
                flips.add(changes)

        source.read(told, "replaying")
        flips.add(replayed.finish())
    if as_json:
        print_json(_document(candidate, begin, replayed.counts, flips))
        return
    for line in _lines(against, candidate, begin, replayed.counts, flips, SHOWN if not everything else None):
        print_line(line)


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
