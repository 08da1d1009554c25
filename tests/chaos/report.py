"""The one line that a chaos run ends with. A figure that was not measured is a dash, never a zero."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from audit import Findings


@dataclass(slots=True)
class Totals:
    """What the audit does not count. `faults` and `mutants`: how many of how many; `recoveries` in seconds."""

    faults: tuple[int, int] = (0, 0)
    inputs: int = 0
    kib: float | None = None
    recoveries: list[float] = field(default_factory=list)
    mutants: tuple[int, int] = (0, 0)


def line(findings: Findings, totals: Totals) -> str:
    """The line."""
    kib = "–" if totals.kib is None else f"{totals.kib:.1f}"
    recovery = f"{p99(totals.recoveries):.1f} s" if totals.recoveries else "–"
    parts = [
        f"loads {findings.loads}",
        "faults {}/{}".format(*totals.faults),
        f"inputs {totals.inputs}",
        f"over {findings.over}",
        f"bytes-without-decision {findings.bytes_without_decision}",
        f"events lost {findings.lost} dup {findings.duplicates}",
        f"corrupt {findings.corrupt}",
        f"fail-open {findings.fail_open}",
        f"burned {findings.burned}",
        f"regranted {findings.regranted}",
        f"KiB/download {kib}",
        f"recovery p99 {recovery}",
        "mutants {}/{}".format(*totals.mutants),
    ]
    return " · ".join(parts)


def p99(values: Sequence[float]) -> float:
    """The value that 99 in 100 do not exceed (nearest rank)."""
    return sorted(values)[math.ceil(len(values) * 0.99) - 1]
