"""What arrives in the buyer's mailbox, taken apart by the standard library's own parser."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from html.parser import HTMLParser
from pathlib import Path

import pytest

from gateway.mail.composing import Composer
from gateway.mail.letter import Brand, FileAddress, Letter, LinkAddresses
from gateway.policy.model import Limits

COMPOSER = Composer()
GMAIL_CLIPS_AT = 102 * 1024
Link = Callable[..., LinkAddresses]


class Arrived:
    """A message as a mail program reads it."""

    def __init__(self, content: bytes) -> None:
        parsed = message_from_bytes(content, policy=default)
        assert isinstance(parsed, EmailMessage)
        self.message = parsed
        assert [part.defects for part in parsed.walk() if part.defects] == []
        plain, html = parsed.get_body(("plain",)), parsed.get_body(("html",))
        assert plain is not None
        assert html is not None
        self.text: str = plain.get_content()
        self.html: str = html.get_content()
        self.seen = Seen(self.html)
        self.pictures = {
            str(part["Content-ID"]): part for part in parsed.walk() if part.get_content_maintype() == "image"
        }


class Seen(HTMLParser):
    """Elements and text outside <style>."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._in_style = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._in_style = tag == "style"

    def handle_endtag(self, tag: str) -> None:
        self._in_style = False

    def handle_data(self, data: str) -> None:
        if not self._in_style:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def arrived(letter: Letter) -> Arrived:
    return Arrived(COMPOSER.compose(letter))


def test_both_parts_say_everything(letter: Letter) -> None:
    mail = arrived(letter)
    assert mail.message.get_content_type() == "multipart/alternative"
    for said in (mail.text, mail.seen.text):
        for part in ("Jan Kowalski", "10001", "Sea & Sand.pdf", "Żółta łódź.epub", "1.2\u00a0MB", "5 times"):
            assert part in said
        for part in (
            "21 December 2026, 02:30 UTC",
            "30 days",
            "3 days",
            "3 different networks",
            "shop.example.com/help",
        ):
            assert part in said
    addresses = [link.address for link in letter.links] + [file.address for file in letter.links[0].files]
    hrefs = {a["href"] for a in mail.seen.all("a")}
    for address in addresses:
        assert address in mail.text.split()
        assert address in hrefs


def test_the_headers_are_those_of_a_transactional_mail(letter: Letter) -> None:
    message = arrived(replace(letter, reply_to="help@example.com")).message
    assert message["Subject"] == "Sea Shop: your downloads from order 10001"
    assert message["From"].addresses[0].display_name == "Sea Shop"
    assert message["From"].addresses[0].addr_spec == "shop@example.com"
    assert message["To"].addresses[0].addr_spec == "jan@example.com"
    assert message["Reply-To"] == "help@example.com"
    assert message["Message-ID"] == "<0a1b2c@example.com>"
    assert message["Date"] == "Sat, 21 Nov 2026 02:30:05 +0000"
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["Content-Language"] == "en"
    assert "List-Unsubscribe" not in message
    assert "Bcc" not in message


def test_the_bytes_are_plain_ascii_lines_that_every_server_takes(letter: Letter) -> None:
    content = COMPOSER.compose(replace(letter, buyer_name="Świętosława", language="pl"))
    assert content.isascii()
    lines = content.split(b"\r\n")
    assert max(map(len, lines)) <= 998  # RFC 5322 §2.1.1
    assert not any(b"\n" in line or b"\r" in line for line in lines)


def test_a_polish_buyer_reads_polish(letter: Letter) -> None:
    mail = arrived(replace(letter, language="pl-PL"))
    assert mail.message["Subject"] == "Sea Shop: pliki z zamówienia 10001"
    assert mail.seen.all("html") == [{"lang": "pl", "dir": "ltr"}]
    for said in (mail.text, mail.seen.text):
        for part in (
            "Pliki są gotowe",
            "21 grudnia 2026, godz. 02:30 UTC",
            "30 dni",
            "5 razy",
            "z 3 różnych",
        ):
            assert part in said
        assert not re.search(r"\b(download|your|link works)\b", said, re.IGNORECASE)


