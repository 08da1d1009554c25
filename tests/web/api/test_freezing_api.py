"""The calls that stop everything, and allow it again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any


async def test_frozen_and_thawed_on_record(
    ask: Callable[..., Awaitable[Any]], acted: Callable[[], Awaitable[list[dict[str, str]]]]
) -> None:
    frozen = await ask("ops", "POST", "/freeze", {"message": "Back at 18:00."})
    assert (frozen.status, frozen.body["frozen"]) == (200, True)
    assert frozen.body["since"].endswith("Z")
    for message in (None, ""):
        again = await ask("ops", "POST", "/freeze", {} if message is None else {"message": message})
        assert (again.status, again.body) == (200, frozen.body)
    thawed = await ask("ops", "POST", "/thaw", {})
    assert (thawed.status, thawed.body) == (200, {"frozen": False, "since": None})
    assert [each["staff.action"] for each in await acted()] == [*["gateway.freeze"] * 3, "gateway.thaw"]
