"""Front doors that stay open for many scenarios: one for each door and each difference in the settings."""

from __future__ import annotations

import asyncio
import importlib
import json
from collections.abc import AsyncIterator, Callable, Mapping
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


class Doors:
    """Opens each door once for each difference in the settings. `build` makes the stage for one."""

    def __init__(self, build: Callable[[str, Mapping[str, Any]], Stage]) -> None:
        self._build = build
        self._opened: dict[str, asyncio.Task[Open]] = {}

    async def get(self, name: str, more: Mapping[str, Any], following: Mapping[str, Any] | None) -> Open:
        """The door with `more` over its settings; while it is used, the one with the `following` ones opens."""
        door = await self._begin(name, more)
        if following is not None:
            self._begin(name, following)
        return door

    async def close(self) -> None:
        """End all that was opened."""
        results = await asyncio.gather(*self._opened.values(), return_exceptions=True)
        opened = [result for result in results if isinstance(result, Open)]
        for each in opened:
            each.leave.set()
        await asyncio.gather(*(each.task for each in opened))

    def _begin(self, name: str, more: Mapping[str, Any]) -> asyncio.Task[Open]:
        key = json.dumps([name, more], sort_keys=True)
        if key not in self._opened:
            self._opened[key] = asyncio.create_task(self._open(name, more))
        return self._opened[key]

    async def _open(self, name: str, more: Mapping[str, Any]) -> Open:
        stage = self._build(name, more)
        told: asyncio.Future[Opened] = asyncio.get_running_loop().create_future()
        leave = asyncio.Event()
        task = asyncio.create_task(self._keep(name, stage, told, leave))
        door = await told
        try:
            if "origin" not in more:
                await ready(stage, door)
        except BaseException:
            leave.set()
            await task
            raise
        return Open(stage, door, task, leave)

    @staticmethod
    async def _keep(name: str, stage: Stage, told: asyncio.Future[Opened], leave: asyncio.Event) -> None:
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


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def doors(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> AsyncIterator[Doors]:
    """The doors that stay open until the last scenario."""

    def build(name: str, more: Mapping[str, Any]) -> Stage:
        folder = tmp_path_factory.mktemp(name)
        return Stage.build(folder, FRONTS[name], _shelf(name, folder, request), more)

    kept = Doors(build)
    yield kept
    await kept.close()


def _shelf(name: str, folder: Path, request: pytest.FixtureRequest) -> Folder | Bucket:
    if "file" in FRONTS[name].origins:
        return Folder(folder / "files")
    return Bucket(request.getfixturevalue("moto_s3"))
