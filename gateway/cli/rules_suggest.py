"""`gateway rules suggest`: tighter numbers and blocks that would have turned hardly any completed download away."""

from __future__ import annotations

import re
import shlex
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.backends.rules_candidate import CurrentRules, Remarks
from gateway.cli.options import config_option, duration, json_option
from gateway.cli.output import print_json, visible
from gateway.cli.recorded_events import Fields, Source
from gateway.errors import GatewayError
from gateway.policy.suggest import Number, Suggested, suggest
from gateway.policy.suggest_history import History
from gateway.policy.suggest_words import change, evidence
from gateway.policy.units import format_duration

if TYPE_CHECKING:
    from gateway.backends.rules_candidate import CurrentRules, Remarks
    from gateway.policy.replay import Replay
    from gateway.policy.replay_changes import Change

_PERCENT = re.compile(r"([0-9]{1,2}(?:\.[0-9]{1,6})?) ?%")


@dataclass(slots=True)
class _Found:
    """`candidate`: its text; `refused`: of the completed downloads, by a replay with every suggestion enforced;
    `undecided`: requests that it could not decide again; `left_out`: downloads that the rules refuse as they are.
    """

    suggested: Suggested
    remarks: Remarks
    candidate: str
    refused: int
    undecided: int
    left_out: int


def _part(_ctx: click.Context, _param: click.Parameter, value: str) -> Fraction:
    match = _PERCENT.fullmatch(value)
    if match is None:
        raise click.BadParameter("write a percentage below 100, such as 0.1%")
    return Fraction(match[1]) / 100


@click.command("suggest", epilog="Example: gateway rules suggest --since 30d -o rules/candidate.yaml")
@click.argument("exports", nargs=-1, type=click.Path(path_type=Path, dir_okay=False), metavar="[EXPORT]...")
@click.option("--since", callback=duration, default="30d", show_default=True, help="Downloads of this time until now.")
@click.option(
    "--at-most",
    callback=_part,
    default="0.1%",
    show_default=True,
    help="This part of the completed downloads may be refused.",
)
@click.option(
    "--least",
    type=click.IntRange(1),
    default=200,
    show_default=True,
    help="With fewer completed downloads of a plan nothing is suggested for it.",
)
@click.option(
    "--rules", "path", type=click.Path(path_type=Path, dir_okay=False), help="The rules file, else the settings' own."
)
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="The candidate, to this file.")
@click.option("--force", is_flag=True, help="Also where that file is there.")
@config_option
@json_option
def suggest_rules(  # noqa: PLR0913, PLR0917  # one parameter per option
    exports: tuple[Path, ...],
    since: int,
    at_most: Fraction,
    least: int,
    path: Path | None,
    output: Path | None,
    force: bool,
    config: Path | None,
    as_json: bool,
) -> int:
    """Suggest tighter plans and rules, each with its evidence, as a candidate file for `gateway rules replay`.

    Reads the events in Redis, or the named files of `gateway events export`. All suggestions together would have
    refused at most --at-most of the completed downloads, by a replay. The file in force stays as it is.
    """

    source = Source(exports, config)
    current = CurrentRules(_named(path, source), source.databases)
    _may_write(output, current, force)
    remarks = Remarks(datetime.fromtimestamp(now := time.time(), UTC).date(), since)
    found = _found(source, current, remarks, now - since, (at_most, least))
    written = bool(found.suggested.of)
    if output is not None and written:
        _write(output, found.candidate)
    if as_json:
        print_json(_document(found))
    elif output is None and written:
        click.echo(found.candidate.encode(), nl=False)
    for line in _lines(found, output, exports):
        click.echo(visible(line), err=True)
    return 0


def _named(path: Path | None, source: Source) -> Path | None:
    if path is not None:
        return path
    if source.settings is not None:
        return source.settings.rules
    raise click.UsageError("there are no settings that name the rules file; name it with --rules")


def _may_write(output: Path | None, current: CurrentRules, force: bool) -> None:
    if output is None:
        return
    if current.is_at(output):
        raise GatewayError(f"{output} is the rules file itself; name another file, and put it there after a replay")
    if output.exists() and not force:
        raise GatewayError(f"{output} is there already; name another file, or overwrite it with --force")
    if not output.parent.is_dir():
        raise GatewayError(f"there is no folder {output.parent}; make it, or name a file in another one")
    if current.folder is not None and output.parent.resolve() != current.folder.resolve():
        raise GatewayError(
            f"the rules name list files from their folder on; name a file in {current.folder}, or they are not found"
        )


