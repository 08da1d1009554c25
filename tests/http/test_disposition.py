from __future__ import annotations

from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http.disposition import content_disposition, file_name


def test_the_plain_case() -> None:
    assert content_disposition("Sea.pdf") == "attachment; filename=\"Sea.pdf\"; filename*=UTF-8''Sea.pdf"
    assert content_disposition("Sea.pdf", inline=True).startswith('inline; filename="Sea.pdf"')


@pytest.mark.parametrize(
    ("name", "fallback", "extended"),
    [
        ("Zażółć.pdf", "Zazo_c.pdf", "Za%C5%BC%C3%B3%C5%82%C4%87.pdf"),
        ("e\u0301.pdf", "e.pdf", "e%CC%81.pdf"),
        ("日本.zip", "__.zip", "%E6%97%A5%E6%9C%AC.zip"),
        ("a'(b)*.pdf", "a'(b)*.pdf", "a%27%28b%29%2A.pdf"),
        ('100% "x"; y.pdf', "100_ _x__ y.pdf", "100%25%20%22x%22%3B%20y.pdf"),
        ("a\r\nSet-Cookie: x.pdf", "a__Set-Cookie: x.pdf", "a__Set-Cookie%3A%20x.pdf"),
        # compatibility forms that turn into what the fallback must not hold
        ("\uff02\uff05\uff0f\uff3c.pdf", "____.pdf", "%EF%BC%82%EF%BC%85%EF%BC%8F%EF%BC%BC.pdf"),
        ("\uff2e\uff35\uff2c", "_NUL", "%EF%BC%AE%EF%BC%B5%EF%BC%AC"),
        ("\u0301", "download", "%CC%81"),
    ],
)
def test_fallback_and_extended(name: str, fallback: str, extended: str) -> None:
    assert content_disposition(name) == f"attachment; filename=\"{fallback}\"; filename*=UTF-8''{extended}"


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("a/b/c.pdf", "c.pdf"),
        ("C:\\x\\y.exe", "y.exe"),
        ("../../etc/passwd", "passwd"),
        ("folder/", "folder"),
        ("", "download"),
        ("..", "download"),
        (" . . ", "download"),
        ("\u202e\u2066", "download"),
        ("a.pdf. . ", "a.pdf"),
        ("  a.pdf", "a.pdf"),
        (".bashrc", ".bashrc"),
        ("aux.tar.gz", "_aux.tar.gz"),
        ("COM¹.txt", "_COM¹.txt"),
        ("console.txt", "console.txt"),
        ("\ud800\udc00.pdf", "__.pdf"),
        ("👩\u200d🚀.zip", "👩\u200d🚀.zip"),
    ],
)
def test_file_name(name: str, stored: str) -> None:
    assert file_name(name) == stored


@pytest.mark.parametrize("letter", ["a", "ż", "日", "😀", "\ufdfa", "."])
def test_a_huge_name_keeps_its_ending(letter: str) -> None:
    assert len(content_disposition("x" + letter * 5000 + ".flac")) <= 1000
    assert file_name("x" + letter * 5000 + ".flac").endswith(".flac")


def test_a_huge_ending_is_no_ending() -> None:
    assert file_name("a." + "b" * 5000) == "a." + "b" * 228
    assert file_name("." + "b" * 5000) == "." + "b" * 229


@given(st.text(max_size=400) | st.text(alphabet='aż/\\."%; \r\n\x00\x7f\x85\u2028\u202e\ud800\uff0fNUL', max_size=40))
def test_any_name_is_one_harmless_line_that_reads_back(name: str) -> None:
    header = content_disposition(name)
    assert header.isascii()
    assert header.isprintable()
    assert len(header) <= 1000
    _, _, rest = header.partition('filename="')
    fallback, _, extended = rest.partition("\"; filename*=UTF-8''")
    assert fallback
    assert not set(fallback) & set('"\\/%;')
    assert unquote(extended, errors="strict") == file_name(name) == file_name(file_name(name))


@given(st.text(alphabet=st.characters(codec="utf-8", categories=["L", "N"]), min_size=1, max_size=40))
def test_an_ordinary_name_stays_as_it_is(stem: str) -> None:
    assert file_name(f"shop {stem}.pdf") == f"shop {stem}.pdf"
