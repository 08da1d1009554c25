"""Our own door: `gateway serve`, to which clients connect."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from scenarios.stage import Opened, Stage, serving


@asynccontextmanager
async def opened(stage: Stage) -> AsyncIterator[Opened]:
    async with serving(stage) as door:
        yield door