def test_an_unknown_language_is_the_shops_own() -> None:
    assert COMPOSER.language("xx", "pl") == "pl"
    assert COMPOSER.language("", "pl") == "pl"
    assert COMPOSER.language("pl_PL", "en") == "pl"
    assert COMPOSER.language("en-GB", "pl") == "en"
    assert COMPOSER.language("\r\n;q=", "zz") == "en"


def test_one_file_has_one_button_and_its_own_address(letter: Letter, link: Link) -> None:
    only = link("Sea.pdf")
    mail = arrived(replace(letter, links=(only,)))
    assert "Your download is ready" in mail.seen.text
    assert [a["href"] for a in mail.seen.all("a")][:2] == [only.files[0].address, only.address]


def test_whom_the_links_are_for_is_told(letter: Letter, link: Link) -> None:
    def said(*accounts: bool) -> str:
        return arrived(replace(letter, links=tuple(link("a.pdf", account=each) for each in accounts))).text

    assert "for your account alone" in said(True, True)
    assert "Whoever has them" not in said(True, True)
    assert "Whoever has them" in said(True, False)


def test_links_with_the_same_limits_say_them_once(letter: Letter, link: Link) -> None:
    same = replace(letter, links=(link("a.pdf", title="A", token="a"), link("b.pdf", title="B", token="b")))
    other = replace(letter, links=(same.links[0], link("b.pdf", title="B", token="b", limits=Limits(downloads=1))))
    assert arrived(same).text.count("each file") == 1
    mail = arrived(other)
    assert (mail.text.count("5 times"), mail.text.count("each file once")) == (1, 1)
    assert mail.seen.text.count("Good to know") == 2
    for title in ("A", "B"):
        assert f"== {title} ==" in mail.text
    assert len(mail.seen.all("h2")) == 4


@pytest.mark.parametrize(
    "name",
    [
        "Jan\r\nBcc: victim@example.com",
        "Jan\nX-Evil: 1",
        'Kowalski, Jan "J" \\',
        "Ünï çødé, \U0001f30a",
        "=?utf-8?q?=0d=0aBcc:_x?=",
        "=?utf-8?b?DQpCY2M6IHg=?=",
        "a =?utf-8?q?=0d=0aBcc:_x?= =\x00?utf-8?q?=0d=0aBcc:_x?=",
        "==??utf-8?q?=0d=0aBcc:_x?=",
        "\u202egro.live\u202c",
        "a" * 60,
        "\ud800",
        "(comment)",
        "Zażółć Gęślą Jaźń, Żółć Żółtą Zażółć Gęślą Jaźń Jak Miło",
    ],
)
@pytest.mark.parametrize("as_brand", [False, True], ids=["buyer", "shop"])
def test_a_name_adds_no_header(letter: Letter, name: str, as_brand: bool) -> None:
    changed = {"brand": Brand(name), "reference": name} if as_brand else {"buyer_name": name, "reference": name}
    mail = arrived(replace(letter, **changed))
    expected = arrived(letter).message.keys()
    assert mail.message.keys() == expected
    assert len(mail.message["To"].addresses) == len(mail.message["From"].addresses) == 1
    assert mail.message["To"].addresses[0].addr_spec == "jan@example.com"
    assert mail.message["From"].addresses[0].addr_spec == "shop@example.com"
    for header in mail.message.values():
        assert not re.search("[\r\n\u202e]", str(header))


@pytest.mark.parametrize("name", ["Kowalski, Jan", "O'Brien (Sea)", "Łódź; sp. z o.o.", '"quoted"', "a=b?c"])
def test_a_shops_name_arrives_as_it_is(letter: Letter, name: str) -> None:
    assert arrived(replace(letter, brand=Brand(name))).message["From"].addresses[0].display_name == name


