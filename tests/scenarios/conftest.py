"""Front doors that stay open for many scenarios: one for each door and each difference in the settings."""

from __future__ import annotations

import asyncio
import importlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from scenarios.player import ready
from scenarios.stage import Bucket, Folder, Opened, Stage

from gateway.policy.fronts import FRONTS


@dataclass
class Open:
    """A door that is open, and what ends it."""

    stage: Stage
    door: Opened
    task: asyncio.Task[None]
    leave: asyncio.Event


Opener = Callable[[str, Mapping[str, Any]], Awaitable[Open]]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def open_door(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> AsyncIterator[Opener]:
    """Opens a door with `more` over its settings, or gives the one that is open already."""
    opened: dict[str, Open] = {}
    absent: dict[str, str] = {}

    async def keep(name: str, stage: Stage, told: asyncio.Future[Opened], leave: asyncio.Event) -> None:
        # Entered and left in one task, whatever scopes a door's context has.
        try:
            async with importlib.import_module(f"scenarios.doors.{name}").opened(stage) as door:
                told.set_result(door)
                await leave.wait()
        except BaseException as error:
            if told.done():
                raise
            told.set_exception(error)
        finally:
            stage.close()

    async def open_one(name: str, more: Mapping[str, Any]) -> Open:
        key = json.dumps([name, more], sort_keys=True)
        if name in absent:
            pytest.skip(absent[name])
        if key not in opened:
            folder = tmp_path_factory.mktemp(name)
            stage = Stage.build(folder, FRONTS[name], _shelf(name, folder, request), more)
            told: asyncio.Future[Opened] = asyncio.get_running_loop().create_future()
            leave = asyncio.Event()
            task = asyncio.create_task(keep(name, stage, told, leave))
            try:
                door = await told
            except pytest.skip.Exception as skipped:
                absent[name] = str(skipped)
                raise
            opened[key] = Open(stage, door, task, leave)
            if "origin" not in more:
                await ready(stage, door)
        return opened[key]

    yield open_one
    for each in opened.values():
        each.leave.set()
    await asyncio.gather(*(each.task for each in opened.values()))


def _shelf(name: str, folder: Path, request: pytest.FixtureRequest) -> Folder | Bucket:
    if "file" in FRONTS[name].origins:
        return Folder(folder / "files")
    return Bucket(request.getfixturevalue("moto_s3"))
