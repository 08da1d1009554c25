"""What is read from files and swapped while the gateway runs: the rules, and the geo databases.

Law: in force is always the last that was good, also in a worker that starts while a file is bad. A bad file changes
nothing but the log, a metric and one event.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections import deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Generic, Protocol, TypeVar

from gateway.errors import GatewayError, LedgerDown, SettingsError
from gateway.policy.events import new_event
from gateway.ports import EventLog
from gateway.services.faults import describe
from gateway.services.identifiers import new_id, now_ms

log = logging.getLogger(__name__)

EVERY = 0.2
PATIENCE = 3
"""Looks for which files that go on changing are waited for: an editor that truncates and writes is no mistake."""
TOLD_ONCE_SECONDS = 60
"""Longer than workers are apart when they tell the same."""
TELL_AGAIN = 1.0
TELL_AT_END = 1.0
_UNTOLD_MAX = 10
_NOTED_MAX = 1000
"""More than come within TOLD_ONCE_SECONDS."""
_REASON_MAX = 500


class Versioned(Protocol):
    """What can be told apart from what was there before."""

    @property
    def version(self) -> str: ...


class Keeper(Protocol):
    """Holds copies of good files, by their names, for workers that are still to start. `what` as in Watched."""

    def keep(self, what: str, copies: Mapping[str, int]) -> None:
        """Hold these in place of the last ones; the descriptors stay the caller's. Blocks, and never raises."""

    def kept(self, what: str) -> Mapping[str, int]:
        """What was held when this worker started; empty where nothing was. The descriptors stay the keeper's."""


def _nothing(_: object) -> None:
    pass


T_co = TypeVar("T_co", bound=Versioned, covariant=True)


class Watched(Generic[T_co]):
    """One thing read from files, or from none where there is no `fingerprint`. All but `replaced` are run in a thread.

    `read` raises SettingsError with a line per mistake; `fingerprint` never raises, follows symlinks, and has the same
    repr in every process of the host. `replaced` is given what is no longer in force, on the event loop, where nothing
    uses it any more. `keep` is given what has come into force; `last_good` reads what another worker gave it, or gives
    None, where the files are bad at the start.
    `without` is in force wherever the files are bad, in place of the last good ones.
    """

    def __init__(
        self,
        what: str,
        read: Callable[[], T_co],
        fingerprint: Callable[[], Hashable] | None,
        replaced: Callable[[T_co], None] = _nothing,
        *,
        keep: Callable[[T_co], None] = _nothing,
        last_good: Callable[[], T_co | None] = lambda: None,
        without: T_co | None = None,
    ) -> None:
        self.what = what
        self.can_be_without = without is not None
        self._without = without
        self.has_files = fingerprint is not None
        self._read = read
        self._fingerprint = fingerprint or (lambda: None)
        self._replaced = replaced
        self._keep = keep
        self._last_good = last_good
        self._current: T_co | None = None
        self._seen: Hashable = None
        self._last_look: Hashable = None
        self._looks = 0
        self._changing = asyncio.Lock()

    @property
    def current(self) -> T_co:
        """What is in force. Take it once for one decision. Raises LookupError before the first `load`."""
        if self._current is None:
            raise LookupError(f"the {self.what} were not loaded yet")
        return self._current

    @property
    def version(self) -> str:
        """Of what is in force."""
        return self.current.version

    @property
    def seen(self) -> Hashable:
        """The fingerprint of the files as they were read last, good or not."""
        return self._seen

    async def load(self) -> str:
        """Read for the first time. Where the files are bad and others were good before, those are in force, and what is
        wrong is returned; else ''. Raises SettingsError where nothing was ever good.
        """
        try:
            self._current = await asyncio.to_thread(self._read_unchanging)
        except Exception as error:
            self._current = self._without or await asyncio.to_thread(self._last_good)
            if self._current is None:
                raise
            return describe(error)
        await asyncio.to_thread(self._keep, self._current)
        return ""

    async def has_changed(self) -> bool:
        """Whether the files are others than those read last, and have come to rest."""
        now = await asyncio.to_thread(self._fingerprint)
        before, self._last_look = self._last_look, now
        if now == self._seen:
            self._looks = 0
            return False
        self._looks += 1
        return now == before or self._looks >= PATIENCE

    async def reload(self) -> bool:
        """Read again; whether something else is in force now. Raises SettingsError; the last good stays then, unless it
        can be without.
        """
        async with self._changing:
            self._looks = 0
            try:
                fresh = await asyncio.to_thread(self._read_unchanging)
            except Exception:
                self._current = self._without or self._current
                raise
            before, self._current = self.current, fresh
            self._replaced(before)
            await asyncio.to_thread(self._keep, fresh)
            return before.version != fresh.version

    async def go_back(self, to: Callable[[], T_co], instead_of: str) -> bool:
        """Put what this gives in force again in place of that version; False where another one is in force by then. The
        files stay as they are, and are not read for it.
        """
        async with self._changing:
            fresh = await asyncio.to_thread(to)
            if self.version != instead_of:
                return False
            before, self._current = self.current, fresh
            self._replaced(before)
            await asyncio.to_thread(self._keep, fresh)
            return True

    def _read_unchanging(self) -> T_co:
        """Read, and again where files changed meanwhile, or turned out to name others that are to be watched: half of
        the one and half of the other is never in force.
        """
        for _ in range(PATIENCE):
            self._seen = self._fingerprint()
            try:
                fresh = self._read()
            except GatewayError:
                if self._fingerprint() == self._seen:
                    raise
                continue
            if self._fingerprint() == self._seen:
                return fresh
            self._replaced(fresh)
        raise SettingsError(f"the {self.what} changed each time they were read; rename complete files to their names")


