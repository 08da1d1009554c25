"""Rows of the result, and how they are judged and shown."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"
NO_VERDICT = "—"
HEADS = ("measure", "ours", "peer", "ratio", "target", "met")


@dataclass(frozen=True)
class Row:
    """One measure. `ratio` is ours ÷ the peer's; `met` a `verdict`."""

    measure: str
    ours: str
    peer: str
    ratio: float | None
    target: str
    met: str

    @classmethod
    def missing(cls, measure: str, target: str, reason: str) -> Row:
        """A row without figures."""
        return cls(measure, f"not measured: {reason}", "—", None, target, NO_VERDICT)

    @classmethod
    def compared(
        cls,
        measure: str,
        ours: Sequence[float],
        peers: Mapping[str, Sequence[float]],
        target: str,
        *,
        most: float | None = None,
        least: float | None = None,
        limit: float | None = None,
        absent: str = "",
    ) -> Row:
        """The peer that counts is the best: lowest median, or highest where the target is `least`.

        `most` and `least` bound the ratio, which is the median of the turns' ratios; `limit` bounds our own figure.
        """
        best: Sequence[float] = ()
        if peers:
            best = (max if least is not None else min)(peers.values(), key=statistics.median)
        # By turns, since two figures taken one after the other share the machine's mood.
        ratios = [mine / its for mine, its in zip(ours, best, strict=True) if its > 0] if best else []
        met = verdict(ratios, most=most, least=least) if limit is None else verdict(ours, most=limit)
        ratio = statistics.median(ratios) if ratios else None
        shown = [f"{name} {figure(values)}" for name, values in peers.items()]
        return cls(measure, figure(ours), "; ".join([*shown, *([absent] if absent else [])]) or "—", ratio, target, met)

    def cells(self) -> tuple[str, ...]:
        ratio = "—" if self.ratio is None else f"{self.ratio:.2f}"
        return self.measure, self.ours, self.peer, ratio, self.target, self.met


def verdict(values: Sequence[float], *, most: float | None = None, least: float | None = None) -> str:
    """Whether the target is met; unclear where it lies between the quartiles: the next run may say otherwise."""
    bound = most if most is not None else least
    if bound is None or not values:
        return NO_VERDICT
    low, _, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
    met, missed = (high <= bound, low > bound) if most is not None else (low >= bound, high < bound)
    return "yes" if met else "**no**" if missed else "unclear"


def figure(values: Sequence[float]) -> str:
    """Median (least–most), or the only one."""
    if len(values) == 1:
        return _number(values[0])
    return f"{_number(statistics.median(values))} ({_number(min(values))}–{_number(max(values))})"


def _number(value: float) -> str:
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def markdown(rows: Sequence[Row]) -> str:
    """The table, its columns aligned so that it reads well in a terminal too."""
    lines = [HEADS, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADS))]
    shown = [f"| {' | '.join(map(str.ljust, line, widths))} |" for line in lines]
    shown.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(shown)


def write_between_markers(path: Path, text: str) -> None:
    """Replace what stands between the markers. Raises ValueError where they are not there."""
    before, begin, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    _, finish, after = rest.partition(END)
    if not begin or not finish:
        raise ValueError(f"{path} has no lines {BEGIN} and {END} between which the table could stand")
    path.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")
