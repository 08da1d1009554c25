"""Globs against their meaning as a (backtracking) expression, and their cost on what such an expression dies of."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.policy.globs import Glob, path_glob, word_glob


@pytest.mark.parametrize(
    ("pattern", "meant", "others"),
    [
        ("a.pdf", ["a.pdf"], ["A.pdf", "a.pdf ", "b/a.pdf", "a-pdf", ""]),
        ("masters/**", ["masters/a", "masters/a/b.wav", "masters/"], ["masters", "mastersa/b", "x/masters/a"]),
        ("masters/*", ["masters/a.wav"], ["masters/a/b.wav", "masters"]),
        ("*", ["a"], ["a/b"]),
        ("**", ["a", "a/b", "https://cdn.example.com/a"], []),
        ("**/*.wav", ["a.wav", "x/a.wav", "x/y/.wav"], ["a.wav/x", "a.mp3"]),
        ("**/drafts/**", ["drafts/a", "x/drafts/a", "x/y/drafts/a/b"], ["drafts", "xdrafts/a"]),
        ("a/**/b", ["a/b", "a/x/b", "a/x/y/b"], ["a/xb", "ab", "a/b/c"]),
        ("a**b", ["ab", "a/x/b", "axxb"], ["a/x/c"]),
        ("song-?.mp3", ["song-1.mp3", "song-\u00e9.mp3"], ["song-10.mp3", "song-/.mp3", "song-.mp3"]),
        ("a*b*c", ["abc", "axbxc", "abbcc"], ["ab/c", "ac"]),
        ("a[1].pdf", ["a[1].pdf"], ["a1.pdf"]),
        ("a\\*", ["a\\b"], ["a*"]),
        ("Za\u017c\u00f3\u0142\u0107/**", ["Za\u017c\u00f3\u0142\u0107/g\u0119\u015bl\u0105"], ["zazolc/a"]),
    ],
)
def test_paths(pattern: str, meant: list[str], others: list[str]) -> None:
    glob = path_glob(pattern)
    assert [text for text in meant + others if glob.matches(text)] == meant


@pytest.mark.parametrize(
    ("pattern", "meant", "others"),
    [
        ("wget*", ["wget", "wget/1.21 (linux)"], ["gnu wget"]),
        ("*bot*", ["bot", "a/bot/b"], ["bo t"]),
        ("*bot*crawl*", ["bot crawl", "botcrawl"], ["crawl bot", "bocrawlt"]),
        ("?/*", ["a/", "//b"], ["ab/"]),
        ("a*a", ["aa", "aba"], ["a"]),
    ],
)
def test_words(pattern: str, meant: list[str], others: list[str]) -> None:
    glob = word_glob(pattern)
    assert [text for text in meant + others if glob.matches(text)] == meant


def as_expression(pattern: str) -> str:
    word = re.compile(r"(?:(?<=/)|\A)\*\*/|\*+|\?|.", re.DOTALL)
    meaning = {"**/": "(?:.*/)?", "*": "[^/]*", "?": "[^/]"}
    found = word.findall(pattern)
    return "".join(meaning.get(each, ".*" if each.startswith("**") else re.escape(each)) for each in found)


PATTERNS = st.lists(st.sampled_from(["a", "b", "/", "*", "**", "**/", "?", "ab", "/**/"]), max_size=7).map("".join)
TEXTS = st.text("ab/\n", max_size=12)


@given(PATTERNS, TEXTS)
@example("**/**/a", "a")
@example("*/**/*b", "a/b")
@example("a**/b", "a/b")
def test_a_path_glob_means_its_expression(pattern: str, text: str) -> None:
    expected = re.fullmatch(as_expression(pattern), text, re.DOTALL) is not None
    assert path_glob(pattern).matches(text) is expected


@given(st.text("ab*?", max_size=8), TEXTS)
def test_a_word_glob_means_its_expression(pattern: str, text: str) -> None:
    expression = "".join({"*": ".*", "?": "."}.get(letter, letter) for letter in pattern)
    assert word_glob(pattern).matches(text) is (re.fullmatch(expression, text, re.DOTALL) is not None)


@pytest.mark.parametrize(
    ("glob", "text"),
    [
        (path_glob("*a" * 500 + "b"), "a" * 1000 + "/b"),
        (path_glob("**/a*" * 200 + "?b"), "a/" * 500 + "b"),
        (path_glob("**a" * 300 + "b"), "a" * 1023 + "c"),
        (word_glob("*a" * 500 + "?*b"), "a" * 8000),
        (word_glob("*aaaaaaab" * 100), "a" * 8000),
    ],
)
def test_no_pattern_makes_a_text_expensive(glob: Glob, text: str) -> None:
    began = time.process_time()
    glob.matches(text)
    assert time.process_time() - began < 0.5
