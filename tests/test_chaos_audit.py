"""The audit of the chaos run sees each defect in hand-made logs, once, and nothing in a run without one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from audit import Evidence, Findings, audit, unsettled
from clients import Fetched, Ticket, Versions
from report import Totals, line
from stage import signatures_in

SIZE = 300_000
FILE = "medium.bin"


class Run:
    """The logs of a run that kept every promise, to be spoilt."""

    def __init__(self, *, downloads: int = 1) -> None:
        self.tickets = [Ticket("t", (FILE,), "good", downloads, made=1.0)]
        self.requests: list[Fetched] = []
        self.events: list[dict[str, str]] = []
        self.more: dict[str, object] = {}

    def served(self, request_id: str, *, network: str = "10.0.0.9", counted: int = 1, **changes: object) -> Fetched:
        """A whole download: what its client saw, and its two events."""
        seen = Fetched("t", FILE, "GET", network, status=200, request_id=request_id, length=SIZE, size=SIZE)
        seen = replace(seen, received=SIZE, sha_ok=True, began=10.0, first_byte=10.1, ended=10.2)
        seen = replace(seen, **changes)
        self.requests.append(seen)
        self.event("download.allowed", request_id, counted=counted)
        self.event("download.finished", request_id)
        return seen

    def refused(self, request_id: str, status: int = 410, reason: str = "limit.downloads") -> Fetched:
        seen = Fetched("t", FILE, "GET", "10.0.9.9", status=status, reason=reason, request_id=request_id)
        self.requests.append(seen)
        self.event("download.denied", request_id)
        return seen

    def event(self, kind: str, request_id: str, counted: int = 0, *, transfer: str = "") -> dict[str, str]:
        event = {
            "id": f"{kind} {request_id}",
            "type": kind,
            "request.id": request_id,
            "token.id": "t",
            "file.key": FILE,
            "file.size": str(SIZE),
            "transfer.id": transfer or request_id,
            "counted": str(counted),
        }
        self.events.append(event)
        return event

    def findings(self) -> Findings:
        whole = {"disturbed": [(0.0, 100.0)], **self.more}
        return audit([Evidence("run", self.requests, self.tickets, self.events, **whole)])


def found(run: Run) -> dict[str, int]:
    """The figures that are not zero, without the loads."""
    figures = asdict(run.findings())
    return {name: count for name, count in figures.items() if count and name not in ("loads", "cases")}


def sound() -> Run:
    run = Run(downloads=2)
    run.served("a")
    run.served("b", network="10.0.1.9")
    run.refused("c")
    return run


def test_a_run_that_kept_its_promises() -> None:
    run = sound()
    assert found(run) == {}
    assert (run.findings().loads, run.findings().broken) == (2, 0)


def given_too_often(run: Run) -> None:
    run.served("x", network="10.0.2.9", counted=0)


def charged_too_often(run: Run) -> None:
    run.event("download.allowed", "x", counted=1)
    run.event("download.finished", "x", counted=-1)


def pieced_together(run: Run) -> None:
    half = SIZE // 2
    run.served("x", network="10.0.2.9", counted=0, status=206, received=half, length=half)
    run.served("y", network="10.0.2.9", counted=0, status=206, start=half, received=SIZE - half, length=SIZE - half)


def repeated_too_often(run: Run) -> None:
    for name in "uvw":
        run.served(name, counted=0)


def served_undecided(run: Run) -> None:
    run.served("x", received=10, error="left")
    del run.events[-2:]


def served_without_id(run: Run) -> None:
    run.served("x", received=10, error="left")
    run.requests[-1].request_id = ""
    del run.events[-2:]


def never_closed(run: Run) -> None:
    run.events = [event for event in run.events if event["id"] != "download.finished a"]


def refusal_untold(run: Run) -> None:
    run.events = [event for event in run.events if event["type"] != "download.denied"]


def closed_unallowed(run: Run) -> None:
    run.event("download.lost", "x")


def same_event_again(run: Run) -> None:
    run.events.append(run.events[-1])


def allowed_again(run: Run) -> None:
    run.event("download.allowed", "a")["id"] = "another"


def closed_again(run: Run) -> None:
    run.event("download.lost", "a")


def wrong_bytes(run: Run) -> None:
    run.requests[0].sha_ok = False


def wrong_beginning(run: Run) -> None:
    run.served("x", counted=0, received=10, error="cut", sha_ok=False)


def ends_politely(run: Run) -> None:
    run.served("x", counted=0, received=10, length=None, size=None)


def forged_token(run: Run) -> None:
    run.tickets[0].kind = "forged"


def expired_token(run: Run) -> None:
    run.tickets[0].kind = "expired"


def revoked_token(run: Run) -> None:
    run.tickets[0].revoked = 2.0


def while_redis_was_away(run: Run) -> None:
    run.more["outages"] = [(9.0, 11.0)]


def told_a_secret(run: Run) -> None:
    run.more["secrets"] = ["…abc"]


def echoed_the_token(run: Run) -> None:
    run.requests[0].leaked = True


def broken_inside(run: Run) -> None:
    run.refused("x", 500, "internal")


def refused_in_calm(run: Run) -> None:
    run.more["disturbed"] = []
    run.refused("x", 503, "overload")


@pytest.mark.parametrize(
    ("spoil", "figures"),
    [
        (given_too_often, {"over": 1}),
        (charged_too_often, {"over": 1}),
        (pieced_together, {"over": 1}),
        (repeated_too_often, {"over": 1}),
        (served_undecided, {"bytes_without_decision": 1}),
        (served_without_id, {"bytes_without_decision": 1}),
        (never_closed, {"lost": 1}),
        (refusal_untold, {"lost": 1}),
        (closed_unallowed, {"lost": 1}),
        (same_event_again, {"duplicates": 1}),
        (allowed_again, {"duplicates": 1}),
        (closed_again, {"duplicates": 1}),
        (wrong_bytes, {"corrupt": 1}),
        (wrong_beginning, {"corrupt": 1}),
        (ends_politely, {"corrupt": 1}),
        (forged_token, {"fail_open": 2}),
        (expired_token, {"fail_open": 2}),
        (revoked_token, {"fail_open": 2}),
        (while_redis_was_away, {"fail_open": 2}),
        (told_a_secret, {"secrets": 1}),
        (echoed_the_token, {"secrets": 1}),
        (broken_inside, {"unexpected": 1}),
        (refused_in_calm, {"unexpected": 1}),
    ],
)
def test_each_defect_is_seen_and_counted_once(spoil: Callable[[Run], None], figures: Mapping[str, int]) -> None:
    run = sound()
    spoil(run)
    assert found(run) == figures
    assert run.findings().broken == sum(figures.values()) == len(run.findings().cases)


def test_full_repeats_within_one_charge_are_the_same_download() -> None:
    run = Run()
    for name in "abc":
        run.served(name, counted=int(name == "a"))
    assert found(run) == {}


@pytest.mark.parametrize("made", [1.0, 30.0])
def test_only_what_an_older_link_gets_after_a_loss_is_regranted(made: float) -> None:
    run = sound()
    given_too_often(run)
    run.tickets[0].made = made
    run.more["losses"] = [20.0]
    assert found(run) == ({"regranted": 1} if made < 20 else {"over": 1})


def test_what_a_dead_worker_had_not_reported_is_regranted() -> None:
    run = sound()
    run.served("x", network="10.0.2.9")
    run.events[-1] |= {"type": "download.lost", "counted": "0"}
    run.events[1] |= {"type": "download.lost", "counted": "-1"}
    assert found(run) == {"regranted": 1}


@pytest.mark.parametrize(("received", "counted", "burned"), [(1000, 0, {"burned": 1}), (1000, -1, {}), (70_000, 0, {})])
def test_a_charge_that_bought_next_to_nothing(received: int, counted: int, burned: Mapping[str, int]) -> None:
    run = Run()
    run.served("a", received=received, error="cut")
    run.events[-1]["counted"] = str(counted)
    assert found(run) == burned


def test_a_charge_whose_answer_never_arrived_is_burned() -> None:
    run = Run()
    run.event("download.allowed", "a", counted=1)
    run.event("download.lost", "a")
    assert found(run) == {"burned": 1}


def test_who_serves_without_redis_says_so_and_answers_for_it() -> None:
    run = sound()
    given_too_often(run)
    run.events[-2]["unchecked"] = "redis.down"
    assert found(run) == {"over": 1, "fail_open": 1}
    run.more = {"outages": [(9.0, 11.0)], "may_open": True}
    assert found(run) == {"regranted": 1}


@pytest.mark.parametrize(("count", "lost"), [(50, {"lost": 50}), (51, {})])
def test_a_flood_of_refusals_need_not_all_be_told(count: int, lost: Mapping[str, int]) -> None:
    run = Run()
    for number in range(count):
        run.refused(f"r{number}")
    run.events.clear()
    assert found(run) == lost


def test_what_is_open_is_unsettled() -> None:
    run = sound()
    never_closed(run)
    assert unsettled(run.events) == {"a"}
    assert unsettled(sound().events) == set()


def test_a_body_is_judged_by_the_bytes_of_one_version(tmp_path: Path) -> None:
    versions = Versions()
    for name, data in (("old", b"a" * 100), ("new", b"b" * 100)):
        (tmp_path / name).write_bytes(data)
        versions.add(FILE, tmp_path / name)

    def holds(data: bytes, start: int = 0, size: int | None = 100) -> bool:
        digest = hashlib.sha256(data).hexdigest()
        return versions.holds(FILE, start=start, length=len(data), size=size, sha256=digest)

    assert holds(b"a" * 100)
    assert holds(b"b" * 40, start=60)
    assert not holds(b"a" * 50 + b"b" * 50)
    assert not holds(b"b" * 40, start=61)
    assert not holds(b"b" * 40, size=99)
    assert not versions.holds("other", start=0, length=0, size=None, sha256="")


def test_the_line() -> None:
    findings = Findings(loads=9, over=1, bytes_without_decision=2, lost=3, duplicates=4, corrupt=5, fail_open=6)
    findings.burned, findings.regranted = 7, 8
    totals = Totals(faults=(10, 11), inputs=12, kib=1.25, recoveries=[0.1] * 98 + [2.0, 2.0], mutants=(13, 14))
    assert line(findings, totals) == (
        "loads 9 · faults 10/11 · inputs 12 · over 1 · bytes-without-decision 2 · events lost 3 dup 4 · corrupt 5 · "
        "fail-open 6 · burned 7 · regranted 8 · KiB/download 1.2 · recovery p99 2.0 s · mutants 13/14"
    )


@pytest.mark.parametrize("text", ["{}", "token=e30.e30.{} end", "{{'x': 'aa-{}_bb'}}", "\x00{}\xff"])
def test_a_signature_is_found_wherever_it_stands(text: str) -> None:
    told, other = ("Kx9-" * 11)[:43], ("_bQ7" * 11)[:43]
    assert signatures_in(text.format(told), {told, other}) == {told}
    assert signatures_in(text.format(told[:-1]), {told, other}) == set()
