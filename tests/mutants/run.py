"""The mutants: mistakes made on purpose in a copy of the project, each of which one named test must catch.

`run.py [--only NAME] [--sample N] [--seed S] [--jobs 2]` ends with `mutants caught/all`, and 1 where one lives.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue

sys.path.insert(0, str(Path(__file__).resolve().parent))

from mutant import Mutant
from table import MUTANTS
from tree import Tree


def mutants(sample: int | None = None, seed: int = 0, jobs: int = 2) -> tuple[int, int]:
    """How many of `sample` mutants (None: of all) were caught, and how many there were. Prints a line for each."""
    chosen = list(MUTANTS)
    if sample is not None and sample < len(chosen):
        chosen = random.Random(seed).sample(chosen, sample)
    return hunt(chosen, jobs)


def hunt(chosen: Sequence[Mutant], jobs: int) -> tuple[int, int]:
    """As `mutants`, of these: each job has a tree of its own, tries the tests in it, and then the mutants in turn."""
    waiting: SimpleQueue[Mutant] = SimpleQueue()
    for one in chosen:
        waiting.put(one)
    nodes = sorted({one.node for one in chosen})
    jobs = max(1, min(jobs, len(nodes)))  # a tree without a test to try would try them all
    with tempfile.TemporaryDirectory(prefix="gateway-mutants-") as folder, ThreadPoolExecutor(jobs) as pool:
        trees = list(pool.map(lambda job: Tree(Path(folder) / str(job)), range(jobs)))
        tried = pool.map(lambda job: trees[job].failing(nodes[job::jobs]), range(jobs))
        unsound = {node: why for failing in tried for node, why in failing.items()}
        caught = list(pool.map(lambda tree: _hunter(tree, waiting, unsound), trees))
        for tree in trees:
            tree.close()
    return sum(caught), len(chosen)


def _hunter(tree: Tree, waiting: SimpleQueue[Mutant], unsound: Mapping[str, str]) -> int:
    """Takes mutants as long as there are any; returns how many were caught."""
    caught = 0
    with suppress(Empty):
        while True:
            one = waiting.get_nowait()
            began = time.monotonic()
            wrong = f"its test fails without it: {unsound[one.node]}" if one.node in unsound else tree.try_(one)
            caught += not wrong
            took = time.monotonic() - began
            print(f"{'LIVES ' if wrong else 'caught'} {one.name} ({one.test}, {took:.1f} s){wrong and ': ' + wrong}")
    return caught


def main() -> int:
    parser = argparse.ArgumentParser(description="Make each known mistake in a copy, and see its test catch it.")
    parser.add_argument("--only", metavar="NAME", help="the mutants with this in their names")
    parser.add_argument("--sample", type=int, metavar="N", help="so many of them, by chance")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)
    if arguments.only is None:
        caught, total = mutants(arguments.sample, arguments.seed, arguments.jobs)
    else:
        caught, total = hunt([one for one in MUTANTS if arguments.only in one.name], arguments.jobs)
    print(f"mutants {caught}/{total}")
    return 0 if caught == total and total else 1


if __name__ == "__main__":
    sys.exit(main())