@pytest.mark.parametrize("name", ["Win at evil.example now", "https://evil.example", "a@b", "<b>", "x" * 61])
def test_a_buyer_whose_name_is_an_advertisement_is_not_greeted_by_it(letter: Letter, name: str) -> None:
    mail = arrived(replace(letter, buyer_name=name))
    assert "Hello," in mail.text
    assert name not in mail.text + mail.html + str(mail.message["To"])


def test_hostile_names_of_files_are_only_text(letter: Letter) -> None:
    names = ['"><script>alert(1)</script>.pdf', "{{7*7}}{0.__class__}.pdf", "\u202efdp.exe", "a\r\nb.pdf", "\ud800.pdf"]
    files = tuple(FileAddress(name, "https://dl.example.com/d/t/1") for name in names)
    bad = replace(letter, links=(replace(letter.links[0], files=files, title="<img src=x>"),) * 2)
    mail = arrived(bad)
    tags = {tag for tag, _ in mail.seen.elements}
    assert not tags & {"script", "iframe", "form", "object", "link", "base"}
    assert all(str(img["src"]).startswith("cid:") for img in mail.seen.all("img"))
    assert "{{7*7}}{0.__class__}.pdf" in mail.text
    assert "\u202e" not in mail.text + mail.html


@pytest.mark.parametrize("address", ["javascript:alert(1)", "//evil.example/", 'https://x/"onclick=', "", "http://a b"])
def test_an_address_that_is_none_is_refused(address: str, link: Link) -> None:
    with pytest.raises(ValueError, match="http"):
        replace(link("a"), address=address)
    with pytest.raises(ValueError, match="http"):
        FileAddress("a", address)


def test_nothing_is_loaded_from_afar(letter: Letter, logo: bytes) -> None:
    mail = arrived(replace(letter, brand=replace(letter.brand, logo=logo, contact="+48 12 345 67 89")))
    html = re.sub(r'href="[^"]*"', "", mail.html)
    assert not re.search(r"https?://|url\(|@import|<link|<script", html)
    sources = [str(img["src"]) for img in mail.seen.all("img")]
    assert {f"<{source.removeprefix('cid:')}>" for source in sources} == set(mail.pictures)
    assert all(part.get_content_disposition() == "inline" for part in mail.pictures.values())
    assert mail.pictures[f"<{sources[0].removeprefix('cid:')}>"].get_content() == logo


def test_it_can_be_read_aloud_and_in_the_dark(letter: Letter, logo: bytes) -> None:
    mail = arrived(replace(letter, brand=replace(letter.brand, logo=logo)))
    assert [img["alt"] for img in mail.seen.all("img")] == ["Sea Shop", "QR code that opens your downloads"]
    assert all(table["role"] == "presentation" for table in mail.seen.all("table"))
    assert len(mail.seen.all("h1")) == 1
    labels = [a["aria-label"] for a in mail.seen.all("a") if "aria-label" in a]
    assert labels == ["Download Sea & Sand.pdf", "Download Żółta łódź.epub"]
    assert "prefers-color-scheme:dark" in mail.html
    assert {"name": "color-scheme", "content": "light dark"} in mail.seen.all("meta")


@pytest.mark.parametrize("many", [40, 400, 5000])
@pytest.mark.parametrize("token_length", [300, 4000])
def test_the_message_stays_below_what_gmail_cuts_off(
    letter: Letter, link: Link, logo: bytes, many: int, token_length: int
) -> None:
    names = [f"Track {number} – żółć.flac" for number in range(many)]
    brand = replace(letter.brand, logo=logo + bytes(24 * 1024 - len(logo)))
    full = replace(letter, brand=brand, links=(link(*names, token="t" * token_length),))
    content = COMPOSER.compose(full)
    mail = Arrived(content)
    assert len(content) < 100_000 < GMAIL_CLIPS_AT
    shown = mail.text.count(".flac")
    assert f"{many - shown} more files" in mail.seen.text
    assert "on the page above" in mail.text
    assert full.links[0].address in mail.text


