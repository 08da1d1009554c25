"""What both ways with nginx share: the gateway, and the real nginx before it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from nginx.proxy import ABSENT, PROGRAM, SECRET, Nginx
from scenarios.stage import Opened, Stage, serving


@asynccontextmanager
async def behind(stage: Stage, way: str, doors: dict[str, Any]) -> AsyncIterator[Opened]:
    if PROGRAM is None:
        pytest.skip(ABSENT)
    url = stage.settings["origin"]["url"]
    files = Path(url.removeprefix("file://")) if url.startswith("file://") else None
    async with serving(stage, doors={"secret": SECRET, **doors}) as gateway:
        nginx = Nginx(stage.folder / "nginx", way, gateway.base, files=files)
        try:
            logs = [*gateway.logs, nginx.access_log, nginx.error_log]
            yield Opened(nginx.base, logs, [*gateway.pids, nginx.process.pid])
        finally:
            nginx.close()
