"""Underlined parts of lines, in the cells of a terminal."""

from __future__ import annotations

import pytest

from gateway.cli.excerpt import excerpt


@pytest.mark.parametrize(
    ("line", "column", "width", "shown", "underline"),
    [
        ("when: {contry: DE}", 8, 6, "when: {contry: DE}", "       ^^^^^^"),
        ("a: b", 1, 1, "a: b", "^"),
        ("- name: x  # y   ", 3, 0, "- name: x  # y", "  ^^^^^^^^^^^^"),
        ("\r", 1, 1, "", "^"),
        ("ab", 9, 3, "ab", "  ^"),
        ("ab", 999, 3, "ab", "  ^"),
        ("ab", 2, 9, "ab", " ^"),
        # A wide letter takes two cells, a combining one none, a tab goes to the next stop.
        ("日本: x", 5, 1, "日本: x", "      ^"),
        ("日本: x", 1, 2, "日本: x", "^^^^"),
        ("z\u0307o\u0301: x", 7, 1, "z\u0307o\u0301: x", "    ^"),
        ("\tx", 2, 1, "    x", "    ^"),
        ("ab\tx", 4, 1, "ab  x", "    ^"),
        ("ab\tx", 3, 1, "ab  x", "  ^^"),
        # What a terminal would act on is shown, and then takes a cell.
        ("\u202ea\x9b: x", 6, 1, "\ufffda\ufffd: x", "     ^"),
    ],
)
def test_the_underline_stands_under_its_part(line: str, column: int, width: int, shown: str, underline: str) -> None:
    assert excerpt(line, column, width, 40) == (shown, underline)


@pytest.mark.parametrize(
    ("line", "column", "width", "shown", "underline"),
    [
        ("0123456789" * 5, 1, 3, "012345678901234567…", "^^^"),
        ("0123456789" * 5, 31, 3, "…456789012345678901…", " " * 7 + "^^^"),
        ("0123456789" * 5, 49, 2, "…23456789", " " * 7 + "^^"),
        ("0123456789" * 5, 41, 0, "…4567890123456789", " " * 7 + "^" * 10),
        ("0123456789" * 5, 5, 90, "012345678901234567…", " " * 4 + "^" * 14),
        ("日" * 30, 20, 1, "…日日日日日日日日日…", " " * 7 + "^^"),
        ("0123456789" * 99, 501, 3, "…456789012345678901…", " " * 7 + "^^^"),
        ("0123456789" * 99 + "  ", 989, 2, "…23456789", " " * 7 + "^^"),
        ("0123456789" * 99, 1, 0, "012345678901234567…", "^" * 18),
        ("a" + "\u0301" * 500, 301, 1, "…" + "\u0301" * 160 + "…", " ^"),
    ],
)
def test_a_long_line_is_cut_around_it(line: str, column: int, width: int, shown: str, underline: str) -> None:
    assert excerpt(line, column, width, 20) == (shown, underline)


def test_of_a_line_without_end_only_what_is_near_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of 20 KB on one line, with 300 mistakes in it, took six seconds."""
    seen: list[str] = []
    monkeypatch.setattr("gateway.cli.excerpt.visible", lambda letter: seen.append(letter) or letter)
    assert excerpt("x" * 20_000, 10_000, 3, 20)[1] == " " * 7 + "^^^"
    assert len(seen) < 200
