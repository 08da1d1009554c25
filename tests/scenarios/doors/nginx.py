"""nginx in front of `gateway serve`, which decides and lets it send the bytes (config/nginx/x-accel.conf)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from nginx.proxy import REDIRECT
from scenarios.doors._behind import behind
from scenarios.stage import Opened, Stage


@asynccontextmanager
async def opened(stage: Stage) -> AsyncIterator[Opened]:
    async with behind(stage, "x-accel", {"nginx": {"redirect": REDIRECT}}) as door:
        yield door
