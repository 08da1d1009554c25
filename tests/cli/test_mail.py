"""`gateway mail …`, with a real order book and a real mail server."""

from __future__ import annotations

import asyncio
import io
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from email import message_from_bytes
from email.policy import default
from pathlib import Path

import pytest
from aiosmtpd.smtp import SMTP, Envelope, Session

from gateway.backends.order_book import SqlOrderBook
from gateway.order_ports import Fields, Mail
from gateway.policy.model import FileEntry
from gateway.policy.orders import Buyer, Entitlement, IssuedLink, Line, Order, Said, SoldFile, Told
from gateway.services.identifiers import now_ms

Run = Callable[..., subprocess.CompletedProcess[str]]
MAIL_ID = "0a1b2c3d4e5f0a1b2c3d4e5f"
BOUNCE = f"""\
To: bounces+{MAIL_ID}@example.com
Content-Type: multipart/report; report-type=delivery-status; boundary="b"

--b
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.example.com

Final-Recipient: rfc822; jan@example.com
Action: failed
Status: 5.1.1
Diagnostic-Code: smtp; 550 5.1.1 <jan@example.com> user jan unknown

--b--
"""


class Server:
    def __init__(self) -> None:
        self.envelopes: list[Envelope] = []
        self.answer = "250 queued"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802  aiosmtpd's name
        self.envelopes.append(envelope)
        return self.answer


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def port(server: Server) -> Iterator[int]:
    """The server's port; it runs beside the command, in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    opening = loop.create_server(lambda: SMTP(server, hostname="mx", loop=loop), "127.0.0.1", 0)
    opened = asyncio.run_coroutine_threadsafe(opening, loop).result(5)
    yield opened.sockets[0].getsockname()[1]
    loop.call_soon_threadsafe(opened.close)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(5)
    loop.close()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Settings with an order book and a mail server at a port that nobody listens at."""
    path = tmp_path / "settings.yaml"
    path.write_text(
        "redis: redis://127.0.0.1:1\norigin: {url: file:///srv/files}\nissuer: shop.example.com\n"
        "public_url: https://dl.example.com\n"
        "keys: [{kid: a, alg: HS256, secret: 0123456789abcdef0123456789abcdef, use: sign}]\n"
        f"orders: {{url: sqlite:///{tmp_path}/orders.db}}\n"
        "mail: {server: smtp+plain://127.0.0.1:1, sender: shop@example.com, bounces: bounces@example.com}\n"
        'brand: {name: Sea Shop, color: "#0b5d54", contact: help@example.com}\n'
    )
    return path


def keep(folder: Path, **changed: object) -> None:
    """An order with a link and its mail, in the book of these settings."""
    now = now_ms()
    file = FileEntry("ebooks/sea.pdf", name="Sea & Sand.pdf")
    order = Order(
        "main-1",
        "main",
        "1",
        reference="10001",
        paid=Said(True, (1,)),
        buyer=Told(Buyer("jan@example.com", "Jan Kowalski", language="pl"), 1),
        lines=Told((Line("l1"),), 1),
        entitlements=(Entitlement("l1", "Sea", (SoldFile(file, "e", 4_200_000),), now),),
        links=(IssuedLink("t1", ("l1",), (file,), now // 1000, now // 1000 + 30 * 86_400),),
    )
    mail = Mail(MAIL_ID, "main-1", "links", 1, "jan@example.com", "pl", now, state="accepted", attempts=1)

    async def write() -> None:
        book = SqlOrderBook(f"sqlite:///{folder}/orders.db")
        await book.open()
        async with book.change("main-1") as draft:
            draft.order = order
            draft.mails.append(mail)
        await book.close()

    asyncio.run(write())


def found(folder: Path) -> tuple[Mail, list[Fields]]:
    async def read() -> tuple[Mail, list[Fields]]:
        book = SqlOrderBook(f"sqlite:///{folder}/orders.db")
        await book.open()
        [mail], events = await book.mails("main-1"), [each.fields for each in await book.outgoing(9)]
        await book.close()
        return mail, events

    return asyncio.run(read())


def test_preview_shows_the_mail_as_its_buyer_will_see_it(run: Run, config: Path, tmp_path: Path) -> None:
    keep(tmp_path)
    for name in ("main-1", "10001", "jan@example.com"):
        shown = run("mail", "preview", name, "--text", "--config", config)
        assert shown.returncode == 0, shown.stderr
        assert "Dzień dobry, Jan Kowalski," in shown.stdout
        assert "Sea & Sand.pdf" in shown.stdout
        assert "https://dl.example.com/l/ey" in shown.stdout
    page = tmp_path / "mail.html"
    shown = run("mail", "preview", "main-1", "--language", "en", "--out", page, "--config", config)
    assert (shown.returncode, shown.stdout) == (0, f"written to {page}\n")
    html = page.read_text("utf-8")
    assert "Sea &amp; Sand.pdf" in html
    assert "Hello <bdi>Jan Kowalski</bdi>" in html
    assert "data:image/png;base64," in html
    assert run("mail", "preview", "main-1", "--language", "en", "--config", config).stdout.startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["main-9"], 1, "the book has no order main-9"),
        (["main-1", "--language", "tlh"], 2, "write one of en, pl"),
        (["main-1", "--out", "/nowhere/mail.html"], 1, "--out cannot be written"),
        ([], 2, "Missing argument"),
    ],
)
def test_a_preview_that_cannot_be(
    run: Run, config: Path, tmp_path: Path, arguments: list[str], status: int, said: str
) -> None:
    keep(tmp_path)
    shown = run("mail", "preview", *arguments, "--config", config)
    assert (shown.returncode, shown.stdout) == (status, "")
    assert said in shown.stderr
    assert len(shown.stderr.splitlines()) == 1


