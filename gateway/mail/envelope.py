"""Where a mail goes and where its bounces come back: addresses, Message-IDs and the envelope's sender (VERP).

What cannot be written into SMTP and a header as it stands is refused here, so that no address smuggles a command.
"""

from __future__ import annotations

import re

_MAIL_ID = r"[A-Za-z0-9]{1,8}(?:-?[A-Za-z0-9]){0,40}"
_ID = re.compile(_MAIL_ID)
# RFC 5321 §4.1.2 Dot-string, with RFC 6531's letters beyond ASCII; quoted local parts are refused.
_LOCAL = re.compile(
    r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\u0080-\U0010ffff-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~\u0080-\U0010ffff-]+)*"
)
_DOMAIN = re.compile(r"(?=.{1,253}\Z)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*")
_LOCAL_BYTES_MAX = 64  # RFC 5321 §4.5.3.1.1


def sendable(address: str) -> str:
    """The address with its domain in ASCII (RFC 5891). Raises ValueError for what no mail can be sent to."""
    local, at, domain = address.strip().rpartition("@")
    try:
        ascii_domain = domain.encode("idna").decode("ascii").lower()
        local_bytes = len(local.encode())
    except UnicodeError:
        ascii_domain, local_bytes = "", 0
    if not at or not local.isprintable() or not _LOCAL.fullmatch(local) or not _DOMAIN.fullmatch(ascii_domain):
        raise ValueError("this is no address that mail can be sent to")
    if local_bytes > _LOCAL_BYTES_MAX:
        raise ValueError("the address is too long before its @")
    return f"{local}@{ascii_domain}"


def message_id(mail_id: str, sender: str) -> str:
    """The Message-ID of a mail (RFC 5322 §3.6.4) without angle brackets: the same each time that it is sent."""
    return f"{_checked(mail_id)}@{sendable(sender).rpartition('@')[2]}"


def return_path(mail_id: str, bounces: str | None, sender: str) -> str:
    """The envelope's sender: `bounces+MAILID@…` where the shop has an address for bounces, else its own address.

    A provider that relays only for known senders would refuse an invented one.
    """
    if bounces is None:
        return sendable(sender)
    local, _, domain = sendable(bounces).rpartition("@")
    return f"{local}+{_checked(mail_id)}@{domain}"


def mail_id_of_recipient(recipient: str) -> str | None:
    """The mail's id in the address that a bounce came to; None where there is none."""
    match = re.search(rf"\+({_MAIL_ID})@", recipient)
    return match[1] if match else None


def mail_id_of_message_id(text: str) -> str | None:
    """The mail's id in a Message-ID header; None where it is not ours."""
    match = re.fullmatch(rf"\s*<?({_MAIL_ID})@[^\s<>@]+>?\s*", text)
    return match[1] if match else None


def _checked(mail_id: str) -> str:
    if not _ID.fullmatch(mail_id):
        raise ValueError("a mail's id has letters, digits and single hyphens only")
    return mail_id
