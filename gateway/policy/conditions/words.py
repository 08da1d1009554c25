"""The words that conditions accept, each with the sentence that says what would be right."""

from __future__ import annotations

import re

from gateway.policy.countries import CONTINENTS, COUNTRIES, MEANT
from gateway.policy.model import NETWORK_TYPES

UNKNOWN = "unknown"
"""What is written for a country, continent, region, ASN or network type that the geo data do not know."""
TEXT_MAX = 255
PATTERN_MAX = 1024
ASN_MAX = 2**32 - 1
METHODS = ("GET", "HEAD")

# As in tokens: what no claim can hold, no rule can mean.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_REGION = re.compile(r"([A-Z]{2})-[A-Z0-9]{1,3}")


def country_code(text: str) -> str | None:
    """A country; None for `unknown`. Raises ValueError, as all here do."""
    if text in COUNTRIES:
        return text
    if text == UNKNOWN:
        return None
    meant = text.strip().upper()
    meant = UNKNOWN if meant == UNKNOWN.upper() else MEANT.get(meant, meant)
    if meant in COUNTRIES or meant == UNKNOWN:
        raise ValueError(f"is no country code; write {meant}")
    if meant in CONTINENTS:
        raise ValueError(f"is a continent; write continent: {meant}")
    raise ValueError(f"is no country of ISO 3166-1; {_latin(text)}write two letters such as PL, or {UNKNOWN}")


def continent_code(text: str) -> str | None:
    """A continent; None for `unknown`."""
    return _word(text, CONTINENTS, "continent")


def region_code(text: str) -> str | None:
    """A region; None for `unknown`. Only its shape and its country are checked: ISO 3166-2 changes every year."""
    found = _REGION.fullmatch(text)
    if found is not None and found[1] in COUNTRIES:
        return text
    if text == UNKNOWN:
        return None
    meant = _REGION.fullmatch(text.strip().upper())
    if meant is not None and meant[1] in COUNTRIES:
        raise ValueError(f"is no region code; write {meant[0]}")
    if found is not None:
        raise ValueError("begins with no country of ISO 3166-1; write country, hyphen and region, such as PL-14")
    raise ValueError(
        f"is no region of ISO 3166-2; {_latin(text)}write country, hyphen and region, such as PL-14, or {UNKNOWN}"
    )


def as_number(text: str) -> int | None:
    """The number of an autonomous system; None for `unknown`."""
    if re.fullmatch(r"[1-9][0-9]{0,9}", text) and int(text) <= ASN_MAX:
        return int(text)
    if text == UNKNOWN:
        return None
    digits = re.fullmatch(r"(?:ASN?)?\s*([1-9][0-9]{0,9})", text.strip().upper(), re.ASCII)
    if digits and int(digits[1]) <= ASN_MAX:
        raise ValueError(f"is no AS number; write {digits[1]}")
    raise ValueError(
        f"is no AS number; write a number from 1 to {ASN_MAX} in digits alone, such as 64496, or {UNKNOWN}"
    )


def network_type(text: str) -> str | None:
    """A type of network; None for `unknown`."""
    return _word(text, NETWORK_TYPES, "network type")


def method_name(text: str) -> str:
    """A method by which bytes are asked for."""
    meant = text.strip().upper()
    if text in METHODS:
        return text
    right = meant if meant in METHODS else " or ".join(METHODS)
    raise ValueError(f"is no method of a download; write {right}")


def exact_text(text: str) -> str:
    """A text as a token may hold it."""
    return _bounded(text, TEXT_MAX, "text")


def path_pattern(text: str) -> str:
    """A glob over keys and addresses, which have neither empty segments nor a slash at their ends."""
    _bounded(text, PATTERN_MAX, "pattern")
    address = text.startswith(("http:", "https:", "*"))
    if text.startswith("/") or ("//" in text and not address):
        right = re.sub("/+", "/", text).lstrip("/") or "**"
        raise ValueError(f"has a slash in front or two in a row, which no key has; write {right}")
    if text.endswith("/") and not address:
        raise ValueError(f"ends with a slash, which no key does; write {text}** for all below it")
    return text


def agent_pattern(text: str) -> str:
    """A glob over the User-Agent, in lower case; the empty one is a client that sends none."""
    return _bounded(text, PATTERN_MAX, "pattern").lower() if text else text


def _word(text: str, known: tuple[str, ...], what: str) -> str | None:
    if text in known:
        return text
    if text == UNKNOWN:
        return None
    for meant in (text.strip().upper(), text.strip().lower()):
        if meant in (*known, UNKNOWN):
            raise ValueError(f"is no {what}; write {meant}")
    raise ValueError(f"is no {what}; {_latin(text)}write one of {', '.join(known)}, or {UNKNOWN}")


def _latin(text: str) -> str:
    return "" if text.isascii() else "it has a character that is not plain A to Z; "


def _bounded(text: str, longest: int, what: str) -> str:
    if not text:
        raise ValueError(f"is an empty {what}; write one or remove it")
    if len(text) > longest:
        raise ValueError(f"is a {what} of more than {longest} characters; write a shorter one")
    if _UNPRINTABLE.search(text):
        raise ValueError("has a control character; type it anew")
    return text


def label(text: str, longest: int) -> str:
    """A name or message for people. Raises ValueError."""
    if not text.strip():
        raise ValueError("is empty; write a short text")
    return _bounded(text, longest, "text")
