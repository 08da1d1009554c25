"""The rules in force, and what watches them: a candidate beside them, and the way back to those before them."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass

from gateway.backends.memory_file import MemoryFile
from gateway.backends.redis_client import Wire
from gateway.backends.redis_verdicts import RedisVerdicts
from gateway.backends.rules_file import RulesFile
from gateway.bootstrap.files import databases_of
from gateway.bootstrap.told import Told
from gateway.errors import SettingsError
from gateway.policy.events import rfc3339
from gateway.policy.rollback import Terms
from gateway.policy.ruleset import NO_RULES, RuleSet
from gateway.ports import EventLog
from gateway.services.reloading import Keeper, Watched
from gateway.services.rollback import Returns, Rollback, known_returns
from gateway.settings import Settings

WHAT, CANDIDATE = "rules", "rules candidate"
_KEEP_COUNTS = 2 * 3600
"""Seconds beyond twice `rollback.within`."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What decides, what is judged beside it, and who counts for the way back, if that is set."""

    live: Watched[RuleSet]
    candidate: Watched[RuleSet]
    rollback: Rollback | None


class _Copies:
    """The rules file, and copies of what was in force of it: now, and `before` where a way back is wanted."""

    def __init__(self, file: RulesFile, name: str, keeper: Keeper, returns: Returns, *, both: bool) -> None:
        self._file = file
        self._name = name
        self._keeper = keeper
        self._returns = returns
        self._both = both
        held = keeper.kept(WHAT).items()
        # In their order: what is in force first.
        self._copies = {key.rpartition(" ")[2]: MemoryFile.of(descriptor) for key, descriptor in held}
        self._in_force = next(iter(self._copies), "")

    def read(self) -> RuleSet:
        """Raises SettingsError, also for a version that was rolled back."""
        rules = self._file.read()
        if rules.version in self._returns:
            self._file.take_copy()
            why = self._returns[rules.version]
            raise SettingsError(
                f"{self._name}: the version {rules.version} was rolled back at {rfc3339(why.at * 1000)[:19]}Z, because "
                f"{why.said}; change the file (any other text is another version)"
            )
        return rules

    def keep(self, rules: RuleSet) -> None:
        """These have come into force."""
        copy = self._copies.get(rules.version) or self._file.take_copy()
        if copy is None:
            return
        copies = {rules.version: copy}
        if self._both:
            others = (self._in_force, *self._copies)
            before = next(
                (each for each in others if each in self._copies and self._is_good(each, rules.version)), None
            )
            copies |= {} if before is None else {before: self._copies[before]}
        self._copies, self._in_force = copies, rules.version
        self._keeper.keep(WHAT, {f"{self._name} {version}": file.fileno() for version, file in copies.items()})

    def last_good(self) -> RuleSet | None:
        """For a worker that starts while the file is wrong; where it was rolled back and nobody has a copy of what was
        before it, the file all the same.
        """
        for version in self._copies:
            if version not in self._returns:
                self._in_force = version
                return self._file.read_copy(self._copies[version].read())
        with suppress(SettingsError):
            return self._file.read()
        return None

    def before(self) -> RuleSet | None:
        """What was in force before; None where there is no copy of it. Raises SettingsError, ValueError, OSError."""
        found = next((version for version in self._copies if self._is_good(version, self._in_force)), None)
        return None if found is None else self._file.read_copy(self._copies[found].read())

    def _is_good(self, version: str, besides: str) -> bool:
        return version != besides and version not in self._returns


async def open_rules(settings: Settings, wire: Wire, events: EventLog, told: Told) -> Rules:
    """The settings' rules, not read yet."""
    candidate, wanted = _watched_candidate(settings, databases_of(settings)), settings.rollback
    if settings.rules is None:
        return Rules(Watched(WHAT, lambda: NO_RULES, None), candidate, None)
    file, name = RulesFile(settings.rules, databases_of(settings), tested=True), str(settings.rules)
    if wanted is None:
        return Rules(_watched(_Copies(file, name, told.keeper, Returns(), both=False), file), candidate, None)
    book = RedisVerdicts(wire, 2 * wanted.within + _KEEP_COUNTS)
    returns = await known_returns(book)
    copies = _Copies(file, name, told.keeper, returns, both=True)
    live = _watched(copies, file)
    rollback = Rollback(
        live,
        book,
        events,
        returns,
        terms=Terms(wanted.factor, wanted.within, wanted.least),
        before=copies.before,
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
