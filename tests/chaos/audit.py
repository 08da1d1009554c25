"""Counts the broken promises of a run, from its clients' own logs and the event streams and nothing else.

Each figure is a number of cases, not of bytes; every case has a line in `cases` that says which one it is.
"""

from __future__ import annotations

from bisect import bisect
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from clients import Fetched, Ticket
from streams import Fields

from gateway.policy.reasons import Reason
from gateway.services.flood import TOKEN_EVENTS_PER_SECOND

Span = tuple[float, float]
CLOSINGS = ("download.finished", "download.lost")
ONE_CHARGE = 3
"""Whole bodies that one charge can pay for at most: itself, and two full repeats within the repeat window."""
FREE_BELOW = 64 * 1024
REVOKED_WITHIN = 3.0
"""Seconds until an order is in force for new requests: a gateway that has not heard for 2 s refuses them all."""
DECISIONS = frozenset(reason.text for reason in Reason if reason.status < 500)
"""Refusals that are the policy's; the others are about what is broken, which may be what stores the events."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """One stage's run. Moments are time.monotonic(); `outages`: Redis was certainly out of reach, `losses`: it lost
    acknowledged writes, `disturbed`: faults were played. `secrets`: what was found where no secret may be. `may_open`:
    the shop has chosen to serve without Redis, and each such event says so.
    """

    name: str
    requests: Sequence[Fetched]
    tickets: Sequence[Ticket]
    events: Sequence[Fields]
    outages: Sequence[Span] = ()
    losses: Sequence[float] = ()
    disturbed: Sequence[Span] = ()
    secrets: Sequence[str] = ()
    may_open: bool = False


@dataclass(slots=True)
class Findings:
    """Figures of one or more stages. `regranted` and `burned` are prices, the others broken promises."""

    loads: int = 0
    over: int = 0
    bytes_without_decision: int = 0
    lost: int = 0
    duplicates: int = 0
    corrupt: int = 0
    fail_open: int = 0
    burned: int = 0
    regranted: int = 0
    secrets: int = 0
    unexpected: int = 0
    cases: list[str] = field(default_factory=list)

    @property
    def broken(self) -> int:
        """How many promises were broken."""
        promises = (self.over, self.bytes_without_decision, self.lost, self.duplicates, self.corrupt, self.fail_open)
        return sum(promises) + self.secrets + self.unexpected


def audit(stages: Iterable[Evidence]) -> Findings:
    """The sum over all stages."""
    total = Findings()
    for stage in stages:
        _Audit(stage, total).run()
    return total


def unsettled(events: Iterable[Fields]) -> set[str]:
    """The requests that were allowed and are not closed."""
    allowed, closed = set(), set()
    for event in events:
        if event.get("type") == "download.allowed":
            allowed.add(event["request.id"])
        elif event.get("type") in CLOSINGS:
            closed.add(event["request.id"])
    return allowed - closed


class _Audit:
    def __init__(self, stage: Evidence, findings: Findings) -> None:
        self._stage = stage
        self._found = findings
        self._tickets = {ticket.token_id: ticket for ticket in stage.tickets}
        self._allowed: dict[str, Fields] = {}
        self._answered: set[str] = set()
        self._once = list({event.get("id", str(at)): event for at, event in enumerate(stage.events)}.values())
        for event in stage.events:
            if event.get("type") == "download.allowed":
                self._allowed.setdefault(event["request.id"], event)
            if "request.id" in event:
                self._answered.add(event["request.id"])
        self._begins: defaultdict[str, list[float]] = defaultdict(list)
        for seen in sorted(stage.requests, key=lambda seen: seen.began):
            self._begins[seen.token_id].append(seen.began)

    def run(self) -> None:
        given, excess = self._given(), self._excess()
        self._found.loads += given.total()
        self._found.over += self._say("over", (told for told, count, _ in excess if count))
        self._found.regranted += sum(count for _, _, count in excess)
        self._found.bytes_without_decision += self._say("bytes without a decision", self._undecided())
        self._found.lost += self._say("event lost", self._lost())
        self._found.duplicates += self._say("event twice", self._twice())
        self._found.corrupt += self._say("corrupt", self._corrupt())
        self._found.fail_open += self._say("fail-open", self._opened())
        self._found.burned += sum(1 for _ in self._burned())
        self._found.secrets += self._say("secret told", self._told())
        self._found.unexpected += self._say("unexpected answer", self._unexpected())

    def _say(self, what: str, cases: Iterable[object]) -> int:
        lines = [f"{self._stage.name}: {what}: {case}" for case in cases]
        self._found.cases += lines
        return len(lines)

    def _excess(self) -> list[tuple[str, int, int]]:
        """Links that gave a file beyond their limit: in words, how often for no reason, and how often because Redis
        lost what an older link had used, or a worker died before it could tell what it had delivered.
        """
        last_loss = max(self._stage.losses, default=float("-inf"))
        given, charged = self._given(), self._charged()
        forgiven, unchecked = self._forgiven(), self._unchecked()
        found = []
        for key in sorted(given.keys() | charged.keys()):
            ticket = self._tickets.get(key[0])
            if ticket is None or ticket.downloads is None:
                continue
            excess = max(given[key], charged[key]) - ticket.downloads
            # A charge beyond the limit is no dead worker's fault.
            beyond = max(charged[key] - ticket.downloads - unchecked[key], 0)
            excused = excess if ticket.made < last_loss else min(excess - beyond, forgiven[key] + unchecked[key])
            told = f"{key[1]} by {key[0]}: {given[key]} given, {charged[key]} charged, limit {ticket.downloads}"
            if excess > 0:
                found.append((told, excess - excused, excused))
        return found

    def _forgiven(self) -> Counter[tuple[str, str]]:
        """Charges that were given back for workers that died."""
        lost = (event for event in self._once if event.get("type") == "download.lost")
        return Counter(_key(event) for event in lost if int(event.get("counted", 0)) < 0)

    def _unchecked(self) -> Counter[tuple[str, str]]:
        """Charges that could not be refused any more, where the shop will have it so."""
        return Counter(_key(event) for event in self._once if self._stage.may_open and "unchecked" in event)

    def _charged(self) -> Counter[tuple[str, str]]:
        """The most that was charged at one moment; where events were put back late, at the end."""
        now: Counter[tuple[str, str]] = Counter()
        most: Counter[tuple[str, str]] = Counter()
        for event in self._once:
            now[_key(event)] += int(event.get("counted", 0))
            most[_key(event)] = max(most[_key(event)], now[_key(event)])
        return now if self._stage.losses else most

    def _given(self) -> Counter[tuple[str, str]]:
        """Downloads by what clients have: every network that has the whole file, by as many charges as that needs."""
        whole: Counter[tuple[str, str, str]] = Counter()
        parts: defaultdict[tuple[str, str, str], list[Span]] = defaultdict(list)
        sizes: dict[tuple[str, str, str], int] = {}
        for seen in self._stage.requests:
            if seen.served and seen.received and seen.size is not None:
                key = (seen.token_id, seen.file, seen.address)
                whole[key] += seen.whole
                parts[key].append((seen.start, seen.start + seen.received))
                sizes[key] = seen.size
        given: Counter[tuple[str, str]] = Counter()
        for key, spans in parts.items():
            # A range that starts later may have joined another network's transfer by its User-Agent.
            has_all = spans and min(spans)[0] == 0 and _covered(spans) >= sizes[key]
            given[key[:2]] += max(-(-whole[key] // ONE_CHARGE), int(has_all))
        return given

    def _undecided(self) -> Iterator[str]:
        for seen in self._stage.requests:
            if seen.served and seen.received and seen.request_id not in self._allowed:
                yield f"{seen.received} bytes of {seen.file} for request {seen.request_id or 'without an id'}"

    def _lost(self) -> Iterator[str]:
        yield from (f"request {request_id} was never closed" for request_id in unsettled(self._stage.events))
        for event in self._stage.events:
            if event.get("type") in CLOSINGS and event["request.id"] not in self._allowed:
                yield f"request {event['request.id']} was closed and never allowed"
        for seen in self._stage.requests:
            ticket = self._tickets.get(seen.token_id)
            genuine = ticket is not None and ticket.kind in ("good", "expired")
            refused = genuine and seen.reason in DECISIONS and not self._flooded(seen)
            served = seen.served and not seen.received and seen.size != 0
            if (refused or served) and seen.request_id not in self._answered:
                yield f"the answer {seen.status} {seen.reason} to request {seen.request_id or 'without an id'}"

    def _flooded(self, seen: Fetched) -> bool:
        """Whether its token was refused so often in this second that events may be left out (see docs/events.md)."""
        near = bisect(self._begins[seen.token_id], seen.began + 1) - bisect(self._begins[seen.token_id], seen.began - 1)
        return near > TOKEN_EVENTS_PER_SECOND

    def _twice(self) -> Iterator[str]:
        for name, count in Counter(event["id"] for event in self._stage.events if "id" in event).items():
            yield from [f"id {name}"] * (count - 1)
        kinds: Counter[tuple[str, str]] = Counter()
        for event in self._once:
            kind = "closing" if event.get("type") in CLOSINGS else event.get("type", "")
            if kind in ("closing", "download.allowed", "download.denied"):
                kinds[kind, event["request.id"]] += 1
        for (kind, request_id), count in kinds.items():
            yield from [f"{kind} of request {request_id}"] * (count - 1)

    def _corrupt(self) -> Iterator[str]:
        for seen in self._stage.requests:
            if not seen.served or not seen.received:
                continue
            if not seen.sha_ok:
                yield f"{seen.received} bytes from {seen.start} on of {seen.file}, request {seen.request_id}"
            elif seen.complete and seen.length is None:
                yield f"a body of {seen.file} whose end shows nothing, request {seen.request_id}"

    def _opened(self) -> Iterator[str]:
        for seen in self._stage.requests:
            ticket = self._tickets.get(seen.token_id)
            if not seen.served or not seen.received or ticket is None:
                continue
            if ticket.kind in ("expired", "forged"):
                yield f"a token that is {ticket.kind} got {seen.received} bytes, request {seen.request_id}"
            elif ticket.revoked is not None and seen.began > ticket.revoked + REVOKED_WITHIN:
                yield f"a revoked token got {seen.received} bytes, request {seen.request_id}"
            elif "unchecked" in self._allowed.get(seen.request_id, {}) and not self._stage.may_open:
                yield f"{seen.received} bytes unchecked, request {seen.request_id}"
            elif not self._stage.may_open and self._during_outage(seen):
                yield f"{seen.received} bytes while Redis was out of reach, request {seen.request_id}"

    def _during_outage(self, seen: Fetched) -> bool:
        return any(began < seen.began and seen.first_byte < ended for began, ended in self._stage.outages)

    def _burned(self) -> Iterator[str]:
        """Transfers that hold a charge although their clients got next to nothing."""
        received: Counter[str] = Counter()
        for seen in self._stage.requests:
            if seen.served and seen.request_id in self._allowed:
                received[self._allowed[seen.request_id].get("transfer.id", "")] += seen.received
        held: Counter[str] = Counter()
        sizes: dict[str, int] = {}
        for event in self._once:
            transfer = event.get("transfer.id", "")
            held[transfer] += int(event.get("counted", 0))
            sizes[transfer] = int(event.get("file.size", 0))
        for transfer, charges in held.items():
            if charges > 0 and received[transfer] < min(FREE_BELOW, -(-sizes[transfer] // 2)):
                yield transfer

    def _told(self) -> Iterator[str]:
        yield from self._stage.secrets
        yield from (f"in the answer to request {seen.request_id}" for seen in self._stage.requests if seen.leaked)

    def _unexpected(self) -> Iterator[str]:
        for seen in self._stage.requests:
            calm = not any(began <= seen.ended and seen.began <= ended for began, ended in self._stage.disturbed)
            if seen.status == 500 or (seen.status > 500 and calm):
                yield f"{seen.status} {seen.reason} to request {seen.request_id}"


def _key(event: Fields) -> tuple[str, str]:
    return event.get("token.id", ""), event.get("file.key", "")


def _covered(spans: Iterable[Span]) -> float:
    """How much of the line these spans cover, from 0 on without a hole."""
    reached = 0.0
    for start, stop in sorted(spans):
        if start > reached:
            break
        reached = max(reached, stop)
    return reached
