"""Fuzzes the gateway's parsers, its limits and its HTTP framing, each group in a process of its own with bounds.

`python tests/fuzz/run.py --seconds 60 --seed N [--only token]`; the last line is `inputs K`, 1 is returned when a
promise was broken. `--only GROUP --replay 'TARGET' "INPUT"` tries one input again.
"""

from __future__ import annotations

import argparse
import ast
import logging
import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from random import SystemRandom

ROOT = Path(__file__).parents[2]
MEMORY = 2 * 1024**3
SHOWN_MAX = 4000
PARSERS = {
    "token": ("token_targets", ()),
    "range": ("http_targets", ("range", "conditions")),
    "forwarded": ("http_targets", ("forwarded", "forwarded, free")),
    "rules": ("rules_targets", ("rules", "rules as a tree", "yaml")),
    "tests of rules": ("rules_tests_targets", ()),
    "settings": ("rules_targets", ("settings",)),
    "products": ("products_targets", ()),
    "words": ("words_targets", ()),
    "names": ("http_targets", ("file name",)),
    "journal": ("journal_targets", ()),
    "shops": ("shops_targets", ()),
}
"""Group → the module of its targets, and which of them; all where none is named."""
OTHERS = {"limits": "limits_machine", "smuggling": "smuggling_run"}
"""Group → its module, whose `play(seconds, seed)` returns the number of inputs and raises what broke."""


def play_parsers(group: str, seconds: float, seed: int) -> int:
    from engine import Broken, fuzz  # noqa: PLC0415  only a group's own process pays for its imports

    targets, inputs = _targets(group), 0
    for target in targets:
        try:
            run = fuzz(target, seconds / len(targets), seed)
        except Broken as broken:
            shown = ascii(broken.value)
            again = f"--only {group} --replay {target.name!r}"
            text = shown if len(shown) <= SHOWN_MAX else f"{shown[:SHOWN_MAX]}… ({len(shown)} characters)"
            print(f"BROKEN {broken} (seed {seed}; {again})\n  input {text}", flush=True)
            raise
        print(run.report(), flush=True)
        inputs += run.inputs
    return inputs


def _targets(group: str) -> Sequence:
    module, names = PARSERS[group]
    return [target for target in import_module(module).TARGETS if not names or target.name in names]


def play(group: str, seconds: float, seed: int) -> int:
    """One group in this process, which gets no more memory than it may need."""
    logging.disable()  # what a parser has to say of a million broken inputs
    if group in PARSERS:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        return play_parsers(group, seconds, seed)
    inputs: int = import_module(OTHERS[group]).play(seconds, seed)
    return inputs


def play_all(groups: Sequence[str], seconds: float, seed: int) -> int:
    """All groups, as many at once as there are processors; returns the number of failed ones."""

    def started(group: str) -> tuple[int, int]:
        command = [sys.executable, __file__, "--only", group, "--seconds", str(seconds), "--seed", str(seed)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        *said, last = done.stdout.splitlines() or [""]
        counted = re.fullmatch(r"inputs ([0-9]+)", last)
        print("\n".join(said if counted else [*said, last, f"{group} ended with {done.returncode}"]), flush=True)
        return int(counted[1]) if counted else 0, done.returncode

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        results = list(pool.map(started, groups))
    print(f"inputs {sum(inputs for inputs, _ in results)}")
    return sum(status != 0 for _, status in results)


def replay(group: str, name: str, written: str) -> None:
    target = next(target for target in _targets(group) if target.name == name)
    check: Callable[[object], str] = target.check
    print(check(ast.literal_eval(written)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="for each group")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--only", choices=(*PARSERS, *OTHERS))
    parser.add_argument("--replay", nargs=2, metavar=("TARGET", "INPUT"))
    given = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    if given.replay:
        replay(given.only, *given.replay)
        return 0
    seed = SystemRandom().randrange(10**9) if given.seed is None else given.seed
    if given.only:
        try:
            print(f"inputs {play(given.only, given.seconds, seed)}")
        except Exception as error:  # noqa: BLE001  whatever it is, it is the finding
            print(f"{given.only}: {type(error).__name__}: {str(error)[:SHOWN_MAX]}")
            return 1
        return 0
    print(f"seed {seed}", flush=True)
    return min(1, play_all([*PARSERS, *OTHERS], given.seconds, seed))


if __name__ == "__main__":
    sys.exit(main())
