"""Which rules no request can get to, since what stands before them decides all that they mean.

Law: what is found is right. Not all is found: facts of different kinds are taken to be free of each other (country and
continent too), and a search that takes too long says nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from gateway.policy.conditions.base import Asks, Condition, When
from gateway.policy.conditions.combined import All, Any, Not, leaves
from gateway.policy.ruleset import Rule

EFFORT = 10_000
"""So many looks at rules are spent on finding a request that gets to one."""
NAMED_MAX = 50
"""Among more rules that together take all it is not looked for those that would do."""


@dataclass(frozen=True, slots=True)
class Unreached:
    """A rule that decides nothing: the rules before it that take all it means, or none where it means nobody."""

    rule: Rule
    by: tuple[Rule, ...]


def unreached(rules: Sequence[Rule], effort: int = EFFORT) -> Iterator[Unreached]:
    """The rules that no request gets to, in their order. Observing rules are among them; they take nothing."""
    world = _World(rules)
    takers: list[tuple[Rule, _Wish]] = []
    for rule in rules:
        wish = world.wish(rule.when)
        by = _takers(wish, takers, world.ways, effort)
        if by is not None:
            yield Unreached(rule, by)
        elif not rule.observe and rule.then in ("allow", "deny"):
            takers.append((rule, world.wish(rule.when, wanted=False)))


@dataclass(frozen=True, slots=True)
class _Leaf:
    """One condition: of which kind of fact, and which of the ways that such a fact can be are wanted, as bits."""

    kind: int
    ways: int


@dataclass(frozen=True, slots=True)
class _Wish:
    """What is wanted of a request: all of these, or one of them."""

    of: tuple[_Leaf | _Wish, ...]
    every: bool


_Ways = tuple[int, ...]
"""Of each kind of fact the ways that it can still be, as bits, never none; the lowest meets the fewest conditions."""


class _World:
    """All kinds of facts that the rules ask, and the ways that each can be: which conditions it meets together."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        kinds: dict[Callable[..., object], list[Asks[object]]] = {}
        for rule in rules:
            for condition in leaves(rule.when):
                kinds.setdefault(type(condition).fact, []).append(condition)
        self._leaves: dict[int, _Leaf] = {}
        ways: list[int] = []
        for conditions in kinds.values():
            known = type(conditions[0]).ways(conditions)
            for group, possible in _free(conditions) if known is None else [(conditions, known)]:
                ordered = sorted(set(possible), key=lambda way: (way.bit_count(), way))
                met = [0] * len(group)
                for place, way in enumerate(ordered):
                    for number in _bits(way):
                        met[number] |= 1 << place
                self._leaves |= {id(each): _Leaf(len(ways), bits) for each, bits in zip(group, met, strict=True)}
                ways.append((1 << len(ordered)) - 1)
        self.ways: _Ways = tuple(ways)

    def wish(self, when: When, *, wanted: bool = True) -> _Wish:
        """That these conditions hold, or that they do not."""
        return _Wish(tuple(self._wish(each, wanted) for each in when), every=wanted)

    def _wish(self, condition: Condition, wanted: bool) -> _Leaf | _Wish:
        if isinstance(condition, Not):
            return self.wish(condition.when, wanted=not wanted)
        if isinstance(condition, All | Any):
            of = tuple(self.wish(when, wanted=wanted) for when in condition.of)
            return _Wish(of, every=wanted is isinstance(condition, All))
        leaf = self._leaves[id(condition)]
        return leaf if wanted else _Leaf(leaf.kind, self.ways[leaf.kind] & ~leaf.ways)


def _bits(number: int) -> Iterator[int]:
    while number:
        yield (number & -number).bit_length() - 1
        number &= number - 1


def _free(conditions: Sequence[Asks[object]]) -> Iterator[tuple[list[Asks[object]], set[int]]]:
    """As if each looked at a fact of its own, but for those that say the same."""
    groups: list[list[Asks[object]]] = []
    for condition in conditions:
        group = next((each for each in groups if each[0] == condition), None)
        if group is None:
            groups.append([condition])
        else:
            group.append(condition)
    return ((group, {0, (1 << len(group)) - 1}) for group in groups)


def _takers(wish: _Wish, takers: Sequence[tuple[Rule, _Wish]], ways: _Ways, effort: int) -> tuple[Rule, ...] | None:
    """Of the earlier rules those that together take all; None where some request is left, or that cannot be said."""
    involved = _conflict([wish, *(other for _, other in takers)], ways, effort)
    if involved is None:
        return None
    needed = [takers[place - 1] for place in sorted(involved) if place]
    for one in needed:
        if _conflict([wish, one[1]], ways, effort) is not None:
            needed = [one]
            break
    for one in tuple(needed) if len(needed) <= NAMED_MAX else ():
        fewer = [other for other in needed if other is not one]
        if _conflict([wish, *(other for _, other in fewer)], ways, effort) is not None:
            needed = fewer
    return tuple(rule for rule, _ in needed)


def _conflict(wishes: Sequence[_Wish], ways: _Ways, effort: int) -> set[int] | None:
    """The places of wishes that cannot all come true; None where they can, or where that is not known in time.

    The request that meets the fewest conditions is tried; a wish that it leaves open is granted in each possible way.
    """
    todo, involved = [ways], set[int]()
    while todo:
        left = todo.pop()
        least = tuple(each & -each for each in left)
        for place, wish in enumerate(wishes):
            effort -= 1
            if effort < 0:
                return None
            if _truth(wish, least):
                continue
            involved.add(place)
            if (leaf := _open(wish, left)) is not None:
                before, own, behind = left[: leaf.kind], left[leaf.kind], left[leaf.kind + 1 :]
                todo += [(*before, own & ~leaf.ways, *behind), (*before, own & leaf.ways, *behind)]
            break
        else:
            return None
    return involved


def _truth(wish: _Leaf | _Wish, left: _Ways) -> bool | None:
    """Whether it comes true in all of these ways, or in none; None where that is open."""
    if isinstance(wish, _Leaf):
        found = left[wish.kind] & wish.ways
        return None if found and found != left[wish.kind] else bool(found)
    is_open = False
    for part in wish.of:
        truth = _truth(part, left)
        if truth is (not wish.every):
            return truth
        is_open |= truth is None
    return None if is_open else wish.every


def _open(wish: _Leaf | _Wish, left: _Ways) -> _Leaf | None:
    """A condition on which it depends whether this comes true; None where it cannot."""
    if _truth(wish, left) is not None:
        return None
    if isinstance(wish, _Leaf):
        return wish
    return next(leaf for part in wish.of if (leaf := _open(part, left)) is not None)
