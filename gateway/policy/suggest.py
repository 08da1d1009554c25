"""The tightest numbers and blocks under which (almost) all completed downloads would still have been let in.

Each is the tightest by itself; then, the costliest first, they are loosened until all of them together keep to the
budget.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from types import MappingProxyType

from gateway.policy.limits import BY_NAME, LIMIT_MAX, ValidAfterFirst
from gateway.policy.model import Limits, Plan
from gateway.policy.ruleset import RuleSet
from gateway.policy.suggest_history import NUMBERS, UNITS, Download, Origin, Tried

NO_PLAN = "links-without-plan"
"""The plan that is suggested for links that have none."""
BLOCKS_MAX = 5
REQUESTS_MIN = 20
NETWORKS_MIN = 3
COUNTRIES_MIN = 3
"""Of a continent, so that it is not named where a country would do."""
TRIED_PER_DOWNLOAD = 20
"""A place of which one of so many requests came to a download is no place to block."""
NEEDS: Mapping[str, str] = MappingProxyType({"network": "anonymous", "continent": "city", "country": "city"})
"""The geo databases that the conditions ask."""
_PREFERRED = ("country", "continent", "user_agent", "network")
"""The last one first: a kind of network or of program is named where that explains what came from a country."""


def tightest(needs: Sequence[int], spare: int) -> int:
    """The smallest number, 1 or more, that at most `spare` of the needs exceed. They are sorted."""
    return max(1, needs[-spare - 1]) if spare < len(needs) else 1


@dataclass(slots=True, eq=False)
class Number:
    """A number in a plan. `before` and `at_most` as the rules file has them (`before` None: no limit yet), `plan` the
    name it has there; `largest`: more is no suggestion. `needs`, sorted, are those of the completed `downloads`.
    """

    plan: str
    limit: str
    before: int | None
    at_most: int
    largest: int
    needs: Sequence[int] = field(repr=False)
    downloads: Sequence[Download] = field(repr=False)

    @property
    def total(self) -> int:
        return len(self.downloads)

    @property
    def cause(self) -> str:
        """As a replay names it (see replay_changes)."""
        return f"plan {self.plan}: {self.limit}={self.written}"

    @property
    def written(self) -> str:
        return BY_NAME[self.limit].write(self.at_most)

    @property
    def refused(self) -> Sequence[Download]:
        return self.downloads[self._first_refused :]

    def loosen(self) -> bool:
        """To the next number that lets in one more download; False where it would be none any more."""
        first = self._first_refused
        if first == len(self.needs):
            return False
        self.at_most = self.needs[first] * UNITS.get(self.limit, 1)
        return self.at_most <= self.largest

    @property
    def _first_refused(self) -> int:
        return bisect_right(self.needs, self.at_most // UNITS.get(self.limit, 1))


@dataclass(slots=True, eq=False)
class Block:
    """A rule against an origin: `requests` from there, of `networks` networks, were refused or came to nothing, and of
    `total` completed downloads the `refused` came from there.
    """

    condition: str
    value: str
    requests: int
    networks: int
    total: int
    refused: Sequence[Download] = field(repr=False)

    @property
    def name(self) -> str:
        """The rule's."""
        return "-".join(["suggested", self.condition, self.value.removesuffix("/*") or "none"]).replace("_", "-")

    @property
    def cause(self) -> str:
        """As a replay names it (see replay_changes)."""
        return f"rule {self.name}"

    def loosen(self) -> bool:
        """There is nothing between a rule and none."""
        return False


Suggestion = Number | Block


@dataclass(slots=True, eq=False)
class Suggested:
    """All suggestions. `spare`: how many downloads they may refuse together; `unjudged`: plans with too few completed
    downloads, and how many.
    """

    of: list[Suggestion]
    total: int
    spare: int
    unjudged: Mapping[str, int]

    @property
    def numbers(self) -> list[Number]:
        return [each for each in self.of if isinstance(each, Number)]

    @property
    def blocks(self) -> list[Block]:
        return [each for each in self.of if isinstance(each, Block)]

    def settle(self, spare: int) -> None:
        """Loosen the costliest again and again, until together they refuse at most so many."""
        refusals = Counter(download.id for each in self.of for download in each.refused)
        while len(refusals) > max(spare, 0):
            costliest = max(self.of, key=lambda each: len(each.refused))
            before = costliest.refused
            kept = costliest.loosen()
            if not kept:
                self.of.remove(costliest)
            still = {download.id for download in costliest.refused} if kept else ()
            for download in before:
                if download.id not in still:
                    refusals[download.id] -= 1
                    if not refusals[download.id]:
                        del refusals[download.id]

    def loosen(self, refused: int, causes: Counter[str]) -> None:
        """A replay has so many refused, and too many: by less is loosened what is reckoned, or, where that is nothing,
        the one that the replay names most is taken out.
        """
        reckoned = len({download.id for each in self.of for download in each.refused})
        if reckoned:
            self.settle(min(reckoned, self.spare) - (refused - self.spare))
        elif self.of:
            self.of.remove(max(self.of, key=lambda each: causes[each.cause]))

    def enforced(self, rules: RuleSet) -> RuleSet:
        """The candidate's rules, with the suggested ones no longer observing."""
        names = {block.name for block in self.blocks}
        return replace(
            rules, rules=tuple(replace(each, observe=each.observe and each.name not in names) for each in rules.rules)
        )


