"""One device fetching one file, and how a device finds its own again, as lua/ledger.lua keeps them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from gateway.policy.counting import budget
from gateway.policy.model import Device

TRANSFERS_PER_IDENTITY = 32
SPANS_PER_TRANSFER = 64
_PRUNED_AT_ONCE = 8
_COOKIE, _NETWORK, _AGENT = "cookie", "network", "agent"


@dataclass(slots=True, eq=False)
class Slot:
    refs: int
    names: list[str]


@dataclass(slots=True, eq=False)
class Transfer:
    """One device fetching one file; the fields are those of lua/ledger.lua's new_transfer."""

    id: str
    file: str
    size: int
    etag: str | None
    device: Device
    elsewhere: bool
    opened: float
    last: float
    acked: int = 0
    inflight: int = 0
    live: int = 0
    repeats: int = 0
    charged: bool = False
    look: bool = False
    lookers: set[str] | None = None
    has_place: bool = False
    slots: list[tuple[str, Slot]] | None = None
    spans: list[tuple[int, int]] = field(default_factory=list)

    def is_complete(self) -> bool:
        return len(self.spans) == 1 and self.spans[0] == (0, self.size)

    def left(self, repeats: int = 0) -> int:
        """Bytes that its budget still allows, with so many more repeats."""
        return budget(self.size) + (self.repeats + repeats) * self.size - self.acked - self.inflight

    def learn(self, size: int, etag: str | None) -> None:
        """What its file really is, where that was a guess."""
        again = (self.acked - self._covered()) * size // self.size
        self.spans = [(start, min(stop, size)) for start, stop in self.spans if start < size]
        self.acked = self._covered() + again
        self.size, self.etag = size, etag

    def _covered(self) -> int:
        return sum(stop - start for start, stop in self.spans)

    def credit(self, start: int, delivered: int, at: float) -> None:
        """So many bytes were acknowledged, from `start` on (−1: of several ranges)."""
        if delivered <= 0:
            return
        self.acked += delivered
        self.last = at
        if start >= 0:
            if self.spans:
                self._cover(start, start + delivered)
            else:
                self.spans.append((start, start + delivered))

    def _cover(self, start: int, stop: int) -> None:
        apart = []
        for a, b in self.spans:
            if b < start or a > stop:
                apart.append((a, b))
            else:
                start, stop = min(start, a), max(stop, b)
        if len(apart) < SPANS_PER_TRANSFER:
            self.spans = sorted([*apart, (start, stop)])


class Transfers:
    """Those of one file, by id and by whose they are."""

    __slots__ = ("_by_id", "_under")

    def __init__(self) -> None:
        self._by_id: dict[str, Transfer] = {}
        self._under: dict[tuple[str, str], list[Transfer]] | None = None

    def get(self, transfer_id: str) -> Transfer | None:
        """None: there is none of this id."""
        return self._by_id.get(transfer_id)

    def add(self, transfer: Transfer, oldest: float) -> None:
        """Also forgets some at rest whose last byte was sent before `oldest` (Unix s)."""
        for each in list(islice(self._by_id.values(), _PRUNED_AT_ONCE)):
            if not each.live and each.last < oldest:
                self._forget(each)
        self._by_id[transfer.id] = transfer
        if self._under is not None:
            _file(self._under, transfer)
        elif len(self._by_id) > TRANSFERS_PER_IDENTITY:
            # Hardly any link has so many, and looking through these few costs less than filing those of all links.
            self._under = {}
            for each in self._by_id.values():
                _file(self._under, each)

    def hand_over(self, transfer: Transfer, device: Device, at: float) -> None:
        """It is this device's from now on, since `at` (Unix s), with one more size and nothing fetched."""
        self._forget(transfer)
        transfer.device, transfer.opened, transfer.last = device, at, at
        transfer.repeats, transfer.spans = transfer.repeats + 1, []
        self._by_id[transfer.id] = transfer
        if self._under is not None:
            _file(self._under, transfer)

    def of(self, device: Device, *, by_agent: bool) -> Iterator[Transfer]:
        """A device's own: by its cookie, its network and, if asked so, its User-Agent; the newest of each first."""
        for name in _names(device):
            if name[0] == _AGENT and not by_agent:
                continue
            if self._under is not None:
                yield from reversed(self._under.get(name, ()))
            else:
                yield from (each for each in reversed(self._by_id.values()) if name in _names(each.device))

    def _forget(self, transfer: Transfer) -> None:
        del self._by_id[transfer.id]
        if self._under is not None:
            for name in _names(transfer.device):
                if transfer in self._under[name]:
                    self._under[name].remove(transfer)


def _file(under: dict[tuple[str, str], list[Transfer]], transfer: Transfer) -> None:
    for name in _names(transfer.device):
        found = under.setdefault(name, [])
        found.append(transfer)
        del found[:-TRANSFERS_PER_IDENTITY]


def _names(device: Device) -> Iterable[tuple[str, str]]:
    """Under which a device's transfers are found."""
    named = ((_COOKIE, device.cookie), (_NETWORK, device.network), (_AGENT, device.user_agent))
    return tuple((kind, text) for kind, text in named if text is not None and (text or kind == _NETWORK))
