"""`gateway …`: the table of commands, and one place where every failure becomes a line and an exit status.

0: done. 1: refused or impossible. 2: wrong use. A command's module is imported only when it is run.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import ClassVar, NoReturn

import click

from gateway import __version__
from gateway.cli.lazy import LazyGroup, Table
from gateway.errors import GatewayError

COMMANDS: Table = {
    "demo": ("gateway.cli.demo:demo", "The whole thing on this machine, with sample files and links to try."),
    "serve": ("gateway.cli.serve:serve", "Run the gateway."),
    "mitm": ("gateway.cli.mitm:mitm", "Run the gateway as a plugin of mitmproxy, in front of the bucket."),
    "worker": ("gateway.cli.serve:background", "Fulfil orders, send mails and webhooks, beside a running gateway."),
    "link": ("gateway.cli.link:link", "Create, look up, revoke and extend links."),
    "order": ("gateway.cli.order:order", "What happened to an order, and why."),
    "rules": ("gateway.cli.rules:rules", "Check, explain, test and replay rules."),
    "freeze": ("gateway.cli.freeze:freeze", "Stop all downloads at once."),
    "thaw": ("gateway.cli.freeze:thaw", "Allow downloads again that were frozen."),
    "mail": ("gateway.cli.mail:mail", "See, try and follow the mails to buyers."),
    "events": ("gateway.cli.events:events", "Read the events."),
    "keys": ("gateway.cli.keys:keys", "Make signing keys."),
    "hooks": ("gateway.cli.hooks:hooks", "Try the webhooks of the shops."),
    "webhooks": ("gateway.cli.webhooks:webhooks", "Try the webhooks to the shop."),
    "doors": ("gateway.cli.doors:doors", "What each front door can keep."),
    "doctor": ("gateway.cli.doctor:doctor", "Check everything that the gateway stands on."),
    "_worker": ("gateway.cli.worker:worker", ""),
}
"""Each command's `module:attribute` and what it does; a name with an underscore is not listed."""

INTERRUPTED = 130


class _Commands(LazyGroup):
    table: ClassVar[Table] = COMMANDS


@click.group(cls=_Commands, epilog="Example: gateway link create --order 10001 --file ebooks/sea.pdf")
@click.version_option(__version__, prog_name="gateway")
@click.option("--debug", is_flag=True, help="Show where an error came from.")
def gateway(debug: bool) -> None:
    """The gateway that shops put in front of their files."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit with its status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    sys.exit(_run(given))


def _run(given: list[str]) -> int:
    # A reader that leaves (`… | head`) is click's affair: it exits with 1, silently.
    try:
        status = gateway.main(given, prog_name="gateway", standalone_mode=False)
    except (click.exceptions.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except Exception as error:
        if given[:1] == ["--debug"]:
            raise
        return _report(error)
    return status if isinstance(status, int) else 0


def _report(error: Exception) -> int:
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        print(error.format_message(), file=sys.stderr)
        return error.exit_code
    if isinstance(error, click.UsageError):
        return _complain(_with_help(error), error.exit_code)
    if isinstance(error, click.ClickException):
        return _complain(error.format_message(), error.exit_code)
    if isinstance(error, GatewayError):
        return _complain(str(error), 1)
    return _complain(f"{type(error).__name__}; run `gateway --debug …` to see where, and report it", 1)


def _with_help(error: click.UsageError) -> str:
    text = " ".join(error.format_message().split()).rstrip(".")
    return f"{text}; see `{error.ctx.command_path} --help`" if error.ctx else text


def _complain(text: str, status: int) -> int:
    print(f"Error: {text}", file=sys.stderr)
    return status
