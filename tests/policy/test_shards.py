from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.shards import shard_of


@pytest.mark.parametrize(
    ("key", "shards", "shard"),
    [
        (None, 64, 0),
        ("", 64, 0),
        ("10001", 1, 0),
        ("10001", 64, 19),
        ("zamówienie", 64, 40),
        ("123456789", 2**32, 0xCBF43926),  # CRC-32's own check value
    ],
)
def test_a_key_has_one_shard_for_ever(key: str | None, shards: int, shard: int) -> None:
    assert shard_of(key, shards) == shard


@given(st.text(st.characters(codec=None)), st.integers(1, 1024))
def test_any_text_has_a_shard(key: str, shards: int) -> None:
    assert 0 <= shard_of(key, shards) < shards
