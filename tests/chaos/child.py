"""A module of this folder as a process of its own, which ends with the `async with` that began it."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path


class Child:
    """Whoever begins it says in `__aenter__` with what arguments and pipes."""

    _process: asyncio.subprocess.Process

    async def _begin(self, module: str, *arguments: str, **pipes: int) -> None:
        command = [sys.executable, str(Path(module)), *arguments]
        self._process = await asyncio.create_subprocess_exec(*command, **pipes)

    async def __aexit__(self, *_: object) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
