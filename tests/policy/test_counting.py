"""The numbers of a transfer, at the sizes where they bend."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.counting import MIB, budget, refund_below, window


@pytest.mark.parametrize(
    ("asked", "size", "start", "expected"),
    [
        (300_000, 300_000, 0, 300_000),
        (10, 300_000, 0, 10),
        (8 * MIB, 8 * MIB, 0, MIB),
        (8 * MIB, 8 * MIB, -1, MIB),
        (4 * MIB, 8 * MIB, 1, 128 * 1024),
        (2 * MIB, 3 * MIB, 1, 128 * 1024),
        (64 * MIB, 64 * MIB, 0, 2 * MIB),
        (32 * MIB, 64 * MIB, 1, 256 * 1024),
        (100, 64 * MIB, 1, 100),
    ],
)
def test_window(asked: int, size: int, start: int, expected: int) -> None:
    assert window(asked, size, start) == expected


@given(st.integers(1, 10**14))
def test_sixteen_open_ended_ranges_fit_the_slack(size: int) -> None:
    assert 16 * window(size, size, 1) <= budget(size) - size or size < 32 * MIB


@given(st.integers(1, 10**14))
def test_a_whole_file_costs_at_most_32_windows(size: int) -> None:
    assert -(-size // window(size, size, 0)) <= 32


@pytest.mark.parametrize(
    ("size", "expected"),
    [(0, 0), (3, 3), (300_000, 405_000), (10 * MIB, 12 * MIB)],
)
def test_budget(size: int, expected: int) -> None:
    assert budget(size) == expected


@given(st.integers(1, 10**14))
def test_two_whole_files_never_fit_one_budget(size: int) -> None:
    assert size <= budget(size) < 2 * size


@pytest.mark.parametrize(("size", "expected"), [(0, 0), (1, 1), (3, 2), (100, 50), (10**9, 65_536)])
def test_refund_below(size: int, expected: int) -> None:
    assert refund_below(size, 65_536) == expected
