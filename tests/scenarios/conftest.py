"""A front door that stays open for many scenarios."""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from scenarios.player import ready
from scenarios.stage import Bucket, Folder, Opened, Stage

from gateway.policy.fronts import FRONTS

Opener = Callable[[str, Mapping[str, Any]], AbstractAsyncContextManager[tuple[Stage, Opened]]]


@pytest.fixture
def open_door(tmp_path: Path, request: pytest.FixtureRequest) -> Opener:
    """Opens the door of this name on a stage of its own, with these settings over the shop's."""

    @asynccontextmanager
    async def opener(name: str, more: Mapping[str, Any]) -> AsyncIterator[tuple[Stage, Opened]]:
        front = FRONTS[name]
        in_folder = "file" in front.origins
        shelf = Folder(tmp_path / "files") if in_folder else Bucket(request.getfixturevalue("moto_s3"))
        stage = Stage.build(tmp_path, front, shelf, more)
        try:
            async with importlib.import_module(f"scenarios.doors.{name}").opened(stage) as door:
                if "origin" not in more:
                    await ready(stage, door)
                yield stage, door
        finally:
            stage.close()

    return opener