def test_twenty_links_still_fit(letter: Letter, link: Link) -> None:
    links = tuple(
        link(*(f"{n}.pdf" for n in range(10)), token=f"{number}{'t' * 500}", title=f"B{number}") for number in range(20)
    )
    content = COMPOSER.compose(replace(letter, links=links))
    assert len(content) < 100_000
    assert all(each.address in Arrived(content).text for each in links)


def test_an_address_beyond_ascii_is_written_in_utf8(letter: Letter) -> None:
    content = COMPOSER.compose(replace(letter, to="żółć@łódź.example"))
    head = content.partition(b"\r\n\r\n")[0]
    assert "żółć@xn--d-uga0v4h.example".encode() in head
    ascii_head = COMPOSER.compose(replace(letter, to="jan@łódź.example")).partition(b"\r\n\r\n")[0]
    assert b"jan@xn--d-uga0v4h.example" in ascii_head
    assert ascii_head.isascii()


@pytest.mark.parametrize("to", ["", "jan", "a@b@c", "jan@exa mple.com", "<jan@example.com>", "a,b@example.com"])
def test_an_address_that_no_mail_can_be_sent_to_is_refused(letter: Letter, to: str) -> None:
    with pytest.raises(ValueError, match="address"):
        COMPOSER.compose(replace(letter, to=to))


def test_the_qr_code_opens_the_page(letter: Letter, tmp_path: Path) -> None:
    zbarimg = shutil.which("zbarimg")
    if zbarimg is None:
        pytest.skip("zbarimg (Debian's zbar-tools) is not installed")
    token = "eyJhbGciOiJIUzI1NiJ9." + "aZ09-_" * 70 + ".x"
    full = replace(letter, links=(replace(letter.links[0], address=f"https://dl.example.com/l/{token}"),))
    [picture] = arrived(full).pictures.values()
    (tmp_path / "qr.png").write_bytes(picture.get_content())
    read = subprocess.run([zbarimg, "--raw", "-q", tmp_path / "qr.png"], capture_output=True, text=True, check=True)
    assert read.stdout.strip() == full.links[0].address


def test_an_address_too_long_for_a_camera_has_no_qr_code(letter: Letter, link: Link) -> None:
    mail = arrived(replace(letter, links=(link("a.pdf", token="t" * 2000),)))
    assert mail.pictures == {}
    assert "camera" not in mail.seen.text


def test_the_preview_needs_no_mail_program(letter: Letter, logo: bytes) -> None:
    page = COMPOSER.preview(replace(letter, brand=replace(letter.brand, logo=logo)))
    assert [str(img["src"])[:22] for img in Seen(page).all("img")] == ["data:image/png;base64,"] * 2
    assert "cid:" not in page


def test_links_addresses_and_buyers_stay_out_of_reprs(letter: Letter) -> None:
    assert not re.search(r"to\.k\.en|@example\.com'|Kowalski", repr(replace(letter, message_id="x")))


def test_another_language_is_one_more_file(letter: Letter, tmp_path: Path) -> None:
    texts = Path(__file__).parents[2] / "gateway/mail/texts"
    shutil.copytree(texts, tmp_path, dirs_exist_ok=True)
    (tmp_path / "ar.toml").write_text('direction = "rtl"\n[mail]\ngreeting_named = "مرحبا {name}،"\n', "utf-8")
    mail = Arrived(Composer(tmp_path).compose(replace(letter, language="ar-EG")))
    assert mail.seen.all("html") == [{"lang": "ar", "dir": "rtl"}]
    assert "مرحبا Jan Kowalski،" in mail.text
    assert "Go to your downloads" in mail.seen.text, "what it leaves out is said in English"
