"""Every language that is shipped is whole, and what a language's file may hold."""

from __future__ import annotations

import ast
import re
import string
import tomllib
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path

import pytest

from gateway.front.accounts import REASONS
from gateway.http.problem import DEFAULT_LANGUAGE
from gateway.policy.reasons import Reason
from gateway.words import CATEGORIES, PluralRule, Words, load_words

FOLDER = files("gateway.front").joinpath("texts")
WORDS = load_words(FOLDER, DEFAULT_LANGUAGE)
DEFAULT = WORDS[DEFAULT_LANGUAGE]
LANGUAGES = pytest.mark.parametrize("words", WORDS.values(), ids=WORDS)
FORMS = re.compile(rf"\.(?:{'|'.join((*CATEGORIES, 'other'))})$")


def keys(words: Words) -> set[str]:
    """The keys of a file, those of plural forms without the form, those of the plural rules left out."""
    return {FORMS.sub("", key) for key in words.texts if not key.startswith("plural.")}


def places(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


@LANGUAGES
def test_a_language_says_everything_and_nothing_else(words: Words) -> None:
    assert keys(words) == keys(DEFAULT)


def test_there_are_words_for_every_reason_and_for_no_other() -> None:
    told = {key.removeprefix("reason.").rpartition(".")[0] for key in keys(DEFAULT) if key.startswith("reason.")}
    assert told == {reason.text for reason in Reason} | {"unknown", *REASONS}


@LANGUAGES
def test_the_places_to_fill_in_are_the_same(words: Words) -> None:
    for key, text in words.texts.items():
        if key in DEFAULT.texts:
            assert places(text) == places(DEFAULT.text(key)), key
        elif not key.startswith("plural."):
            assert places(text) <= {"count"}, key


@LANGUAGES
def test_texts_are_plain(words: Words) -> None:
    """No HTML: the pages are what writes it, and programs read these texts too."""
    for key, text in words.texts.items():
        assert not re.search(r"[<>&]|&\w+;", text), key
        assert text == text.strip(), key
        assert text.isprintable() or "\u00a0" in text, key
        assert "  " not in text, key


@LANGUAGES
def test_numbers_and_dates_can_be_written(words: Words) -> None:
    assert words.text("direction") in {"ltr", "rtl"}
    assert len(words.text("date.months").split()) == 12
    assert len(words.text("number.units").split()) == 5
    for key in (key for key in keys(words) if f"{key}.other" in words.texts):
        given = {key.rpartition(".")[2] for key in words.texts if key.startswith("plural.")} | {"other"}
        assert {name.rpartition(".")[2] for name in words.texts if name.startswith(f"{key}.")} == given, key
        for number in (0, 1, 2, 5, 22, 1000):
            assert words.count(key, number)


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (1, "1 minutę."),
        (2, "2 minuty."),
        (4, "4 minuty."),
        (5, "5 minut."),
        (11, "11 minut."),
        (12, "12 minut."),
        (14, "14 minut."),
        (21, "21 minut."),
        (22, "22 minuty."),
        (25, "25 minut."),
        (100, "100 minut."),
        (112, "112 minut."),
        (124, "124 minuty."),
    ],
)
def test_polish_counts(number: int, said: str) -> None:
    assert WORDS["pl"].count("refusal.retry_minutes", number).endswith(said)


def test_polish_numbers_and_dates() -> None:
    assert WORDS["pl"].size(1_234_567).replace("\u00a0", " ") == "1,2 MB"
    assert WORDS["pl"].size(34_000_000).replace("\u00a0", " ") == "34 MB"
    assert WORDS["pl"].date(1_795_265_700).startswith("21 listopada 2026")


@pytest.mark.parametrize(
    ("rule", "holds"),
    [
        ("n = 0..1 or n = 11..99", [0, 1, *range(11, 30)]),
        ("n % 10 = 1 and n % 100 != 11", [1, 21]),
        ("n % 100 = 3..10", range(3, 11)),
        ("i % 10 = 1,2 and i % 100 != 11,12 and v = 0", [1, 2, 21, 22]),
        ("v != 0", []),
        ("e = 0 and i != 0 and i % 1000000 = 0 and v = 0 or e != 0..5", []),
    ],
)
def test_plural_rules_are_read_as_cldr_writes_them(rule: str, holds: Iterator[int]) -> None:
    assert [number for number in range(30) if PluralRule(rule).holds(number)] == list(holds)


@pytest.mark.parametrize("rule", ["", "n == 1", "n is 1", "n % 0 = 1", "n = 1 and", "x = 1", "n = 1 @integer 1", "n=1"])
def test_a_rule_that_is_none_is_refused(rule: str) -> None:
    with pytest.raises(ValueError, match="plural rule"):
        PluralRule(rule)


def load(folder: Path, **texts: str) -> Mapping[str, Words]:
    (folder / "en.toml").write_bytes(FOLDER.joinpath("en.toml").read_bytes())
    for language, text in texts.items():
        (folder / f"{language}.toml").write_text(text, "utf-8")
    return load_words(folder, DEFAULT_LANGUAGE)


def test_what_a_language_lacks_keeps_the_default_languages_plurals(tmp_path: Path) -> None:
    found = load(tmp_path, ja='[refusal.retry_minutes]\nother = "{count}分"\n', ru='[plural]\nfew = "n % 10 = 2..4"\n')
    assert [found["ja"].count("refusal.retry_minutes", number) for number in (1, 3)] == ["1分", "3分"]
    assert found["ru"].count("refusal.retry_minutes", 3).endswith("3 minutes.")
    assert found["ru"].count("refusal.retry_minutes", 1).endswith("1 minute.")


@pytest.mark.parametrize("broken", ["no toml", '[plural]\none = "n is 1"\n'])
def test_a_broken_file_is_found_at_the_start(tmp_path: Path, broken: str) -> None:
    with pytest.raises(ValueError, match=r"n is 1|Expected"):
        load(tmp_path, xx=broken)


def test_no_code_names_a_language_but_the_default() -> None:
    """Otherwise another language would be more than one file."""
    package = Path(str(files("gateway")))
    others = set(WORDS) - {DEFAULT_LANGUAGE}
    for file in package.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert node.value not in others, file
    for template in package.rglob("*.j2"):
        assert not re.search(rf"""["']({"|".join(others)})["']""", template.read_text("utf-8")), template


def test_the_files_are_toml_of_texts_alone() -> None:
    for file in FOLDER.iterdir():
        assert all(isinstance(text, str) for text in leaves(tomllib.loads(file.read_text("utf-8")))), file.name


def leaves(table: Mapping[str, object]) -> Iterator[object]:
    for value in table.values():
        if isinstance(value, Mapping):
            yield from leaves(value)
        else:
            yield value