def test_send_test_tells_what_the_server_answered(run: Run, config: Path, server: Server, port: int) -> None:
    given = {"GATEWAY_MAIL__SERVER": f"smtp+plain://127.0.0.1:{port}"}
    shown = run("mail", "send-test", "you@example.com", "--config", config, **given)
    assert (shown.returncode, shown.stdout) == (0, "accepted: 250 queued\n"), shown.stderr
    [envelope] = server.envelopes
    assert envelope.rcpt_tos == ["you@example.com"]
    assert str(envelope.mail_from).startswith("bounces+")
    assert isinstance(envelope.content, bytes)
    assert message_from_bytes(envelope.content, policy=default)["Subject"] == "Sea Shop: your downloads from order TEST"
    server.answer = "550 5.7.1 <you@example.com> no"
    refused = run("mail", "send-test", "you@example.com", "--config", config, **given)
    assert refused.returncode == 1
    assert "the mail was refused: 550 5.7.1 (address) no" in refused.stderr


def test_send_test_without_a_server_an_address_or_settings(run: Run, config: Path) -> None:
    silent = run("mail", "send-test", "you@example.com", "--config", config)
    assert silent.returncode == 1
    assert "would be tried again" in silent.stderr
    wrong = run("mail", "send-test", "nobody", "--config", config)
    assert wrong.returncode == 2
    assert "write one like you@example.com" in wrong.stderr
    config.write_text("\n".join(line for line in config.read_text().splitlines() if not line.startswith("mail:")))
    unset = run("mail", "send-test", "you@example.com", "--config", config)
    assert unset.returncode == 1
    assert "mail: is not set" in unset.stderr


def test_a_logo_that_no_mail_can_carry_is_told(run: Run, config: Path, tmp_path: Path) -> None:
    (tmp_path / "logo.svg").write_text("<svg/>")
    shown = run("mail", "send-test", "you@example.com", "--config", config, GATEWAY_BRAND__LOGO=f"{tmp_path}/logo.svg")
    assert shown.returncode == 1
    assert "the logo is no PNG, JPEG or GIF" in shown.stderr


class Input(io.TextIOWrapper):
    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content), "utf-8")


def bounce(
    run: Run, config: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, *more: str, **environ: str
) -> subprocess.CompletedProcess[str]:
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stdin", Input(content))
        return run("mail", "bounce", *more, "--config", config, **environ)


def test_a_bounce_is_written_into_the_book(
    run: Run, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(tmp_path)
    first = bounce(run, config, monkeypatch, BOUNCE.encode())
    assert (first.returncode, first.stdout) == (0, f"mail {MAIL_ID} has bounced\n"), first.stderr
    again = bounce(run, config, monkeypatch, BOUNCE.encode())
    assert (again.returncode, "nothing is changed" in again.stdout) == (0, True)
    mail, events = found(tmp_path)
    assert mail.state == "bounced"
    [event] = events
    assert event["type"] == "mail.bounced"
    assert event["mail.answer"] == "5.1.1 550 5.1.1 (address) user (address) unknown"


def test_a_bounce_is_known_by_what_postfix_tells(
    run: Run, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(tmp_path)
    bare = BOUNCE.replace(f"+{MAIL_ID}", "").encode()
    assert "names no mail of ours" in bounce(run, config, monkeypatch, bare).stdout
    shown = bounce(run, config, monkeypatch, bare, ORIGINAL_RECIPIENT=f"bounces+{MAIL_ID}@example.com")
    assert shown.stdout == f"mail {MAIL_ID} has bounced\n"


@pytest.mark.parametrize(
    ("content", "status", "said"),
    [
        (b"", 2, "nothing in standard input"),
        (b"Subject: spam\r\n\r\n", 0, "nothing is changed: it is no delivery report"),
        (b"\xff\x00" * 500_000, 0, "nothing is changed"),
        (BOUNCE.replace(MAIL_ID, "ffff").encode(), 0, "there is no mail ffff here"),
    ],
)
def test_what_is_no_bounce_of_ours(
    run: Run, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, status: int, said: str
) -> None:
    keep(tmp_path)
    shown = bounce(run, config, monkeypatch, content)
    assert shown.returncode == status
    assert said in shown.stdout + shown.stderr
    assert found(tmp_path)[1] == []


def test_a_book_that_is_away_has_it_given_again(run: Run, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = bounce(
        run, config, monkeypatch, BOUNCE.encode(), GATEWAY_ORDERS__URL="postgresql://nobody@127.0.0.1:1/none"
    )
    assert (shown.returncode, shown.stdout) == (1, "")
    assert len(shown.stderr.splitlines()) == 1
