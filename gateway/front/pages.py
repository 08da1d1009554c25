"""The two pages a buyer may see, and the words for every refusal: nothing in them is loaded from anywhere.

Words live in texts/<language>.toml, a file for each language.
"""

from __future__ import annotations

import hashlib
import os.path
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files as package_files
from importlib.resources.abc import Traversable

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from gateway.http import problem
from gateway.http.disposition import file_name
from gateway.mail.colors import CARD, DARK_CARD, DARK_EDGE, EDGE, edge_on, text_on
from gateway.mail.letter import Brand
from gateway.mail.pictures import Picture, check_logo
from gateway.words import Words, load_words

UNKNOWN_REASON = "unknown"
PAGE_MAX = 40_000
"""Bytes of a page. Above, the logo is left out, then a long token stands in it once only, then checksums go."""
_HOUR, _DAY = 3600, 86_400
_BASE = "<base "
_FORM = "<form "
_SCRIPT = "<script>"
_WIDE = 2
_MAIL = re.compile(r"[^\s@<>\"']+@[^\s@<>\"']+\.[^\s@<>\"']+")
_PHONE = re.compile(r"\+?[0-9][0-9 ()./-]{4,30}")
_WEB = re.compile(r"https?://[^\s\"'<>]+")
_HREF = re.compile(r"(?:https?://[^\s\"'<>/]+)?/(?!/)[^\s\"'<>]*")


@dataclass(frozen=True, slots=True)
class LinkFile:
    """A row of the link page; `href` is the file's address with the token in it, so it stays out of the repr.

    `view_href`: where the browser shows it, None where it may only be downloaded. `left` of `limit` downloads are not
    used yet, None where that is not known or not limited. `sha256` in hex, or "".
    """

    name: str
    size_text: str | None
    href: str
    view_href: str | None = None
    left: int | None = None
    limit: int | None = None
    used_up: bool = False
    sha256: str = ""

    def __post_init__(self) -> None:
        _check(self.href)
        if self.view_href is not None:
            _check(self.view_href)

    def __repr__(self) -> str:
        return f"LinkFile({self.name!r})"


@dataclass(frozen=True, slots=True)
class LinkZip:
    """The way to all files at once; the token is in it, too."""

    href: str = field(repr=False)
    size_text: str | None = None

    def __post_init__(self) -> None:
        _check(self.href)


@dataclass(frozen=True, slots=True)
class Action:
    """What a visitor may do about a refusal: a button that leads to `href`, or sends `fields` to it. `words` names the
    text on it, `help` the one in place of the reason's own, `note` the one below it.
    """

    words: str
    href: str = field(repr=False)
    fields: Mapping[str, str] | None = field(default=None, repr=False)
    help: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        _check(self.href)


@dataclass(frozen=True, slots=True)
class Remedy:
    """What is to be done about a refusal: press a button, or ask at `help_href` ("": nowhere here)."""

    action: Action | None = None
    help_href: str = ""


NO_REMEDY = Remedy()


