"""Runs checks side by side, each for a few seconds at most, and hands on their lines as they come.

A check that hangs or breaks is itself a line. What it left behind in a thread holds up nobody.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from gateway.errors import GatewayError, SettingsError
from gateway.policy.checkup import Check, Line
from gateway.services.faults import describe

P = ParamSpec("P")
T = TypeVar("T")

PATIENCE = 5.0

Report = Callable[[Line], None]
"""What a check calls with each of its lines as soon as it has it."""


async def run(
    checks: Mapping[Check, Callable[[Report], Awaitable[None]]], patience: float = PATIENCE
) -> AsyncIterator[Line]:
    """The lines of all checks. `patience` in seconds, for each check."""
    asyncio.get_running_loop().set_default_executor(Threads())
    lines: asyncio.Queue[Line | None] = asyncio.Queue()

    async def one(name: Check, check: Callable[[Report], Awaitable[None]]) -> None:
        try:
            async with asyncio.timeout(patience):
                await check(lines.put_nowait)
        except TimeoutError:
            lines.put_nowait(Line("FAIL", name, f"no answer within {patience:g} s; is its address right, is it up?"))
        except SettingsError as error:
            for mistake in str(error).splitlines():
                lines.put_nowait(Line("FAIL", name, mistake))
        except GatewayError as error:
            lines.put_nowait(Line("FAIL", name, str(error)))
        except Exception as error:  # noqa: BLE001  a check that breaks must not take the others along
            lines.put_nowait(Line("FAIL", name, f"could not be checked: {describe(error)}; report it"))
        finally:
            lines.put_nowait(None)

    tasks = [asyncio.create_task(one(name, check)) for name, check in checks.items()]
    try:
        running = len(tasks)
        while running:
            line = await lines.get()
            if line is None:
                running -= 1
            else:
                yield line
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Threads(ThreadPoolExecutor):
    """Threads that nobody waits for: one that hangs in a name look-up or in a dead mount cannot be ended."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()

        def work() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(fn(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001  it belongs to who waits for the future
                future.set_exception(error)

        threading.Thread(target=work, daemon=True).start()
        return future
