"""Every scenario through every front door: the same answers, charges and events, or the difference that it declares."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from scenarios.format import Scenario, read
from scenarios.player import Player

from gateway.policy.fronts import FRONTS

HERE = Path(__file__).parent
DOORS = [name for name in FRONTS if (HERE / "doors" / f"{name}.py").exists()]
PAGES = {path.stem: read(path) for path in sorted(HERE.glob("*.yaml"))}


def rows() -> Iterator[object]:
    """By door, then by settings: so each process of a door is used up before the next one."""
    for name in DOORS:
        front = FRONTS[name]
        listed = [(page, scenario) for page, scenarios in PAGES.items() for scenario in scenarios]
        for page, scenario in sorted(listed, key=lambda each: json.dumps(each[1].settings_at(front), sort_keys=True)):
            yield pytest.param(name, scenario, id=f"{page}::{scenario.title}-{name}")


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.parametrize(("door", "scenario"), list(rows()))
async def test_scenario(open_door, door: str, scenario: Scenario) -> None:
    opened = await open_door(door, scenario.settings_at(FRONTS[door]))
    player = Player(opened.stage, opened.door, scenario)
    if scenario.doors is None or door in scenario.doors:
        await player.play()
        return
    # What a door does otherwise is said once, and only where it is so.
    with pytest.raises(AssertionError):
        await player.play()
