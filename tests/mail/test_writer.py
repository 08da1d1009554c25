from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from email import message_from_bytes
from email.policy import default

import pytest

from gateway.mail.composing import Composer
from gateway.mail.letter import Brand, LinkAddresses
from gateway.mail.writer import Writer
from gateway.order_ports import Mail
from gateway.policy.orders import Buyer, Order, Told
from gateway.settings_sections import MailSettings

COMPOSER = Composer()
SETTINGS = MailSettings.model_validate(
    {
        "server": "smtp://mail.example.com",
        "sender": "shop@example.com",
        "reply_to": "help@example.com",
        "language": "pl",
    }
)
ORDER = Order("main-1", "main", "1", reference="#10001", buyer=Told(Buyer("old@example.com", "Jan Kowalski"), 1))
MAIL = Mail("0a1b2c", "main-1", "links", 1, "jan@example.com", "en-GB", created_at=1_795_228_200_000)


@pytest.fixture
def writer(link: Callable[..., LinkAddresses]) -> Writer:
    return Writer(
        COMPOSER,
        Brand("Sea Shop"),
        SETTINGS,
        addresses=lambda order: [link("Sea.pdf")],
        code=lambda mail_id: {"0a1b2c": "012345"}[mail_id],
        clock=lambda: 1_795_228_205_999,
    )


def test_the_message_is_made_of_the_order_and_its_mail(writer: Writer) -> None:
    message = message_from_bytes(writer.compose(ORDER, MAIL), policy=default)
    assert message["Message-ID"] == "<0a1b2c@example.com>"
    assert message["Date"] == "Sat, 21 Nov 2026 02:30:05 +0000"
    assert message["Subject"] == "Sea Shop: your downloads from order #10001"
    assert message["To"] == "Jan Kowalski <jan@example.com>"
    assert message["Reply-To"] == "help@example.com"


@pytest.mark.parametrize(("language", "written"), [("en-GB", "en"), ("", "pl"), ("xx", "pl")])
def test_the_language_is_the_buyers_else_the_shops(writer: Writer, language: str, written: str) -> None:
    assert writer.letter(ORDER, replace(MAIL, language=language)).language == written


def test_an_order_without_links_is_not_mailed() -> None:
    bare = Writer(COMPOSER, Brand("Sea Shop"), SETTINGS, addresses=lambda order: (), code=str, clock=lambda: 0)
    with pytest.raises(ValueError, match="no link"):
        bare.compose(ORDER, MAIL)


def test_the_envelopes_sender(writer: Writer, link: Callable[..., LinkAddresses]) -> None:
    assert writer.sender(MAIL) == "shop@example.com"
    settings = SETTINGS.model_copy(update={"bounces": "bounces@example.com"})
    verp = Writer(COMPOSER, Brand("Sea Shop"), settings, addresses=lambda order: [link("a")], code=str, clock=lambda: 0)
    assert verp.sender(MAIL) == "bounces+0a1b2c@example.com"


@pytest.mark.parametrize(
    ("language", "subject", "title"),
    [
        ("en", "Sea Shop: your code for order #10001", "Your code"),
        ("pl", "Sea Shop: kod do zamówienia #10001", "Kod dostępu"),
    ],
)
def test_a_code_is_in_the_body_alone_and_no_link_is_beside_it(
    writer: Writer, language: str, subject: str, title: str
) -> None:
    code = replace(MAIL, purpose="code", language=language)
    message = message_from_bytes(writer.compose(ORDER, code), policy=default)
    assert message["Subject"] == subject
    assert not any("012345" in value for value in message.values())
    parts = [part.get_content() for part in message.walk() if part.get_content_maintype() == "text"]
    assert len(parts) == 2
    for part in parts:
        assert title in part
        assert "012345" in part
        assert "#10001" in part
        assert "Sea.pdf" not in part
        assert not re.search("https?://", part)
