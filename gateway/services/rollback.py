"""Puts the proven rules back where new ones refuse far more than they would have. See docs/rules-observe.md.

Law: all workers count together and go back together, to the version on record in Redis; where that is away nothing is
decided. A version that was rolled back stays so, whoever starts or reads again, until the file is another one.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Protocol

from gateway.errors import LedgerDown, LedgerFault
from gateway.policy.decide import Policy, decide
from gateway.policy.events import new_event
from gateway.policy.model import Allow, Decision, Deny, Place
from gateway.policy.reasons import Reason
from gateway.policy.rollback import Return, Tally, Terms, Watch, counts, must_return, refused_before
from gateway.policy.ruleset import RuleSet
from gateway.ports import EventLog
from gateway.services.case import Case
from gateway.services.faults import describe
from gateway.services.identifiers import new_id, now_ms
from gateway.services.reloading import TOLD_ONCE_SECONDS, Watched

log = logging.getLogger(__name__)

EVERY = 1.0
SEEN_MAX = 50_000
"""Links remembered as counted; further ones count at each of their requests."""
GRACE = 5
"""Seconds after a watch before its version is proven: another worker's word of its last moment is heard first."""


class Book(Protocol):
    """What all workers know of versions of the rules. Each call raises LedgerDown, and LedgerFault where what is there
    cannot be read; its words say what to do.
    """

    async def watched(self, version: str) -> Watch | None:
        """How this version is, or was, watched."""

    async def count(self, watch: Watch, tally: Tally) -> tuple[Watch, Tally]:
        """Add what was counted, and begin this watch where there is none of the version; what is on record then."""

    async def forget(self, version: str) -> None:
        """End the version's watch, for another one to begin."""

    async def returns(self) -> dict[str, Return]:
        """The versions that have to give way."""

    async def refuse(self, version: str, why: Return) -> None:
        """Put that on record, unless it is."""


class Copies(Protocol):
    """The rules of this host that can still be had, whatever the file says. All but `file` are run in a thread."""

    @property
    def file(self) -> RuleSet | None:
        """What the file was when it was read last, in force or not; None where it was wrong."""

    def held(self, version: str) -> RuleSet | None:
        """None where there is no copy of it that can be read."""

    def prove(self, version: str) -> None:
        """This version is the one to go back to: hold it, for workers that are still to start, too."""


class Returns:
    """The versions that have to give way, as far as this worker knows. What was read is never forgotten."""

    def __init__(self, book: Book) -> None:
        self.book = book
        self._known: dict[str, Return] = {}
        self._by_text: dict[str, Return] = {}

    def why(self, rules: RuleSet | None) -> Return | None:
        """Why these rules have to give way, by their version, or by their file's own text with whatever lists."""
        if rules is None:
            return None
        return self._known.get(rules.version) or self._by_text.get(rules.text)

    async def learn(self) -> None:
        """Read what is on record, and put back what Redis has lost of it. Raises LedgerDown."""
        there = await self.book.returns()
        lost = {version: why for version, why in self._known.items() if version not in there}
        self._known = {**there, **lost}
        self._by_text = {why.text: why for why in self._known.values() if why.text}
        for version, why in lost.items():
            await self.book.refuse(version, why)


