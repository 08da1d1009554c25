"""Puts the last rules back where new ones refuse far more than they did. See docs/rules-observe.md.

Law: all workers count together and go back together, by what is on record in Redis; where that is away nothing is
decided. A version that was rolled back stays so, whoever starts or reads again, until the file is another one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import Protocol

from gateway.errors import LedgerDown
from gateway.policy.events import new_event
from gateway.policy.reasons import Reason
from gateway.policy.rollback import Came, Return, Tally, Terms, counted, must_return
from gateway.policy.ruleset import RuleSet
from gateway.ports import EventLog
from gateway.services.faults import describe
from gateway.services.identifiers import new_id, now_ms
from gateway.services.reloading import TOLD_ONCE_SECONDS, Watched

log = logging.getLogger(__name__)

EVERY = 1.0
MINUTE = 60
SEEN_MAX = 50_000
"""Links remembered as counted; further ones count at each of their requests."""


class Book(Protocol):
    """What all workers know of versions of the rules; minutes are Unix seconds ÷ 60. Each call raises LedgerDown."""

    async def add(self, version: str, minute: int, tally: Tally) -> None:
        """Count what was decided under this version."""

    async def tally(self, version: str, since: int, until: int) -> Tally:
        """What was decided under it in these minutes, the last one included."""

    async def came(self) -> Came | None:
        """Which version came into force last."""

    async def note(self, came: Came) -> None:
        """Put that on record."""

    async def returns(self) -> dict[str, Return]:
        """The versions that had to give way."""

    async def refuse(self, version: str, why: Return) -> None:
        """Put that on record, unless it is."""


class Returns:
    """The versions that had to give way, as far as this worker knows. What was read is never forgotten."""

    def __init__(self) -> None:
        self._known: dict[str, Return] = {}

    def __contains__(self, version: str) -> bool:
        return version in self._known

    def __getitem__(self, version: str) -> Return:
        return self._known[version]

    async def learn(self, book: Book) -> None:
        """Read what is on record, and put back what Redis has lost of it. Raises LedgerDown."""
        there = await book.returns()
        lost = {version: why for version, why in self._known.items() if version not in there}
        self._known = {**there, **lost}
        for version, why in lost.items():
            await book.refuse(version, why)

    def add(self, version: str, why: Return) -> None:
        self._known.setdefault(version, why)


class Rollback:
    """One per worker. `before` reads the rules that were in force before, or gives None; it is run in a thread.

    `show` as in Reloading; `tell` hears whether what is in the file was rolled back.
    """

    def __init__(
        self,
        rules: Watched[RuleSet],
        book: Book,
        events: EventLog,
        returns: Returns,
        *,
        terms: Terms,
        before: Callable[[], RuleSet | None],
        show: Callable[[str, str, str], None],
        tell: Callable[[bool], None],
    ) -> None:
        self._rules = rules
        self._book = book
        self._events = events
        self._returns = returns
        self._terms = terms
        self._before = before
        self._show = show
        self._tell = tell
        self._version = ""
        self._left: object = None
        """The fingerprint of the files that were left for the last version."""
        self._counts: dict[tuple[str, int], Tally] = {}
        self._seen: set[tuple[str, bool]] = set()
        self._seen_of: tuple[str, int] = ("", 0)
        self._untold: dict[str, dict[str, str]] = {}
        self._stuck = ""
        self._trouble = ""
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin with the rules that are in force now: those nobody saw come."""
        self._version = self._rules.version
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End; call it once."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def note(self, version: str, token_key: str, reason: Reason | None) -> None:
        """See Tally of services.observing. A link counts once in `within` as let through, and once as refused: one
        program that tries and tries again is one buyer.
        """
        tally = counted(reason)
        if tally is None:
            return
        now = int(time.time())
        if self._seen_of != (of := (version, now // self._terms.within)):
            self._seen_of = of
            self._seen.clear()
        link = (token_key, reason is not None)
        if link in self._seen:
            return
        if len(self._seen) < SEEN_MAX:
            self._seen.add(link)
        place = (version, now // MINUTE)
        self._counts[place] = self._counts.get(place, Tally()) + tally

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(EVERY)
            try:
                await self._look()
            except LedgerDown:
                self._counts.clear()  # without Redis nothing is decided, and nobody is let through
            except Exception as error:  # noqa: BLE001  this loop must outlive whatever goes wrong in it
                if self._trouble != (trouble := describe(error)):
                    self._trouble = trouble
                    log.error("whether rules are to be rolled back cannot be told: %s", trouble)
            else:
                self._trouble = ""

    async def _look(self) -> None:
        version, counts = self._rules.version, self._counts
        self._counts = {}
        # All in one write: see Wire.
        came, _, *_ = await asyncio.gather(
            self._book.came(),
            self._returns.learn(self._book),
            *(self._book.add(of, minute, tally) for (of, minute), tally in counts.items()),
        )
        if version != self._version and version not in self._returns:
            came = await self._noted(version, came)
        if version in self._returns:
            await self._go_back(version)
        elif came is not None and came.version == version and came.before:
            await self._judge(came)
        self._tell(self._left is not None and self._left == self._rules.seen)
        await self._tell_events()

    async def _noted(self, version: str, came: Came | None) -> Came:
        """When this version came into force, by the word of the worker that saw it first."""
        before, self._version = self._version, version
        if came is None or came.version != version:
            came = Came(version, before, int(time.time()))
            await self._book.note(came)
        return came

    async def _judge(self, came: Came) -> None:
        now = int(time.time())
        if now > came.since + self._terms.within:
            return
        began = came.since // MINUTE
        new, last = await asyncio.gather(
            self._book.tally(came.version, began, now // MINUTE),
            self._book.tally(came.before, (came.since - self._terms.within) // MINUTE, began),
        )
        if not must_return(new, last, self._terms):
            return
        to = await asyncio.to_thread(self._before)
        if to is None:
            return  # a worker that has a copy of them decides
        why = Return(to.version, now, new, last)
        await self._book.refuse(came.version, why)
        self._returns.add(came.version, why)
        await self._go_back(came.version)

    async def _go_back(self, version: str) -> None:
        why = self._returns[version]
        to = await asyncio.to_thread(self._before)
        if to is None:
            if self._stuck != version:
                self._stuck = version
                log.critical(
                    "the rules %s were rolled back (%s), but this worker has no copy of those before them: they are in "
                    "force, change the file",
                    version,
                    why.said,
                )
            return
        if self._rules.version != version:
            return  # the file was changed meanwhile
        self._left = self._rules.seen
        await self._rules.go_back(lambda: to)
        self._version = to.version
        said = f"the version {version} was rolled back: {why.said}"
        log.critical("the rules %s are in force again; %s; they stay until the file is changed", to.version, said)
        self._show(self._rules.what, to.version, said)
        self._untold[version] = new_event(
            "rules.rolled_back",
            new_id(),
            now_ms(),
            {
                "rules.version": to.version,
                "rules.refused": version,
                "share.refused": f"{why.new.share:.4f}",
                "share.before": f"{why.last.share:.4f}",
                "reason": why.said,
            },
        )

    async def _tell_events(self) -> None:
        for version, event in list(self._untold.items()):
            await self._events.append_once(0, "rollback", version, event, TOLD_ONCE_SECONDS)
            del self._untold[version]


async def known_returns(book: Book) -> Returns:
    """What is on record now; nothing where Redis is away."""
    returns = Returns()
    with contextlib.suppress(LedgerDown):
        await returns.learn(book)
    return returns
