"""One mutant: a mistake that gateways like this one have made, as a small patch, and the one test against it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

Edit = tuple[str, str]
"""The exact old text, which is there once, and the new one."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """`name`: what was done wrong. `file` is below `gateway/`, `test` a node id below `tests/`.

    `shows`: what else than a failed assertion the failing test may say, as a regular expression.
    """

    name: str
    file: str
    edits: tuple[Edit, ...]
    test: str
    shows: str = ""

    @property
    def path(self) -> str:
        return f"gateway/{self.file}"

    @property
    def node(self) -> str:
        return f"tests/{self.test}"


def mutant(name: str, file: str, *edits: Edit, test: str, shows: str = "") -> Mutant:
    return Mutant(name, file, edits, test, shows)


def mutated(text: str, edits: tuple[Edit, ...]) -> str:
    """The text with every edit made. Raises LookupError where an old text is not there exactly once."""
    for old, new in edits:
        if (times := text.count(old)) != 1:
            raise LookupError(f"{old.strip()!r} is there {times} times")
        text = text.replace(old, new)
    return text


def stale(root: Path, one: Mutant) -> str:
    """Why this mutant cannot be made of the code at `root`, or ''."""
    try:
        mutated((root / one.path).read_text(encoding="utf-8"), one.edits)
    except (OSError, LookupError) as error:
        return str(error)
    return ""
