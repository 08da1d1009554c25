"""Units: what is written reads back, and everything ambiguous is refused with a hint."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy import units

DURATIONS = [("90s", 90), ("15m", 900), ("12h", 43_200), ("30d", 2_592_000), ("1y", 31_536_000), ("0s", 0)]
SIZES = [
    ("0", 0),
    ("1234", 1234),
    ("1B", 1),
    ("500KB", 500_000),
    ("20MB", 20_000_000),
    ("1GB", 10**9),
    ("2TB", 2 * 10**12),
    ("64KiB", 65_536),
    ("1MiB", 1_048_576),
    ("3GiB", 3 * 2**30),
    ("1TiB", 2**40),
]
NEVER = [
    "",
    " ",
    "d",
    "-1d",
    "+1d",
    "1.5d",
    "1 d",
    " 1d",
    "1d ",
    "1d\n",
    "1D",
    "1h30m",
    "1w",
    "d1",
    "0x1s",
    "1_0s",
    "1e3s",
]
OTHER_SCRIPTS = ["\u0663\u0660d", "\uff13\uff10d", "\u00b2d", "1\u0434"]


@pytest.mark.parametrize(("text", "seconds"), DURATIONS)
def test_durations(text: str, seconds: int) -> None:
    assert units.parse_duration(text) == seconds


@pytest.mark.parametrize(("text", "size"), SIZES)
def test_sizes_and_rates(text: str, size: int) -> None:
    assert units.parse_size(text) == size
    assert units.parse_rate(text + "/s") == size


@pytest.mark.parametrize("text", [*NEVER, *OTHER_SCRIPTS, "30", "1" * 16 + "s"])
def test_a_wrong_duration_is_refused_with_what_would_be_right(text: str) -> None:
    with pytest.raises(ValueError, match=r"^write a number and a unit, such as 30d"):
        units.parse_duration(text)


@pytest.mark.parametrize("text", [*NEVER, *OTHER_SCRIPTS, "1kb", "1K", "1Mb", "1mib", "1MBs", "1MB/s", "1PB", "1" * 16])
def test_a_wrong_size_is_refused_with_what_would_be_right(text: str) -> None:
    with pytest.raises(ValueError, match=r"^write a number and a unit, such as 20MB"):
        units.parse_size(text)


@pytest.mark.parametrize("text", [*NEVER, "2MB", "2MB/m", "2MB/s/s", "2MB /s", "2MB/ s", "/s", "-2MB/s", "2Mbit/s"])
def test_a_wrong_rate_is_refused_with_what_would_be_right(text: str) -> None:
    with pytest.raises(ValueError, match=r"^write a size per second, such as 2MB/s"):
        units.parse_rate(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59, "59s"), (5400, "90m"), (259_200, "3d"), (2_592_000, "30d"), (31_536_000, "1y")],
)
def test_durations_are_written_with_the_largest_exact_unit(seconds: int, text: str) -> None:
    assert units.format_duration(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0B"), (1234, "1234B"), (500_000, "500KB"), (65_536, "64KiB"), (1_024_000, "1000KiB"), (2**30, "1GiB")],
)
def test_sizes_are_written_with_the_largest_exact_unit(size: int, text: str) -> None:
    assert units.format_size(size) == text


@given(st.integers(0, 10**14))
def test_what_is_written_reads_back(number: int) -> None:
    assert units.parse_duration(units.format_duration(number)) == number
    assert units.parse_size(units.format_size(number)) == number
    assert units.parse_rate(units.format_rate(number)) == number


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (734, "734 B"),
        (999, "999 B"),
        (1000, "1.0 KB"),
        (999_949, "999.9 KB"),
        (999_950, "1.0 MB"),
        (3_400_000, "3.4 MB"),
        (4_700_000_000, "4.7 GB"),
        (5 * 10**15, "5000.0 TB"),
    ],
)
def test_human_sizes(size: int, text: str) -> None:
    assert units.human_size(size) == text


def test_negative_numbers_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="negative"):
        units.format_duration(-1)
