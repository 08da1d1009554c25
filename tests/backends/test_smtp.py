"""Mails handed to a real SMTP server on loopback, and to servers that refuse, hang and hang up."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gateway.backends.smtp import ANSWER_MAX, SmtpPostman, without_addresses
from gateway.errors import SettingsError
from gateway.order_ports import Posted
from gateway.settings_sections import MailSettings

MESSAGE = b"From: shop@example.com\r\nTo: jan@example.com\r\nSubject: Sea\r\n\r\n.first\r\nbody\r\n"
PASSWORD = "correct horse"


@dataclass(frozen=True)
class Certificate:
    server: ssl.SSLContext
    client: ssl.SSLContext


def certificate(folder: Path, address: str = "127.0.0.1") -> Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mail.example.com")])
    now = datetime.datetime.now(datetime.UTC)
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + datetime.timedelta(days=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = folder / "mail.pem"
    pem.write_bytes(
        signed.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(pem)
    return Certificate(server, ssl.create_default_context(cafile=str(pem)))


@pytest.fixture(scope="module")
def trusted(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return certificate(tmp_path_factory.mktemp("trusted"))


class Mailbox:
    """What an accepting server got; `answers` come first, one for each RCPT."""

    def __init__(self, *answers: str) -> None:
        self.envelopes: list[Envelope] = []
        self.answers = list(answers)
        self.logins: list[tuple[bytes, bytes]] = []
        self.encrypted: list[bool] = []

    async def handle_RCPT(  # noqa: N802  the name that aiosmtpd calls
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if self.answers:
            return self.answers.pop(0)
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802  see above
        self.envelopes.append(envelope)
        self.encrypted.append(session.ssl is not None)
        return f"250 2.0.0 Ok: queued as ABC for <{envelope.rcpt_tos[0]}>"

    def login(self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: object) -> AuthResult:
        assert isinstance(data, LoginPassword)
        self.logins.append((data.login, data.password))
        return AuthResult(success=data.password == PASSWORD.encode(), handled=False)


@asynccontextmanager
async def listening(
    factory: Callable[[], asyncio.BaseProtocol], tls: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    server = await asyncio.get_running_loop().create_server(factory, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def starttls(mailbox: Mailbox, tls: ssl.SSLContext, **more: Any) -> Callable[[], SMTP]:
    return lambda: SMTP(
        mailbox, tls_context=tls, require_starttls=True, hostname="mx", loop=asyncio.get_event_loop(), **more
    )


def plain(mailbox: Mailbox, **more: Any) -> Callable[[], SMTP]:
    return lambda: SMTP(mailbox, hostname="mx", loop=asyncio.get_event_loop(), **more)


def settings(url: str, **more: str) -> MailSettings:
    return MailSettings.model_validate({"server": url, "sender": "shop@example.com", **more})


async def post(postman: SmtpPostman, to: str = "jan@example.com", message: bytes = MESSAGE) -> Posted:
    return await postman.post(message, sender="bounces+1@example.com", to=to)


@asynccontextmanager
async def saying(
    script: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]],
) -> AsyncIterator[int]:
    """A server that does just what the script says, then hangs up."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await script(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def answering(*answers: str) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]:
    """Greets, then one answer for each command (a message after DATA is one command)."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mx ESMTP\r\n")
        for answer in answers:
            command = await reader.readuntil(b"\r\n")
            if answer == "message":
                writer.write(b"354 go on\r\n")
                await reader.readuntil(b"\r\n.\r\n")
                return
            assert command
            writer.write(answer.encode() + b"\r\n")

    return script


async def test_starttls_login_and_the_message_as_it_is(trusted: Certificate) -> None:
    mailbox = Mailbox()
    factory = starttls(mailbox, trusted.server, auth_required=True, authenticator=mailbox.login)
    async with listening(factory) as port:
        given = settings(f"smtp://127.0.0.1:{port}", user="shop", password=PASSWORD)
        posted = await post(SmtpPostman(given, tls=trusted.client))
    assert posted == Posted("accepted", "250 2.0.0 Ok: queued as ABC for (address)")
    [envelope] = mailbox.envelopes
    assert (envelope.mail_from, envelope.rcpt_tos) == ("bounces+1@example.com", ["jan@example.com"])
    assert envelope.content == MESSAGE
    assert mailbox.logins == [(b"shop", PASSWORD.encode())]
    assert mailbox.encrypted == [True]


async def test_tls_from_the_first_byte_on(trusted: Certificate) -> None:
    mailbox = Mailbox()
    async with listening(plain(mailbox), trusted.server) as port:
        posted = await post(SmtpPostman(settings(f"smtps://127.0.0.1:{port}"), tls=trusted.client))
    assert posted.outcome == "accepted"
    assert mailbox.envelopes[0].content == MESSAGE


@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
async def test_a_certificate_that_nobody_vouches_for_gets_no_mail(scheme: str, trusted: Certificate) -> None:
    mailbox = Mailbox()
    factory = starttls(mailbox, trusted.server) if scheme == "smtp" else plain(mailbox)
    async with listening(factory, trusted.server if scheme == "smtps" else None) as port:
        given = settings(f"{scheme}://127.0.0.1:{port}", user="shop", password=PASSWORD)
        posted = await post(SmtpPostman(given))
    assert posted.outcome == "later"
    assert "certificate" in posted.answer.lower()
    assert mailbox.envelopes == mailbox.logins == []


async def test_the_certificate_must_be_that_servers_own(tmp_path: Path) -> None:
    other = certificate(tmp_path, "127.0.0.9")
    mailbox = Mailbox()
    async with listening(starttls(mailbox, other.server)) as port:
        posted = await post(SmtpPostman(settings(f"smtp://127.0.0.1:{port}"), tls=other.client))
    assert (posted.outcome, mailbox.envelopes) == ("later", [])


@pytest.mark.parametrize("login", [{}, {"user": "shop", "password": PASSWORD}], ids=["no login", "login"])
async def test_a_server_without_starttls_gets_neither_login_nor_mail(login: dict[str, str]) -> None:
    mailbox = Mailbox()
    async with listening(plain(mailbox, auth_require_tls=False, authenticator=mailbox.login)) as port:
        posted = await post(SmtpPostman(settings(f"smtp://127.0.0.1:{port}", **login)))
    assert posted.outcome == "later"
    assert "STARTTLS" in posted.answer
    assert mailbox.envelopes == mailbox.logins == []


async def test_a_wrong_password_is_ours_to_mend(trusted: Certificate) -> None:
    mailbox = Mailbox()
    factory = starttls(mailbox, trusted.server, auth_required=True, authenticator=mailbox.login)
    async with listening(factory) as port:
        given = settings(f"smtp://127.0.0.1:{port}", user="shop", password="wrong")
        posted = await post(SmtpPostman(given, tls=trusted.client))
        unnamed = await post(SmtpPostman(settings(f"smtp://127.0.0.1:{port}"), tls=trusted.client))
    assert (posted.outcome, unnamed.outcome) == ("later", "later")
    assert "refused our login" in posted.answer
    assert "wants another login" in unnamed.answer
    assert "wrong" not in posted.answer


async def test_451_then_250() -> None:
    mailbox = Mailbox("451 4.7.1 <jan@example.com>: greylisted, jan should wait")
    async with listening(plain(mailbox)) as port:
        postman = SmtpPostman(settings(f"smtp+plain://127.0.0.1:{port}"))
        first, second = await post(postman), await post(postman)
    assert first == Posted("later", "451 4.7.1 (address) greylisted, (address) should wait")
    assert second.outcome == "accepted"
    assert len(mailbox.envelopes) == 1


@pytest.mark.parametrize(
    ("answers", "outcome", "said"),
    [
        (["250 mx", "550 5.7.1 no"], "refused", "550 5.7.1 no"),
        (["250 mx", "250 ok", "550 5.1.1 <jan@example.com> unknown"], "refused", "550 5.1.1 (address) unknown"),
        (["250 mx", "250 ok", "250 ok", "554 5.6.0 no spam"], "refused", "554 5.6.0 no spam"),
        (["250 mx", "250 ok", "452 4.2.2 full"], "later", "452 4.2.2 full"),
        (["250 mx", "421 4.3.2 closing"], "later", "421 4.3.2 closing"),
        (["250 mx", "250 ok", "421 4.3.2 closing"], "later", "421"),
        (["250 mx", "530 5.7.0 authenticate first"], "later", "another login"),
        (["554 no service here", "554 no service here"], "later", "554 no service"),
        (["250 mx", "250 ok", "999 what"], "refused", "999"),
        (["250 mx", "nonsense"], "later", ""),
        (["250 mx"], "later", ""),
        ([], "later", ""),
        (["250 mx", "250 ok", "250 ok", "message"], "later", ""),
    ],
)
async def test_what_a_server_says(answers: list[str], outcome: str, said: str) -> None:
    async with saying(answering(*answers)) as port:
        posted = await post(SmtpPostman(settings(f"smtp+plain://127.0.0.1:{port}"), seconds=5))
    assert posted.outcome == outcome, posted
    assert said in posted.answer
    assert posted.answer
    assert "@" not in posted.answer


async def test_a_server_that_refuses_at_the_door() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"554 go away, jan@example.com\r\n")

    async with saying(script) as port:
        posted = await post(SmtpPostman(settings(f"smtp+plain://127.0.0.1:{port}")))
    assert posted == Posted("later", "554 go away, (address)")


@pytest.mark.parametrize("greets", [False, True])
async def test_a_server_that_hangs(greets: bool) -> None:
    ended = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if greets:
            writer.write(b"220 mx ESMTP\r\n")
        await reader.read()
        ended.set()

    async with saying(script) as port:
        loop = asyncio.get_running_loop()
        began = loop.time()
        posted = await post(SmtpPostman(settings(f"smtp+plain://127.0.0.1:{port}"), seconds=0.3))
        assert loop.time() - began < 2
        await asyncio.wait_for(ended.wait(), 2)
    assert posted.outcome == "later"


async def test_a_server_that_drips_is_left_in_time() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(b"220-mx\r\n")
            await writer.drain()
            await asyncio.sleep(0.02)

    async with saying(script) as port:
        posted = await asyncio.wait_for(post(SmtpPostman(settings(f"smtp+plain://127.0.0.1:{port}"), seconds=0.3)), 3)
    assert posted.outcome == "later"


async def test_who_is_accepted_stays_so_when_the_goodbye_fails() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in (b"220 mx", b"250 mx", b"250 ok", b"250 ok", b"354 go on"):
            writer.write(answer + b"\r\n")
            await reader.readuntil(b"\r\n")
        await reader.readuntil(b"\r\n.\r\n")
        writer.write(b"250 taken\r\n")

    async with saying(script) as port:
        posted = await post(SmtpPostman(settings(f"smtp+plain://127.0.0.1:{port}")))
    assert posted == Posted("accepted", "250 taken")


async def test_nobody_listens() -> None:
    async with listening(asyncio.Protocol) as port:
        pass
    posted = await post(SmtpPostman(settings(f"smtp+plain://127.0.0.1:{port}")))
    assert posted.outcome == "later"
    assert "cannot be used" in posted.answer


async def test_letters_beyond_ascii_where_the_server_takes_them() -> None:
    mailbox = Mailbox()
    message = "From: shop@example.com\r\nTo: żółć@example.com\r\n\r\nbody\r\n".encode()
    async with listening(plain(mailbox, enable_SMTPUTF8=True)) as port:
        posted = await post(SmtpPostman(settings(f"smtp+plain://127.0.0.1:{port}")), "żółć@example.com", message)
    assert posted.outcome == "accepted", posted
    assert mailbox.envelopes[0].rcpt_tos == ["żółć@example.com"]
    assert mailbox.envelopes[0].smtp_utf8 is True
    assert mailbox.envelopes[0].content == message


async def test_letters_beyond_ascii_where_it_does_not() -> None:
    mailbox = Mailbox()
    async with listening(plain(mailbox, enable_SMTPUTF8=False)) as port:
        posted = await post(SmtpPostman(settings(f"smtp+plain://127.0.0.1:{port}")), "żółć@example.com")
    assert posted.outcome == "refused"
    assert "SMTPUTF8" in posted.answer


@pytest.mark.parametrize("to", ["", "a\r\nRCPT TO:<b@example.com>", "a> x@example.com", "no address"])
async def test_a_hostile_address_smuggles_no_command(to: str) -> None:
    mailbox = Mailbox()
    async with listening(plain(mailbox)) as port:
        posted = await post(SmtpPostman(settings(f"smtp+plain://127.0.0.1:{port}")), to)
    assert posted.outcome != "accepted"
    assert mailbox.envelopes == []


@pytest.mark.parametrize("host", ["mail.example.com", "192.0.2.1", "[2001:db8::1]", "localhost.example.com"])
def test_no_mail_in_the_clear_to_another_machine(host: str) -> None:
    with pytest.raises(SettingsError, match=r"smtp\+plain.*unencrypted"):
        SmtpPostman(settings(f"smtp+plain://{host}:25"))


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.9.9.9", "[::1]"])
def test_this_machine_may_have_it_in_the_clear(host: str) -> None:
    assert SmtpPostman(settings(f"smtp+plain://{host}:25"))


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("<jan@example.com>: unknown", "(address) unknown"),
        ('"jan k"@example.com is full', "(address) is full"),
        ("user Jan is not here; janitor is", "user (address) is not here; janitor is"),
        ("rcpt=jan%40x a@b\r\nc\x00", "rcpt=(address)%40x (address) c\ufffd"),
        ("x" * 999, "x" * ANSWER_MAX),
        ("", ""),
    ],
)
def test_an_answer_has_no_address_and_one_line(said: str, shown: str) -> None:
    assert without_addresses(said, "jan@example.com") == shown
