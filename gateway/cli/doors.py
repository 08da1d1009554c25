"""`gateway doors`: the front doors, and what each can keep; the table of the documentation is printed here, too."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.cli.options import config_option, json_option
from gateway.cli.output import print_json, print_line, read_settings
from gateway.policy.fronts import FRONTS, HTTP, MITM, NGINX, Front, Waived, refused_at
from gateway.policy.limits import LIMITS

if TYPE_CHECKING:
    from gateway.settings import Settings

_STORES = {"s3": "bucket", "file": "folder"}
_THEIRS = "that proxy's own"
Row = tuple[str, Callable[[Front], str]]


def _yes(of: Callable[[Front], bool]) -> Callable[[Front], str]:
    return lambda front: "yes" if of(front) else "no"


def _window(front: Front) -> str:
    return "repeat_window" if front.hands_over else "resume_window"


def _parts(front: Front) -> str:
    return _THEIRS if not front.answers else "in parts" if front.multipart else "whole file"


_ROWS: tuple[Row, ...] = (
    ("bytes in closing events", lambda front: front.delivered),
    ("revoke, freeze, refund end what runs", _yes(lambda front: front.cuts)),
    ("next to nothing fetched is given back", _yes(lambda front: not front.hands_over)),
    ("a resume is free for (counting)", _window),
    ("in front of", lambda front: ", ".join(_STORES[kind] for kind in sorted(front.origins, reverse=True))),
    ("all files of a link as a ZIP", _yes(lambda front: front.archives)),
    ("the page of a link", _yes(lambda front: front.answers)),
    ("several ranges at once", _parts),
    ("If-None-Match, If-Range …", lambda front: "ours" if front.answers else _THEIRS),
)
"""What is said of a door besides its limits, each with its head."""


@click.command(epilog="Example: gateway doors --config config/gateway.yaml")
@click.option("--markdown", is_flag=True, help="Print the table of docs/doors.md, which is of no settings.")
@config_option
@json_option
def doors(markdown: bool, config: Path | None, as_json: bool) -> None:
    """What each front door can keep, and what not. A link with a limit that its door cannot keep is refused there.

    It needs no settings; with --config it also shows what they waive, and which doors are set up.
    """
    if markdown and as_json:
        raise click.UsageError("name either --markdown or --json")
    settings = None if config is None or markdown else read_settings(config)
    waived = {} if settings is None else settings.doors.waived
    if as_json:
        print_json([_document(front, waived, settings) for front in FRONTS.values()])
        return
    for line in _markdown() if markdown else _lines(waived, settings):
        print_line(line)


def _document(front: Front, waived: Waived, settings: Settings | None) -> dict[str, object]:
    refused = refused_at(front, waived)
    document = {
        **asdict(front),
        "limits": {limit.name: _limit(front, limit.name, refused) for limit in LIMITS},
        "origins": sorted(front.origins),
    }
    return document if settings is None else {**document, "state": _state(front, settings)}


def _limit(front: Front, name: str, refused: Sequence[str]) -> str:
    return "kept" if name in front.limits else "refused" if name in refused else "waived"


def _table(waived: Waived) -> Iterator[tuple[str, ...]]:
    fronts = tuple(FRONTS.values())
    refused = {front.name: refused_at(front, waived) for front in fronts}
    yield ("", *(front.name for front in fronts))
    for limit in LIMITS:
        yield (limit.name, *(_limit(front, limit.name, refused[front.name]) for front in fronts))
    for head, say in _ROWS:
        yield (head, *map(say, fronts))


def _lines(waived: Waived, settings: Settings | None) -> Iterator[str]:
    rows = list(_table(waived))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
    yield ""
    for front in FRONTS.values():
        yield f"{front.name:<6} {front.about}"
        if settings is not None:
            yield f"{'':<6} {_state(front, settings)}"


def _markdown() -> Iterator[str]:
    head, *rows = _table({})
    yield f"| | {' | '.join(f'`{name}`' for name in head[1:])} |"
    yield f"|{'---|' * len(head)}"
    names = {limit.name for limit in LIMITS}
    for name, *cells in rows:
        shown = [f"`{cell}`" if cell.endswith("_window") else cell for cell in cells]
        yield f"| {f'`{name}`' if name in names else name} | {' | '.join(shown)} |"


def _state(front: Front, settings: Settings) -> str:
    """Whether these settings have it."""
    kind, redirect = settings.origin.kind, settings.doors.nginx.redirect
    if kind not in front.origins:
        return f"not possible: the origin is a {_STORES[kind]}"
    if front in (HTTP, MITM):
        return "set up" if front is HTTP else "possible: it is a process of its own"
    if front is NGINX and redirect is None:
        return "not set up: doors.nginx.redirect is not set"
    if not settings.trusted_proxies:
        return "not set up: trusted_proxies is empty, and nobody else is answered so"
    return "set up" if front is NGINX else "open to trusted_proxies"
