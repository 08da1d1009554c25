"""The tests beside a rules file, read and run.

They are no part of the rules' version: that names what decides, and tests decide nothing. They are part of the
fingerprint, so an edit of them runs them.
"""

from __future__ import annotations

from pathlib import Path

from gateway.backends.watched_text import Reading, Texts
from gateway.document import Mistakes
from gateway.policy.given import GivenReader
from gateway.policy.rules_tests import Result, read_tests, run
from gateway.policy.ruleset import RuleSet
from gateway.yaml_file import Bounds

NAME = "tests.yaml"
BOUNDS = Bounds("tests of rules", size=4 * 1024 * 1024, nodes=300_000)


def tests_path(rules: Path) -> Path:
    """Where the tests of this rules file are, if there are any."""
    return rules.parent / NAME


def results(rules_path: Path, rules: RuleSet, mistakes: Mistakes, texts: Texts | None = None) -> list[Result] | None:
    """What came of the tests of this rules file; None where there is no file of them. What is wrong with the file
    itself goes to the mistakes, and what was read to the texts. Blocks.
    """
    path = tests_path(rules_path)
    if path == rules_path or not _is_there(path):
        return None
    reading = Reading(mistakes=mistakes)
    tree = reading.tree(path, BOUNDS, "make it a readable file, or remove it")
    if texts is not None:
        texts.update(reading.read)
    if tree is None:
        return []
    reader = GivenReader(tuple(rules.plans), mistakes)
    tests = read_tests(tree, rules, reader)
    return [] if mistakes.keys else run(tests, rules)


def fail(results: list[Result], mistakes: Mistakes) -> None:
    """Have each failed test be a mistake."""
    for result in results:
        if result.wrong:
            mistakes.add(result.test.node, result.test.shown, result.wrong)


def _is_there(path: Path) -> bool:
    """A link that leads nowhere, or a folder without permission, is one that cannot be read, and not none."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True
