"""What a worker says of itself, and how it travels to the supervisor: one JSON object a line.

Law: the supervisor believes only what was said lately; silence is never readiness.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

SILENT_AFTER = 5.0
"""Seconds without a report after which a worker no longer counts as ready (it reports every second)."""


@dataclass(frozen=True, slots=True)
class InForce:
    """What a worker has loaded. `wrong`: why the files that are there now were not taken in its place, or ''."""

    version: str
    wrong: str = ""


@dataclass(slots=True)
class WorkerStatus:
    """The worker's own state; the app sets what it knows, the worker the rest. `loop_lag` in seconds.

    `missing` holds what the app waits for before it can serve well, in words for ops ("redis: refused"): while it is
    not empty the worker is not ready. `reload` is set on SIGHUP; the app clears it when it has reloaded. `files` is by
    what they hold ("rules"); a worker whose files are wrong is ready with the last good ones. `frozen`: since when all
    downloads are stopped (RFC 3339), or "": the worker is ready for all that.
    """

    missing: set[str] = field(default_factory=set)
    redis_ok: bool | None = None
    origin_ok: bool | None = None
    downloads: int = 0
    reload: asyncio.Event = field(default_factory=asyncio.Event)
    files: dict[str, InForce] = field(default_factory=dict)
    frozen: str = ""
    serving: bool = False
    draining: bool = False
    connections: int = 0
    loop_lag: float = 0.0

    def report(self) -> Report:
        """The state now."""
        return Report(
            serving=self.serving,
            draining=self.draining,
            missing=tuple(sorted(self.missing)),
            redis_ok=self.redis_ok,
            origin_ok=self.origin_ok,
            connections=self.connections,
            downloads=self.downloads,
            loop_lag_ms=round(self.loop_lag * 1000, 1),
            files=dict(self.files),
            frozen=self.frozen,
        )


@dataclass(frozen=True, slots=True)
class Report:
    """One reading of a WorkerStatus. `error` is set by a worker that cannot start: one line for ops."""

    serving: bool = False
    draining: bool = False
    missing: tuple[str, ...] = ()
    redis_ok: bool | None = None
    origin_ok: bool | None = None
    connections: int = 0
    downloads: int = 0
    loop_lag_ms: float = 0.0
    files: Mapping[str, InForce] = field(default_factory=dict)
    frozen: str = ""
    error: str = ""

    @property
    def ready(self) -> bool:
        return self.serving and not self.draining and not self.missing

    @property
    def state(self) -> tuple[object, ...]:
        """The part whose change is told at once."""
        return (
            self.serving,
            self.draining,
            self.missing,
            self.redis_ok,
            self.origin_ok,
            self.files,
            self.frozen,
            self.error,
        )

    def to_line(self) -> bytes:
        return json.dumps(asdict(self), separators=(",", ":")).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Report:
        """Raises ValueError for what is not a report's line."""
        fields = json.loads(line)
        try:
            files = {what: InForce(**loaded) for what, loaded in fields["files"].items()}
            return cls(**{**fields, "missing": tuple(fields["missing"]), "files": files})
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError("not a report") from error


@dataclass(frozen=True, slots=True)
class WorkerView:
    """One worker as the supervisor sees it. `age`: seconds since its last report; `starts` counts processes."""

    slot: int
    pid: int | None
    starts: int
    report: Report | None
    age: float
    background: bool = False

    @property
    def missing(self) -> tuple[str, ...]:
        """Why it is not ready, in words; empty for a ready worker."""
        if self.pid is None:
            return ("not running",)
        if self.report is None or not (self.report.serving or self.report.draining):
            return ("starting",)
        if self.age > SILENT_AFTER:
            return (f"silent for {self.age:.0f} s",)
        return (("draining",) if self.report.draining else ()) + self.report.missing

    @property
    def ready(self) -> bool:
        return not self.missing


def in_front(views: Sequence[WorkerView]) -> list[WorkerView]:
    """Those that serve the public; all, where none is meant to."""
    return [view for view in views if not view.background] or list(views)
