"""What of an order's events a scanner did, as far as can be seen, so that it is not taken for the buyer's doing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from gateway.policy.scanners import SUSPECTED_SCANNER

Event = Mapping[str, str]

_DEVICE = ("device.id", "device.cookie")
_WORDS = {
    "soon": "soon after it was sent",
    "no_gesture": "no click or touch",
    "prefetch": "it asked ahead, for a preview",
    "bare_headers": "headers that no browser sends",
    "agent": "it names itself as one",
    "link_wrapper": "it came by a service that rewrites links",
}


def apart(events: Iterable[Event]) -> tuple[list[Event], list[Event]]:
    """What people did, and what seems to be a scanner's alone: it was not charged, and no person was found behind it.

    A refusal is always people's: somebody did not get what was asked for.
    """
    kept = list(events)
    paying = [each for each in kept if each.get("counted") == "1"]
    paid = {each["transfer.id"] for each in paying if "transfer.id" in each}
    persons = {each[name] for each in paying for name in _DEVICE if name in each}
    people: list[Event] = []
    looks: list[Event] = []
    for event in kept:
        is_look = (
            event.get("signal") == SUSPECTED_SCANNER
            and event.get("type") != "download.denied"
            and event.get("transfer.id") not in paid
            and not ("transfer.id" not in event and persons.intersection(map(event.get, _DEVICE)))
        )
        (looks if is_look else people).append(event)
    return people, looks


def signs(event: Event) -> str:
    """Why an event is a suspected scanner's, in words; "" where it is none."""
    if event.get("signal") != SUSPECTED_SCANNER:
        return ""
    return ", ".join(_sign(name) for name in event.get("signal.why", "").split(","))


def _sign(name: str) -> str:
    kind = name.removeprefix("network.")
    return _WORDS.get(name, name) if kind == name else f"{kind} network"
