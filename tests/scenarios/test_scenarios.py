"""Every scenario through every front door: the same answers, charges and events, or the difference that it declares."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import groupby
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
        # Without more settings first: by far the most, so the next door has time to open.
        listed.sort(key=lambda each: json.dumps(each[1].settings_at(front), sort_keys=True).replace("{}", ""))
        sets = [settings for settings, _ in groupby(scenario.settings_at(front) for _, scenario in listed)]
        following = dict(zip(map(str, sets), [*sets[1:], None], strict=True))
        for page, scenario in listed:
            settings = following[str(scenario.settings_at(front))]
            yield pytest.param(name, scenario, settings, id=f"{page}::{scenario.title}-{name}")


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.parametrize(("door", "scenario", "following"), list(rows()))
async def test_scenario(doors, door: str, scenario: Scenario, following: dict[str, object] | None) -> None:
    opened = await doors.get(door, scenario.settings_at(FRONTS[door]), following)
    player = Player(opened.stage, opened.door, scenario)
    if scenario.doors is None or door in scenario.doors:
        await player.play()
        return
    # What a door does otherwise is said once, and only where it is so.
    with pytest.raises(AssertionError):
        await player.play()
