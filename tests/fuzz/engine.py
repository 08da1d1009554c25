"""Inputs without end for one check, until the time is up or a promise is broken.

An input that reaches a line of the gateway that none has reached before is kept, and mutated further.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any

from mutate import Mutator, Value

GATEWAY = str(Path(__file__).parents[2] / "gateway")
TRACED = 16
"""One input in this many is run with its lines traced, which costs ten times its time."""
SHRINK_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Target:
    """`check` raises what breaks a promise, and returns a word for how the input fared.

    Each of the words `expected` must be seen. `cpu`: seconds that one input may take of this thread's time.
    """

    name: str
    check: Callable[[Any], str]
    seeds: Sequence[Value]
    words: Sequence[str] = ()
    expected: Sequence[str] = ()
    cpu: float = 0.05


@dataclass(slots=True)
class Run:
    """What one run of a target saw."""

    target: Target
    inputs: int = 0
    fared: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    kept: int = 0

    def report(self) -> str:
        fared = ", ".join(f"{word} {count}" for word, count in sorted(self.fared.items()))
        return (
            f"{self.target.name}: {self.inputs} inputs ({fared}), {self.kept} kept, slowest {self.slowest * 1e3:.1f} ms"
        )


class Broken(Exception):
    """A promise that was broken; `value` is the smallest input found that still breaks it."""

    def __init__(self, target: str, value: Value, error: Exception) -> None:
        super().__init__(f"{target}: {type(error).__name__}: {error}")
        self.target, self.value, self.error = target, value, error


def fuzz(target: Target, seconds: float, seed: int) -> Run:
    """Each seed as it is, then mutations of what is kept. Raises Broken."""
    rng, run, corpus = Random(f"{seed} {target.name}"), Run(target), list(target.seeds)
    mutator, lines = Mutator(rng, target.words, corpus), _Lines()
    until = time.monotonic() + seconds
    waiting = iter(target.seeds)
    while time.monotonic() < until:
        value = next(waiting, None) or mutator.mutated(rng.choice(corpus))
        traced = run.inputs % TRACED == 0
        try:
            with lines if traced else _untraced:
                taken = _play(target, value, run, bounded=not traced)
        except Exception as error:
            raise Broken(target.name, shrunk(target, value, error), error) from error
        run.slowest = max(run.slowest, taken)
        run.inputs += 1
        if traced and lines.grown():
            corpus.append(value)
            run.kept += 1
    missing = sorted(set(target.expected) - run.fared.keys())
    if missing and seconds >= 1:
        raise Broken(target.name, missing, AssertionError(f"no input was {' or '.join(missing)}: this check is void"))
    return run


def _play(target: Target, value: Value, run: Run | None = None, *, bounded: bool = True) -> float:
    """Seconds of CPU that the check took. A slow one is asked again: the first time may have paid for others."""
    taken = 0.0
    for _ in range(3):
        began = time.thread_time()
        fared = target.check(value)
        again = time.thread_time() - began
        taken = min(taken, again) if taken else again
        if not bounded or taken <= target.cpu:
            break
    else:
        raise AssertionError(f"took {taken:.3f} s of CPU, which is more than {target.cpu}")
    if run is not None:
        run.fared[fared] += 1
    return taken if bounded else 0.0


def shrunk(target: Target, value: Value, error: Exception, seconds: float = SHRINK_SECONDS) -> Value:
    """The smallest input found in this time that fails in the same way."""
    until = time.monotonic() + seconds
    found = True
    while found:
        found = False
        for smaller in simpler(value):
            if time.monotonic() > until:
                return value
            try:
                _play(target, smaller)
            except Exception as other:  # noqa: BLE001  any failure is compared with the one that is being shrunk
                if type(other) is type(error):
                    value, found = smaller, True
                    break
    return value


def simpler(value: Value) -> Iterator[Value]:
    """Values of the same type with less in them, the shortest first."""
    match value:
        case bool() | None:
            return
        case int():
            yield from (each for each in dict.fromkeys((0, value // 2, value - 1)) if abs(each) < abs(value))
        case str() | list():
            yield from _shorter(value)
        case dict():
            yield from ({other: value[other] for other in value if other != name} for name in value)
    yield from _with_simpler_members(value)


def _with_simpler_members(value: Value) -> Iterator[Value]:
    if isinstance(value, dict):
        for name, member in value.items():
            yield from ({**value, name: each} for each in simpler(member))
    elif isinstance(value, (list, tuple)):
        for at, member in enumerate(value):
            for each in simpler(member):
                changed = [*value[:at], each, *value[at + 1 :]]
                yield changed if isinstance(value, list) else tuple(changed)


def _shorter(value: str | list[Value]) -> Iterator[Value]:
    """Without each half, then each quarter, and so on."""
    for size in (len(value) >> step for step in range(len(value).bit_length())):
        for start in range(0, len(value), size):
            yield value[:start] + value[start + size :]


class _Untraced:
    def __enter__(self) -> None:
        return

    def __exit__(self, *_: object) -> None:
        return


_untraced = _Untraced()


class _Lines:
    """While entered, notes which lines of the gateway run. By sys.settrace, since 3.11 has no sys.monitoring."""

    def __init__(self) -> None:
        self.seen: set[tuple[str, int]] = set()
        self._before = 0

    def __enter__(self) -> None:
        self._before = len(self.seen)
        sys.settrace(self._call)

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def grown(self) -> bool:
        return len(self.seen) > self._before

    def _call(self, frame: FrameType, event: str, _: object) -> Callable[..., Any] | None:
        return self._line if frame.f_code.co_filename.startswith(GATEWAY) else None

    def _line(self, frame: FrameType, event: str, _: object) -> Callable[..., Any]:
        self.seen.add((frame.f_code.co_filename, frame.f_lineno))
        return self._line
