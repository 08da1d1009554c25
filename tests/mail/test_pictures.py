from __future__ import annotations

import struct

import pytest

from gateway.mail.letter import Brand
from gateway.mail.pictures import LOGO_BYTES_MAX, check_logo, qr_code

GIF = b"GIF89a" + struct.pack("<HH", 120, 40) + bytes(20)
EXIF = b"\xff\xe1" + struct.pack(">H", 200) + bytes(198)
FRAME = b"\xff\xc2" + struct.pack(">HBHH", 17, 8, 50, 400) + bytes(20)
JPEG = b"\xff\xd8" + EXIF + FRAME


@pytest.mark.parametrize(
    ("content", "shown"), [(GIF, ("gif", 120, 40)), (JPEG, ("jpeg", 240, 30))], ids=["gif", "jpeg"]
)
def test_a_logo_is_scaled_to_fit(content: bytes, shown: tuple[str, int, int]) -> None:
    picture = check_logo(content)
    assert (picture.subtype, picture.width, picture.height) == shown


def test_a_png_is_scaled_to_fit(logo: bytes) -> None:
    picture = check_logo(logo)
    assert (picture.subtype, picture.width, picture.height) == ("png", 210, 56)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"<svg/>", "PNG, JPEG or GIF"),
        (GIF[:7], "PNG, JPEG or GIF"),
        (b"\xff\xd8" + EXIF, "PNG, JPEG or GIF"),
        (b"\xff\xd8\xff\xe0\x00\x00" * 9, "PNG, JPEG or GIF"),
        (GIF + bytes(LOGO_BYTES_MAX), "24 KB"),
    ],
)
def test_what_no_mail_program_shows_is_refused(content: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        check_logo(content)
    with pytest.raises(ValueError, match=said):
        Brand("Sea Shop", logo=content)


@pytest.mark.parametrize("length", [10, 450, 1100])
def test_a_module_of_the_code_is_a_whole_number_of_pixels(length: int) -> None:
    code = qr_code("https://dl.example.com/l/" + "a" * length)
    assert code is not None
    drawn = int.from_bytes(code.content[16:20])
    modules = drawn // 4
    assert code.width % modules == 0
    assert code.width >= 2 * modules
    assert len(code.content) < 4096
