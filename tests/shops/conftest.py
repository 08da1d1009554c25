"""Webhooks as shops record them: the payloads are of our own making, in the form that each shop documents."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def payload() -> Callable[[str], bytes]:
    """The raw body of a recorded payload, by its name."""

    def read(name: str) -> bytes:
        return (Path(__file__).parent / "payloads" / f"{name}.json").read_bytes()

    return read
