"""Hands mails to the shop's mail server (RFC 5321), over verified TLS, or in the clear to this very machine.

Law: nothing is raised. What was not about this one message (connection, TLS, login) is tried again later.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from pathlib import Path
from typing import Literal

import aiosmtplib
from aiosmtplib import (
    SMTPAuthenticationError,
    SMTPException,
    SMTPHeloError,
    SMTPNotSupported,
    SMTPRecipientsRefused,
    SMTPResponseException,
)

from gateway.errors import SettingsError
from gateway.order_ports import Posted
from gateway.policy.events import clean
from gateway.settings_sections import MailSettings
from gateway.settings_values import is_loopback

SECONDS_MAX = 28.0
"""Until the server has taken the sender, the recipient and all of the message."""
ANSWER_TIMES = 4
"""So many times that may pass until it answers to the message: RFC 5321 §4.5.3.2.6 warns of duplicates otherwise."""
ANSWER_MAX = 300
HIDDEN = "(address)"

_PERMANENT = 500
_LOGIN_CODES = frozenset({530, 534, 535, 538})
"""RFC 4954 §6: what is wrong is our login, which the ops can mend; the message may be as good as any."""
_MAILBOX = re.compile(r"[^\s<>@\x00-\x20\x7f-\x9f\"\\]{1,255}@[^\s<>@\x00-\x20\x7f-\x9f\"\\]{1,255}")
_QUOTED = re.compile(r'"[^"]{0,256}"@\S*')
_ADDRESS = re.compile(r"\S*@\S*")


class SmtpPostman:
    """A connection for each mail: they are few, and none waits for another's."""

    def __init__(
        self, settings: MailSettings, *, tls: ssl.SSLContext | None = None, seconds: float = SECONDS_MAX
    ) -> None:
        """`tls`: the system's certificates unless another context is given. Raises SettingsError for mail in the clear
        to another machine.
        """
        server = settings.server
        if isinstance(server, Path):
            raise TypeError("a folder is no mail server; see backends.maildir")
        if server.tls == "none" and not is_loopback(server.host):
            raise SettingsError(
                "mail.server: smtp+plain:// sends buyers' links unencrypted to another machine; "
                "write smtp:// (STARTTLS) or smtps://"
            )
        self._server, self._settings = server, settings
        self._tls = tls or ssl.create_default_context()
        self._seconds = seconds

    async def post(self, message: bytes, *, sender: str, to: str) -> Posted:
        """See order_ports.Postman."""
        if not _MAILBOX.fullmatch(to) or not _MAILBOX.fullmatch(sender):
            return Posted("refused", "the address, or the sender's, is none that a mail can be handed over for")
        try:
            return await self._post(message, sender, to)
        except TimeoutError:
            return Posted("later", "the mail server did not answer in time")
        except SMTPAuthenticationError as error:
            return _told("later", "the mail server refused our login", f"{error.code} {error.message}", to)
        except SMTPResponseException as error:
            return _told("later", "", f"{error.code} {error.message}", to)
        except (SMTPException, OSError) as error:
            return _told("later", "the mail server cannot be used", str(error), to)
        except ValueError as error:
            return _told("refused", "the mail cannot be handed over", str(error), to)

    async def look(self) -> str:
        """Connect, with TLS and login as set, and say goodbye; why that fails, or "". Never raises."""
        client = self._client()
        try:
            async with asyncio.timeout(self._seconds):
                await client.connect()
        except TimeoutError:
            return f"it did not answer within {self._seconds:g} s"
        except (SMTPException, OSError, ValueError) as error:
            return without_addresses(str(error)) or type(error).__name__
        finally:
            await _part(client)
        return ""

    async def _post(self, message: bytes, sender: str, to: str) -> Posted:
        client = self._client()
        try:
            async with asyncio.timeout(self._seconds):
                await client.connect()
            async with asyncio.timeout(self._seconds * (1 + ANSWER_TIMES)):
                posted = await _hand_over(client, message, sender, to, self._seconds * ANSWER_TIMES)
        except BaseException:
            client.close()
            raise
        await _part(client)
        return posted

    def _client(self) -> aiosmtplib.SMTP:
        server, settings = self._server, self._settings
        return aiosmtplib.SMTP(
            hostname=server.host,
            port=server.port,
            username=settings.user,
            password=None if settings.password is None else settings.password.get_secret_value(),
            # Else it asks the name servers for our own name, in a thread that cannot be stopped.
            local_hostname=_own_name(settings.sender),
            timeout=self._seconds,
            use_tls=server.tls == "implicit",
            start_tls=server.tls == "starttls",
            tls_context=self._tls,
        )


def without_addresses(text: str, *known: str) -> str:
    """One bounded line of what a mail server said, without e-mail addresses, nor the front parts of those known."""
    line = _ADDRESS.sub(HIDDEN, _QUOTED.sub(HIDDEN, " ".join(text[: 4 * ANSWER_MAX].split())))
    for address in known:
        local = address.rpartition("@")[0]
        if len(local) > 1:
            line = re.sub(rf"(?<!\w){re.escape(local)}(?!\w)", HIDDEN, line, flags=re.IGNORECASE)
    return clean(line, ANSWER_MAX)


async def _hand_over(client: aiosmtplib.SMTP, message: bytes, sender: str, to: str, patience: float) -> Posted:
    options = []
    if not (sender + to).isascii() or not message.partition(b"\r\n\r\n")[0].isascii():
        options = ["SMTPUTF8", "BODY=8BITMIME"]  # RFC 6531 §3.4
    try:
        _, answer = await client.sendmail(sender, [to], message, mail_options=options, timeout=patience)
    except SMTPHeloError:
        raise
    except SMTPNotSupported:
        return Posted("refused", "the mail server cannot send to addresses with letters beyond ASCII (no SMTPUTF8)")
    except SMTPRecipientsRefused as error:
        refusal = error.recipients[0]
        return _judged(refusal.code, refusal.message, to)
    except SMTPResponseException as error:
        return _judged(error.code, error.message, to)
    return _told("accepted", "", f"250 {answer}", to)


def _judged(code: int, message: str, to: str) -> Posted:
    if code in _LOGIN_CODES:
        return _told("later", "the mail server wants another login", f"{code} {message}", to)
    # 421 or an answer that is none (RFC 5321 §4.2.1) says nothing against the message.
    return _told("refused" if code >= _PERMANENT else "later", "", f"{code} {message}", to)


async def _part(client: aiosmtplib.SMTP) -> None:
    """Say goodbye, for a second: what was answered stands, however the connection ends."""
    try:
        async with asyncio.timeout(1):
            await client.quit()
    except (SMTPException, OSError, TimeoutError):
        pass
    finally:
        client.close()


def _told(outcome: Literal["accepted", "later", "refused"], what: str, answer: str, to: str) -> Posted:
    said = without_addresses(answer, to)
    return Posted(outcome, f"{what}: {said}" if what else said)


def _own_name(sender: str) -> str:
    """What we call ourselves in EHLO: the sender's domain, in ASCII."""
    try:
        return sender.rpartition("@")[2].encode("idna").decode("ascii") or "localhost"
    except UnicodeError:
        return "localhost"