def suggest(
    downloads: Sequence[Download],
    tried: Mapping[Origin, Tried],
    rules: RuleSet,
    *,
    at_most: Fraction,
    least: int,
    span: float,
    databases: Collection[str] | None,
) -> Suggested:
    """`at_most`: the part of the completed downloads that may be refused; `least`: with fewer of a plan nothing is said
    of it; `span`: how much time there are events of, in seconds; `databases`: the geo databases that rules may ask,
    None: any.
    """
    by_plan: dict[str, list[Download]] = {}
    for download in downloads:
        by_plan.setdefault(download.plan, []).append(download)
    of: list[Suggestion] = []
    unjudged = {}
    for name, own in sorted(by_plan.items()):
        plan = rules.plans.get(name) if name else Plan(NO_PLAN)
        if plan is None or (not name and NO_PLAN in rules.plans):
            continue
        if len(own) < least:
            unjudged[name] = len(own)
        else:
            of += _numbers(plan, own, int(at_most * len(own)), span)
    spare = int(at_most * len(downloads))
    known = {rule.name for rule in rules.rules}
    of += _blocks(downloads, tried, spare, known, databases) if len(downloads) >= least else []
    suggested = Suggested(of, len(downloads), spare, unjudged)
    suggested.settle(spare)
    return suggested


def limits_with(plan: Plan, numbers: Iterable[Number]) -> Limits:
    """The plan's limits with what is suggested."""
    return plan.limits.tightened(Limits(**{each.limit: each.at_most for each in numbers if each.plan == plan.name}))


def _numbers(plan: Plan, downloads: Sequence[Download], spare: int, span: float) -> list[Number]:
    found = []
    for index, limit in enumerate(NUMBERS):
        own = sorted(downloads, key=lambda each: each.needs[index])
        needs = [each.needs[index] for each in own]
        number = tightest(needs, spare) * UNITS.get(limit, 1)
        before = plan.limits.get(limit)
        largest = LIMIT_MAX if before is None else before - 1
        if limit == ValidAfterFirst.name:
            # Whoever comes back later than this has mostly not been seen doing it.
            largest = min(largest, int(span / 2))
        if number <= largest:
            found.append(Number(plan.name, limit, before, number, largest, needs, own))
    return found


def _blocks(
    downloads: Sequence[Download],
    tried: Mapping[Origin, Tried],
    spare: int,
    known: Collection[str],
    databases: Collection[str] | None,
) -> list[Block]:
    """The narrowest kind first; what one stands against is no evidence for another."""
    served: dict[tuple[str, str], list[Download]] = {}
    for download in downloads:
        for pair in frozenset().union(*download.origins):
            served.setdefault(pair, []).append(download)
    left = dict(tried)
    found: list[Block] = []
    while len(found) < BLOCKS_MAX:
        blocks = [
            block
            for block in _candidates(left, served, len(downloads))
            if len(block.refused) <= spare
            and block.name not in known
            and (databases is None or NEEDS.get(block.condition) in {None, *databases})
        ]
        if not blocks:
            break
        best = max(blocks, key=lambda each: (_PREFERRED.index(each.condition), each.requests, each.value))
        found.append(best)
        left = {origin: each for origin, each in left.items() if (best.condition, best.value) not in origin}
    return found


def _candidates(
    tried: Mapping[Origin, Tried], served: Mapping[tuple[str, str], Sequence[Download]], total: int
) -> list[Block]:
    gathered: dict[tuple[str, str], Tried] = {}
    countries: dict[str, set[str]] = {}
    for origin, each in tried.items():
        named = dict(origin)
        countries.setdefault(named.get("continent", ""), set()).add(named.get("country", ""))
        for pair in origin:
            whole = gathered.setdefault(pair, Tried())
            whole.requests += each.requests
            whole.networks |= each.networks
    found = []
    for (condition, value), whole in gathered.items():
        own = served.get((condition, value), ())
        is_enough = whole.requests >= max(REQUESTS_MIN, TRIED_PER_DOWNLOAD * len(own))
        is_wide = condition != "continent" or len(countries[value]) >= COUNTRIES_MIN
        if is_enough and is_wide and len(whole.networks) >= NETWORKS_MIN:
            found.append(Block(condition, value, whole.requests, len(whole.networks), total, own))
    return found
