from __future__ import annotations

import pytest

from gateway.policy.attempts import attempts, number

Event = dict[str, str]
SIZE = 1000


def allowed(request: str, transfer: str = "x") -> Event:
    return {
        "type": "download.allowed",
        "request.id": request,
        "transfer.id": transfer,
        "file.key": "a",
        "token.id": "t",
    }


def finished(request: str, outcome: str, delivered: int, transfer: str = "x") -> Event:
    told = {"type": "download.finished", "outcome": outcome, "bytes.delivered": str(delivered), "file.size": str(SIZE)}
    return allowed(request, transfer) | told


def test_requests_of_one_transfer_are_one_attempt() -> None:
    events = [
        allowed("r1"),
        finished("r1", "client_left", 400),
        allowed("r2"),
        finished("r2", "complete", 600, transfer="moved-on"),
        allowed("r3", "y"),
    ]
    first, second = attempts(events)
    assert (first.token, first.file, first.delivered, first.is_whole, first.is_running) == ("t", "a", 1000, True, False)
    assert (second.delivered, second.is_whole, second.is_running) == (0, False, True)


@pytest.mark.parametrize(
    ("endings", "is_whole"),
    [
        ([("complete", 1000)], True),
        ([("complete", 2)], False),
        ([("client_left", 999)], False),
        ([("client_left", 700), ("client_left", 700)], False),
        ([("complete", 500), ("client_left", 600)], True),
        ([("cut", 1000)], False),
    ],
)
def test_when_the_file_has_arrived(endings: list[tuple[str, int]], is_whole: bool) -> None:
    events = [finished(str(place), *ending) for place, ending in enumerate(endings)]
    assert [attempt.is_whole for attempt in attempts(events)] == [is_whole]


@pytest.mark.parametrize(("front", "is_whole"), [("nginx", True), ("auth", True), ("mitm", False), ("http", False)])
def test_of_what_a_proxy_sends_nothing_is_known_and_nothing_taken_for_broken_off(front: str, is_whole: bool) -> None:
    (attempt,) = attempts([finished("r", "complete", 0) | {"front": front}])
    assert attempt.is_whole is is_whole


def test_a_lost_one() -> None:
    (lost,) = attempts([allowed("r"), {**finished("r", "", 1000), "type": "download.lost"}])
    assert (lost.outcome, lost.is_whole, lost.is_running) == ("lost", False, False)


def test_what_is_no_download_is_left_out() -> None:
    assert attempts([{"type": kind} for kind in ("link.opened", "download.denied", "rules.reloaded", "")]) == []


@pytest.mark.parametrize(("text", "read"), [("12", 12), ("", 0), ("-1", 0), ("²", 0), ("x", 0)])
def test_numbers(text: str, read: int) -> None:
    assert number({"n": text}, "n") == read
