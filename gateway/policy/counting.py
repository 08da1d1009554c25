"""What counts as a download: the numbers of the transfer, the window and the refund. The ledger script applies them.

A transfer is one device fetching one file with one token; see docs/architecture.md, "What counts as a download".
"""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1024 * 1024
REPEATS_MAX = 2
REFUNDS_MAX = 8


@dataclass(frozen=True, slots=True)
class CountingRules:
    """The shop's settings for counting. Times in seconds, `free_below` in bytes."""

    resume_window: int = 86_400
    repeat_window: int = 60
    free_below: int = 64 * 1024


def window(asked: int, size: int, start: int) -> int:
    """Bytes one request reserves at a time: all of a small file, 1/32 of a large one (so at most 32 calls).

    A range that starts after byte 0 reserves less, 1/256 or 128 KiB: download managers open sixteen of them at once,
    all to the end of the file, and what they reserve together must fit the slack of one budget.
    """
    least, share = (128 * 1024, 256) if start > 0 else (MIB, 32)
    return min(asked, max(least, -(-size // share)))


def budget(size: int) -> int:
    """Bytes one charged transfer may deliver before the next one opens: the file, and slack for overlaps."""
    return size + size // 10 + min(MIB, size // 4)


def refund_below(size: int, free_below: int) -> int:
    """A transfer that ends with fewer acknowledged bytes than this gives its charge back."""
    return min(free_below, -(-size // 2))
