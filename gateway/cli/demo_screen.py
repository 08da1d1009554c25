"""What the demo shows: where things run, links and commands to try, and each event as one line."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import click

from gateway.cli.demo_stage import OFFERS, SKU, WORKERS, Stage
from gateway.cli.output import print_line
from gateway.policy.units import human_size

_COLOURS = {"denied": "red", "lost": "red", "finished": "green", "allowed": "cyan"}
_COUNTED = {
    ("download.allowed", "1"): "counts 1",
    ("download.allowed", "0"): "counts 0, part of the same download",
    ("download.finished", "1"): "counts 1 more",
    ("download.finished", "-1"): "given back",
}
_FROM = "-H 'X-Forwarded-For: {}'"


def welcome(stage: Stage) -> None:
    """Everything there is to know before the events begin."""
    for title, lines in (
        ("download-gateway, the demo", _places(stage)),
        ("Links to open in a browser", _links(stage)),
        ("To try in another terminal, first line first", _commands(stage)),
    ):
        print(heading(title))
        for line in lines:
            print_line(f"  {line}")
        print()
    print(heading("Events as they happen, times in UTC. Ctrl-C ends the demo."), flush=True)


async def follow(stage: Stage) -> None:
    """Print events as they come, for ever. Raises LedgerDown, and OSError where nobody reads any more."""
    ours = {f"demo-{offer.name.lower()}" for offer in OFFERS}
    async for _, (_, fields) in stage.tools.events.tail(range(stage.settings.shards), "0-0"):
        if fields.get("type") != "link.created" or fields.get("token.id") not in ours:
            print_event(fields)


def print_event(fields: Mapping[str, str]) -> None:
    """One event as one line: time (UTC), type, order, file, from where, how much, how it ended."""
    kind = fields.get("type", "").rpartition(".")[2]
    # Only what we wrote ourselves: print_line must see all that others said.
    sys.stdout.write(painted(f"{fields.get('time', '')[11:19]}  {kind:<8}", _COLOURS.get(kind)))
    parts = ["", f"{fields.get('order.id', '-'):<5}", fields.get("file.key"), *_details(fields)]
    print_line("  ".join(part for part in parts if part is not None))


def heading(text: str) -> str:
    """`text`, bold where that can be seen."""
    return click.style(text, bold=True) if _colourful() else text


def painted(text: str, colour: str | None) -> str:
    """`text` in this colour where that can be seen."""
    return click.style(text, fg=colour) if colour and _colourful() else text


def _colourful() -> bool:
    """Only on a terminal, and not where the user asks for none (no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _details(fields: Mapping[str, str]) -> Iterator[str]:
    if "client.address" in fields:
        yield f"from {fields['client.address']}"
    if "http.request.range" in fields and fields.get("type") == "download.allowed":
        yield fields["http.request.range"]
    if "bytes.delivered" in fields:
        asked = int(fields.get("bytes.asked", fields["bytes.delivered"]))
        yield f"{human_size(int(fields['bytes.delivered']))} of {human_size(asked)}"
    if "outcome" in fields:
        yield fields["outcome"].replace("_", " ")
    if "reason" in fields:
        status = fields.get("http.response.status_code")
        yield fields["reason"] + (f" ({status})" if status else "")
    if counted := _COUNTED.get((fields.get("type", ""), fields.get("counted", ""))):
        yield counted


def _places(stage: Stage) -> Iterator[str]:
    yield f"gateway     {stage.settings.base_url}, {WORKERS} workers, and a private Redis"
    yield f"management  {stage.management}: status page, /healthz, /readyz, /metrics"
    yield f"mailbox     {stage.mails}: mails are put there, and not sent"
    yield f"folder      {stage.folder}, removed at the end"


def _links(stage: Stage) -> Iterator[str]:
    for offer in OFFERS:
        yield f"{offer.order}  {offer.about}"
        yield f"       {stage.link(offer.name)}"
    yield "-      Forged: one letter of its signature is wrong."
    yield f"       {stage.link('BROKEN')}"


def _commands(stage: Stage) -> Iterator[str]:
    gateway, config = _program(), f"--config {shlex.quote(str(stage.config))}"
    poland, office = _FROM.format("198.51.100.7"), _FROM.format("203.0.113.9")
    for what, command in (
        ("name them", f". {shlex.quote(str(stage.folder / 'links'))}"),
        ("download", 'curl -fLOJ "$BOOK"'),
        ("only ask", 'curl -LI "$BOOK"'),
        ("begin", 'curl -r 0-999999 -o tide.wav "$TUNE"'),
        ("and resume", 'curl -C - -o tide.wav "$TUNE"'),
        ("use one up", 'curl -fLOJ "$LAST"'),
        ("be refused", f'curl -L {poland} "$LAST"'),
        ("in Poland", f'curl -fLOJ {poland} "$POLISH"'),
        ("as office", f'curl -fLOJ {office} "$OFFICE"'),
        ("revoke", f'{gateway} link revoke "$READ" {config}'),
        ("edit rules", f"{os.environ.get('EDITOR', 'vi')} {shlex.quote(str(stage.folder / 'rules.yaml'))}"),
        ("sell", f"{gateway} hooks send {_HOOK}"),
        ("the mail", f"{gateway} mail preview 30001 --out mail.html"),
        ("refund", f"{gateway} hooks send {_HOOK} --refund"),
        ("why?", f"{gateway} order why 30001"),
        ("metrics", f'curl -H "Authorization: Bearer $TOKEN" {stage.management}/metrics'),
        ("an order", f"{gateway} order show 10001 {config}"),
        ("a link", f'{gateway} link show "$LAST" {config}'),
        ("next events", f"{gateway} events tail {config}"),
    ):
        yield f"{what:<11} {command}"


_HOOK = f"--order 30001 --sku {SKU}"


def _program() -> str:
    """How this very program is called from here."""
    started = Path(sys.argv[0])
    if started.name != "gateway":
        return f"{shlex.quote(sys.executable)} -m gateway"
    on_path = shutil.which("gateway")
    if on_path and Path(on_path).samefile(started):
        return "gateway"
    return shlex.quote(os.path.relpath(started) if started.is_relative_to(Path.cwd()) else str(started))
