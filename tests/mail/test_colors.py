from __future__ import annotations

import itertools

from gateway.mail import colors


def test_contrast_is_that_of_wcag() -> None:
    assert round(colors.contrast("#000000", "#ffffff"), 2) == 21
    assert round(colors.contrast("#777777", "#ffffff"), 2) == 4.48
    assert colors.contrast("#123456", "#123456") == 1


def test_a_button_can_be_read_in_every_colour() -> None:
    steps = ("00", "33", "66", "99", "cc", "ff")
    for red, green, blue in itertools.product(steps, repeat=3):
        color = f"#{red}{green}{blue}"
        assert colors.contrast(colors.text_on(color), color) >= 4.5
        for ground, edge in ((colors.CARD, colors.EDGE), (colors.DARK_CARD, colors.DARK_EDGE)):
            assert colors.contrast(colors.edge_on(color, ground, edge), ground) >= 3


def test_the_texts_of_the_mail_can_be_read() -> None:
    for text, ground in [(colors.INK, colors.CARD), (colors.DARK_INK, colors.DARK_CARD)]:
        assert colors.contrast(text, ground) >= 7
    for quiet, grounds in [("#515b64", ("#ffffff", "#f5f4f0")), ("#a7b2ba", ("#1d2327", "#262d32", "#14181b"))]:
        assert all(colors.contrast(quiet, ground) >= 4.5 for ground in grounds)
