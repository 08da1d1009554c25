"""What speaks for a suggestion, on one line: beside it in the candidate file, and for those who read the summary."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.policy.limits import BY_NAME
from gateway.policy.suggest import Block, Number
from gateway.policy.suggest_history import UNITS
from gateway.policy.units import format_duration

_ORDINALS = ("", "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
_ENDINGS: Mapping[int, str] = {1: "st", 2: "nd", 3: "rd"}
_TEENS = range(11, 14)
_PLACES: Mapping[str, str] = {
    "network": "{} networks",
    "continent": "the continent {}",
    "country": "the country {}",
    "user_agent": "programs like {}",
}


def change(number: Number) -> str:
    """`networks 3 → 2`."""
    before = "no limit" if number.before is None else BY_NAME[number.limit].write(number.before)
    return f"{number.limit} {before} → {number.written}"


def evidence(suggestion: Number | Block, since: int) -> str:
    """`since` in seconds: how far back was looked."""
    refused, total, within = suggestion.refused, suggestion.total, format_duration(since)
    some = f"{len(refused):,} ({len(refused) / total:.2%})" if refused else "none"
    if isinstance(suggestion, Block):
        where = _PLACES[suggestion.condition].format(suggestion.value) if suggestion.value else "clients without a name"
        return (
            f"{suggestion.requests:,} requests from {where} ({suggestion.networks:,} client networks) in {within} were "
            f"refused or not completed; of {total:,} completed downloads {some} came from there"
        )
    links = len({download.token for download in refused})
    of = f", of {links:,} link{'s' if links > 1 else ''}" if links else ""
    most = BY_NAME[suggestion.limit].write(suggestion.needs[-1] * UNITS.get(suggestion.limit, 1))
    what = _what(suggestion.limit, suggestion.at_most, suggestion.written, "were" if len(refused) > 1 else "was")
    return f"of {total:,} completed downloads in {within} {some} {what}{of}; the most that one needed is {most}"


def _what(limit: str, at_most: int, written: str, was: str) -> str:
    match limit:
        case "downloads":
            return f"{was} the {_ordinal(at_most + 1)} of its file or a later one"
        case "networks" | "devices":
            return f"came from a {_ordinal(at_most + 1)} {limit.removesuffix('s')} of its link or a later one"
        case "concurrent":
            others = "1 other" if at_most == 1 else f"{at_most:,} others"
            return f"ran beside {others} of its link or more"
    return f"began later than {written} after its link's first"


def _ordinal(number: int) -> str:
    if number < len(_ORDINALS):
        return _ORDINALS[number]
    return f"{number:,}{'th' if number % 100 in _TEENS else _ENDINGS.get(number % 10, 'th')}"
