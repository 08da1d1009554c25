"""A letter becomes a message (RFC 5322): HTML with its pictures inside, and the same as plain text, whole by itself.

Law: whatever an order or a file is called, it adds no header and no markup, and the message stays below 100 KB.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8
from email.utils import format_datetime
from importlib.resources import files as package_files
from importlib.resources.abc import Traversable

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape

from gateway.http.disposition import file_name
from gateway.http.problem import DEFAULT_LANGUAGE, pick_language
from gateway.mail import colors
from gateway.mail.envelope import sendable
from gateway.mail.letter import Letter, LinkAddresses
from gateway.mail.notes import notes
from gateway.mail.pictures import Picture, check_logo, qr_code
from gateway.words import Words, load_words

MESSAGE_BYTES_MAX = 98_000
"""Gmail cuts off what is longer than 102 KB."""
FILES_SHOWN = (24, 12, 6, 3, 0)
"""How many files are listed at most, over all links: the first number with which the message is short enough."""
QR_CODES_MAX = 3

_NAME_MAX = 60
_TEXT_MAX = 200
# Controls, line separators, lone surrogates, and what turns text around.
_UNCLEAN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")
# A buyer who calls himself so wants our mail to advertise something.
_ADVERTISES = re.compile(r"[:/@<>\\]|\w\.\w\w")


@dataclass(frozen=True, slots=True)
class _Row:
    name: str
    size: str
    address: str


@dataclass(frozen=True, slots=True)
class _Shown:
    """A picture as a template sees it."""

    source: str
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class _Section:
    """A link as a template sees it; `total` counts all its files."""

    title: str
    address: str
    files: tuple[_Row, ...]
    total: int
    more: str
    notes: tuple[str, ...]
    qr: _Shown | None


class Composer:
    """Composes letters in every language that there are texts for."""

    def __init__(self, texts: Traversable | None = None) -> None:
        """Load every language of the folder, ours unless another is given; see load_words for what it raises."""
        self._words = load_words(texts or package_files("gateway.mail").joinpath("texts"), DEFAULT_LANGUAGE)
        self._environment = Environment(
            loader=PackageLoader("gateway.mail"),
            autoescape=select_autoescape(enabled_extensions=("html.j2",), default_for_string=True, default=False),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages there are texts for."""
        return tuple(self._words)

    def language(self, wanted: str, otherwise: str) -> str:
        """The language to write in: what the buyer wants (BCP 47, `pl-PL` finds `pl`), else the shop's own."""
        own = pick_language(otherwise.replace("_", "-"), self.languages)
        return pick_language(wanted.replace("_", "-"), self.languages, own) if wanted else own

    def compose(self, letter: Letter) -> bytes:
        """The whole message, with CRLF. Raises ValueError for an address that no mail can be sent to."""
        message, pictures = b"", _pictures(letter)
        for most in FILES_SHOWN:
            message = self._message(letter, most, pictures)
            if len(message) <= MESSAGE_BYTES_MAX:
                break
        return message

    def text(self, letter: Letter) -> str:
        """The plain text that the message carries."""
        return self._text(letter, FILES_SHOWN[0])

    def preview(self, letter: Letter) -> str:
        """The HTML with its pictures in it, for a browser."""
        return self._html(letter, FILES_SHOWN[0], _pictures(letter), inside=True)

    def _message(self, letter: Letter, most: int, pictures: Mapping[str, Picture]) -> bytes:
        sender, to = sendable(letter.sender), sendable(letter.to)
        reply_to = sendable(letter.reply_to) if letter.reply_to else ""
        policy = SMTP if (sender + to + reply_to).isascii() else SMTPUTF8
        message = EmailMessage(policy=policy)
        message["From"] = _mailbox(_line(letter.brand.name), sender)
        message["To"] = _mailbox(_person(letter.buyer_name), to)
        if reply_to:
            message["Reply-To"] = _mailbox("", reply_to)
        message["Subject"] = self._subject(letter)
        message["Date"] = format_datetime(datetime.fromtimestamp(letter.sent_at, UTC))
        message["Message-ID"] = f"<{letter.message_id}>"
        # RFC 3834 §5: no out-of-office notes in answer to it; Exchange asks for a header of its own.
        message["Auto-Submitted"] = "auto-generated"
        message["X-Auto-Response-Suppress"] = "All"
        message.set_content(self._text(letter, most), cte="quoted-printable")
        html = EmailMessage(policy=policy)
        html.set_content(self._html(letter, most, pictures, inside=False), subtype="html", cte="quoted-printable")
        for name, picture in pictures.items():
            html.add_related(
                picture.content,
                "image",
                picture.subtype,
                cid=f"<{_cid(name, letter)}>",
                filename=f"{name}.{picture.subtype}",
                disposition="inline",
            )
        del html["MIME-Version"]  # it stands once, in front of the whole
        message.make_alternative()  # moves every Content-… header into the first part
        message["Content-Language"] = self._of(letter).language
        message.attach(html)
        return message.as_bytes()

    def _html(self, letter: Letter, most: int, pictures: Mapping[str, Picture], *, inside: bool) -> str:
        words = self._of(letter)

        def say(key: str, **parts: object) -> Markup:
            return escape(words.text(key)).format(**parts)

        shown = {
            name: _Shown(_data(picture) if inside else f"cid:{_cid(name, letter)}", picture.width, picture.height)
            for name, picture in pictures.items()
        }
        color = letter.brand.color
        return self._environment.get_template("letter.html.j2").render(
            say=say,
            logo=shown.get("logo"),
            ink=colors.INK,
            card=colors.CARD,
            dark_card=colors.DARK_CARD,
            dark_ink=colors.DARK_INK,
            on_color=colors.text_on(color),
            edge=colors.edge_on(color, colors.CARD, colors.EDGE),
            dark_edge=colors.edge_on(color, colors.DARK_CARD, colors.DARK_EDGE),
            **self._values(letter, most, shown),
        )

    def _text(self, letter: Letter, most: int) -> str:
        words = self._of(letter)
        values = self._values(letter, most, {})
        return self._environment.get_template("letter.txt.j2").render(say=words.say, **values)

    def _values(self, letter: Letter, most: int, shown: Mapping[str, _Shown]) -> dict[str, object]:
        words = self._of(letter)
        told = [tuple(notes(link, words, letter.sent_at)) for link in letter.links]
        common = told[0] if told and len(set(told)) == 1 else ()
        each = -(-most // max(1, len(letter.links)))
        links = [
            self._section(link, words, each, () if common else own, shown.get(f"qr{number}"))
            for number, (link, own) in enumerate(zip(letter.links, told, strict=True), 1)
        ]
        contact = _line(letter.brand.contact)
        return {
            "language": words.language,
            "subject": self._subject(letter),
            **_headed(letter, words, next(iter(told[0]), "") if told else ""),
            "shop": _line(letter.brand.name),
            "color": letter.brand.color,
            "reference": _line(letter.reference),
            "buyer_name": _person(letter.buyer_name),
            "links": links,
            "common_notes": common,
            "contact": contact,
            "contact_href": _href(contact),
            "has_reply": bool(letter.reply_to),
        }

    @staticmethod
    def _section(link: LinkAddresses, words: Words, most: int, told: tuple[str, ...], qr: _Shown | None) -> _Section:
        rows = tuple(
            _Row(file_name(file.name), words.size(file.size) if file.size is not None else "", file.address)
            for file in link.files[:most]
        )
        rest = len(link.files) - len(rows)
        more = words.count("mail.more", rest) if rest and len(link.files) > 1 else ""
        return _Section(_line(link.title), link.address, rows, len(link.files), more, told, qr)

    def _subject(self, letter: Letter) -> str:
        words, shop, reference = self._of(letter), _line(letter.brand.name), _line(letter.reference)
        subject = "code.subject" if letter.code else "mail.subject"
        if not reference:
            return words.say(f"{subject}_plain", shop=shop)
        return words.say(subject, shop=shop, reference=reference)

    def _of(self, letter: Letter) -> Words:
        return self._words[self.language(letter.language, DEFAULT_LANGUAGE)]


def _headed(letter: Letter, words: Words, note: str) -> dict[str, str]:
    """What the two kinds of letters say each in their own words. A code is no header's: servers log those."""
    if letter.code:
        keys = {name: f"code.{name}" for name in ("title", "intro", "personal")}
        preheader = words.say("code.preheader", code=letter.code)
    else:
        one = sum(len(link.files) for link in letter.links) == 1
        keys = {"title": "mail.title_one" if one else "mail.title_many", "intro": "mail.intro"}
        accounts = all(link.account for link in letter.links)
        keys["personal"], preheader = "mail.personal_account" if accounts else "mail.personal", note
    said = {name: words.text(key) for name, key in keys.items()}
    return {**said, "code": letter.code, "preheader": preheader}


def _pictures(letter: Letter) -> dict[str, Picture]:
    found = {"logo": check_logo(letter.brand.logo)} if letter.brand.logo else {}
    if len(letter.links) <= QR_CODES_MAX:
        for number, link in enumerate(letter.links, 1):
            code = qr_code(link.address)
            if code is not None:
                found[f"qr{number}"] = code
    return found


def _cid(name: str, letter: Letter) -> str:
    return f"{name}.{letter.message_id}"


def _data(picture: Picture) -> str:
    return f"data:image/{picture.subtype};base64,{b64encode(picture.content).decode()}"


def _mailbox(name: str, address: str) -> Address:
    local, _, domain = address.rpartition("@")
    return Address(name, local, domain)


def _line(text: str) -> str:
    """One line of it, without what a header or a reader could stumble over."""
    line = " ".join(_UNCLEAN.sub(" ", text).split())[:_TEXT_MAX]
    # The email package decodes RFC 2047's words also in what it is given to encode, and so would write their line ends.
    return line.replace("=?", "= ?")


def _person(name: str) -> str:
    line = _line(name)
    return "" if len(line) > _NAME_MAX or _ADVERTISES.search(line) else line


def _href(contact: str) -> str:
    """What the contact leads to; "" where it is only to be read."""
    if re.fullmatch(r"https?://[^\s\"'<>\\]+", contact):
        return contact
    if re.fullmatch(r"[^\s@:<>\"',;?&]+@[^\s@:<>\"',;?&]+\.[^\s@:<>\"',;?&]+", contact):
        return f"mailto:{contact}"
    return ""
