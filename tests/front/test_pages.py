from __future__ import annotations

import hashlib
import json
import re
from base64 import b64encode
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path

import pytest

from gateway.front.pages import PAGE_MAX, Action, LinkFile, LinkZip, Pages, Remedy
from gateway.http.problem import pick_language
from gateway.mail.letter import Brand
from gateway.policy.reasons import Reason

PAGES = Pages()
SEA = LinkFile("Sea & Sand.pdf", "1.2 MB", "/d/tok.en/1/Sea")
SKY = LinkFile("Sky.flac", None, "/d/tok.en/2/Sky")


class Seen(HTMLParser):
    """Every element of a page with its attributes, and all text outside <style>."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.style = ""
        self._in_style = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._in_style = tag == "style"

    def handle_endtag(self, tag: str) -> None:
        self._in_style = False

    def handle_data(self, data: str) -> None:
        if self._in_style:
            self.style += data
        else:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def refresh(self) -> list[str | None]:
        return [meta["content"] for meta in self.all("meta") if meta.get("http-equiv") == "refresh"]


def refusal(reason: str = "token.expired", **more: object) -> str:
    return PAGES.refusal_html(reason, 410, "id-1", "en", **more)


NOW = 1_799_000_000
LINK_PAGES = [PAGES.link_html(listed, "en", expires_at=NOW + 90_000, now=NOW) for listed in ([SEA], [SEA, SKY])]


@pytest.mark.parametrize("page", [refusal(message="No.", retry_after=5), *LINK_PAGES])
def test_a_page_is_self_contained_and_fits_its_policy(page: str) -> None:
    seen = Seen(page)
    digest = b64encode(hashlib.sha256(seen.style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in PAGES.content_security_policy
    assert "default-src 'none'" in PAGES.content_security_policy
    assert not {tag for tag, _ in seen.elements} & {"script", "img", "link", "iframe", "form", "object", "base"}
    assert not [attributes for _, attributes in seen.elements if {"style", "src", "onclick"} & set(attributes)]
    assert "url(" not in seen.style
    assert "@import" not in seen.style
    assert {"name": "robots", "content": "noindex"} in seen.all("meta")
    assert {"name": "referrer", "content": "no-referrer"} in seen.all("meta")
    assert seen.all("html") == [{"lang": "en", "dir": "ltr"}]
    assert len(seen.all("h1")) == len(seen.all("main")) == len(seen.all("title")) == 1


def test_a_page_loads_nothing_sends_nothing_and_is_framed_by_nobody() -> None:
    directives = dict(each.strip().split(" ", 1) for each in PAGES.content_security_policy.split(";"))
    assert directives.pop("style-src").startswith("'sha256-")
    assert directives == dict.fromkeys(("default-src", "base-uri", "form-action", "frame-ancestors"), "'none'")


@pytest.mark.parametrize("reason", [reason.text for reason in Reason])
@pytest.mark.parametrize("language", PAGES.languages)
def test_every_reason_has_its_own_words(reason: str, language: str) -> None:
    told = json.loads(PAGES.refusal_problem(reason, 400, "id", language))
    generic = json.loads(PAGES.refusal_problem("unknown", 400, "id", language))
    assert told["title"] != generic["title"]
    assert told["detail"] != generic["detail"]
    assert 1 <= len(re.findall(r"[.!?](?:\s|$)", told["detail"])) <= 2


def test_the_refusal_says_what_and_what_next() -> None:
    seen = Seen(refusal(message="Not <b>here</b>\ud800.", retry_after=130))
    assert "This link has expired" in seen.text
    assert "Ask the shop for a new link" in seen.text
    assert "Not <b>here</b>?." in seen.text
    assert "in about 3 minutes." in seen.text
    assert all(part in seen.text for part in ("id-1", "410", "token.expired"))
    assert "Please try again in a minute" in refusal(retry_after=60)
    assert seen.refresh == []


def test_what_a_buyer_can_do_is_on_the_page() -> None:
    asks = Seen(refusal(remedy=Remedy(help_href="/help")))
    assert [a["href"] for a in asks.all("a")] == ["/help"]
    assert asks.all("form") == []
    for words, told, button in (
        ("again.send", "again.expired", "Send me a new link"),
        ("again.renew", "again.used_up", "Renew my downloads"),
    ):
        action = Action(words, "/l/tok.en", {"act": "again"}, help=told, note="again.to_order")
        page = refusal(remedy=Remedy(action, "/help"))
        seen = Seen(page)
        assert button in seen.text
        assert seen.all("form") == [{"method": "post", "action": "/l/tok.en"}]
        assert "Ask the shop for a new link" not in seen.text
        assert "form-action 'self'" in PAGES.policy_of(page)
    assert "tok.en" not in repr(action)


def test_the_problem_says_the_same() -> None:
    told = json.loads(PAGES.refusal_problem("rule.denied", 403, "id", "en", message="Not here.", rule="embargo"))
    assert (told["status"], told["reason"], told["rule"]) == (403, "rule.denied", "embargo")
    assert told["detail"] == "Not here."
    assert "retry_after" not in told


def test_an_unknown_reason_and_language_still_make_a_page() -> None:
    seen = Seen(PAGES.refusal_html("brand.new", 500, "id", "xx"))
    assert "Something went wrong" in seen.text
    assert seen.all("html")[0]["lang"] == "en"


def test_one_file_starts_by_itself_and_has_a_button() -> None:
    seen = Seen(PAGES.link_html([SEA], "en", expires_at=1_800_000_000, now=NOW))
    assert seen.refresh == [f"0;url={SEA.href}"]
    assert [a["href"] for a in seen.all("a")] == [SEA.href]
    assert "Download Sea & Sand.pdf" in seen.text
    assert "1.2 MB" in seen.text
    assert "until 15 January 2027, 08:00 UTC. That is in 12 days." in seen.text


def test_several_files_wait_for_a_choice() -> None:
    seen = Seen(PAGES.link_html([SEA, SKY], "en"))
    assert seen.refresh == []
    assert [(a["href"], a["aria-label"]) for a in seen.all("a")] == [
        (SEA.href, "Download Sea & Sand.pdf"),
        (SKY.href, "Download Sky.flac"),
    ]


@pytest.mark.parametrize(
    "path", ['\u202e"><script>{x}</script>/', '"><script>x<i>', "'><img src=x onerror=x>&lt;script>"]
)
def test_a_hostile_name_is_only_text(path: str) -> None:
    evil = LinkFile(f"{path}{{0.__class__}}.pdf", "1 B", "/d/t/1")
    for listed in ([evil], [evil, SEA]):
        seen = Seen(PAGES.link_html(listed, "en"))
        assert not seen.all("script") + seen.all("img") + seen.all("i")
        assert "\u202e" not in seen.text
        assert "{0.__class__}.pdf" in seen.text


@pytest.mark.parametrize("href", ["javascript:alert(1)", "//evil.example/", "d/t", "", "/d/t 1", '/d/"', "data:,x"])
def test_a_link_that_is_no_plain_address_is_refused(href: str) -> None:
    with pytest.raises(ValueError, match="href"):
        LinkFile("a", None, href)


def test_the_token_stays_out_of_the_repr() -> None:
    assert "tok.en" not in repr(SEA)
    assert LinkFile("a", None, "https://dl.example.com/d/tok.en/1").href.startswith("https://")


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 KB"),
        (1_234_567, "1.2 MB"),
        (9_949_999, "9.9 MB"),
        (9_950_000, "10 MB"),
        (999_499, "999 KB"),
        (999_500, "1 MB"),
        (34_000_000_000, "34 GB"),
        (5 * 10**18, "5000000 TB"),
    ],
)
def test_size_text(size: int, text: str) -> None:
    assert PAGES.size_text(size, "en").replace("\u00a0", " ") == text


def test_date_text_never_fails() -> None:
    assert PAGES.date_text(10**30, "en") == "31 December 9999, 00:00 UTC"
    assert PAGES.date_text(-5, "en") == "1 January 1970, 00:00 UTC"


GERMAN = """
name = "Deutsch"
[plural]
one = "i = 1 and v = 0"
[number]
decimal_point = ","
[link]
title_one = "Die Datei ist bereit"
[reason.token.expired]
title = "Dieser Link ist abgelaufen"
help = "Bitte fragen Sie im Shop nach einem neuen."
"""


def test_another_language_is_one_more_file(tmp_path: Path) -> None:
    texts = files("gateway.front").joinpath("texts")
    for file in texts.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "de.toml").write_text(GERMAN, "utf-8")
    (tmp_path / "ar.toml").write_text('direction = "rtl"\n', "utf-8")
    pages = Pages(tmp_path)
    assert set(pages.languages) == set(PAGES.languages) | {"ar", "de"}
    german = pick_language("de-AT, en;q=0.5", pages.languages)
    assert pages.size_text(1_200_000, german) == "1,2\u00a0MB"
    seen = Seen(pages.link_html([SEA], german))
    assert seen.all("html") == [{"lang": "de", "dir": "ltr"}]
    assert "Die Datei ist bereit" in seen.text
    assert "Download Sea & Sand.pdf" in seen.text, "what it leaves out is said in the default language"
    told = json.loads(pages.refusal_problem("token.expired", 410, "id", german))
    assert told["title"] == "Dieser Link ist abgelaufen"
    arabic = Seen(pages.link_html([SEA], pick_language("ar-EG", pages.languages)))
    assert arabic.all("html") == [{"lang": "ar", "dir": "rtl"}]


def test_a_polish_buyer_reads_polish() -> None:
    polish = pick_language("pl-PL,pl;q=0.9,en-US;q=0.8,en;q=0.7", PAGES.languages)
    seen = Seen(PAGES.refusal_html("limit.concurrent", 429, "id-1", polish, retry_after=290))
    assert seen.all("html") == [{"lang": "pl", "dir": "ltr"}]
    assert "Trwa już inne pobieranie" in seen.text
    assert "za 5 minut." in seen.text
    told = json.loads(PAGES.refusal_problem("token.expired", 410, "id-1", polish, retry_after=None))
    assert (told["title"], told["reason"]) == ("Ten link stracił ważność", "token.expired")


@pytest.mark.parametrize("language", PAGES.languages)
def test_a_rules_own_message_is_shown_as_written(language: str) -> None:
    message = "Nur in Österreich {here} 100% <i>"
    seen = Seen(PAGES.refusal_html("rule.denied", 403, "id", language, message=message))
    assert message in seen.text
    assert json.loads(PAGES.refusal_problem("rule.denied", 403, "id", language, message=message))["detail"] == message


def test_viewing_is_offered_where_it_is_allowed() -> None:
    seen = Seen(PAGES.link_html([replace(SEA, view_href="/d/tok.en/1/Sea?view=1")], "en"))
    assert [a["href"] for a in seen.all("a")] == [SEA.href, "/d/tok.en/1/Sea?view=1"]
    assert seen.refresh == [f"0;url={SEA.href}"]
    assert "View in the browser" in seen.text
    several = Seen(PAGES.link_html([replace(SEA, view_href="/d/tok.en/1/Sea?view=1"), SKY], "en"))
    assert [a["aria-label"] for a in several.all("a")] == [
        "Download Sea & Sand.pdf",
        "View in the browser: Sea & Sand.pdf",
        "Download Sky.flac",
    ]
    with pytest.raises(ValueError, match="href"):
        replace(SEA, view_href="javascript:alert(1)")


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_every_text_has_contrast(scheme: int) -> None:
    """WCAG 2.2 AA: at least 4.5 to 1 between a text and what it stands on."""
    palette = dict(re.findall(r"--([a-z-]+):(#[0-9a-f]+)", Seen(refusal()).style.split("prefers-color-scheme")[scheme]))
    pairs = [("ink", "card"), ("quiet", "card"), ("accent", "card"), ("on-accent", "accent")]
    assert min(contrast(palette[text], palette[ground]) for text, ground in pairs) >= 4.5


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(digit * 2 for digit in colour[1:])
    parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


ZIP = LinkZip("/z/tok.en/All.zip", "3 MB")


def png(width: int, height: int, size: int = 100) -> bytes:
    """As much of a PNG as is looked at here."""
    head = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + width.to_bytes(4) + height.to_bytes(4)
    return head + bytes(size - len(head))


def test_what_is_left_is_told() -> None:
    rows = [
        replace(SEA, left=2, limit=5),
        replace(SEA, left=0, limit=5),
        replace(SEA, left=0, limit=5, used_up=True),
        replace(SKY, left=None, limit=5),
    ]
    seen = Seen(PAGES.link_html(rows, "en"))
    assert seen.text.count("Downloads left: 2 of 5") == 1
    assert seen.text.count("can still be finished") == 1
    assert seen.text.count("used up") == 1
    assert len(seen.all("a")) == 3, "there is no button for what is used up"
    polish = Seen(PAGES.link_html(rows, "pl"))
    assert "Pozostało pobrań: 2 z 5" in polish.text


def test_a_checksum_can_be_opened_without_any_script() -> None:
    seen = Seen(PAGES.link_html([replace(SEA, sha256="ab" * 32), SKY], "en"))
    assert len(seen.all("details")) == 1
    assert [summary["aria-label"] for summary in seen.all("summary")] == ["Checksum (SHA-256): Sea & Sand.pdf"]
    assert "ab" * 32 in seen.text


def test_all_files_at_once() -> None:
    seen = Seen(PAGES.link_html([SEA, SKY], "en", whole=ZIP))
    assert seen.all("a")[0]["href"] == ZIP.href
    assert "Download everything as one ZIP (3 MB)" in " ".join(seen.text.split())
    assert "tok.en" not in repr(ZIP)
    with pytest.raises(ValueError, match="href"):
        LinkZip("javascript:alert(1)")


@pytest.mark.parametrize(
    ("left", "language", "text"),
    [
        (59 * 60, "en", "That is in less than an hour."),
        (3600, "en", "That is in 1 hour."),
        (47 * 3600, "en", "That is in 47 hours."),
        (48 * 3600, "en", "That is in 2 days."),
        (30 * 86_400 - 60, "en", "That is in 30 days."),
        (30 * 86_400 + 5, "pl", "Zostało 30 dni."),
        (22 * 3600, "pl", "Zostały 22 godziny."),
    ],
)
def test_how_long_a_page_works(left: int, language: str, text: str) -> None:
    assert text in PAGES.link_html([SEA], language, expires_at=NOW + left, now=NOW)


@pytest.mark.parametrize(
    ("contact", "href"),
    [
        ("help@example.com", "mailto:help@example.com"),
        ("https://shop.example.com/help?a=1", "https://shop.example.com/help?a=1"),
        ("+48 22 123 45 67", "tel:+48221234567"),
        ("Ask at the counter", None),
        ('"><script>alert(1)</script>@x.y', None),
        ("javascript:alert(1)", None),
    ],
)
def test_help_is_one_step_away(contact: str, href: str | None) -> None:
    pages = Pages(brand=Brand("Sea Shop", contact=contact))
    for page in (pages.link_html([SKY], "en"), pages.refusal_html("token.expired", 410, "id-1", "en")):
        seen = Seen(page)
        assert contact in seen.text
        assert not seen.all("script")
        assert [a["href"] for a in seen.all("a") if a["href"] != SKY.href] == ([] if href is None else [href])


@pytest.mark.parametrize("color", ["#1d4ed8", "#ffff00", "#000000", "#ffffff", "#777777", "#1d2327"])
def test_any_color_of_a_shop_can_be_read(color: str) -> None:
    style = Seen(Pages(brand=Brand("Sea Shop", color)).link_html([SEA], "en")).style
    for scheme in style.split("prefers-color-scheme")[:2]:
        palette = dict(re.findall(r"--([a-z-]+):(#[0-9a-f]+)", scheme))
        assert palette["accent"] == color
        assert contrast(palette["on-accent"], palette["accent"]) >= 4.5
        assert max(contrast(palette["edge"], palette["card"]), contrast(color, palette["card"])) >= 3


def test_a_logo_is_in_the_page_itself() -> None:
    pages = Pages(brand=Brand("Sea Shop", logo=png(240, 60)))
    seen = Seen(pages.link_html([SEA], "en"))
    (image,) = seen.all("img")
    assert str(image["src"]).startswith("data:image/png;base64,")
    assert (image["alt"], image["height"]) == ("Sea Shop", "56")
    assert "img-src data:;" in pages.content_security_policy
    mark = Seen(Pages(brand=Brand("Sea Shop", logo=png(44, 44))).link_html([SEA], "en"))
    assert mark.all("img")[0]["alt"] == ""
    assert "Sea Shop" in mark.text.split("Your download")[1]


def test_a_large_page_loses_its_logo_and_never_a_file() -> None:
    pages = Pages(brand=Brand("Sea Shop", logo=png(240, 60, 24 * 1024)))
    assert len(pages.link_html([SEA], "en").encode()) <= PAGE_MAX
    assert Seen(pages.link_html([SEA], "en")).all("img")
    token = "t" * 900
    files = [LinkFile(f"{n}.flac", "30 MB", f"/p/d/{token}/{n}/{n}.flac", sha256="ab" * 32) for n in range(1, 13)]
    page = pages.link_html(files, "en", whole=ZIP)
    seen = Seen(page)
    assert len(page.encode()) <= PAGE_MAX
    assert not seen.all("img")
    assert "Sea Shop" in seen.text
    assert [a["href"] for a in seen.all("a")] == [ZIP.href, *(file.href for file in files)]
    assert "base-uri 'none'" in pages.policy_of(page)
    longer = [replace(file, href=file.href.replace(token, token * 4)) for file in files * 3]
    seen = Seen(page := pages.link_html(longer, "en"))
    assert len(page.encode()) <= PAGE_MAX
    assert [seen.all("base")[0]["href"] + str(a["href"]) for a in seen.all("a")] == [file.href for file in longer]
    assert "base-uri 'self'" in pages.policy_of(page)