class Reloading:
    """Loops of a worker over what is watched; `wanted` is set by SIGHUP. `count` is told (what, outcome).

    `show` is told (what, its version in force, what is wrong with its files or '') at the start and at each change.
    """

    def __init__(
        self,
        watched: Sequence[Watched[Versioned]],
        events: EventLog,
        *,
        wanted: asyncio.Event,
        versions: Callable[[], dict[str, str]],
        count: Callable[[str, str], None],
        show: Callable[[str, str, str], None] = lambda _what, _version, _wrong: None,
    ) -> None:
        self._watched = watched
        self._events = events
        self._wanted = wanted
        self._versions = versions
        self._count = count
        self._show = show
        self._rejected: dict[str, str] = {}
        self._noted: deque[str] = deque(maxlen=_NOTED_MAX)
        self._untold: asyncio.Queue[tuple[str, dict[str, str]]] = asyncio.Queue(_UNTOLD_MAX)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Load everything, then go on watching in the background. Raises SettingsError."""
        wrong = {each: await each.load() for each in self._watched}
        # A loop for each: rules do not wait for large databases to be read, nor either of them for Redis.
        asked = {each: asyncio.Event() for each in self._watched if each.has_files}
        loops = [self._watch(each, event) for each, event in asked.items()]
        self._tasks = [asyncio.create_task(loop) for loop in (*loops, self._pass_on([*asked.values()]), self._tell())]
        for each in asked:
            if wrong[each]:
                if not each.can_be_without:
                    log.warning("starting with the last good %s, which another worker had read", each.what)
                self._reject(each, wrong[each])
            else:
                self._show(each.what, each.version, "")

    async def stop(self) -> None:
        """What is still to be told is told first, within a second."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._untold.join(), TELL_AT_END)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _pass_on(self, asked: Sequence[asyncio.Event]) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            for event in asked:
                event.set()

    async def _watch(self, each: Watched[Versioned], asked: asyncio.Event) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asked.wait(), EVERY)
            at_once = asked.is_set()
            asked.clear()
            try:
                if at_once or await each.has_changed():
                    await self._reload(each, asked=at_once)
            except Exception as error:  # noqa: BLE001  this loop must outlive whatever goes wrong in it
                log.error("the %s were not looked at: %s", each.what, describe(error))

    async def _reload(self, each: Watched[Versioned], *, asked: bool) -> None:
        try:
            changed = await each.reload()
        except Exception as error:  # noqa: BLE001  whatever a file does to its reader, it is the file that is refused
            self._reject(each, describe(error))
            return
        mended = self._rejected.pop(each.what, None) is not None
        self._count(each.what, "loaded")
        self._show(each.what, each.version, "")
        if changed or mended:
            log.info("the %s were loaded again: version %s", each.what, each.version or "none, for there is no file")
            self._note("rules.reloaded", each, each.what)
        elif asked:
            log.info("the %s were read again, and in force is what was: version %s", each.what, each.version)

    def _reject(self, each: Watched[Versioned], wrong: str) -> None:
        first, *more = wrong.splitlines()
        for line in (first, *more):
            if each.can_be_without:
                log.error("the %s is not used, for its file is wrong: %s", each.what, line)
            else:
                log.error("the %s in force stay, for those in the files are wrong: %s", each.what, line)
        self._count(each.what, "rejected")
        if self._rejected.get(each.what) == wrong:
            return
        self._rejected[each.what] = wrong
        reason = first[:_REASON_MAX] + (f" (+{len(more)} more)" if more else "")
        self._show(each.what, each.version, reason)
        self._note("rules.rejected", each, reason, wrong)

    def _note(self, kind: str, each: Watched[Versioned], reason: str, wrong: str = "") -> None:
        # All workers of a host see the same files, each at its own time: of one state of them theirs is one event. A
        # state can come back as it was, by a symlink or a folder's name: then it is told again.
        state = hashlib.sha256(repr((each.what, kind, each.version, wrong, each.seen)).encode()).hexdigest()
        mark = f"reload:{state}:{self._noted.count(state)}"
        self._noted.append(state)
        if self._untold.full():
            self._untold.get_nowait()
            self._untold.task_done()
        event = new_event(kind, new_id(), now_ms(), {**self._versions(), "reason": reason})
        self._untold.put_nowait((mark, event))

    async def _tell(self) -> None:
        while True:
            mark, event = await self._untold.get()
            complained = False
            while (fault := await self._fault_of_telling(mark, event)) is not None:
                if not complained:
                    log.warning("the event %s is not stored yet: %s", event["type"], fault)
                    complained = True
                await asyncio.sleep(TELL_AGAIN)
            self._untold.task_done()

    async def _fault_of_telling(self, mark: str, event: dict[str, str]) -> str | None:
        """Why the event has to be told again, or None where it needs not."""
        try:
            await self._events.append_once(0, mark, event, TOLD_ONCE_SECONDS)
        except LedgerDown as error:
            return str(error)
        except Exception as error:  # noqa: BLE001  this loop must outlive whatever goes wrong in it
            log.error("the event %s could not be stored: %s", event["type"], describe(error))
        return None
