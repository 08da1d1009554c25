"""One fault of the chaos run: what is broken, and what must hold while it is and after it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stage import Stage


@dataclass(frozen=True, slots=True)
class Fault:
    """`play` breaks something under load, mends it, and raises AssertionError where a promise was not kept.

    `quick`: short enough for the run of a minute; where not `whole`, a larger one stands for it in a whole run.
    """

    name: str
    play: Callable[[Stage], Awaitable[None]]
    quick: bool = False
    whole: bool = True
