"""What is done beside answering requests: webhooks become orders, and mails are sent. Any number of workers share it.

Law: what fails is done again; what is done is in the order book, and nothing of it in this process.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping

from gateway.order_ports import OrderBell
from gateway.services.faults import describe

log = logging.getLogger(__name__)

PAUSE = 1.0
"""Seconds after a failure."""


class Background:
    """A loop for each kind of work. A step does one piece, and says whether there was one; it may raise anything.

    `on_state` is told what is wrong, by the work's name, or "".
    """

    def __init__(
        self,
        steps: Mapping[str, tuple[Callable[[], Awaitable[bool]], int]],
        bell: OrderBell,
        on_state: Callable[[str, str], None],
    ) -> None:
        """`steps`: of each kind of work its step, and how many of it are done at a time."""
        self._steps = steps
        self._bell = bell
        self._on_state = on_state
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin, on the running loop."""
        loops = (self._run(name, step) for name, (step, count) in self._steps.items() for _ in range(count))
        self._tasks = [asyncio.create_task(loop) for loop in loops]

    async def stop(self) -> None:
        """End; what is under way is done again by another, once its claim has lapsed."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self, name: str, step: Callable[[], Awaitable[bool]]) -> None:
        wrong = ""
        while True:
            try:
                async with contextlib.aclosing(self._bell.heard()) as rings:
                    async for _ in rings:
                        wrong = await self._work(name, step, wrong)
            except Exception as error:  # noqa: BLE001  however the bell breaks, it is listened to again
                log.error("nobody is woken for a moment: %s", describe(error))
            await asyncio.sleep(PAUSE)

    async def _work(self, name: str, step: Callable[[], Awaitable[bool]], before: str) -> str:
        """Do all there is; what is wrong now. `before`: what was."""
        try:
            while await step():
                pass
        except Exception as error:  # noqa: BLE001  whatever it is, the work goes on when it is over
            if not before:
                log.error("%s wait: %s", name, describe(error))
            self._on_state(name, describe(error))
            await asyncio.sleep(PAUSE)
            return describe(error)
        if before:
            log.info("%s are done again", name)
            self._on_state(name, "")
        return ""
