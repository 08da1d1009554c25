"""What a scanner did is not taken for the buyer's doing, unless somebody paid for it."""

from __future__ import annotations

import pytest

from gateway.policy.looks import apart, signs

SCAN = {"signal": "suspected_scanner", "signal.why": "soon,no_gesture,network.hosting,agent"}
OPENED = {"type": "link.opened", **SCAN}
BEGUN = {"type": "download.allowed", "transfer.id": "t1", "counted": "0", **SCAN}
ENDED = {"type": "download.finished", "transfer.id": "t1", "counted": "0", **SCAN}
CONFIRMED = {"type": "download.confirmed", "transfer.id": "t1", "counted": "1"}
PAID = {"type": "download.allowed", "transfer.id": "t2", "counted": "1", **SCAN}
DENIED = {"type": "download.denied", **SCAN}
PERSON = {"type": "download.allowed", "transfer.id": "t3", "counted": "1"}


@pytest.mark.parametrize(
    ("people", "looks"),
    [
        ([], [OPENED, BEGUN, ENDED]),
        ([BEGUN, ENDED, CONFIRMED], [OPENED]),
        ([PAID], []),
        ([DENIED], [BEGUN]),
        ([PERSON], [BEGUN, ENDED]),
        ([{**OPENED, "device.id": "h", "device.cookie": "c"}, {**CONFIRMED, "device.id": "c"}], [OPENED]),
    ],
)
def test_whose_doing_it_is(people: list[dict[str, str]], looks: list[dict[str, str]]) -> None:
    assert apart(looks + people) == (people, looks)


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (OPENED, "soon after it was sent, no click or touch, hosting network, it names itself as one"),
        (PERSON, ""),
        ({**SCAN, "signal.why": "of a later version"}, "of a later version"),
    ],
)
def test_signs_are_told_in_words(event: dict[str, str], words: str) -> None:
    assert signs(event) == words
