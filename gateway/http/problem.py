"""How a refusal is told: the problem body of RFC 9457, and what the client would rather read (RFC 9110 §12.5)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

CONTENT_TYPE = "application/problem+json"
DEFAULT_LANGUAGE = "en"
_CHOICES_MAX = 64


def problem(status: int, reason: str, title: str, detail: str, request_id: str, **extra: str | int | None) -> bytes:
    """An RFC 9457 body. Programs go by `reason`, so `type` stays about:blank; an `extra` of None is left out."""
    members: dict[str, str | int | None] = {
        **extra,
        "type": "about:blank",
        "title": title,
        "status": status,
        "detail": detail,
        "reason": reason,
        "request_id": request_id,
    }
    return json.dumps({key: value for key, value in members.items() if value is not None}).encode("ascii")


def wants_html(accept: str | None) -> bool:
    """Whether the client is a browser: its Accept names text/html itself with q above 0. `*/*` names nothing."""
    return any(choice == "text/html" and quality > 0 for choice, quality in _choices(accept))


def pick_language(accept_language: str | None, available: Sequence[str], default: str = DEFAULT_LANGUAGE) -> str:
    """The one of `available` that the client likes best (lookup, RFC 4647 §3.4: `pl-PL` finds `pl`), or `default`.

    A language with q=0 is not taken for another choice, such as `*`; it may still be the default.
    """
    choices = list(_choices(accept_language))
    refused = {choice for choice, quality in choices if quality <= 0}
    by_tag = {language.lower(): language for language in available if language.lower() not in refused}
    for choice, quality in sorted(choices, key=lambda pair: -pair[1]):
        if quality <= 0:
            break
        if choice == "*":
            return default if default.lower() in by_tag else next(iter(by_tag.values()), default)
        subtags = choice.split("-")[:8]
        for length in range(len(subtags), 0, -1):
            found = by_tag.get("-".join(subtags[:length]))
            if found is not None:
                return found
    return default


def _choices(header: str | None) -> Iterator[tuple[str, float]]:
    """Each choice in lower case with its quality; a quality that cannot be read counts as 0."""
    for element in (header or "").split(",", _CHOICES_MAX)[:_CHOICES_MAX]:
        choice, *parameters = (part.strip(" \t").lower() for part in element.split(";"))
        weights = [parameter[2:] for parameter in parameters if parameter.startswith("q=")]
        yield choice, _quality(weights[0]) if weights else 1.0


def _quality(text: str) -> float:
    plain = text.replace(".", "", 1)
    return min(float(text), 1.0) if plain.isascii() and plain.isdigit() and len(text) <= len("0.000") else 0.0
