"""The rules in force, and what watches them: a candidate beside them, and the way back to those before them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock

from gateway.backends.memory_file import MemoryFile
from gateway.backends.redis_client import Wire
from gateway.backends.redis_verdicts import RedisVerdicts
from gateway.backends.rules_file import RulesFile
from gateway.bootstrap.files import databases_of
from gateway.bootstrap.told import Told
from gateway.errors import SettingsError
from gateway.policy.decide import Policy
from gateway.policy.events import rfc3339
from gateway.policy.rollback import Return, Terms
from gateway.policy.ruleset import NO_RULES, RuleSet
from gateway.ports import EventLog
from gateway.services.reloading import Keeper, Watched
from gateway.services.rollback import Rollback, known_returns
from gateway.settings import Settings

log = logging.getLogger(__name__)

WHAT, CANDIDATE = "rules", "rules candidate"
Why = Callable[[RuleSet | None], Return | None]
"""See services.rollback.Returns."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What decides, what is judged beside it, and who counts for the way back, if that is set."""

    live: Watched[RuleSet]
    candidate: Watched[RuleSet]
    rollback: Rollback | None


class _Copies:
    """The rules file, and copies of what was in force of it: now, and the proven one where a way back is wanted.

    See services.rollback.Copies. Its threads are those of a reload, of a way back and of a proof.
    """

    def __init__(self, file: RulesFile, name: str, keeper: Keeper, why: Why, *, both: bool) -> None:
        self._file = file
        self._name = name
        self._keeper = keeper
        self._why = why
        self._both = both
        self._changing = Lock()
        held = keeper.kept(WHAT).items()
        # In their order: what is in force first, and then what is proven, where that is another one.
        self._copies = {key.rpartition(" ")[2]: MemoryFile.of(descriptor) for key, descriptor in held}
        self._in_force, self._proven = next(iter(self._copies), ""), next(reversed(self._copies), "")
        self._there: RuleSet | None = None

    @property
    def file(self) -> RuleSet | None:
        """See services.rollback.Copies."""
        return self._there

    def read(self) -> RuleSet:
        """Raises SettingsError, also for what was rolled back."""
        self._there = None
        self._there = rules = self._file.read()
        if (why := self._why(rules)) is None:
            return rules
        self._file.take_copy()
        raise SettingsError(
            f"{self._name}: the version {rules.version} was rolled back at {rfc3339(why.at * 1000)[:19]}Z, because "
            f"{why.said}; change this file (a comment is enough)"
        )

    def keep(self, rules: RuleSet) -> None:
        """These have come into force: whatever they are, a worker that is still to start may need them."""
        with self._changing:
            copy = self._copies.get(rules.version) or self._file.take_copy()
            if copy is None:
                return
            self._proven = self._proven or rules.version
            self._copies[rules.version], self._in_force = copy, rules.version
            self._hand_on()

    def prove(self, version: str) -> None:
        """See services.rollback.Copies."""
        with self._changing:
            if version in self._copies and version != self._proven:
                self._proven = version
                self._hand_on()

    def held(self, version: str) -> RuleSet | None:
        """See services.rollback.Copies."""
        copy = self._copies.get(version)
        with suppress(SettingsError, ValueError, OSError):
            return None if copy is None else self._file.read_copy(copy.read())
        return None

    def last_good(self) -> RuleSet | None:
        """For a worker that starts while the file is wrong: what the others have, or are about to have. Where all of
        that was rolled back it is in force all the same, and so is the file: a gateway that cannot start is worse.
        """
        others = self.held(self._in_force)
        why = self._why(others)
        for rules in (None if why is None else self.held(why.to), others, *map(self.held, self._copies)):
            if rules is not None:
                return self._begun(rules)
        with suppress(SettingsError):
            return self._begun(self._file.read())
        return None

    def _begun(self, rules: RuleSet) -> RuleSet:
        if self._why(rules) is not None:
            version = rules.version
            log.critical("starting with the rules %s, which were rolled back: there is no copy of better ones", version)
        self.keep(rules)
        return rules

    def _hand_on(self) -> None:
        wanted = (self._in_force, self._proven) if self._both else (self._in_force,)
        self._copies = {version: self._copies[version] for version in wanted if version in self._copies}
        self._keeper.keep(WHAT, {f"{self._name} {version}": file.fileno() for version, file in self._copies.items()})


async def open_rules(settings: Settings, wire: Wire, events: EventLog, told: Told) -> Rules:
    """The settings' rules, not read yet."""
    candidate, wanted = _watched_candidate(settings, databases_of(settings)), settings.rollback
    if settings.rules is None:
        return Rules(Watched(WHAT, lambda: NO_RULES, None), candidate, None)
    file, name = RulesFile(settings.rules, databases_of(settings), tested=True), str(settings.rules)
    if wanted is None:
        return Rules(_watched(_Copies(file, name, told.keeper, lambda _: None, both=False), file), candidate, None)
    returns = await known_returns(RedisVerdicts(wire, wanted.within))
    copies = _Copies(file, name, told.keeper, returns.why, both=True)
    live = _watched(copies, file)
    rollback = Rollback(
        live,
        returns,
        events,
        terms=Terms(wanted.factor, wanted.within, wanted.least),
        copies=copies,
        policy=lambda rules, case: Policy(
            rules, case.standing, settings.external_hosts, case.holding, settings.doors.waived
        ),
        show=told.files,
        tell=told.rolled_back,
    )
    return Rules(live, candidate, rollback)


def _watched(copies: _Copies, file: RulesFile) -> Watched[RuleSet]:
    return Watched(WHAT, copies.read, file.fingerprint, keep=copies.keep, last_good=copies.last_good)


def _watched_candidate(settings: Settings, databases: Collection[str]) -> Watched[RuleSet]:
    """NO_RULES where no such file is there. It keeps nobody from starting: where it is wrong there is none either."""
    if settings.rules_candidate is None:
        return Watched(CANDIDATE, lambda: NO_RULES, None)
    file = RulesFile(settings.rules_candidate, databases)
    return Watched(CANDIDATE, file.read_if_there, file.fingerprint, without=NO_RULES)
