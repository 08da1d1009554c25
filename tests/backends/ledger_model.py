"""A naive model of one token: its files, transfers, charges and places, counted anew at each question.

It is written from the words of docs/architecture.md ("What counts as a download", "The ledger"), not from the scripts.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from gateway.policy.counting import MIB, CountingRules
from gateway.policy.limits import charges
from gateway.policy.model import Device, Limits
from gateway.ports import ReserveAsk

RULES = CountingRules(resume_window=3600, repeat_window=60, free_below=64 * 1024)
EPOCH = 4_000_000_000_000
LEASE_MS = 10_000


@dataclass(frozen=True)
class File:
    identity: str
    size: int
    elsewhere: bool = False


@dataclass(eq=False)
class Slot:
    names: set[str] = field(default_factory=set)


@dataclass(eq=False)
class Transfer:
    file: File
    opened: int
    last: int
    device: Device
    charged: bool = False
    slots: dict[str, Slot] = field(default_factory=dict)
    look: bool = False
    lookers: set[str] = field(default_factory=set)
    held_until: int = 0
    repeats: int = 0
    acked: list[tuple[int, int]] = field(default_factory=list)
    uncovered: int = 0
    requests: list[Request] = field(default_factory=list)

    def delivered(self) -> int:
        return sum(b - a for a, b in self.acked) + self.uncovered

    def inflight(self) -> int:
        return sum(r.granted - r.acked for r in self.requests)

    def complete(self) -> bool:
        reached = 0
        for a, b in sorted(self.acked):
            if a > reached:
                return False
            reached = max(reached, b)
        return reached == self.file.size

    def allowance(self) -> int:
        size = self.file.size
        return size + size // 10 + min(MIB, size // 4) + self.repeats * size


@dataclass(eq=False)
class Request:
    file: File
    start: int
    asked: int
    device: Device
    limits: Limits
    scanner: bool = False
    transfer: Transfer | None = None
    granted: int = 0
    acked: int = 0
    lease_until: int = 0

    @property
    def full(self) -> bool:
        return self.asked == self.file.size

    @property
    def window(self) -> int:
        size = self.file.size
        largest = max(131_072, (size + 255) // 256) if self.start > 0 else max(MIB, (size + 31) // 32)
        return min(self.asked, largest)


class Model:
    def __init__(self, expires: int) -> None:
        self.expires = expires
        self.now = EPOCH
        self.refunds = 0
        self.first: int | None = None
        self.transfers: list[Transfer] = []
        self.looks: dict[File, Transfer] = {}

    # What the token has taken

    def used(self, file: File) -> int:
        return sum(transfer.charged and transfer.file == file for transfer in self.transfers)

    def slots(self, name: str) -> set[Slot]:
        return {t.slots[name] for t in self.transfers if t.charged and name in t.slots}

    def live(self) -> list[Transfer]:
        return [transfer for transfer in self.transfers if transfer.requests and transfer.held_until > self.now]

    def _slot(self, name: str, value: str) -> Slot | None:
        return next((slot for slot in self.slots(name) if value in slot.names), None)

    # What is refused, and what is paid

    def _refused(self, request: Request, joined: Transfer | None, leaving: Transfer | None = None) -> str | None:
        limits = request.limits
        if joined is None and self.expires <= self.now:
            return "token.expired"
        if self._is_look(request, joined):
            return None
        if joined is None:
            late = limits.get("valid_after_first")
            if late is not None and self.first is not None and self.now > self.first + late * 1000:
                return "token.expired"
        if joined is None or not joined.charged:
            downloads = limits.get("downloads")
            if downloads is not None and self.used(request.file) >= downloads:
                return "limit.downloads"
            for name, value in (("networks", request.device.network), ("devices", request.device.id)):
                most = limits.get(name)
                if most is not None and len(self.slots(name)) >= most and self._slot(name, value) is None:
                    return f"limit.{name}"
        live = self.live()
        most = limits.get("concurrent")
        if joined not in live and most is not None and len([t for t in live if t is not leaving]) >= most:
            return "limit.concurrent"
        return None

    def _pay(self, transfer: Transfer, request: Request) -> None:
        device = request.device
        slots = {}
        for name, value, alias in (("networks", device.network, None), ("devices", device.id, device.cookie)):
            if request.limits.get(name) is not None:
                slots[name] = slot = self._slot(name, value) or Slot()
                slot.names.add(value)
                if alias and self._slot(name, alias) is None:
                    slot.names.add(alias)
        transfer.charged, transfer.look, transfer.slots, transfer.lookers = True, False, slots, set()
        if self.first is None:
            self.first = self.now

    def _give_back(self, transfer: Transfer) -> None:
        transfer.charged, transfer.slots = False, {}
        if not any(t.charged for t in self.transfers):
            self.first = None

    # Which transfer a request joins

    def _same_device(self, transfer: Transfer, request: Request, start: int) -> int | None:
        mine, theirs = request.device, transfer.device
        if mine.cookie and mine.cookie == theirs.cookie:
            return 0
        if mine.network == theirs.network:
            return 1
        if start > 0 and mine.user_agent and mine.user_agent == theirs.user_agent:
            return 2
        return None

    def _room(self, transfer: Transfer, start: int, want: int, extra: int = 0) -> int:
        """Bytes that may be granted of `want`: all, or for a resume what is left, 64 KiB at least; else 0."""
        left = transfer.allowance() + extra - transfer.delivered() - transfer.inflight()
        if want <= left:
            return want
        return left if start > 0 and left >= 65_536 else 0

    def _joinable(self, transfer: Transfer, full: bool, start: int, window: int) -> tuple[int, int] | None:
        early = self.now <= transfer.opened + RULES.repeat_window * 1000
        if transfer.file.elsewhere:
            return (0, 0) if early else None
        if len(transfer.requests) >= 32:
            return None
        if not transfer.requests and self.now > transfer.last + RULES.resume_window * 1000:
            return None
        if transfer.complete() and not early:
            return None
        taken = transfer.delivered() + transfer.inflight()
        repeat = int(full and early and taken > 0 and transfer.repeats < 2)
        granted = self._room(transfer, start, window, repeat * transfer.file.size)
        return (granted, repeat) if granted else None

    def _find(
        self, request: Request, full: bool, start: int, window: int
    ) -> tuple[Transfer, int, int] | tuple[None, int, int]:
        """The best open transfer to join, the window it grants and the repeat it costs.

        People and scanners join each other's only by one cookie; a scanner joins anyone's when the look is spent.
        """
        found = self._found(request, full, start, window, apart=True)
        if not found and request.scanner and request.file in self.looks:
            found = self._found(request, full, start, window, apart=False)
        return min(found, key=lambda row: row[:3])[3:] if found else (None, window, 0)

    def _found(self, request: Request, full: bool, start: int, window: int, *, apart: bool) -> list[tuple]:
        found = []
        for order, transfer in enumerate(reversed(self.transfers)):
            if transfer.file == request.file:
                nearness = self._same_device(transfer, request, start)
                if apart and nearness and transfer.look != request.scanner:
                    continue
                joins = self._joinable(transfer, full, start, window)
                if nearness is not None and joins is not None:
                    found.append((not transfer.charged, nearness, order, transfer, *joins))
        return found

    def _is_look(self, request: Request, transfer: Transfer | None) -> bool:
        if not request.scanner or (transfer is not None and transfer.charged):
            return False
        return request.file not in self.looks or self.looks[request.file] is transfer

    def _enter(self, request: Request, transfer: Transfer | None) -> int:
        """The request goes into this transfer, or a new one; whether that was charged."""
        look = self._is_look(request, transfer)
        if transfer is None:
            transfer = Transfer(request.file, self.now, self.now, request.device)
            self.transfers.append(transfer)
        counted = not transfer.charged and not look
        if counted:
            self._pay(transfer, request)
        request.transfer = transfer
        transfer.requests.append(request)
        if look:
            transfer.look, self.looks[request.file] = True, transfer
            transfer.lookers |= {request.device.cookie} - {None}
            transfer.held_until = 0
        else:
            transfer.held_until = self.now + 2 * LEASE_MS
        return int(counted)

    # What the ledger is asked

    def reserve(self, request: Request) -> str | int:
        transfer, granted, repeat = self._find(request, request.full, request.start, request.window)
        reason = self._refused(request, transfer)
        if reason:
            return reason
        counted = self._enter(request, transfer)
        assert request.transfer is not None
        request.transfer.repeats += repeat
        request.granted = granted
        request.lease_until = self.now + LEASE_MS
        return counted

    def _credit(self, request: Request, acked: int) -> None:
        acked = min(acked, request.granted)
        transfer = request.transfer
        assert transfer is not None
        if acked <= request.acked:
            return
        if request.start >= 0:
            transfer.acked.append((request.start + request.acked, request.start + acked))
        else:
            transfer.uncovered += acked - request.acked
        transfer.last = self.now
        request.acked = acked

    def renew(self, request: Request, acked: int, wanted: int) -> tuple[int, str | None]:
        self._credit(request, acked)
        request.lease_until = self.now + LEASE_MS
        transfer = request.transfer
        assert transfer is not None
        reason = self._refused(request, transfer)
        if reason:
            return request.granted, reason
        if transfer.charged:
            transfer.held_until = self.now + 2 * LEASE_MS
        more = min(wanted, request.asked) - request.granted
        if more <= 0:
            return request.granted, None
        granted = self._room(transfer, request.start, more)
        if not granted:
            transfer.requests.remove(request)
            other, _, _ = self._find(request, False, 0, request.granted - request.acked + more)
            reason = self._refused(request, other)
            if reason:
                transfer.requests.append(request)
                return request.granted, reason
            self._enter(request, other)
            granted = more
        request.granted += granted
        return request.granted, None

    def settle(self, request: Request, acked: int | None, origin_failed: bool = False) -> None:
        if acked is not None:
            self._credit(request, acked)
        transfer = request.transfer
        assert transfer is not None
        transfer.requests.remove(request)
        looked = not transfer.charged and self.looks.get(request.file) is transfer
        if request.file.elsewhere or transfer.requests or not (transfer.charged or looked):
            return
        free = origin_failed and transfer.delivered() == 0
        small = transfer.delivered() < min(RULES.free_below, request.file.size / 2)
        if free or (small and self.refunds < 8):
            if looked:
                del self.looks[request.file]
            else:
                self._give_back(transfer)
            self.refunds += not free

    def confirm(self, request: Request) -> bool:
        """The request's device is a person's: whether the look that it opened is paid for now."""
        look = self.looks.get(request.file)
        if look is None or request.device.cookie not in look.lookers:
            return False
        if self._refused(replace(request, limits=request.limits.without("concurrent"), scanner=False), look):
            return False
        if look.device.cookie != request.device.cookie:
            self._hand_over(look, request.device)
        self._pay(look, request)
        if look.requests:
            look.held_until = self.now + 2 * LEASE_MS
        return True

    def _hand_over(self, look: Transfer, device: Device) -> None:
        """It is this device's from now on, with one more size and nothing fetched."""
        self.transfers.remove(look)
        self.transfers.append(look)
        look.device, look.opened, look.last = device, self.now, self.now
        look.uncovered = look.delivered()
        look.repeats, look.acked = look.repeats + 1, []


def ask_of(request: Request, name: str, event: str, *, token: str, expires: int) -> ReserveAsk:
    """The ledger's ask for a request of the model. `expires` in ms, as the model has it."""
    return ReserveAsk(
        request_id=name,
        shard=0,
        token_key=token,
        file_identity=request.file.identity,
        size=request.file.size,
        etag="" if request.file.elsewhere else '"e"',
        start=request.start,
        asked=request.asked,
        full=request.full,
        elsewhere=request.file.elsewhere,
        device=request.device,
        charges=charges(request.limits, request.device),
        expires_at=expires // 1000,
        token_expires_at=expires // 1000,
        rules=RULES,
        status=200,
        stamp={"id": event},
        event={"request.id": name},
        look=request.scanner,
    )
