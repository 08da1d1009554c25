"""An order's events as the downloads that people mean: all requests of one transfer together, however often resumed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from gateway.policy.fronts import is_sent_by_another

Event = Mapping[str, str]

_ENDINGS = ("download.finished", "download.lost")


@dataclass(slots=True)
class Attempt:
    """One device's download of one file. `token` and `file` may be empty where its opening is no longer kept."""

    token: str
    file: str
    requests: set[str] = field(default_factory=set)
    endings: list[Event] = field(default_factory=list)
    last: Event = field(default_factory=dict)

    @property
    def is_running(self) -> bool:
        """Whether a request of it has no closing event yet."""
        return bool(self.requests - {ending.get("request.id", "") for ending in self.endings})

    @property
    def delivered(self) -> int:
        return sum(number(ending, "bytes.delivered") for ending in self.endings)

    @property
    def is_whole(self) -> bool:
        """Whether the file arrived: as many bytes as it has, and not all requests were broken off. Of one that another
        server sends that is not known, and none is taken for broken off.

        A program that asks for ranges breaks some off by itself; one that begins anew each time completes none.
        """
        completed = any(ending.get("outcome") == "complete" for ending in self.endings)
        return completed and (is_sent_by_another(self.last) or self.delivered >= number(self.last, "file.size"))

    @property
    def outcome(self) -> str:
        """How its last request ended: an `outcome` of docs/events.md, or `lost`."""
        if self.last.get("type") == "download.lost":
            return "lost"
        return self.last.get("outcome", "")

    @property
    def time(self) -> str:
        return self.last.get("time", "")


def attempts(events: Iterable[Event]) -> list[Attempt]:
    """The downloads in these events (oldest first), in the order in which they began."""
    found: dict[str, Attempt] = {}
    transfer_of: dict[str, str] = {}
    for event in events:
        kind, request = event.get("type", ""), event.get("request.id", "")
        if kind != "download.allowed" and kind not in _ENDINGS:
            continue
        # A renewal may move a request on to another transfer: it stays with the one that it began in.
        transfer = transfer_of.setdefault(request, event.get("transfer.id", request))
        attempt = found.setdefault(transfer, Attempt(event.get("token.id", ""), event.get("file.key", "")))
        attempt.requests.add(request)
        if kind in _ENDINGS:
            attempt.endings.append(event)
        attempt.last = event
    return list(found.values())


def number(event: Event, name: str) -> int:
    """A field that counts something; 0 where it is absent or no number."""
    text = event.get(name, "")
    return int(text) if text.isascii() and text.isdecimal() else 0
