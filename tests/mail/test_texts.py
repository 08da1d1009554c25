"""Every language of the mails is whole, and counts as its pages do."""

from __future__ import annotations

import re
import string
from importlib.resources import files

import pytest

from gateway.http.problem import DEFAULT_LANGUAGE
from gateway.mail.letter import LinkAddresses
from gateway.mail.notes import duration, notes
from gateway.policy.model import Limits
from gateway.words import CATEGORIES, Words, load_words

WORDS = load_words(files("gateway.mail").joinpath("texts"), DEFAULT_LANGUAGE)
PAGES = load_words(files("gateway.front").joinpath("texts"), DEFAULT_LANGUAGE)
DEFAULT = WORDS[DEFAULT_LANGUAGE]
LANGUAGES = pytest.mark.parametrize("words", WORDS.values(), ids=WORDS)
FORMS = re.compile(rf"\.(?:{'|'.join((*CATEGORIES, 'other'))})$")


def keys(words: Words) -> set[str]:
    return {FORMS.sub("", key) for key in words.texts if not key.startswith("plural.")}


def places(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


def test_mails_are_written_in_the_languages_of_the_pages() -> None:
    assert WORDS.keys() == PAGES.keys()


@LANGUAGES
def test_a_language_says_everything_and_nothing_else(words: Words) -> None:
    assert keys(words) == keys(DEFAULT)
    for key, text in words.texts.items():
        if not key.startswith("plural.") and not FORMS.search(key):
            assert places(text) == places(DEFAULT.text(key)), key
        assert not re.search(r"[<>&]|  ", text), key
        assert text == text.strip(), key


@LANGUAGES
def test_numbers_dates_and_plurals_are_those_of_the_pages(words: Words) -> None:
    shared = re.compile(r"name|direction|(plural|number|date)\.")
    mine = {key: text for key, text in words.texts.items() if shared.match(key)}
    assert mine == {key: text for key, text in PAGES[words.language].texts.items() if shared.match(key)}


@LANGUAGES
def test_every_form_is_there(words: Words) -> None:
    given = {key.rpartition(".")[2] for key in words.texts if key.startswith("plural.")} | {"other"}
    for key in (key for key in keys(words) if f"{key}.other" in words.texts):
        assert {name.rpartition(".")[2] for name in words.texts if name.startswith(f"{key}.")} == given, key


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (1, "tylko raz"),
        (2, "2 razy"),
        (5, "5 razy"),
        (22, "22 razy"),
    ],
)
def test_polish_counts(number: int, said: str) -> None:
    assert said in WORDS["pl"].count("note.downloads", number)


@pytest.mark.parametrize(("number", "said"), [(1, "1 plik,"), (3, "3 pliki,"), (5, "5 plików,"), (112, "112 plików,")])
def test_polish_counts_files(number: int, said: str) -> None:
    assert said in WORDS["pl"].count("mail.more", number)


@pytest.mark.parametrize(
    ("seconds", "english", "polish"),
    [
        (30 * 86_400, "30 days", "30 dni"),
        (30 * 86_400 - 90, "30 days", "30 dni"),
        (72 * 3600, "3 days", "3 dni"),
        (86_400, "24 hours", "24 godziny"),
        (25 * 3600, "25 hours", "25 godzin"),
        (22 * 3600, "22 hours", "22 godziny"),
        (3600, "60 minutes", "60 minut"),
        (60, "1 minute", "1 minutę"),
        (0, "1 minute", "1 minutę"),
        (-5, "1 minute", "1 minutę"),
    ],
)
def test_how_long(seconds: int, english: str, polish: str) -> None:
    assert (duration(seconds, WORDS["en"]), duration(seconds, WORDS["pl"])) == (english, polish)


@LANGUAGES
def test_each_limit_that_a_buyer_could_run_into_is_told(words: Words) -> None:
    def told(**limits: int) -> list[str]:
        link = LinkAddresses("https://x/l/t", (), 1_000_000, Limits(**limits))
        return list(notes(link, words, 0))

    bare = told()
    assert len(bare) == 1
    for name in ("downloads", "networks", "devices", "concurrent", "valid_after_first"):
        one, two = told(**{name: 1}), told(**{name: 2})
        assert len(one) > 1, name
        assert (one != two) or name == "valid_after_first"
    link = LinkAddresses("https://x/l/t", (), 1_000_000, guests=("bind_ip", "new_device"))
    assert len(set(notes(link, words, 0))) == 3, "what a plan asks of guests"
    assert told(rate=1000) == bare, "a pace refuses nobody"
    assert told(valid_after_first=2_000_000) == bare, "the link ends before that"