class Pages:
    """Renders pages and problem bodies, in the shop's colours where there is a `brand`.

    Serve a page with what `policy_of` says of it as its Content-Security-Policy.
    """

    def __init__(self, texts: Traversable | None = None, *, brand: Brand | None = None) -> None:
        """Load every language of the folder, ours unless another is given; see load_words for what it raises."""
        folder = texts or package_files("gateway.front").joinpath("texts")
        self._words = load_words(folder, problem.DEFAULT_LANGUAGE)
        self._environment = Environment(
            loader=PackageLoader("gateway.front"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        style = self._environment.get_template("style.html.j2").render(_colors(brand)).strip()
        logo = check_logo(brand.logo) if brand is not None and brand.logo else None
        self._environment.globals |= {
            "brand": brand,
            "logo": None if logo is None else _logo(logo),
            "contact": None if brand is None else _contact(brand.contact),
        }
        self._environment.globals["style"] = Markup(style)  # noqa: S704 (our own file, nothing from outside)
        script = self._environment.get_template("person.js").render().strip()
        self._environment.globals["script"] = Markup(script)  # noqa: S704 (our own file, nothing from outside)
        self._script_policy = f"script-src '{_digest(script)}'; connect-src 'self'; "
        pictures = "" if logo is None else "img-src data:; "
        self.content_security_policy = (
            f"default-src 'none'; style-src '{_digest(style)}'; {pictures}"
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages there are texts for, to choose from with problem.pick_language."""
        return tuple(self._words)

    def policy_of(self, page: str) -> str:
        """The Content-Security-Policy of a page that was rendered here."""
        # Nothing from outside can bring a tag: what is shown is escaped.
        policy = self.content_security_policy
        if _SCRIPT in page:
            policy = policy.replace("base-uri", f"{self._script_policy}base-uri")
        if _FORM in page:
            policy = policy.replace("form-action 'none'", "form-action 'self'")
        return policy.replace("base-uri 'none'", "base-uri 'self'") if _BASE in page else policy

    def refusal_html(
        self,
        reason: str,
        status: int,
        request_id: str,
        language: str,
        *,
        message: str | None = None,
        retry_after: int | None = None,
        words: str | None = None,
        remedy: Remedy = NO_REMEDY,
    ) -> str:
        """The page for one refusal. `message` is the deciding rule's own text, `retry_after` in seconds, `words` the
        reason that it is explained like, where that is another one.
        """
        title, advice = self._explain(words or reason, language)
        return self._render(
            "refusal.html.j2",
            language,
            title=title,
            help=advice,
            message=message,
            retry=self._retry_text(retry_after, language),
            request_id=request_id,
            status=status,
            reason=reason,
            action=remedy.action,
            help_href=remedy.help_href,
        )

    def help_html(self, action: str | None, language: str) -> str:
        """Where buyers ask for their links, with a form that posts to `action`; None: by the shop alone."""
        return self._render("ask.html.j2", language, action=action)

    def asked_html(self, language: str) -> str:
        """The one answer to whoever asked, whatever comes of it."""
        return self._render("asked.html.j2", language)

    def refusal_problem(
        self,
        reason: str,
        status: int,
        request_id: str,
        language: str,
        *,
        message: str | None = None,
        words: str | None = None,
        **more: str | int | None,
    ) -> bytes:
        """The same refusal for programs (RFC 9457), with `more` members beside; those that are None are left out."""
        title, advice = self._explain(words or reason, language)
        return problem.problem(status, reason, title, message or advice, request_id, **more)

    def code_html(self, state: str, language: str, *, action: str, left: int, request_id: str) -> str:
        """The page of a one-time code; `state` as in CodeState, `action`: where its forms lead, "": there are none."""
        words = self._of(language)
        if action:
            _check(action)
        known = words.count("code.wrong_help", left) if state == "wrong" and left else words.text(f"code.{state}_help")
        title = words.text(f"code.{state}_title")
        values = {"title": title, "help": known, "state": state, "action": action, "request_id": request_id}
        return self._render("code.html.j2", language, **values)

    def link_html(
        self,
        files: Sequence[LinkFile],
        language: str,
        *,
        expires_at: int | None = None,
        now: int = 0,
        whole: LinkZip | None = None,
        request_id: str | None = None,
        watches: bool = False,
    ) -> str:
        """The link page: one file starts by itself, several wait to be chosen, all of them as `whole` too.

        `expires_at` and `now` in Unix seconds. `watches`: it tells when it sees a person's gesture.
        """
        shown = [replace(file, name=file_name(file.name)) for file in files]
        shared = _shared([file.href for file in files])
        expires = None if expires_at is None else self._expires(expires_at, now, language)
        page = ""
        for logo, base, sums in ((True, "", True), (False, "", True), (False, shared, True), (False, shared, False)):
            page = self._render(
                "link.html.j2",
                language,
                **({} if logo else {"logo": None}),
                files=shown,
                whole=whole,
                base=base,
                sums=sums,
                expires=expires,
                request_id=request_id,
                watches=watches,
            )
            if len(page.encode()) <= PAGE_MAX:
                break
        return page

    def page(self, template: str, language: str, **values: object) -> str:
        """Another page of ours, by its template."""
        return self._render(template, language, **values)

    def _expires(self, at: int, now: int, language: str) -> tuple[str, str]:
        """The moment, and how far away it is."""
        words, left = self._of(language), at - now
        if left < _HOUR:
            return words.date(at), words.text("link.expires_soon")
        if left < 2 * _DAY:
            return words.date(at), words.count("link.expires_hours", left // _HOUR)
        return words.date(at), words.count("link.expires_days", (left + _DAY // 2) // _DAY)

    def size_text(self, size: int, language: str) -> str:
        """Bytes as people of this language read them."""
        return self._of(language).size(size)

    def date_text(self, seconds: int, language: str) -> str:
        """Unix seconds as a day and a time in UTC."""
        return self._of(language).date(seconds)

    def _of(self, language: str) -> Words:
        return self._words.get(language, self._words[problem.DEFAULT_LANGUAGE])

    def _explain(self, reason: str, language: str) -> tuple[str, str]:
        words = self._of(language)
        known = reason if words.knows(f"reason.{reason}.title") else UNKNOWN_REASON
        return words.text(f"reason.{known}.title"), words.text(f"reason.{known}.help")

    def _retry_text(self, retry_after: int | None, language: str) -> str | None:
        if retry_after is None:
            return None
        minutes = -(-retry_after // 60)
        words = self._of(language)
        return words.text("refusal.retry_soon") if minutes <= 1 else words.count("refusal.retry_minutes", minutes)

    def _render(self, template: str, language: str, **values: object) -> str:
        words = self._of(language)

        def say(key: str, **parts: object) -> Markup:
            return escape(words.text(key)).format(**parts)

        page = self._environment.get_template(template).render(language=words.language, say=say, **values)
        # An unpaired surrogate in a rule's message would otherwise break the response when it is encoded.
        return page.encode("utf-8", "replace").decode()


def _digest(text: str) -> str:
    """As Content-Security-Policy names what may stand in a page."""
    return f"sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _shared(hrefs: Sequence[str]) -> str:
    """The folder that all of several addresses lie in, or ""."""
    folder = os.path.commonpath(hrefs) + "/" if len(hrefs) > 1 else ""
    return folder if all(href.startswith(folder) for href in hrefs) else ""


def _check(href: str) -> None:
    if not _HREF.fullmatch(href):
        raise ValueError("a file's href is a path from the root or an http(s) address")


def _colors(brand: Brand | None) -> dict[str, str]:
    """Of buttons, each with a text and an edge that can be seen (WCAG 2.2, 1.4.3 and 1.4.11)."""
    if brand is None:
        light, dark = "#0b5d54", "#7fd6c8"
    else:
        light = dark = brand.color
    return {
        "accent": light,
        "on_accent": text_on(light),
        "edge": edge_on(light, CARD, EDGE),
        "dark_accent": dark,
        "on_dark_accent": text_on(dark),
        "dark_edge": edge_on(dark, DARK_CARD, DARK_EDGE),
    }


def _logo(picture: Picture) -> dict[str, object]:
    data = b64encode(picture.content).decode()
    wide = picture.width >= _WIDE * picture.height
    address = f"data:image/{picture.subtype};base64,{data}"
    return {"address": address, "width": picture.width, "height": picture.height, "wide": wide}


def _contact(text: str) -> tuple[str, str | None] | None:
    """The shop's own words, and where they lead: a mail, a call, a page, or nowhere."""
    contact = " ".join(text.split())
    if not contact:
        return None
    if _MAIL.fullmatch(contact):
        return contact, f"mailto:{contact}"
    if _WEB.fullmatch(contact):
        return contact, contact
    if _PHONE.fullmatch(contact):
        return contact, "tel:" + re.sub(r"[^0-9+]", "", contact)
    return contact, None
