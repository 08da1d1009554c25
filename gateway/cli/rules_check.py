"""`gateway rules check`: every mistake in a rules file at its place, and what is none and yet hardly meant."""

from __future__ import annotations

import os
import re
import shutil
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click
from pydantic import ValidationError

from gateway.bootstrap.files import databases_of, examine_rules
from gateway.cli.excerpt import excerpt
from gateway.cli.named import lacking_in
from gateway.cli.options import DEFAULT_CONFIG, config_option, duration, json_option
from gateway.cli.output import print_json, print_line, read_settings
from gateway.document import Mistake, Mistakes, Node, plain
from gateway.policy.fronts import Refused
from gateway.policy.guests import NEEDED
from gateway.policy.rules_advice import Seen, advice
from gateway.settings import PREFIX
from gateway.settings_file import read_file
from gateway.settings_sections import DoorsSettings

if TYPE_CHECKING:
    from gateway.backends.rules_file import Examined

_COLUMNS = 100
"""So wide is what no terminal shows."""
_ROOM_MIN = 20
_LINES = re.compile("\r\n|[\r\n\x85\u2028\u2029]")
"""Where YAML begins a new line; list files do so only at \\n."""
_YAML = (".yaml", ".yml")
_DATABASES = ("city", "asn", "anonymous")


@click.command(epilog="Example: gateway rules check rules/rules.yaml")
@click.argument("file", required=False, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--strict", is_flag=True, help="Exit 1 for warnings too.")
@click.option(
    "--observe-max",
    default="30d",
    show_default=True,
    callback=duration,
    help="Warn of rules that have been observing for longer.",
)
@config_option
@json_option
def check(file: Path | None, strict: bool, observe_max: int, config: Path | None, as_json: bool) -> int:
    """Show every mistake in a rules FILE, else in the settings' own, and warn of what was hardly meant.

    A test beside it that fails is a mistake too. Nothing is changed. Exit 1 where there are mistakes; with warnings
    alone 0.
    """
    path, databases, refused, lacking, without = _wanted(file, config)
    seen = examine_rules(path, databases)
    warnings: Sequence[Mistake] = ()
    if seen.rules is not None and seen.tree is not None:
        missing = seen.needs if databases is None else {}
        warnings = advice(
            seen.rules,
            Seen(seen.tree, seen.lists, seen.used, missing, time.time(), seen.modified, observe_max, refused, lacking),
        )
    mistakes, warnings = (
        sorted(each, key=lambda one: (one.file != str(path), one)) for each in (seen.mistakes, warnings)
    )
    if without is not None:
        click.echo(without, err=True)
    if as_json:
        print_json(
            {
                "file": str(path),
                "good": seen.rules is not None,
                "version": seen.version,
                "mistakes": [asdict(each) for each in mistakes],
                "warnings": [asdict(each) for each in warnings],
            }
        )
    else:
        _print(path, seen, mistakes, warnings)
    return int(seen.rules is None or (strict and bool(warnings)))


def _wanted(
    file: Path | None, config: Path | None
) -> tuple[Path, Collection[str] | None, Refused, Collection[str], str | None]:
    """The file to check; the databases that the settings name, None where there are no settings; what their front doors
    refuse; what plans for guests lack in them; and what is then to be said.
    """
    if file is None:
        settings = read_settings(config)
        if settings.rules is None:
            raise click.UsageError("the settings name no rules file; name one: gateway rules check FILE")
        return settings.rules, databases_of(settings), settings.doors.refused, lacking_in(settings), None
    given = {name for name in _DATABASES if os.environ.get(f"{PREFIX}GEO__{name.upper()}")}
    if config is None and not DEFAULT_CONFIG.exists():
        if given:
            return file, given, {}, (), None
        said = f"Checked without settings: there is no {DEFAULT_CONFIG} here; name them with --config."
        return file, None, {}, (), said
    # Of the settings only these names are wanted: whoever checks a file need not have their secrets.
    mistakes = Mistakes()
    tree = read_file(config or DEFAULT_CONFIG, mistakes)
    if tree is None or not isinstance(tree.value, dict):
        return file, None, {}, (), f"Checked without settings: {mistakes.found[0]}"
    geo = tree.value.get("geo")
    named = geo.value if geo is not None and isinstance(geo.value, dict) else {}
    databases = given | {name for name in _DATABASES if name in named and named[name].value is not None}
    sections = {name for name in (*NEEDED, "shops") if name in tree.value or os.environ.get(f"{PREFIX}{name.upper()}")}
    sections |= {name for name in NEEDED if any(each.startswith(f"{PREFIX}{name.upper()}__") for each in os.environ)}
    lacking = set(NEEDED) - sections - ({"orders"} if "shops" in sections else set())
    return file, databases, _refused(tree.value.get("doors")), lacking, None


def _refused(written: Node | None) -> Refused:
    """What the settings' doors refuse, of this much of them; nothing where it is wrong, which others say."""
    doors = None if written is None else plain(written)
    if isinstance(doors, dict) and "secret" in doors:
        doors["secret"] = "0" * 16  # as written, such as ${…}, it is none
    try:
        return {} if doors is None else DoorsSettings.model_validate(doors).refused
    except ValidationError:
        return {}


def _print(path: Path, seen: Examined, mistakes: Sequence[Mistake], warnings: Sequence[Mistake]) -> None:
    lines = {str(each): _split(text, each == path or each.suffix in _YAML) for each, text in seen.texts.items()}
    for mistake in mistakes:
        _point_at(mistake, "", lines)
    for warning in warnings:
        _point_at(warning, "warning: ", lines)
    if seen.rules is None:
        print_line(f"{path} is not good: {_count(len(mistakes), 'mistake')}; the gateway would not take it over")
        return
    rules = seen.rules
    entries = f" ({sum(seen.lists.values()):,} entries)" if seen.lists else ""
    asks = "; asks " + ", ".join(f"geo.{name}" for name in _DATABASES if name in rules.needs) if rules.needs else ""
    warned = f", with {_count(len(warnings), 'warning')}" if warnings else ""
    print_line(
        f"{path} is good{warned}: {_count(len(rules.plans), 'plan')}, {_count(len(rules.rules), 'rule')}, "
        f"{_count(len(seen.lists), 'list')}{entries}, version {rules.version}{asks}"
    )


def _split(data: bytes, is_yaml: bool) -> Sequence[str]:
    text = data.decode("utf-8-sig", "replace")
    return _LINES.split(text) if is_yaml else text.split("\n")


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _point_at(mistake: Mistake, kind: str, lines: Mapping[str, Sequence[str]]) -> None:
    place = ":".join(str(part) for part in (mistake.file, mistake.line, mistake.column) if part)
    key = f"{mistake.key}: " if mistake.key else ""
    print_line(f"{place}: {kind}{key}{mistake.text}")
    known = lines.get(mistake.file, ())
    if not (mistake.column and 0 < mistake.line <= len(known)):
        return
    gutter = f"{mistake.line:>5} | "
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else _COLUMNS
    room = max(_ROOM_MIN, columns - len(gutter))
    shown, underline = excerpt(known[mistake.line - 1], mistake.column, mistake.width, room)
    print_line(f"{gutter}{shown}")
    print_line(f"{'':>5} | {underline}")