class Rollback:
    """One per worker. `policy` gives what decides a request by other rules; `show` as in Reloading; `tell` hears
    whether the rules in the file, or those in force, were rolled back.
    """

    def __init__(
        self,
        rules: Watched[RuleSet],
        returns: Returns,
        events: EventLog,
        *,
        terms: Terms,
        copies: Copies,
        policy: Callable[[RuleSet, Case], Policy],
        show: Callable[[str, str, str], None],
        tell: Callable[[bool], None],
    ) -> None:
        self._rules = rules
        self._book = returns.book
        self._events = events
        self._returns = returns
        self._terms = terms
        self._copies = copies
        self._policy = policy
        self._show = show
        self._tell = tell
        self._version = ""
        """The version that was looked at last; '' until the first look."""
        self._watch: Watch | None = None
        self._beside: RuleSet | None = None
        """The proven rules of the watch; None where this worker has no copy of them, and then it counts nothing."""
        self._tally = Tally()
        self._seen: set[tuple[str, bool, bool]] = set()
        self._untold: dict[str, dict[str, str]] = {}
        self._stuck = ""
        self._trouble = ""
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin with the rules that are in force now: those nobody saw come, so they are proven, unless they are
        watched already.
        """
        self._proven = self._rules.current
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End; call it once."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def note(self, case: Case, reason: Reason | None) -> None:
        """See Tally of services.observing. A link counts once for each outcome: one program that tries and tries again
        is one buyer.
        """
        watch, beside = self._watch, self._beside
        if watch is None or beside is None or case.rules.version != watch.version or case.claims is None:
            return
        if not counts(reason):
            return
        try:
            proven = self._decide_by(beside, case)
        except Exception as error:  # noqa: BLE001  whatever is wrong with those rules, this request is answered
            self._beside = None
            log.critical("%s is not watched any more, %s cannot be asked: %s", *_names(watch), describe(error))
            return
        refused, before = reason is not None, refused_before(proven, case.decision, reason, case.at_ms / 1000)
        link = (case.claims.token_key, refused, before)
        if link in self._seen:
            return
        if len(self._seen) < SEEN_MAX:
            self._seen.add(link)
        self._tally += Tally.of(refused=refused, before=before)

    def _decide_by(self, rules: RuleSet, case: Case) -> Decision:
        """What these rules decide of it; of a link's page that it is allowed where one of the files is."""
        decision: Decision = Deny(Reason.FILE_UNKNOWN)
        if case.claims is None:
            return decision
        for file in case.claims.files if case.file is None else (case.file,):
            decision = decide(
                case.claims,
                file,
                case.request,
                device=case.device,
                place=case.place or Place(),
                policy=self._policy(rules, case),
                now=case.at_ms / 1000,
            )
            if isinstance(decision, Allow):
                break
        return decision

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(EVERY)
            try:
                await self._look()
            except LedgerFault as fault:
                self._drop()
                self._complain(str(fault))
            except LedgerDown:
                self._drop()  # without Redis nothing is decided, and nobody is let through
            except Exception as error:  # noqa: BLE001  this loop must outlive whatever goes wrong in it
                self._complain(describe(error))
            else:
                self._trouble = ""
            known = (self._copies.file, self._rules.current)
            self._tell(any(self._returns.why(rules) is not None for rules in known))

    def _drop(self) -> None:
        """Forget what was counted and is not on record, and who it was."""
        self._tally = Tally()
        self._seen.clear()

    def _complain(self, trouble: str) -> None:
        if self._trouble != trouble:
            self._trouble = trouble
            log.critical("whether rules are to be rolled back cannot be told: %s", trouble)

    async def _look(self) -> None:
        watch, (tally, self._tally) = self._watch, (self._tally, Tally())
        if watch is None:
            await self._returns.learn()
            total = Tally()
        else:
            # All in one write: see Wire.
            _, (on_record, total) = await asyncio.gather(self._returns.learn(), self._book.count(watch, tally))
            if on_record != watch:
                await self._join(on_record)
        if not self._version:
            await self._begin()
        rules = self._rules.current
        why = self._returns.why(rules)
        if why is None:
            self._stuck = ""
        if why is not None:
            await self._go_back(rules, why)
        elif rules.version != self._version:
            await self._change(rules)
        elif self._watch is not None:
            await self._judge(self._watch, total)
        await self._tell_events()

    async def _begin(self) -> None:
        """Learn whether what was in force at the start is watched by others."""
        began = self._proven
        watch = await self._book.watched(began.version)
        if watch is not None and not self._is_over(watch):
            await self._join(watch)
        elif self._returns.why(began) is None:
            await asyncio.to_thread(self._copies.prove, began.version)
        self._version = began.version

    async def _change(self, rules: RuleSet) -> None:
        """Watch what has come into force, by the word of the worker that saw it first."""
        version, proven = rules.version, self._proven
        if version == proven.version:
            self._leave()
        elif self._returns.why(proven) is not None:
            # To go back to what was refused helps nobody: another worker, which has better ones, watches, or none does.
            watch = await self._book.watched(version)
            if watch is None or self._is_over(watch):
                await self._prove(rules)
            else:
                await self._join(watch)
        else:
            watch = await self._book.watched(version)
            if watch is not None and self._is_over(watch):
                await self._book.forget(version)
            mine = Watch(version, proven.version, int(time.time()))
            await self._join((await self._book.count(mine, Tally()))[0])
        self._version = version

    async def _join(self, watch: Watch) -> None:
        held = self._proven
        if held.version != watch.before:
            copy = await asyncio.to_thread(self._copies.held, watch.before)
            if copy is None:
                self._leave()
                self._watch = watch
                log.warning("the rules %s are compared with %s, of which this worker has no copy", *_names(watch))
                return
            held = self._proven = copy
        self._leave()
        await asyncio.to_thread(self._copies.prove, held.version)
        self._watch, self._beside = watch, held

    def _leave(self) -> None:
        self._watch = self._beside = None
        self._drop()

    def _is_over(self, watch: Watch) -> bool:
        return time.time() > watch.came + self._terms.within

    async def _judge(self, watch: Watch, total: Tally) -> None:
        if time.time() > watch.came + self._terms.within + GRACE:
            await self._prove(self._rules.current)
        elif self._beside is not None and not self._is_over(watch) and must_return(total, self._terms):
            rules = self._rules.current
            text = "" if rules.text == self._beside.text else rules.text
            await self._book.refuse(watch.version, Return(watch.before, int(time.time()), total, text))
            await self._returns.learn()
            if rules.version == watch.version and (why := self._returns.why(rules)) is not None:
                await self._go_back(rules, why)

    async def _prove(self, rules: RuleSet) -> None:
        self._leave()
        self._proven, self._version = rules, rules.version
        await asyncio.to_thread(self._copies.prove, rules.version)

    async def _go_back(self, rules: RuleSet, why: Return) -> None:
        if self._stuck == rules.version:
            return
        to = self._proven if self._proven.version == why.to else await asyncio.to_thread(self._copies.held, why.to)
        self._leave()
        self._version = rules.version
        if to is None or self._returns.why(to) is not None:
            self._be_stuck(rules.version, why)
            return
        back = to
        if not await self._rules.go_back(lambda: back, rules.version):
            return  # the file was changed meanwhile
        self._proven, self._version = back, back.version
        said = f"the version {rules.version} was rolled back: {why.said}"
        log.critical("the rules %s are in force again; %s; they stay until the file is changed", back.version, said)
        self._show(self._rules.what, back.version, said)
        self._untold[rules.version] = new_event(
            "rules.rolled_back",
            new_id(),
            now_ms(),
            {
                "rules.version": back.version,
                "rules.refused": rules.version,
                "share.refused": f"{why.tally.share:.4f}",
                "share.before": f"{why.tally.share_before:.4f}",
                "reason": why.said,
            },
        )

    def _be_stuck(self, version: str, why: Return) -> None:
        self._stuck = version
        said = (
            f"the rules {version} were rolled back ({why.said}), but this worker has no good copy of {why.to}: they "
            "are in force, change the file"
        )
        log.critical("%s", said)
        self._show(self._rules.what, version, said)

    async def _tell_events(self) -> None:
        for version, event in list(self._untold.items()):
            await self._events.append_once(0, f"rollback:{version}", event, TOLD_ONCE_SECONDS)
            del self._untold[version]


def _names(watch: Watch) -> tuple[str, str]:
    return watch.version, watch.before


async def known_returns(book: Book) -> Returns:
    """What is on record now; nothing where Redis is away, or where it cannot be read, which is said."""
    returns = Returns(book)
    try:
        await returns.learn()
    except LedgerFault as fault:
        log.critical("which rules were rolled back cannot be told: %s", fault)
    except LedgerDown:
        pass
    return returns
