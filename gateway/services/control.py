"""Keeps what the ops have ordered of links in memory, and knows whether it is up to date.

What was read is never forgotten, and a freeze or thaw that the stream has lost is put back into it. Where what is here
may not be up to date, requests are refused as if Redis were down.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable

from gateway.errors import LedgerDown, LedgerFault
from gateway.policy.events import rfc3339
from gateway.policy.standing import Command, Frozen, Standing
from gateway.ports import ControlLog
from gateway.services.faults import describe

log = logging.getLogger(__name__)

SILENCE = 2.0
"""Seconds without a word from the stream after which it counts as down."""
BACKOFF = 0.25
REMIND_EVERY = 60.0


class Control:
    """One tail per worker. `on_refused` is called after each page that ends links or freezes all; it cuts what runs.
    `on_command` is told of each command that is read.
    """

    def __init__(
        self,
        commands: ControlLog,
        *,
        on_refused: Callable[[], None] = lambda: None,
        on_command: Callable[[Command], None] = lambda command: None,
    ) -> None:
        self._commands = commands
        self._on_refused = on_refused
        self._on_command = on_command
        self.complete_at = -math.inf
        """When everything there was had been read last (monotonic s)."""
        self.standing = Standing()
        self.trouble = ""
        """What keeps the stream from being read, in words for ops; '' when all is well."""
        self._last = "0"
        self._there = Standing()
        """What the stream says of all, since it was read from its beginning."""
        self._frozen: Frozen | None = None
        self._heard = -math.inf
        self._caught_up = False
        self._said: tuple[type[BaseException], float] | None = None
        self._looked = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Read everything there is, then go on in the background, also where Redis is away: it is asked once."""
        self._task = asyncio.create_task(self._run())
        try:
            await self._looked.wait()
        except asyncio.CancelledError:
            await self.stop()
            raise

    async def stop(self) -> None:
        """End the tail. May be called twice."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def current(self) -> bool:
        """Whether every command there was 2 s ago is in `standing`; where not, nobody may be let in."""
        return self._caught_up and time.monotonic() - self._heard <= SILENCE

    async def _run(self) -> None:
        while True:
            try:
                async for last, commands in self._commands.follow(self._last):
                    self._take(last, commands)
                    if commands == []:
                        await self._put_back()
            except LedgerFault as error:
                self._caught_up = False
                self._complain(logging.CRITICAL, error)
            except LedgerDown as error:
                self._complain(logging.WARNING, error)
            except Exception as error:  # noqa: BLE001  this loop must outlive whatever goes wrong in it
                self._caught_up = False
                self._complain(logging.ERROR, error)
            self._looked.set()
            await asyncio.sleep(BACKOFF)

    async def _put_back(self) -> None:
        """Who looks at the stream alone, a command of the ops or a new worker, would take it for the contrary."""
        said = self.standing.of_all
        if said is not None and said != self._there.of_all:
            log.warning("the control stream has lost a %s, which is put back", said.verb)
            await self._commands.append(said)

    def _take(self, last: str, commands: list[Command] | None) -> None:
        now = time.monotonic()
        if now - self._heard > SILENCE:
            self._caught_up = False
        self._heard = now
        if commands is None:
            self._last, self._there = last, Standing()
            return
        for command in commands:
            self.standing.apply(command)
            self._on_command(command)
            if command.verb in ("freeze", "thaw"):
                self._there.apply(command)
        if any(command.verb in ("revoke", "freeze") for command in commands):
            self._on_refused()
        self._last = last
        if not commands:
            self._is_well()
        self._say_frozen()

    def _say_frozen(self) -> None:
        frozen = self.standing.frozen
        if frozen is not None and self._frozen is None:
            log.warning("all downloads are stopped since %s (gateway freeze)", rfc3339(frozen.since * 1000))
        elif frozen is None and self._frozen is not None:
            log.warning("downloads are allowed again (gateway thaw)")
        self._frozen = frozen

    def _is_well(self) -> None:
        self._caught_up = True
        self.complete_at = time.monotonic()
        self._looked.set()
        if self.trouble:
            log.info("revocations and extensions are read again")
            self.trouble, self._said = "", None

    def _complain(self, level: int, error: Exception) -> None:
        self.trouble = describe(error)
        now = time.monotonic()
        if self._said is None or self._said[0] is not type(error) or now - self._said[1] > REMIND_EVERY:
            self._said = (type(error), now)
            log.log(level, "revocations and extensions cannot be read: %s", self.trouble)
