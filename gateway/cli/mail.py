"""`gateway mail …`: see a mail as its buyer will, try the mail server, and take in what bounced."""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from gateway.cli.options import config_option
from gateway.cli.output import print_line, read_settings

if TYPE_CHECKING:
    from gateway.mail.bounces import Report
    from gateway.mail.letter import Brand, Letter
    from gateway.mail.writer import Writer
    from gateway.order_ports import OrderBook, Posted
    from gateway.policy.orders import Order
    from gateway.services.mailing import Noted
    from gateway.settings import Settings
    from gateway.settings_sections import MailSettings

_ID_BYTES = 12
_CHUNK = 64 * 1024
_NOTED = {
    "bounced": "mail {id} has bounced",
    "delayed": "mail {id} is delayed on its way",
    "known": "mail {id} is known to have failed; nothing is changed",
    "unknown": "there is no mail {id} here; nothing is changed",
}


@click.group(epilog="Example: gateway mail preview 10001 --out mail.html")
def mail() -> None:
    """See, try and follow the mails to buyers."""


@mail.command(epilog="Example: gateway mail preview 10001 --language pl --out mail.html")
@click.argument("order", metavar="ORDER")
@click.option("--language", help="In this language instead of the buyer's.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False, writable=True), help="Write it to this file.")
@click.option("--text", is_flag=True, help="The plain text instead of the HTML.")
@config_option
def preview(order: str, language: str | None, out: Path | None, text: bool, config: Path | None) -> None:
    """Show an order's mail as it would be sent now. Its links work: keep the file to yourself."""
    from gateway.bootstrap.mail import open_writer  # noqa: PLC0415  `gateway --help` needs none of it

    settings = read_settings(config)
    writer = open_writer(settings)
    letter = asyncio.run(_letter(settings, writer, order))
    if language is not None:
        if language not in writer.composer.languages:
            raise click.UsageError(f"--language: there is none; write one of {', '.join(writer.composer.languages)}")
        letter = replace(letter, language=language)
    shown = writer.composer.text(letter) if text else writer.composer.preview(letter)
    if out is None:
        click.echo(shown.encode())
        return
    try:
        out.write_text(shown, "utf-8")
    except OSError as error:
        raise click.ClickException(f"--out cannot be written: {error.strerror}") from None
    print_line(f"written to {out}")


@mail.command("send-test", epilog="Example: gateway mail send-test you@example.com")
@click.argument("address")
@config_option
def send_test(address: str, config: Path | None) -> None:
    """Send a sample mail and tell what the mail server answered."""
    from gateway.bootstrap.mail import mail_settings, open_postman, read_brand  # noqa: PLC0415  `gateway --help` needs none of it
    from gateway.mail.composing import Composer  # noqa: PLC0415  `gateway --help` needs none of it
    from gateway.mail.envelope import return_path, sendable  # noqa: PLC0415  `gateway --help` needs none of it

    try:
        to = sendable(address)
    except ValueError as error:
        raise click.UsageError(f"{error}; write one like you@example.com") from None
    settings = read_settings(config)
    section, postman, composer = mail_settings(settings), open_postman(settings), Composer()
    mail_id = secrets.token_hex(_ID_BYTES)
    message = composer.compose(_sample(section, settings.base_url, mail_id, to, read_brand(settings)))

    async def send() -> Posted:
        return await postman.post(message, sender=return_path(mail_id, section.bounces, section.sender), to=to)

    posted = asyncio.run(send())
    if posted.outcome != "accepted":
        what = "would be tried again" if posted.outcome == "later" else "was refused"
        raise click.ClickException(f"the mail {what}: {posted.answer}")
    print_line(f"accepted: {posted.answer}")


@mail.command(epilog="Example: gateway mail bounce --config config/gateway.yaml < bounce.eml")
@click.option("--recipient", help="The address it came to.  [default: ORIGINAL_RECIPIENT, which Postfix sets]")
@config_option
def bounce(recipient: str | None, config: Path | None) -> None:
    """Take in one delivery report (RFC 3464) from standard input, for a mail server's alias.

    Exit 0: dealt with, also where it was no report of ours. 1: it could not be dealt with now; give it again.
    """
    from gateway.mail.bounces import read_report  # noqa: PLC0415  `gateway --help` needs none of it

    if sys.stdin.isatty():
        raise click.UsageError("it reads a mail from standard input; write `gateway mail bounce < bounce.eml`")
    content = _bounded(sys.stdin.buffer)
    if not content.strip():
        raise click.UsageError("there is nothing in standard input; give it one mail")
    settings = read_settings(config)
    report = read_report(content, recipient or os.environ.get("ORIGINAL_RECIPIENT", ""))
    if isinstance(report, str):
        print_line(f"nothing is changed: {report}")
        return
    print_line(_NOTED[asyncio.run(_note(settings, report))].format(id=report.mail_id))


async def _letter(settings: Settings, writer: Writer, name: str) -> Letter:
    from gateway.bootstrap.orders import open_book  # noqa: PLC0415  `gateway --help` needs none of it
    from gateway.order_ports import Mail  # noqa: PLC0415  `gateway --help` needs none of it

    async with open_book(settings) as book:
        order = await _order(book, name)
        made = Mail("preview", order.order_id, "links", 0, "", order.buyer.value.language, 0)
        mails = await book.mails(order.order_id)
        last = [made, *(mail for mail in mails if mail.purpose == "links")][-1]
    to = order.email or last.to or "buyer@example.com"
    try:
        return writer.letter(order, replace(last, to=to))
    except ValueError as error:
        raise click.ClickException(f"there is nothing to mail for {order.order_id}: {error}") from None


async def _order(book: OrderBook, name: str) -> Order:
    known = await book.read(name)
    found = [known] if known is not None else list(await book.find(name))
    if not found:
        raise click.ClickException(f"the book has no order {name}; write its id, its number or the buyer's address")
    if len(found) > 1:
        raise click.ClickException(
            f"several orders are meant; write one of {', '.join(each.order_id for each in found)}"
        )
    return found[0]


async def _note(settings: Settings, report: Report) -> Noted:
    from gateway.backends.smtp import without_addresses  # noqa: PLC0415  `gateway --help` needs none of it
    from gateway.bootstrap.orders import open_book  # noqa: PLC0415  `gateway --help` needs none of it
    from gateway.services.mailing import note_report  # noqa: PLC0415  `gateway --help` needs none of it

    async with open_book(settings) as book:
        mail = await book.mail(report.mail_id)
        answer = without_addresses(report.diagnostic, *([mail.to] if mail else []))
        return await note_report(book, report, answer)


def _sample(section: MailSettings, base: str, mail_id: str, to: str, brand: Brand) -> Letter:
    from gateway.mail.envelope import message_id  # noqa: PLC0415  `gateway --help` needs none of it
    from gateway.mail.letter import FileAddress, Letter, LinkAddresses  # noqa: PLC0415  as above
    from gateway.policy.model import Limits  # noqa: PLC0415  `gateway --help` needs none of it

    now = int(time.time())
    files = (
        FileAddress("Sample.pdf", f"{base}/d/sample/1/Sample.pdf", 4_200_000),
        FileAddress("Sample.flac", f"{base}/d/sample/2/Sample.flac", 38_000_000),
    )
    link = LinkAddresses(f"{base}/l/sample", files, now + 30 * 86_400, Limits(downloads=5, networks=3))
    return Letter(
        brand=brand,
        language=section.language,
        sender=section.sender,
        to=to,
        message_id=message_id(mail_id, section.sender),
        sent_at=now,
        links=(link,),
        reference="TEST",
        reply_to=section.reply_to or "",
    )


def _bounded(stream: BinaryIO) -> bytes:
    """What a report can need of it. The rest is read and forgotten, so that the mail server can write it all."""
    from gateway.mail.bounces import REPORT_BYTES_MAX  # noqa: PLC0415  `gateway --help` needs none of it

    content = stream.read(REPORT_BYTES_MAX)
    while stream.read(_CHUNK):
        pass
    return content
