"""Every scenario through every front door: the same answers, charges and events, or the difference that it declares."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from scenarios.format import Scenario, read
from scenarios.player import Player

from gateway.policy.fronts import FRONTS

HERE = Path(__file__).parent
DOORS = [name for name in FRONTS if (HERE / "doors" / f"{name}.py").exists()]
PAGES = {path.stem: read(path) for path in sorted(HERE.glob("*.yaml"))}
ONLY = os.environ.get("SCENARIO", "")
Row = tuple[str, Scenario]


def sets() -> Iterator[object]:
    """What is played at one door with one set of settings, which is opened once for it all."""
    for name in DOORS:
        found: dict[str, list[Row]] = {}
        for page, scenarios in PAGES.items():
            for scenario in scenarios:
                settings = json.dumps(scenario.settings_at(FRONTS[name]), sort_keys=True)
                found.setdefault(settings, []).append((page, scenario))
        for settings, rows in found.items():
            if chosen := [row for row in rows if ONLY in row[1].title]:
                yield pytest.param(name, chosen, id="-".join([name, *json.loads(settings)]))


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("name", "rows"), list(sets()))
async def test_scenarios(open_door, subtests: pytest.Subtests, name: str, rows: list[Row]) -> None:
    async with open_door(name, rows[0][1].settings_at(FRONTS[name])) as (stage, door):
        for page, scenario in rows:
            with subtests.test(f"{page}: {scenario.title}"):
                player = Player(stage, door, scenario)
                if scenario.doors is None or name in scenario.doors:
                    await player.play()
                    continue
                # What a door does otherwise is said once, and only where it is so.
                with pytest.raises(AssertionError):
                    await player.play()
