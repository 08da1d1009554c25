"""Which of several sets of patterns one text can match together, found by going letter by letter through all of them.

Law: no combination that some text makes is missing; there may be more. None where it would take too long to say.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_

from gateway.policy.globs import Glob, Machine, whole

STEPS_MAX = 200_000
"""Steps of single machines, and tries of a glob with a text that is given whole: together about half a second."""
_OTHER = "\0"
"""Stands for every character that is in no pattern; none can hold this one."""

PatternSet = tuple[frozenset[str], Sequence[Glob]]
"""Texts that are meant whole, and globs."""


@dataclass(frozen=True, slots=True)
class _Lane:
    """One glob, and the sets that it is in, as bits."""

    glob: Glob
    machine: Machine
    owners: int

    def is_decided(self, states: int) -> bool:
        """Whether it matches whatever follows."""
        return bool(states & self.machine.stay_at_separator & (self.machine.last >> 1))

    def letters(self, states: int) -> Iterator[str]:
        """The letters that it does not treat like any other one."""
        for letter, bits in self.machine.steps.items():
            if (bits ^ self.machine.other) & states or letter == self.machine.separator:
                yield letter


_Front = tuple[int, tuple[tuple[int, int], ...]]
"""The sets that match already whatever follows, as bits, and of each other lane that can still match its states."""


def ways(sets: Sequence[PatternSet]) -> set[int] | None:
    """Each combination of these sets that some text matches: a bit for each set, the first one lowest."""
    owners: dict[str, int] = {}
    globs: dict[str, Glob] = {}
    texts: dict[str, int] = {}
    for number, (exact, wild) in enumerate(sets):
        for glob in wild:
            globs[glob.text] = glob
            owners[glob.text] = owners.get(glob.text, 0) | 1 << number
        for text in exact:
            texts[text] = texts.get(text, 0) | 1 << number
    lanes = [_Lane(glob, whole(glob), owners[text]) for text, glob in globs.items()]
    if len(texts) * len(lanes) > STEPS_MAX:
        return None
    found = _of_globs(lanes)
    if found is None:
        return None
    for text, way in texts.items():
        found.add(reduce(or_, (lane.owners for lane in lanes if lane.glob.matches(text)), way))
    return found


def _of_globs(lanes: Sequence[_Lane]) -> set[int] | None:
    start = _front(lanes, 0, [(number, lane.machine.first) for number, lane in enumerate(lanes)])
    seen, todo, found, left = {start}, [start], set[int](), STEPS_MAX
    while todo:
        decided, running = todo.pop()
        way = decided
        letters = {_OTHER}
        for number, states in running:
            way |= lanes[number].owners if states & lanes[number].machine.last else 0
            letters.update(lanes[number].letters(states))
        found.add(way)
        left -= (len(letters) + 1) * len(running)
        if left < 0:
            return None
        for letter in letters if running else ():
            moved = [(number, lanes[number].machine.after(states, letter)) for number, states in running]
            front = _front(lanes, decided, moved)
            if front not in seen:
                seen.add(front)
                todo.append(front)
    return found


def _front(lanes: Sequence[_Lane], decided: int, moved: Sequence[tuple[int, int]]) -> _Front:
    """Without the lanes that cannot match any more, and those that tell nothing new."""
    for number, states in moved:
        if lanes[number].is_decided(states):
            decided |= lanes[number].owners
    return decided, tuple((number, states) for number, states in moved if states and lanes[number].owners & ~decided)
