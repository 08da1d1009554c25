"""One token's downloads, transfers, slots and places, as the ledger's scripts keep them, fed by its recorded events.

The words are docs/architecture.md, "What counts as a download"; the scripts backends/lua/ledger.lua and charges.lua.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from gateway.policy.counting import REFUNDS_MAX, REPEATS_MAX, CountingRules, refund_below, window
from gateway.policy.model import Charge, Device
from gateway.policy.reasons import Reason
from gateway.policy.replay_transfers import Slot, Transfer, Transfers

REQUESTS_PER_TRANSFER = 32
NAMES_PER_SLOT = 32
SMALLEST_WINDOW = 65_536
LOOKERS = 32


@dataclass(slots=True, eq=False)
class Ask:
    """A request as the ledger meets it. `at` in Unix seconds; `start` −1 for a multipart answer, `asked` its body
    bytes; `elsewhere`: it is sent to another server, `look`: a scanner seems to ask (see ports.ReserveAsk). Without an
    `etag` the size is a guess.
    """

    request_id: str
    file: str
    at: float
    size: int
    etag: str | None
    start: int
    asked: int
    elsewhere: bool
    device: Device
    charges: Sequence[Charge]
    look: bool = False

    @property
    def full(self) -> bool:
        return self.asked == self.size


@dataclass(slots=True, eq=False)
class _Running:
    ask: Ask
    transfer: Transfer
    granted: int
    recorded: str


@dataclass(slots=True, eq=False)
class Closing:
    """How a request ended, by its closing event. `transfer_id` and `counted` as recorded; `at` in Unix seconds."""

    request_id: str
    transfer_id: str
    delivered: int
    counted: int
    origin_failed: bool
    at: float


class TokenLedger:
    """What one token has taken."""

    __slots__ = (
        *("_charged", "_counting", "_first", "_live", "_looks", "_refunds", "_running", "_sets", "_transfers"),
        "_used",
    )

    def __init__(self, counting: CountingRules) -> None:
        self._counting = counting
        self._used: dict[str, int] = {}
        self._transfers: dict[str, Transfers] = {}
        self._running: dict[str, _Running] | None = None
        self._sets: dict[str, tuple[dict[str, Slot], list[int]]] | None = None
        self._looks: dict[str, Transfer] | None = None
        self._charged = 0
        self._live = 0
        self._refunds = 0
        self._first: float | None = None

    def has_transfers(self, file: str) -> bool:
        """Whether any transfer of this file was ever opened."""
        return file in self._transfers

    def known(self, file: str, transfer_id: str) -> Transfer | None:
        """The transfer of this id."""
        of_file = self._transfers.get(file)
        return None if of_file is None else of_file.get(transfer_id)

    def find(self, ask: Ask) -> Transfer | None:
        """The open transfer that this request may join; one that holds its charge is preferred, and then a look."""
        found = self._search(ask, apart=True)
        if found is None and ask.look and ask.file in (self._looks or ()):
            found = self._search(ask, apart=False)
        return found

    def _search(self, ask: Ask, *, apart: bool) -> Transfer | None:
        spare = None
        of_file = self._transfers.get(ask.file)
        for transfer in () if of_file is None else of_file.of(ask.device, by_agent=ask.start > 0):
            if apart and transfer.look != ask.look and not _one_device(transfer, ask):
                continue
            if self._repeats(transfer, ask) is not None:
                if transfer.charged:
                    return transfer
                spare = spare or transfer
        return spare

    def refused(self, ask: Ask, joined: Transfer | None) -> Reason | None:
        """The reason of the first charge that cannot be applied, as lua/charges.lua says it."""
        if self._is_look(ask, joined):
            return None
        for charge in ask.charges:
            if charge.limit is not None and self._exceeds(charge, ask, joined):
                return charge.reason
        return None

    def enter(self, ask: Ask, joined: Transfer | None, recorded: str = "") -> None:
        """Let the request into this transfer, or a new one; pay where it holds no charge. `recorded`: which transfer
        its event names.
        """
        granted = 0 if ask.elsewhere else window(ask.asked, ask.size, ask.start)
        if joined is None:
            transfer = self._open(ask, recorded or ask.request_id)
        else:
            transfer = joined
            transfer.repeats += self._repeats(joined, ask) or 0
            granted = min(granted, max(transfer.left(), 0))
        self._enter(transfer, ask)
        if transfer.etag is None and ask.etag is not None:
            transfer.learn(ask.size, ask.etag)
        transfer.inflight += granted
        self._arrive(transfer)
        if self._running is None:
            self._running = {}
        self._running[ask.request_id] = _Running(ask, transfer, granted, recorded or transfer.id)

    def take_over(self, ask: Ask, transfer_id: str) -> Transfer:
        """A transfer that was opened before the first event there is, taken to hold a charge, or to be a look."""
        transfer = self._open(ask, transfer_id)
        if ask.look:
            self._begin_look(transfer, ask)
            return transfer
        transfer.charged = True
        self._used[ask.file] = self._used.get(ask.file, 0) + 1
        self._charged += 1
        return transfer

    def close(self, closing: Closing, *, as_recorded: bool) -> None:
        """Settle a request. `as_recorded`: what its event counted is what it counts here, else it is decided anew."""
        running = self._running.pop(closing.request_id, None) if self._running else None
        if running is None:
            return
        ask, transfer = running.ask, running.transfer
        transfer.inflight -= running.granted
        here = closing.delivered
        bought = 0
        if closing.transfer_id != running.recorded if as_recorded else here > transfer.left():
            here = max(min(here, transfer.left()), 0)
            transfer.credit(ask.start, here, closing.at)
            self._leave(transfer)
            rest = replace(ask, start=0, asked=closing.delivered - here, at=closing.at)
            other = self.known(ask.file, closing.transfer_id) if as_recorded else self.find(rest)
            if not as_recorded and self.refused(rest, other) is not None:
                return
            transfer = other or self._open(rest, closing.transfer_id if as_recorded else f"{ask.request_id}.1")
            bought = self._enter(transfer, rest)
            self._arrive(transfer)
            transfer.credit(ask.start + here if ask.start >= 0 else -1, rest.asked, closing.at)
        else:
            transfer.credit(ask.start, here, closing.at)
        self._leave(transfer)
        if as_recorded:
            given_back = closing.counted < bought and transfer.charged
        else:
            given_back = transfer.live == 0 and transfer.charged and self._is_next_to_nothing(transfer, closing)
        if given_back:
            self._give_back(transfer)
            self._refunds += not (closing.origin_failed and transfer.acked == 0)
        elif (
            not transfer.charged
            and transfer.live == 0
            and self._look_of(transfer.file) is transfer
            and self._is_next_to_nothing(transfer, closing)
        ):
            # Its event counts nothing, so it does not say that the look may be had again.
            (self._looks or {}).pop(transfer.file)
            self._refunds += not (closing.origin_failed and transfer.acked == 0)

    def confirm(self, ask: Ask) -> None:
        """The device is a person's, and pays for the look that it was in, as lua/confirm.lua says it."""
        look = self._look_of(ask.file)
        if look is None or ask.device.cookie not in (look.lookers or ()):
            return
        charges = [charge for charge in ask.charges if charge.kind != "concurrent"]
        if self.refused(replace(ask, charges=charges, look=False), look) is None:
            if look.device.cookie != ask.device.cookie:
                self._transfers[ask.file].hand_over(look, ask.device, ask.at)
            self._pay(look, ask)
            self._take_place(look)

    def _is_next_to_nothing(self, transfer: Transfer, closing: Closing) -> bool:
        if transfer.elsewhere:
            return False
        free = closing.origin_failed and transfer.acked == 0
        small = transfer.acked < refund_below(transfer.size, self._counting.free_below)
        return free or (small and self._refunds < REFUNDS_MAX)

    def _look_of(self, file: str) -> Transfer | None:
        return None if self._looks is None else self._looks.get(file)

    def _is_look(self, ask: Ask, transfer: Transfer | None) -> bool:
        if not ask.look or (transfer is not None and transfer.charged):
            return False
        return self._look_of(ask.file) in {None, transfer}

    def _begin_look(self, transfer: Transfer, ask: Ask) -> None:
        transfer.look = True
        lookers = transfer.lookers = transfer.lookers or set()
        if ask.device.cookie is not None and len(lookers) < LOOKERS:
            lookers.add(ask.device.cookie)
        if self._looks is None:
            self._looks = {}
        self._looks[transfer.file] = transfer

    def _enter(self, transfer: Transfer, ask: Ask) -> int:
        """Pay where the transfer holds no charge and is no look; whether that was so."""
        if transfer.charged:
            return 0
        if self._is_look(ask, transfer):
            self._begin_look(transfer, ask)
            return 0
        self._pay(transfer, ask)
        return 1

    def _arrive(self, transfer: Transfer) -> None:
        transfer.live += 1
        self._take_place(transfer)

    def _take_place(self, transfer: Transfer) -> None:
        if transfer.charged and transfer.live and not transfer.has_place:
            transfer.has_place = True
            self._live += 1

    def _leave(self, transfer: Transfer) -> None:
        transfer.live -= 1
        if transfer.has_place and not transfer.live:
            transfer.has_place = False
            self._live -= 1

    def _repeats(self, transfer: Transfer, ask: Ask) -> int | None:
        """The repeats (0 or 1) that a join uses up; None where the request may not join."""
        known = transfer.etag is not None and ask.etag is not None
        if known and (transfer.size != ask.size or transfer.etag != ask.etag):
            return None
        early = ask.at <= transfer.opened + self._counting.repeat_window
        if ask.elsewhere:
            return 0 if early else None
        if transfer.live >= REQUESTS_PER_TRANSFER:
            return None
        if transfer.live == 0 and ask.at > transfer.last + self._counting.resume_window:
            return None
        if not early and transfer.is_complete():
            return None
        begun = transfer.acked + transfer.inflight > 0
        repeats = int(ask.full and early and begun and transfer.repeats < REPEATS_MAX)
        left = transfer.left(repeats)
        fits = window(ask.asked, ask.size, ask.start) <= left or (ask.start > 0 and left >= SMALLEST_WINDOW)
        return repeats if fits else None

    def _open(self, ask: Ask, transfer_id: str) -> Transfer:
        transfer = Transfer(transfer_id, ask.file, ask.size, ask.etag, ask.device, ask.elsewhere, ask.at, ask.at)
        of_file = self._transfers.get(ask.file)
        if of_file is None:
            of_file = self._transfers[ask.file] = Transfers()
        of_file.add(
            transfer, ask.at - (self._counting.repeat_window if ask.elsewhere else self._counting.resume_window)
        )
        return transfer

    def _exceeds(self, charge: Charge, ask: Ask, joined: Transfer | None) -> bool:
        limit = charge.limit or 0
        pays = joined is None or not joined.charged
        match charge.kind:
            case "count":
                return pays and self._used.get(ask.file, 0) >= limit
            case "distinct":
                names, taken = (self._sets or {}).get(charge.name, ({}, [0]))
                return pays and charge.value not in names and taken[0] >= limit
            case "since_first":
                return joined is None and self._first is not None and ask.at > self._first + limit / 1000
            case "concurrent":
                return (joined is None or not joined.has_place) and self._live >= limit
        raise ValueError(f"unknown kind of charge: {charge.kind}")

    def _pay(self, transfer: Transfer, ask: Ask) -> None:
        transfer.charged, transfer.look, transfer.lookers = True, False, None
        transfer.slots = [
            (charge.name, self._take_slot(charge)) for charge in ask.charges if charge.kind == "distinct"
        ] or None
        self._used[ask.file] = self._used.get(ask.file, 0) + 1
        self._charged += 1
        if self._first is None:
            self._first = ask.at

    def _take_slot(self, charge: Charge) -> Slot:
        if self._sets is None:
            self._sets = {}
        names, taken = self._sets.setdefault(charge.name, ({}, [0]))
        slot = names.get(charge.value)
        if slot is None:
            slot = Slot(0, [])
            taken[0] += 1
        slot.refs += 1
        for name in filter(None, (charge.value, charge.alias)):
            if names.get(name, slot) is slot:
                slot.names = [name, *(other for other in slot.names if other != name)]
                names[name] = slot
                if len(slot.names) > NAMES_PER_SLOT:
                    del names[slot.names.pop()]
        return slot

    def _give_back(self, transfer: Transfer) -> None:
        transfer.charged = False
        self._used[transfer.file] -= 1
        for name, slot in transfer.slots or ():
            slot.refs -= 1
            if slot.refs == 0:
                names, taken = (self._sets or {})[name]
                taken[0] -= 1
                for each in slot.names:
                    del names[each]
        transfer.slots = None
        self._charged -= 1
        if self._charged == 0:
            self._first = None


def _one_device(transfer: Transfer, ask: Ask) -> bool:
    """By its cookie, not by what others may share."""
    return transfer.device.cookie is not None and transfer.device.cookie == ask.device.cookie