def _found(
    source: Source, current: CurrentRules, remarks: Remarks, begin: float, asked: tuple[Fraction, int]
) -> _Found:
    """Raises GatewayError where there are too few downloads."""
    at_most, least = asked
    history = History(begin, current.rules)
    with source.prepared() as replay_of:
        as_it_is = replay_of(current.rules, begin)

        def learn(fields: Fields) -> None:
            history.take(fields)
            if changes := as_it_is.take(fields):
                history.leave_out(changes)

        source.read(learn, "reading")
        history.leave_out(as_it_is.finish())
        downloads = history.downloads()
        if len(downloads) < least:
            raise GatewayError(
                f"there are {len(downloads):,} completed downloads in {format_duration(remarks.since)}, too few to "
                f"suggest anything from; name an earlier --since or other exports, or take fewer than {least:,} for "
                "enough with --least"
            )
        suggested = suggest(
            downloads,
            history.tried(),
            current.rules,
            at_most=at_most,
            least=least,
            span=history.span,
            databases=source.databases,
        )
        known = {download.id for download in downloads}
        while True:
            candidate, rules = current.changed(suggested, remarks)
            if not suggested.of:
                return _Found(suggested, remarks, candidate, 0, 0, history.left_out)
            replay = replay_of(suggested.enforced(rules), begin)
            refused, causes = _refused(source, history, replay, known)
            if refused <= suggested.spare:
                return _Found(
                    suggested, remarks, candidate, refused, replay.counts.not_redecidable.total(), history.left_out
                )
            suggested.loosen(refused, causes)


def _refused(source: Source, history: History, replay: Replay, known: Collection[str]) -> tuple[int, Counter[str]]:
    """How many of the known downloads a replay refuses, and how often for which cause."""
    refused: set[str] = set()
    causes: Counter[str] = Counter()

    def count(changes: Iterable[Change]) -> None:
        for each in changes:
            hit = history.refused([each]).intersection(known)
            refused.update(hit)
            causes[each.cause] += len(hit)

    source.read(lambda fields: count(replay.take(fields)), "verifying")
    count(replay.finish())
    return len(refused), causes


def _write(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_text(text, encoding="utf-8", newline="")
        part.replace(path)
    except OSError as error:
        raise GatewayError(f"{path} cannot be written ({error.strerror}); name a file in a folder that can") from None
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def _document(found: _Found) -> dict[str, object]:
    suggested = found.suggested
    return {
        "downloads": suggested.total,
        "refused": found.refused,
        "undecided": found.undecided,
        "left_out": found.left_out,
        "suggestions": [
            {
                "plan": each.plan,
                "limit": each.limit,
                "before": each.before,
                "at_most": each.at_most,
                "refused": len(each.refused),
                "of": each.total,
                "evidence": evidence(each, found.remarks.since),
            }
            if isinstance(each, Number)
            else {
                "rule": each.name,
                "when": {each.condition: each.value},
                "requests": each.requests,
                "refused": len(each.refused),
                "of": each.total,
                "evidence": evidence(each, found.remarks.since),
            }
            for each in suggested.of
        ],
        "too_few": dict(suggested.unjudged),
        "candidate": found.candidate,
    }


def _lines(found: _Found, output: Path | None, exports: Sequence[Path]) -> Iterator[str]:
    suggested, since = found.suggested, found.remarks.since
    if found.left_out:
        yield (
            f"{found.left_out:,} completed downloads are left out: the rules as they are now would refuse them, and "
            "a replay shows them, too"
        )
    for plan, count in suggested.unjudged.items():
        of = f"plan {plan}" if plan else "links without a plan"
        yield f"{of}: nothing suggested; only {count:,} completed downloads in {format_duration(since)}"
    for each in suggested.of:
        what = f"plan {each.plan}: {change(each)}" if isinstance(each, Number) else f"{each.cause}, observing"
        yield what
        yield f"  {evidence(each, since)}"
    if not suggested.of:
        yield f"Nothing tighter to suggest: {suggested.total:,} completed downloads need what the rules allow."
        return
    share = f"{found.refused / suggested.total:.3%}"
    yield (
        f"All together, with the rules enforced, they would have refused {found.refused:,} of {suggested.total:,} "
        f"completed downloads ({share}), by a replay; {suggested.spare:,} may be."
    )
    if found.undecided:
        yield f"Of that replay {found.undecided:,} requests could not be decided again, and count as let in."
    asked = ["--against", output or "candidate.yaml", "--since", format_duration(since), *exports]
    first = "See whom" if output is not None else "Save it as candidate.yaml, then see whom"
    yield f"{first}: gateway rules replay {shlex.join(map(str, asked))}"
