from __future__ import annotations

import pytest

from gateway.mail.envelope import mail_id_of_message_id, mail_id_of_recipient, message_id, return_path, sendable

UUID = "0193a1b2-0000-7000-8000-00000000000a"
HEX = "0a1b2c3d4e5f0a1b2c3d4e5f"


@pytest.mark.parametrize(
    ("address", "sent_to"),
    [
        ("jan@example.com", "jan@example.com"),
        (" Jan.K+x@Example.COM ", "Jan.K+x@example.com"),
        ("o'brien@łódź.example", "o'brien@xn--d-uga0v4h.example"),
        ("żółć@example.com", "żółć@example.com"),
        ("root@localhost", "root@localhost"),
    ],
)
def test_addresses(address: str, sent_to: str) -> None:
    assert sendable(address) == sent_to


@pytest.mark.parametrize(
    "address",
    [
        *("", "@", "jan", "@example.com", "jan@", "a@b@example.com", "jan@-example.com", "jan@example..com"),
        *("a b@example.com", '"a b"@example.com', "a>@example.com", "a\r\nRCPT TO:<b@example.com", "a\x00@example.com"),
        *("a@exa\nmple.com", "a,b@example.com", ".a@example.com", "a..b@example.com", "a@[127.0.0.1]", "a@x y"),
        *("ą" * 33 + "@example.com", "a" * 65 + "@example.com", "a@" + "b" * 64 + ".com", "a@" + "b." * 130 + "com"),
        *("\ud800@example.com", "a\u202e@example.com", "a\u2028b@example.com", "a@\ud800.com"),
    ],
)
def test_what_could_smuggle_a_command_or_reaches_nobody(address: str) -> None:
    with pytest.raises(ValueError, match="address"):
        sendable(address)


@pytest.mark.parametrize("mail_id", [UUID, HEX, "a"])
def test_a_bounce_finds_its_mail(mail_id: str) -> None:
    path = return_path(mail_id, "bounces@shop.example.com", "shop@example.com")
    assert path == f"bounces+{mail_id}@shop.example.com"
    assert len(path.partition("@")[0]) <= 64
    assert mail_id_of_recipient(path) == mail_id
    assert mail_id_of_recipient(f"Bounces <{path}>") == mail_id
    named = message_id(mail_id, "shop@łódź.example")
    assert named == f"{mail_id}@xn--d-uga0v4h.example"
    assert mail_id_of_message_id(f" <{named}>") == mail_id


def test_without_an_address_for_bounces_the_shop_gets_them() -> None:
    assert return_path(UUID, None, "shop@example.com") == "shop@example.com"


@pytest.mark.parametrize("mail_id", ["", "a b", "a--b", "-a", "a@b", "a\r\n", "x" * 80, "ą"])
def test_an_id_that_an_address_cannot_hold_is_refused(mail_id: str) -> None:
    with pytest.raises(ValueError, match="id"):
        message_id(mail_id, "shop@example.com")
    with pytest.raises(ValueError, match="id"):
        return_path(mail_id, "bounces@example.com", "shop@example.com")


@pytest.mark.parametrize("text", ["", "bounces@example.com", "<>", "+@", "a+b c@example.com", "<a b@c>", "+" * 9999])
def test_what_names_no_mail(text: str) -> None:
    assert mail_id_of_recipient(text) is None
    assert mail_id_of_message_id(text.replace("bounces@", "boun ces@")) is None
