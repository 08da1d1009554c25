"""Reads what comes back: delivery status notifications (RFC 3464, RFC 6533) in answer to our mails.

Law: anybody may send anything here. It is bounded, never raises, and says nothing of mails whose ids it does not know.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import Message
from email.parser import HeaderParser
from email.policy import compat32
from typing import Literal

from gateway.mail.envelope import mail_id_of_message_id, mail_id_of_recipient

REPORT_BYTES_MAX = 256 * 1024
"""What comes later is not read: the status stands in front of the mail that is sent back."""

_PARTS_MAX = 200
_BLOCKS_MAX = 50
_FIELD_MAX = 500
_STATUS_TYPES = ("message/delivery-status", "message/global-delivery-status")
_RETURNED_TYPES = (
    "message/rfc822",
    "text/rfc822-headers",
    "message/global",
    "message/global-headers",
)
_RECIPIENT_HEADERS = ("X-Original-To", "Delivered-To", "Envelope-To", "To")
_PARSER = HeaderParser(policy=compat32)
_BLANK = re.compile(r"\r?\n[ \t]*\r?\n")
_STATUS = re.compile(r"[245]\.[0-9]{1,3}\.[0-9]{1,3}")


@dataclass(frozen=True, slots=True)
class Report:
    """What became of a mail. `status` as in RFC 3463, like `5.1.1`; `diagnostic` as written, with addresses in it."""

    mail_id: str
    action: Literal["failed", "delayed"]
    status: str
    diagnostic: str = field(repr=False)


def read_report(content: bytes, recipient: str = "") -> Report | str:
    """The report, or why it is none of ours. `recipient`: the address it came to, where the mail system tells it."""
    try:
        return _read(message_from_bytes(content[:REPORT_BYTES_MAX], policy=compat32), recipient)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return "it cannot be read as a mail"  # the parser breaks in many ways, all of them the sender's doing


def _read(message: Message, recipient: str) -> Report | str:
    parts = list(_parts(message))
    told = [verdict for part in parts if part.get_content_type() in _STATUS_TYPES for verdict in _verdicts(part)]
    if not told:
        return "it is no delivery report that says failed or delayed"
    mail_id = _mail_id(message, parts, recipient)
    if mail_id is None:
        return "it names no mail of ours"
    action, status, diagnostic = next((verdict for verdict in told if verdict[0] == "failed"), told[0])
    return Report(mail_id, action, status, diagnostic)


def _parts(message: Message) -> Iterator[Message]:
    for number, part in enumerate(message.walk()):
        if number >= _PARTS_MAX:
            return
        yield part


def _verdicts(part: Message) -> Iterator[tuple[Literal["failed", "delayed"], str, str]]:
    """What each recipient's block says; a block of RFC 6533 comes as text."""
    for block in _blocks(part):
        action = _text(block, "Action").partition(";")[0].strip().lower()
        status = _STATUS.search(_text(block, "Status"))
        code = status[0] if status else ""
        diagnostic = _text(block, "Diagnostic-Code").partition(";")[2].strip()
        if action == "failed":
            # A failure that calls itself temporary (4.x.x) was given up all the same.
            yield "failed", code, diagnostic
        elif action == "delayed":
            yield "delayed", code, diagnostic


def _blocks(part: Message) -> list[Message]:
    payload = part.get_payload()
    if not isinstance(payload, list):
        return _parsed(part)
    blocks: list[Message] = []
    for block in payload[:_BLOCKS_MAX]:
        if isinstance(block, Message):
            # The parser knows RFC 3464's blocks; of RFC 6533's it takes the first for a header and the rest for a body.
            blocks += [block, *_parsed(block)]
    return blocks[:_BLOCKS_MAX]


def _parsed(part: Message) -> list[Message]:
    """The blocks of a body that was not taken apart."""
    text = _body(part)
    return [_PARSER.parsestr(block.lstrip()) for block in _BLANK.split(text)[:_BLOCKS_MAX]] if text.strip() else []


def _mail_id(message: Message, parts: list[Message], recipient: str) -> str | None:
    """By the address it came to, else by the Message-ID of the mail that is sent back."""
    for address in (recipient, *(_text(message, name) for name in _RECIPIENT_HEADERS)):
        found = mail_id_of_recipient(address)
        if found is not None:
            return found
    for part in parts:
        if part.get_content_type() in _RETURNED_TYPES:
            found = mail_id_of_message_id(_returned_id(part))
            if found is not None:
                return found
    return None


def _returned_id(part: Message) -> str:
    payload = part.get_payload()
    if isinstance(payload, list):
        return _text(payload[0], "Message-ID") if payload and isinstance(payload[0], Message) else ""
    return _text(_PARSER.parsestr(_body(part)), "Message-ID")


def _body(part: Message) -> str:
    decoded = part.get_payload(decode=True)
    return decoded.decode("utf-8", "replace") if isinstance(decoded, bytes) else ""


def _text(message: Message, name: str) -> str:
    return " ".join(str(message.get(name, ""))[:_FIELD_MAX].split())
