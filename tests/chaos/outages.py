"""When Redis was certainly out of the gateway's reach, and when it lost data: noted by what breaks it, not by guess.

An outage begins after the fault is in force and ends before it is mended, so that nothing in between was excusable.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from proxy import FaultProxy
from redis_server import Persistence, RedisServer

Span = tuple[float, float]
MARGIN = 0.1
"""Seconds that what was on its way through the proxy may take."""


@dataclass
class Outages:
    """`spans` are closed ones, `losses` the moments when acknowledged writes were lost; time.monotonic()."""

    spans: list[Span] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    _causes: dict[str, float] = field(default_factory=dict)

    def begin(self, cause: str) -> None:
        self._causes.setdefault(cause, time.monotonic() + MARGIN)

    def end(self, cause: str) -> None:
        began = self._causes.pop(cause, None)
        if began is not None:
            self.spans.append((began, time.monotonic()))

    def lost_data(self) -> None:
        """To be called by who takes acknowledged writes away in a way that is not seen here."""
        self.losses.append(time.monotonic())


class NotedRedis(RedisServer):
    """A RedisServer that tells of its ends and losses."""

    def __init__(
        self, folder: Path, noted: Outages, *, persistence: Persistence = "aof", options: Sequence[str] = ()
    ) -> None:
        super().__init__(folder, persistence=persistence, options=options)
        self._noted = noted
        self._durable = persistence == "aof"

    def start(self, patience: float = 10.0, *, loaded: bool = True) -> None:
        self._noted.end("killed")
        super().start(patience, loaded=loaded)

    def kill(self) -> None:
        super().kill()
        self._noted.begin("killed")
        if not self._durable:
            self._noted.lost_data()

    def stop(self) -> None:
        super().stop()
        self._noted.begin("killed")

    def pause(self) -> None:
        super().pause()
        self._noted.begin("paused")

    def resume(self) -> None:
        self._noted.end("paused")
        super().resume()

    def cut_aof(self, share: float) -> None:
        super().cut_aof(share)
        self._noted.lost_data()


class NotedProxy(FaultProxy):
    """A FaultProxy that tells when nothing can pass it."""

    def __init__(self, noted: Outages) -> None:
        super().__init__()
        self._noted = noted

    def let_pass(self) -> None:
        self._noted.end("proxy")
        super().let_pass()

    def black_hole(self) -> None:
        super().black_hole()
        self._noted.begin("proxy")

    def refuse(self) -> None:
        super().refuse()
        self._noted.begin("proxy")
