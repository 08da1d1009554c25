"""How far a long command is: on a terminal's stderr, so that what it prints can be piped."""

from __future__ import annotations

import sys
from collections.abc import Callable

import click

EVERY = 2000


class Progress:
    """A bar, where stderr is a terminal. Gives what is told of each step; drawn once in EVERY steps."""

    def __init__(self, length: int, label: str) -> None:
        self._bar = click.progressbar(length=length, label=label, file=sys.stderr, hidden=not sys.stderr.isatty())
        self._due = 0

    def __enter__(self) -> Callable[[int], None]:
        self._bar.__enter__()
        return self._advance

    def __exit__(self, *_: object) -> None:
        self._bar.update(self._due)
        self._bar.__exit__(None, None, None)

    def _advance(self, steps: int) -> None:
        self._due += steps
        if self._due >= EVERY:
            self._bar.update(self._due)
            self._due = 0
