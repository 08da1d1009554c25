"""nginx that asks /auth and sends the bytes (config/nginx/auth-request.conf)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from scenarios.doors._behind import behind
from scenarios.stage import Opened, Stage


@asynccontextmanager
async def opened(stage: Stage) -> AsyncIterator[Opened]:
    async with behind(stage, "auth-request", {}) as door:
        yield door
